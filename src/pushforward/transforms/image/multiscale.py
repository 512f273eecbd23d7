"""Multi-scale flows: part of the channels goes to the base distribution early, the others are transformed further."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import REAL, Kind
from pushforward.numerics import Noise
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform, named
from pushforward.transforms.image.reshape import Flatten
from pushforward.transforms.validation import image_shape

__all__ = ["FactorOut"]


@register("transforms")
class FactorOut(Transform):
    """The first k channels are transformed by ``inner``, the others are factored out unchanged (Real NVP, Dinh et al. 2016, eq. 13-15).

    z is inner's z followed by the channels that were factored out, as one vector of D = C H W coordinates. So a multi-scale
    flow is one bijection with one base distribution: nested transforms give z from the coarsest scale to the finest. The
    contribution is that of ``inner``.

    A conditional prior N(mu(h), sigma(h)) for the channels that are factored out, given the others (Kingma and Dhariwal
    2018), is an affine coupling before this transform: it standardizes them, so that the base is a standard normal.

    Args:
        features: (channels, height, width).
        inner: an invertible transform of the first k channels, ``inner.in_shape == (k, height, width)``; None flattens the
            first half of the channels.

    Raises:
        ConfigError: if the shapes do not fit, or ``inner`` is bounded.
        KindError: if ``inner`` is not a bijection.

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
            raise ConfigError(f"inner must be a transform; got {named(inner)}.")
        kept = inner.in_shape
        if len(kept) != 3 or kept[1:] != (height, width) or kept[0] >= channels:
            raise ConfigError(
                f"inner must read some, but not all, of the channels of {channels} x {height} x {width} images; "
                f"got one that reads the shape {kept}."
            )
        if not inner.invertible:
            raise KindError(
                f"{type(inner).__name__} is not a bijection, so it cannot be the inner transform of FactorOut."
            )
        if {inner.domain, inner.codomain} - {REAL, None}:
            raise ConfigError(
                f"inner must act on all reals; {type(inner).__name__} does not: put bounded transforms before FactorOut."
            )
        super().__init__((channels, height, width), channels * height * width)
        self.features, self.inner, self.kept = features, inner, kept[0]
        self.domain, self.codomain, self.context = inner.domain, inner.codomain, inner.context
        self.encode_passes, self.decode_passes = inner.encode_passes, inner.decode_passes

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, C, H, W)`` to ``(*batch, D)``."""
        kept, factored = self._split_channels(x)
        step = self.inner.encode(kept, context, noise=noise)
        return step._replace(z=self._join(step.z, factored))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """``(*batch, D)`` to ``(*batch, C, H, W)``."""
        kept, factored = self._split_vector(z)
        return torch.cat((self.inner.decode(kept, context, noise=noise), factored), -3)

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """As ``decode``, with the contribution of ``inner``."""
        kept, factored = self._split_vector(z)
        kept, contribution = self.inner.decode_with_contribution(kept, context, noise=noise)
        return torch.cat((kept, factored), -3), contribution

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Initialize ``inner`` on its channels."""
        kept, factored = self._split_channels(x)
        return self._join(self.inner.initialize(kept, context, noise=noise), factored)

    def refresh(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Refresh ``inner`` on its channels."""
        kept, factored = self._split_channels(x)
        return self._join(self.inner.refresh(kept, context, noise=noise), factored)

    @property
    def kind(self) -> Kind:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The current kind of ``inner``."""
        return self.inner.kind

    @property
    def invertible(self) -> bool:
        """True, even where ``inner`` estimates its log-determinant."""
        return True

    @property
    def estimators(self) -> list[Transform]:
        """The estimators in ``inner``."""
        return self.inner.estimators

    @property
    def needs_refresh(self) -> bool:
        """Whether ``inner`` has statistics to refresh."""
        return self.inner.needs_refresh

    def _split_channels(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[..., : self.kept, :, :], x[..., self.kept :, :, :]

    def _join(self, z: Tensor, factored: Tensor) -> Tensor:
        batch, first = factored.shape[:-3], math.prod(self.inner.out_shape)
        return torch.cat((z.reshape(*batch, first), factored.reshape(*batch, self.out_shape[0] - first)), -1)

    def _split_vector(self, z: Tensor) -> tuple[Tensor, Tensor]:
        batch, first = z.shape[:-1], math.prod(self.inner.out_shape)
        shape = (self.in_shape[0] - self.kept, *self.in_shape[1:])
        return z[..., :first].reshape(*batch, *self.inner.out_shape), z[..., first:].reshape(*batch, *shape)
