"""The identity on integers of a range: any other value has probability zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.likelihood import Support
from pushforward.numerics import Noise, sum_event
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.stochastic.likelihoods import check_levels

__all__ = ["Integers"]


@register("transforms")
class Integers(Transform):
    """z = x for integers 0, ..., levels - 1; any other row has probability zero, so its contribution is -inf.

    It joins data to a base distribution on integers, as :class:`~pushforward.distributions.PixelCNN`: log p(x) = log p(z).

    Args:
        features: event shape.
        levels: number of values.

    Raises:
        ConfigError: for fewer than two levels.

    Example:
        >>> import torch
        >>> Integers(1, levels=4).encode(torch.tensor([[3.0], [0.5]])).contribution
        tensor([0., -inf])
    """

    autoregressive_order = "any"
    _counts = True

    def __init__(self, features: int | Shape, levels: int = 256) -> None:
        super().__init__(features)
        self.features, self.levels = features, check_levels(levels)
        self.domain = self.codomain = Support(0.0, float(levels - 1))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """The identity."""
        z, terms = self.encode_terms(x, context)
        return Step(z, sum_event(terms, len(self.in_shape)))

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """As ``encode``, with 0 or -inf for each coordinate."""
        inside = (x == torch.floor(x)) & (x >= 0) & (x <= self.levels - 1)
        # Integers have no -inf, so their contribution is of the default floating type.
        return x, torch.where(inside, 0.0, -math.inf).to(
            x.dtype if x.is_floating_point() else torch.get_default_dtype()
        )

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """The identity."""
        return z
