"""Scoring in batches of one size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["by_batches"]


def by_batches(function: Callable[[Tensor], Tensor], rows: Tensor, size: int = 512) -> Tensor:
    """``function`` of all rows, without gradient, in batches of one size; the last is filled up with copies of a row.

    Matrix products of different sizes round differently, so in batches of any size a row's score would depend, in its
    last digits, on how many rows came with it: equal rows would no longer tie with each other.
    """
    results = []
    with torch.no_grad():
        for part in rows.split(size):
            count = len(part)
            if 0 < count < size:
                part = torch.cat((part, part[:1].expand(size - count, *part.shape[1:])))
            results.append(function(part)[:count])
    return torch.cat(results)
