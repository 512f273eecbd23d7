"""Normal distributions of absolute values and of sorted values."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from pushforward.distributions.base import Distribution
from pushforward.likelihood import Support
from pushforward.numerics import sum_event
from pushforward.registry import register
from pushforward.transforms.base import Shape, check_event, outside
from pushforward.transforms.validation import vector_width

__all__ = ["HalfNormal", "SortedNormal"]


@register("distributions")
class HalfNormal(Distribution):
    """Absolute values of independent standard normals: log p(z) = sum_i [ log(2 / pi) / 2 - z_i^2 / 2 ], z >= 0.

    After :class:`~pushforward.transforms.Abs` it makes the density of the data standard normal.

    Args:
        features: width, or a shape such as (channels, height, width).

    Raises:
        ConfigError: if ``features`` is not made of positive integers.

    Example:
        >>> import torch
        >>> HalfNormal(1).log_prob(torch.tensor([[0.0], [-1.0]]))          # log(2 / pi) / 2
        tensor([-0.2258,    -inf])
    """

    support = Support(0.0, math.inf)

    def __init__(self, features: int | Shape) -> None:
        super().__init__(features)
        self.features = features

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats: ``(*batch, *shape)`` to ``batch``."""
        return sum_event(self.log_prob_terms(z), len(self.shape))

    def log_prob_terms(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of each coordinate, ``(*batch, *shape)``."""
        check_event(z, self.shape, type(self).__name__)
        return torch.where(z < 0, -math.inf, 0.5 * math.log(2 / math.pi) - 0.5 * z * z)

    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, *shape)``."""
        return torch.randn((*batch, *self.shape), generator=generator, **self.like(generator)).abs()


@register("distributions")
class SortedNormal(Distribution):
    """Order statistics of D standard normals: log p(z) = log D! + sum_i log N(z_i), z_1 <= ... <= z_D.

    After :class:`~pushforward.transforms.Sort` it makes the density of the data standard normal.

    Args:
        features: D.

    Raises:
        ConfigError: if ``features`` is not a positive width.

    Example:
        >>> import torch
        >>> SortedNormal(2).log_prob(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))      # log 2 - log(2 pi)
        tensor([-1.1447,    -inf])
    """

    support = Support(within="increasing")

    def __init__(self, features: int) -> None:
        vector_width(features, "SortedNormal")
        super().__init__(features)
        self.features = features

    @property
    def autoregressive_order(self) -> str:
        """ "mixed", since each coordinate bounds the next."""
        return "mixed"

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats: ``(*batch, D)`` to ``batch``."""
        check_event(z, self.shape, type(self).__name__)
        each = -0.5 * z * z - 0.5 * math.log(2 * math.pi)
        return sum_event(each, 1) + math.lgamma(self.shape[0] + 1) + outside(z, self.support, 1)

    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, D)``."""
        return torch.randn((*batch, *self.shape), generator=generator, **self.like(generator)).sort(-1).values
