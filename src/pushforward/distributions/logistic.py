"""Logistic distribution, the prior of NICE."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Size, Tensor

from pushforward.distributions.base import Distribution
from pushforward.numerics import sum_event
from pushforward.registry import register
from pushforward.transforms.base import Shape, check_event

__all__ = ["Logistic"]


@register("distributions")
class Logistic(Distribution):
    """Independent standard logistics: log p(z) = sum_i [ -log(1 + e^z_i) - log(1 + e^-z_i) ].

    The prior of NICE (Dinh et al. 2014, arXiv 1410.8516, sec. 3.4). Its tails fall as exp(-abs(z)), so the gradient of the
    log-density is at most 1.

    Args:
        features: width, or a shape such as (channels, height, width).

    Raises:
        ConfigError: if ``features`` is not made of positive integers.

    Example:
        >>> import torch
        >>> Logistic(2).log_prob(torch.tensor([[0.0, 0.0], [0.0, 100.0]]))      # -4 log 2, and -2 log 2 - 100
        tensor([  -2.7726, -101.3863])
    """

    def __init__(self, features: int | Shape) -> None:
        super().__init__(features)
        self.features = features

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats: ``(*batch, *shape)`` to ``batch``."""
        return sum_event(self.log_prob_terms(z), len(self.shape))

    def log_prob_terms(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of each coordinate, ``(*batch, *shape)``."""
        check_event(z, self.shape, type(self).__name__)
        return F.logsigmoid(z) + F.logsigmoid(-z)

    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, *shape)``."""
        # The log-ratio of two exponential draws is logistic, and unlike logit(uniform) it is equally precise in both tails.
        draws = torch.empty((2, *batch, *self.shape), **self.like(generator)).exponential_(generator=generator)
        top, bottom = draws.clamp_min(torch.finfo(draws.dtype).tiny).log()
        return top - bottom
