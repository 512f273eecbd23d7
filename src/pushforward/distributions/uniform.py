"""Uniform distribution on a box."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from pushforward.distributions.base import Distribution
from pushforward.errors import ConfigError
from pushforward.likelihood import Support, reach
from pushforward.numerics import sum_event
from pushforward.numerics.checks import check_number
from pushforward.registry import register
from pushforward.transforms.base import Shape, check_event

__all__ = ["Uniform"]


@register("distributions")
class Uniform(Distribution):
    """Uniform on the box [low, high]^D: log p(z) = -D log(high - low) inside, -inf outside; the boundary is inside.

    For circular flows (low = -pi, high = pi), and for flows whose noise is in the unit cube.

    Args:
        features: width, or a shape such as (channels, height, width).
        low: lower end of every coordinate.
        high: upper end of every coordinate.

    Raises:
        ConfigError: unless low < high, and both and their difference are finite.

    Example:
        >>> import torch
        >>> Uniform(1, 0.0, 2.0).log_prob(torch.tensor([[0.5], [3.0]]))
        tensor([-0.6931,    -inf])
    """

    def __init__(self, features: int | Shape, low: float = 0.0, high: float = 1.0) -> None:
        check_number("low", low, -math.inf, math.inf)
        check_number("high", high, -math.inf, math.inf)
        if not (low < high and high - low < math.inf):
            raise ConfigError(
                f"low and high must be finite, with low < high, and so must high - low; got {low!r} and {high!r}."
            )
        super().__init__(features)
        self.features, self.low, self.high = features, low, high
        self.support = Support(low, high)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats: ``(*batch, *shape)`` to ``batch``."""
        return sum_event(self.log_prob_terms(z), len(self.shape))

    def log_prob_terms(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of each coordinate, ``(*batch, *shape)``."""
        check_event(z, self.shape, type(self).__name__)
        low, high = reach(self.low, self.high)
        outside = (z < low) | (z > high)
        # 0 * z keeps NaN, and keeps z in the graph with gradient 0.
        each = 0.0 * z.clamp(self.low, self.high) - math.log(self.high - self.low)
        return torch.where(outside, -math.inf, each)

    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, *shape)``."""
        unit = torch.rand((*batch, *self.shape), generator=generator, **self.like(generator))
        return (self.low + (self.high - self.low) * unit).clamp(self.low, self.high)  # rounding may leave the interval
