"""Factoring out: part of the channels leaves for the base early, the others go on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import REAL, Kind
from pushforward.numerics import Noise
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.image.reshape import Flatten
from pushforward.transforms.validation import image_shape

__all__ = ["FactorOut"]


@register("transforms")
class FactorOut(Transform):
    """The first k channels go through ``inner``, the others leave unchanged (Real NVP, Dinh et al. 2016, eq. 13-15).

    z holds inner's z and then the channels that left, as one vector of D = C H W coordinates, so that a multi-scale flow
    is one bijection over one base: nested transforms give z from the coarsest scale to the finest. The contribution is that of
    ``inner``.

    The conditional prior N(mu(h), sigma(h)) for the channels that leave, given those that stay (Kingma and Dhariwal
    2018), is an affine coupling before this transform: it standardizes them, so that the base is a standard normal for all.

    Args:
        features: (channels, height, width).
        inner: an invertible transform of the first k of the channels, ``inner.in_shape == (k, height, width)``; None passes half
            of them unchanged.

    Raises:
        ConfigError: if the shapes do not fit, or ``inner`` is bounded.
        KindError: if ``inner`` is no bijection.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Affine, FactorOut
        >>> split = FactorOut((2, 1, 1), Affine((1, 1, 1), scale=10.0))
        >>> split.encode(torch.tensor([[[1.0]], [[2.0]]])).z
        tensor([10.,  2.])
    """

    def __init__(self, features: Shape, inner: Transform | None = None) -> None:
        channels, height, width = image_shape(features, "FactorOut")
        inner = Flatten((max(1, channels // 2), height, width)) if inner is None else inner
        if not isinstance(inner, Transform):
            raise ConfigError(f"FactorOut sends channels through a transform; got {type(inner).__name__}.")
        kept = inner.in_shape
        if len(kept) != 3 or kept[1:] != (height, width) or kept[0] >= channels:
            raise ConfigError(
                f"FactorOut of {channels} x {height} x {width} keeps some of the channels, not all, for its inner transform; "
                f"got one that reads the shape {kept}."
            )
        if not inner.invertible:
            raise KindError(f"{type(inner).__name__} is not a bijection, so channels cannot be factored out beside it.")
        if {inner.domain, inner.codomain} - {REAL, None}:
            raise ConfigError("FactorOut needs an inner transform on all reals: put bounded transforms before it.")
        super().__init__((channels, height, width), channels * height * width)
        self.features, self.inner, self.kept = features, inner, kept[0]
        self.domain, self.codomain, self.context = inner.domain, inner.codomain, inner.context
        self.encode_passes, self.decode_passes = inner.encode_passes, inner.decode_passes

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, C, H, W)`` to ``(*batch, D)``."""
        stays, leaves = self._split(x)
        step = self.inner.encode(stays, context, noise=noise)
        return step._replace(z=self._join(step.z, leaves))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """``(*batch, D)`` to ``(*batch, C, H, W)``."""
        stays, leaves = self._part(z)
        return torch.cat((self.inner.decode(stays, context, noise=noise), leaves), -3)

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """As ``decode``, with the contribution of ``inner``."""
        stays, leaves = self._part(z)
        stays, contribution = self.inner.decode_with_contribution(stays, context, noise=noise)
        return torch.cat((stays, leaves), -3), contribution

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Initialize ``inner`` on the channels that stay."""
        stays, leaves = self._split(x)
        return self._join(self.inner.initialize(stays, context, noise=noise), leaves)

    def refresh(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Refresh ``inner`` on the channels that stay."""
        stays, leaves = self._split(x)
        return self._join(self.inner.refresh(stays, context, noise=noise), leaves)

    @property
    def kind(self) -> Kind:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of ``inner``, as it is now."""
        return self.inner.kind

    @property
    def invertible(self) -> bool:
        """True, even where ``inner`` estimates its log-determinant."""
        return True

    @property
    def estimators(self) -> list[Transform]:
        """Those of ``inner``."""
        return self.inner.estimators

    @property
    def needs_refresh(self) -> bool:
        """Whether ``inner`` has statistics to refresh."""
        return self.inner.needs_refresh

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[..., : self.kept, :, :], x[..., self.kept :, :, :]

    def _join(self, z: Tensor, leaves: Tensor) -> Tensor:
        batch, first = leaves.shape[:-3], math.prod(self.inner.out_shape)
        return torch.cat((z.reshape(*batch, first), leaves.reshape(*batch, self.out_shape[0] - first)), -1)

    def _part(self, z: Tensor) -> tuple[Tensor, Tensor]:
        batch, first = z.shape[:-1], math.prod(self.inner.out_shape)
        left = (self.in_shape[0] - self.kept, *self.in_shape[1:])
        return z[..., :first].reshape(*batch, *self.inner.out_shape), z[..., first:].reshape(*batch, *left)
