"""Distance of the normalized features to the k-th nearest training row."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore
from pushforward.detection.network.streaming import Gathered
from pushforward.errors import InputError
from pushforward.numerics.checks import check_integer

__all__ = ["Neighbors", "kth_distance", "unit"]

_PART = 1024
"""Largest number of rows whose distances are in memory together."""


def unit(rows: Tensor) -> Tensor:
    """Rows divided by their norm; a row of zeros stays."""
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)


def kth_distance(rows: Tensor, bank: Tensor, squares: Tensor, k: int) -> Tensor:
    """Distance of each row to its k-th nearest row of a bank, ``(n,)``.

    Args:
        rows: ``(n, D)``.
        bank: ``(m, D)``.
        squares: the squared norms of the bank, ``(m,)``.
        k: index of the neighbor.
    """

    def distance(part: Tensor) -> Tensor:
        order = torch.addmm(squares, part, bank.T, alpha=-2)  # the square of the row itself does not change the order
        last = order.argmin(1) if k == 1 else order.topk(k, 1, largest=False).indices[:, -1]  # topk sorts
        return (part - bank[last]).norm(dim=1)  # of the difference: without the cancellation of squares

    if torch.compiler.is_compiling() or len(rows) <= _PART:
        return distance(rows)
    return torch.cat([distance(part) for part in rows.split(_PART)])


class Neighbors(NetworkScore):
    """Distance of ``z / ||z||`` to its k-th nearest training row (Sun et al. 2022, arXiv 2204.06507, section 3).

    Args:
        k: index of the neighbor.
        rows: largest number of training rows that are stored, a random sample.
        normalize: whether to divide by the norm.
        single: whether to score in single precision where the network computes in it, which is faster.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.Neighbors(k=5)
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).p_value.shape
        torch.Size([1])
    """

    def __init__(self, k: int = 50, rows: int = 10_000, normalize: bool = True, single: bool = False) -> None:
        super().__init__()
        check_integer("rows", rows, check_integer("k", k))
        self.k, self.rows, self.normalize, self.single = k, rows, bool(normalize), bool(single)
        self.declare(bank=2)

    bank: Tensor

    def _learn(self, gathered: Gathered) -> None:
        rows = gathered.sample["features"][: self.rows]
        if len(rows) < self.k:
            raise InputError(f"Neighbors needs at least k={self.k} training rows; got {len(rows)}: use a smaller k.")
        self.bank = unit(rows.double()) if self.normalize else rows.double()

    def _derive(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        # far from the origin, squares would hide how far rows are from each other
        center = torch.zeros_like(self.bank[:1]) if self.normalize else self.bank.mean(0, keepdim=True)
        center = center.to(dtype)  # rows are moved by the rounded center too
        bank = (self.bank - center.to(self.bank.dtype)).to(dtype)
        return bank, bank.square().sum(1), center

    def _score(self, reading: Reading) -> Tensor:
        dtype = self.precision(reading)
        rows, (bank, squares, center) = reading.features.to(dtype), self.prepared(dtype)
        return kth_distance(unit(rows) if self.normalize else rows - center, bank, squares, self.k)
