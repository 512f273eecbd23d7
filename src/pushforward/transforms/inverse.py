"""`Inverse`: a bijection with encode and decode exchanged."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor

from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import Kind, Measure
from pushforward.numerics import Noise
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform, named, outside
from pushforward.transforms.elementwise.normalization import fixed_statistics, has_batch_norm

__all__ = ["Inverse"]

_NEGATED = {Kind.LOWER_BOUND: Kind.UPPER_BOUND, Kind.UPPER_BOUND: Kind.LOWER_BOUND}


@register("transforms")
class Inverse(Transform):
    """A bijection with encode and decode exchanged.

    Batch normalization in it normalizes with the statistics that it has, also in training.

    Args:
        transform: a bijection with an exact contribution.

    Raises:
        ConfigError: if it is not a transform.
        KindError: if it is not a bijection.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Inverse, Softplus
        >>> log_like = Inverse(Softplus(1))          # positive data to the reals
        >>> log_like.encode(torch.tensor([[1.0]])).z
        tensor([[0.5413]])
    """

    def __init__(self, transform: Transform) -> None:
        if not isinstance(transform, Transform):
            raise ConfigError(f"Inverse takes a transform; got {named(transform)}.")
        if not transform.bijective:
            raise KindError(f"{type(transform).__name__} is not a bijection, so it has no inverse.")
        super().__init__(transform.out_shape, transform.in_shape)
        self.transform = transform
        self.context = transform.context
        self.domain, self.codomain = transform.codomain, transform.domain
        self.valid_on_manifold, self.angle_preserving = transform.valid_on_manifold, transform.angle_preserving
        self.encode_passes, self.decode_passes = transform.decode_passes, transform.encode_passes
        self._has_batch_norm = has_batch_norm(transform)

    @property
    def kind(self) -> Kind:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the negated contribution: the present kind of the transform, with lower and upper bounds exchanged."""
        return _NEGATED.get(self.transform.kind, self.transform.kind)

    @property
    def invertible(self) -> bool:
        """Whether the transform is."""
        return self.transform.invertible

    @property
    def estimators(self) -> list[Transform]:
        """Those of the transform."""
        return self.transform.estimators

    def measure(self, latent: Measure) -> Measure:
        """That of z, if the inner transform accepts it."""
        self.transform.measure(latent)
        return latent

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """The inner transform's decode, with the negated contribution."""
        with self._fixed_statistics():
            z, contribution = self.transform.decode_with_contribution(x, context, noise=noise)
        return Step(z, outside(x, self.domain, len(self.in_shape)) - contribution)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """The inner transform's encode."""
        with self._fixed_statistics():
            return self.transform.encode(z, context, noise=noise).z

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """The inner transform's encode, with the negated contribution."""
        with self._fixed_statistics():
            step = self.transform.encode(z, context, noise=noise)
        return step.z, -step.contribution

    def _fixed_statistics(self) -> AbstractContextManager[None]:
        return fixed_statistics(self.transform) if self._has_batch_norm and self.training else nullcontext()
