"""Change of floating type inside a chain, such as raw data in float64 and networks in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.numerics import Noise
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform

__all__ = ["Cast"]

_TYPES = {"float32": torch.float32, "float64": torch.float64}


@register("transforms")
class Cast(Transform):
    """The identity, from one floating type to another; contribution 0.

    A time stamp in seconds has ten digits before the point and float32 keeps seven, so data must be centered before the
    type changes: scale in float64, then use this transform, then the networks.

    Args:
        features: event shape.
        source: type on the data side, "float32" or "float64".
        target: type on the noise side, "float32" or "float64".

    Raises:
        ConfigError: for another type.

    Example:
        >>> import torch
        >>> Cast(2).encode(torch.zeros(1, 2, dtype=torch.float64)).z.dtype
        torch.float32
    """

    supports_float64 = False
    domain = codomain = None
    valid_on_manifold = True
    autoregressive_order = "any"

    def __init__(self, features: int | Shape, source: str = "float64", target: str = "float32") -> None:
        if source not in _TYPES or target not in _TYPES:
            raise ConfigError(f"source and target must be 'float32' or 'float64'; got {source!r} and {target!r}.")
        super().__init__(features)
        self.features, self.source, self.target = features, source, target

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """To the target type."""
        return Step(x.to(_TYPES[self.target]), self.zero_log_det(x))

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """As ``encode``, with a contribution of 0 for each coordinate."""
        return x.to(_TYPES[self.target]), torch.zeros_like(x)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """To the source type."""
        return z.to(_TYPES[self.source])
