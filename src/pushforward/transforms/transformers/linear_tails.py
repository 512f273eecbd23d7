"""Transformers that are defined on [-bound, bound] and continue outside as the tangent lines at the two ends."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from pushforward.numerics import monotone_root
from pushforward.numerics.checks import check_positive
from pushforward.transforms.transformers.base import Transformer

__all__ = ["Interior", "LinearTailTransformer", "extend", "extend_inverse"]

Interior = Callable[[Tensor], tuple[Tensor, Tensor]]
"""x in [-bound, bound] to f(x) and log f'(x), elementwise, increasing."""


class LinearTailTransformer(Transformer):
    """y = f(x) + c, with f a family of functions on [-bound, bound] continued by straight lines, and c the last raw parameter.

    The inverse is closed-form on the lines, and a bracketed root, found to rounding, between them. A subclass defines
    ``bound``, ``parameters`` and :meth:`interior`.
    """

    bound: float
    output_gain = 0.1

    def __post_init__(self) -> None:
        check_positive("bound", self.bound)

    @abstractmethod
    def interior(self, raw: Tensor) -> Interior:
        """f on [-bound, bound] for raw parameters ``(parameters, *x.shape)``, without the shift c."""

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) + c and log f'(x)."""
        y, log_slope = extend(self.interior(raw), x, self.bound)
        return y + raw[-1], log_slope

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The root x of f(x) = y - c, and log f'(x)."""
        return extend_inverse(self.interior(raw), y - raw[-1], self.bound)


def extend(function: Interior, x: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """f(x) and log f'(x) for any x: value and slope are continuous at both ends, and the slope is constant outside."""
    inside = x.clamp(-bound, bound)
    y, log_slope = function(inside)
    return y + (x - inside) * log_slope.exp(), log_slope


def extend_inverse(function: Interior, y: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """The x with f(x) = y, and log f'(x): closed-form outside, and a bracketed root, found to rounding, inside."""

    def value_and_slope(x: Tensor) -> tuple[Tensor, Tensor]:
        value, log_slope = function(x)
        return value, log_slope.exp()

    end = torch.full_like(y, bound)
    low, high = function(-end)[0], function(end)[0]
    target = torch.minimum(torch.maximum(y, low), high)
    x = monotone_root(value_and_slope, target, -end, end, doublings=0).clamp(-bound, bound)
    # Outside, x is exactly the end: its slope multiplies the distance to the interval, which may be large.
    x = torch.where(y <= low, -end, torch.where(y >= high, end, x))
    log_slope = function(x)[1]
    return x + (y - target) * torch.exp(-log_slope), log_slope
