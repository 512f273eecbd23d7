"""Smooth and hard bounds on what networks read and return."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["bound_input", "bound_square", "soft_clamp", "softsign_clamp", "split_infinite"]


def soft_clamp(x: Tensor, bound: float) -> Tensor:
    """Smooth clamp to (-bound, bound) with slope 1 at 0: ``bound * tanh(x / bound)``."""
    return bound * torch.tanh(x / bound)


def softsign_clamp(x: Tensor, bound: float) -> Tensor:
    """Smooth clamp to (-bound, bound) with slope 1 at 0 that saturates slowly: ``x / (1 + |x| / bound)``.

    Its slope falls as 1/x^2 instead of exponentially, so a scale that has run to its bound still learns its way back.
    """
    return x / torch.rsub(x.abs(), 1, alpha=-1 / bound)  # 1 + |x| / bound in one operation


def bound_input(x: Tensor, bound: float) -> Tensor:
    """What a conditioner may see of its input: the identity on [-bound, bound], constant outside.

    A network that sees only a box returns only bounded shifts and scales, so far from the data a flow is close to a
    fixed linear transform: nothing overflows, and the log-density falls as the base's does.
    """
    return F.hardtanh(x, -bound, bound)  # as clamp, whose gradient takes five operations


def bound_square(x: Tensor, terms: int = 1) -> Tensor:
    """x clamped to where ``terms`` squares still sum to a finite number: beyond about 1e19 in float32.

    A mixture needs it: where every component is -inf, the gradient of their log-sum-exp would be NaN.
    """
    limit = 0.5 * math.sqrt(torch.finfo(x.dtype).max / terms)
    return x.clamp(-limit, limit)


def split_infinite(x: Tensor, dims: int) -> tuple[Tensor, Tensor]:
    """x with its infinite entries at 0, and 0 or -inf for each row: what to add to its log-density."""
    infinite = torch.isinf(x)
    rows = infinite.flatten(x.dim() - dims).any(-1) if dims else infinite
    return torch.where(infinite, 0.0, x), torch.where(rows, -math.inf, 0.0).to(x.dtype)
