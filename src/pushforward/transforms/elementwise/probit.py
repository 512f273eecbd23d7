"""`Probit`: quantiles of the standard normal distribution, the unit interval to the reals."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.likelihood import UNIT
from pushforward.registry import register
from pushforward.transforms.elementwise.functions import Elementwise, inside_unit

__all__ = ["HALF_LOG_2_PI", "LARGEST", "Probit"]

HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)
LARGEST = 1e18
"""Largest absolute z of a contribution, whose square is a number of float32."""


@register("transforms")
class Probit(Elementwise):
    """z = Phi^{-1}(x), with Phi the distribution function of the standard normal distribution, data in [0, 1] to the reals.

    log dz/dx = z^2 / 2 + log(2 pi) / 2. Uniform x becomes standard normal z, so a flow that is the identity, with a normal base, has the
    uniform density. A density that does not vanish at a bound gets the tails of a normal distribution. After
    :class:`~pushforward.transforms.Logit` it has those of a logistic distribution, which splines on a normal base only approach.

    0 and 1 are replaced by the nearest numbers inside (0, 1). Numbers near 1 are 6e-8 apart in float32, so ``decode`` reaches z of
    at most 5.2 there, and -12.4 at the other end.

    Args:
        features: event shape.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Probit
        >>> Probit(2).encode(torch.tensor([[0.5, 0.975]])).z
        tensor([[0.0000, 1.9600]])
    """

    domain = UNIT

    def function(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The quantile of the standard normal distribution at x."""
        z = torch.special.ndtri(inside_unit(x))
        return z, 0.5 * z.square() + HALF_LOG_2_PI

    def inverse_function(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The distribution function of the standard normal distribution, strictly inside (0, 1)."""
        bounded = z.clamp(-LARGEST, LARGEST)
        return inside_unit(0.5 * torch.erfc(-z / math.sqrt(2))), 0.5 * bounded.square() + HALF_LOG_2_PI
