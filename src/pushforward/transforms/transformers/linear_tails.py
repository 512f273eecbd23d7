"""Laws that are given on an interval [-bound, bound] and go on outside as the straight lines that touch them there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pushforward.numerics import monotone_root

__all__ = ["Interior", "extend", "extend_inverse"]


Interior = Callable[[Tensor], tuple[Tensor, Tensor]]
"""x in [-bound, bound] to f(x) and log f'(x), elementwise, increasing."""


def extend(function: Interior, x: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """f(x) and log f'(x) for any x: value and slope are continuous at both ends, and the slope is constant outside."""
    inside = x.clamp(-bound, bound)
    y, log_slope = function(inside)
    return y + (x - inside) * log_slope.exp(), log_slope


def extend_inverse(function: Interior, y: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """The x with f(x) = y, and log f'(x): in closed form outside, and a bracketed root inside, found to rounding."""

    def value_and_slope(x: Tensor) -> tuple[Tensor, Tensor]:
        value, log_slope = function(x)
        return value, log_slope.exp()

    end = torch.full_like(y, bound)
    low, high = function(-end)[0], function(end)[0]
    target = torch.minimum(torch.maximum(y, low), high)
    x = monotone_root(value_and_slope, target, -end, end, doublings=0).clamp(-bound, bound)
    x = torch.where(y <= low, -end, torch.where(y >= high, end, x))  # to the last digit: the slope there is magnified
    log_slope = function(x)[1]
    return x + (y - target) * torch.exp(-log_slope), log_slope
