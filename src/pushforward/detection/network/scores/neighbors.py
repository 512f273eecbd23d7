"""Distance of the normalized features to the k-th nearest training row."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore
from pushforward.detection.network.streaming import Gathered
from pushforward.errors import InputError
from pushforward.numerics.checks import check_integer

__all__ = ["Neighbors", "unit"]


def unit(rows: Tensor) -> Tensor:
    """Rows divided by their norm, float64; a row of zeros stays."""
    rows = rows.double()
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)


class Neighbors(NetworkScore):
    """Distance of ``z / ||z||`` to its k-th nearest training row (Sun et al. 2022, arXiv 2204.06507, section 3).

    Args:
        k: index of the neighbor.
        rows: largest number of training rows that are stored, the first of the reservoir.
        normalize: whether to divide by the norm.
    """

    def __init__(self, k: int = 50, rows: int = 10_000, normalize: bool = True) -> None:
        super().__init__()
        check_integer("rows", rows, check_integer("k", k))
        self.k, self.rows, self.normalize = k, rows, bool(normalize)
        self.declare(bank=2, squares=1)

    bank: Tensor
    squares: Tensor

    def _learn(self, gathered: Gathered) -> None:
        rows = gathered.sample["features"][: self.rows]
        if len(rows) < self.k:
            raise InputError(f"Neighbors needs at least k={self.k} training rows; got {len(rows)}: use a smaller k.")
        self.bank = self._prepare(rows)
        self.squares = self.bank.square().sum(1)

    def _prepare(self, rows: Tensor) -> Tensor:
        return unit(rows) if self.normalize else rows.double()

    def _score(self, reading: Reading) -> Tensor:
        rows = self._prepare(reading.features)
        parts = []
        for part in rows.split(1024):
            squares = self.squares - 2 * part @ self.bank.T  # the square of the row itself does not change the order
            kth = squares.topk(self.k, 1, largest=False).values[:, -1]
            parts.append((kth + part.square().sum(1)).clamp(min=0).sqrt())
        return torch.cat(parts)
