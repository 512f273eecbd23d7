"""`Chain`: transforms in order from data to noise."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, KindWarning
from pushforward.likelihood import Kind, Measure, Support, join
from pushforward.numerics import Noise, is_eager
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform
from pushforward.transforms.reversible import encode_reversibly, require_reversible, reversible_from

__all__ = ["Chain", "check_support"]


@register("transforms")
class Chain(Transform):
    """Transforms in order from data to noise.

    The contribution is the sum of the parts' contributions, and the kind is their join; it falls to LOWER_BOUND where a
    part's codomain is not the next part's domain.

    A reversible chain keeps no activations for the backward pass: it finds each part's input again from its output, so
    that memory does not grow with depth (Gomez et al. 2017). It costs an encoding more, and gradients agree to rounding.
    Parts in front that have nothing to train (scaling, dequantization) run as ever.

    Args:
        transforms: at least one; each part's ``out_shape`` is the next part's ``in_shape``.
        reversible: train without keeping activations; gradients of gradients are then refused.

    Raises:
        ConfigError: if shapes do not meet, a part is no transform, or a part of a reversible chain has no exact inverse in one
            pass (autoregressive, residual and continuous transforms, batch normalization, dropout).

    Example:
        >>> import torch
        >>> from pushforward.transforms import Chain, Affine, Tanh
        >>> chain = Chain(Affine(2, scale=0.5), Tanh(2))
        >>> z, contribution = chain(torch.zeros(3, 2))
        >>> contribution.shape
        torch.Size([3])
    """

    def __init__(self, *transforms: Transform, reversible: bool = False) -> None:
        if not transforms:
            raise ConfigError("a chain needs at least one transform.")
        if strangers := [item for item in transforms if not isinstance(item, Transform)]:
            raise ConfigError(f"a chain is made of transforms; got {type(strangers[0]).__name__}.")
        flat: list[Transform] = []
        for item in transforms:
            flat += list(item) if isinstance(item, Chain) else [item]
        for before, after in itertools.pairwise(flat):
            if before.out_shape != after.in_shape:
                raise ConfigError(
                    f"{type(before).__name__} ends with shape {before.out_shape} and {type(after).__name__} starts "
                    f"with {after.in_shape}: the parts of a chain must meet."
                )
        widths = {part.context for part in flat} - {0}
        if len(widths) > 1:
            raise ConfigError(f"the parts of a chain read contexts of different widths: {sorted(widths)}.")
        super().__init__(flat[0].in_shape, flat[-1].out_shape)
        self.transforms = nn.ModuleList(flat)
        self.context = widths.pop() if widths else 0
        self.domain = next((part.domain for part in flat if part.domain is not None), None)
        self.support_kind = Kind.EXACT  # of the parts' supports
        stated = join(*(part.kind for part in flat))
        image: Support | None = None
        for before, part in zip([None, *flat], flat, strict=False):
            carried = None if image is None else part.map_support(image)
            if carried is None and part.domain is not None:
                names = type(before).__name__, type(part).__name__
                self.support_kind |= check_support(image, part.domain, *names, stated | self.support_kind)
                carried = part.codomain
            image = carried
        self.codomain = image
        self.reversible = False
        self.set_reversible(reversible)
        self.encode_passes = max(part.encode_passes for part in flat)
        self.decode_passes = max(part.decode_passes for part in flat)

    @property
    def kind(self) -> Kind:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Join of the parts' kinds, as they are now, and LOWER_BOUND where supports do not meet."""
        exact = Kind.EXACT
        if self.support_kind is exact and all(part.kind is exact for part in self.transforms):
            return exact  # nearly always, and asked for by every log_prob
        return join(self.support_kind, *(part.kind for part in self))

    @property
    def bijective(self) -> bool:
        """Whether every part is, and they meet."""
        return self.kind is Kind.EXACT and all(part.bijective for part in self)

    @property
    def invertible(self) -> bool:
        """Whether every part is, and they meet."""
        return self.support_kind is Kind.EXACT and all(part.invertible for part in self)

    @property
    def estimators(self) -> list[Transform]:
        """Those of every part."""
        return [estimator for part in self for estimator in part.estimators]

    def set_log_det(self, log_det: str) -> None:
        """Let every part that has several ways to its log-determinant find it in this one.

        Raises:
            ConfigError: if no part has, or one does not know this way.
        """
        if not self.estimators:
            raise ConfigError("no part of this chain has more than one way to its log-determinant.")
        for part in self.estimators:
            part.set_log_det(log_det)  # pyright: ignore[reportCallIssue]

    def set_reversible(self, reversible: bool = True) -> None:
        """Choose whether the backward pass finds activations again instead of keeping them.

        Raises:
            ConfigError: if a part has no exact inverse in one pass; it is named.
        """
        if reversible:
            parts = list(self)
            require_reversible(parts[reversible_from(parts) :])
        self.reversible = bool(reversible)

    def __iter__(self) -> Iterator[Transform]:
        return iter(self.transforms)  # pyright: ignore[reportReturnType]

    def __len__(self) -> int:
        return len(self.transforms)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise through every part; contributions, residuals and squared standard errors add."""
        z: Tensor = x
        total: Tensor | None = None
        residual: Tensor | None = None
        variance: Tensor | None = None
        parts = list(self)
        back = reversible_from(parts) if self.reversible and _keeps_graph() else len(parts)
        for part in parts[:back]:
            step = part.encode(z, context, noise=noise)
            z, total = step.z, step.contribution if total is None else total + step.contribution
            if step.residual is not None:
                residual = step.residual if residual is None else residual + step.residual
            if step.stderr is not None:
                variance = step.stderr**2 if variance is None else variance + step.stderr**2
        if back < len(parts):
            z, more = encode_reversibly(parts[back:], z, context)
            total = more if total is None else total + more
        assert total is not None
        return Step(z, total, residual, None if variance is None else variance.sqrt())

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data through every part, last first."""
        for part in reversed(list(self)):
            z = part.decode(z, context, noise=noise)
        return z

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """Noise to data with the sum of the parts' contributions."""
        total = z.new_zeros(z.shape[: z.dim() - len(self.out_shape)])
        for part in reversed(list(self)):
            z, contribution = part.decode_with_contribution(z, context, noise=noise)
            total = total + contribution
        return z, total

    def measure(self, latent: Measure) -> Measure:
        """Measure of the data density, found from the base backwards."""
        for part in reversed(list(self)):
            latent = part.measure(latent)
        return latent

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Initialize each part on what the parts before it make of x."""
        for part in self:
            x = part.initialize(x, context, noise=noise)
        return x

    def refresh(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Refresh each part on what the parts before it make of x."""
        for part in self:
            x = part.refresh(x, context, noise=noise)
        return x

    @property
    def needs_refresh(self) -> bool:
        """Whether any part has statistics to refresh."""
        return any(part.needs_refresh for part in self)


def check_support(image: Support | None, mass: Support, before: str, after: str, stated: Kind) -> Kind:
    """EXACT if the latent mass lies where the transforms before it land; else LOWER_BOUND.

    A warning names the pair where that weakens what is ``stated`` already; a bound, as after dequantization, is one anyway.
    """
    if image is None or image.covers(mass):
        return Kind.EXACT
    if stated | Kind.LOWER_BOUND is not stated:
        warnings.warn(
            f"{before} lands in {image} but {after} has mass on {mass}, so some mass belongs to no data point: the "
            "likelihood is a lower bound.",
            KindWarning,
            stacklevel=3,
        )
    return Kind.LOWER_BOUND


def _keeps_graph() -> bool:
    return torch.is_grad_enabled() and is_eager()
