"""Independent categorical variables, as one-hot vectors."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor, nn

from pushforward.distributions.base import Distribution
from pushforward.likelihood import UNIT, Counting, Measure
from pushforward.numerics import draw_category, split_infinite
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms.base import check_event
from pushforward.transforms.discrete.modulo import check_categories

__all__ = ["Categorical"]

TOLERANCE = 1e-3
"""Largest deviation of an entry from 0 or 1 in a one-hot row."""


@register("distributions")
class Categorical(Distribution):
    """D independent categories: log P(z) = sum_i log softmax(logits_i)[z_i], on Counting(D).

    A point is D one-hot vectors, ``(D, K)``, as :class:`~pushforward.transforms.OneHot` encodes the categories 0, ..., K-1; log P
    thus has a gradient with respect to it. Other points have probability 0. Before training the categories are equally likely.

    Args:
        features: D.
        categories: K.
        trainable: whether the logits, ``(D, K)``, are trainable.

    Raises:
        ConfigError: for impossible sizes.

    Example:
        >>> import torch
        >>> base = Categorical(2, categories=4)
        >>> base.log_prob(torch.eye(4)[torch.tensor([[0, 3]])])                # -2 log 4
        tensor([-2.7726])
    """

    def __init__(self, features: int, categories: int = 2, trainable: bool = False) -> None:
        super().__init__((check_integer("features", features), check_categories(categories)))
        self.features, self.categories, self.trainable = features, categories, trainable
        self.support = UNIT
        self.has_rsample = False
        if trainable:
            self.logits = nn.Parameter(torch.zeros(features, categories))

    @property
    def measure(self) -> Measure:
        """Counting(D), as each one-hot vector is one category."""
        return Counting(self.features)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-probability in nats: ``(*batch, D, K)`` to ``batch``; linear in z, and -inf if z is not one-hot."""
        check_event(z, self.shape, type(self).__name__)
        z, far = split_infinite(z, 2)
        corner = torch.eye(self.categories, dtype=z.dtype, device=z.device)[z.argmax(-1)]
        wrong = ((z - corner).abs() > TOLERANCE).any(-1) & ~torch.isnan(z).any(-1)  # NaN stays NaN
        value = (torch.where(wrong.unsqueeze(-1), 0.0, z) * self._log_weights(z)).sum((-1, -2))
        return far + value + torch.where(wrong.any(-1), -math.inf, 0.0).to(z.dtype)

    @torch.no_grad()
    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, D, K)``, without gradient."""
        like = self.like(generator)
        weights = self._log_weights(self.anchor).to(like["device"])
        index = draw_category(weights.expand(*batch, *self.shape), generator)
        return torch.eye(self.categories, **like)[index]

    def _log_weights(self, like: Tensor) -> Tensor:
        if self.trainable:
            return torch.log_softmax(self.logits, -1).to(like.dtype)
        return like.new_full(self.shape, -math.log(self.categories))
