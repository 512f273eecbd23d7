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
    """Rows divided by their norm, float64; a row of zeros stays."""
    rows = rows.double()
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)


def kth_distance(rows: Tensor, bank: Tensor, search: tuple[Tensor, Tensor], k: int) -> Tensor:
    """Distance of each row to its k-th nearest row of a bank, float64, ``(n,)``.

    Args:
        rows: ``(n, D)``, float64.
        bank: ``(m, D)``, float64.
        search: the bank and its squared norms in the precision of the search.
        k: index of the neighbor.
    """
    fast, squares = search

    def distance(part: Tensor) -> Tensor:
        order = torch.addmm(
            squares, part.to(fast.dtype), fast.T, alpha=-2
        )  # the square of the row itself does not change the order
        last = order.argmin(1) if k == 1 else order.topk(k, 1, largest=False).indices[:, -1]  # topk sorts
        return (part - bank[last]).norm(dim=1)  # once more in double precision, without the cancellation of squares

    whole = torch.compiler.is_compiling() or len(rows) <= _PART
    return torch.cat([distance(part) for part in ([rows] if whole else rows.split(_PART))])


class Neighbors(NetworkScore):
    """Distance of ``z / ||z||`` to its k-th nearest training row (Sun et al. 2022, arXiv 2204.06507, section 3).

    Args:
        k: index of the neighbor.
        rows: largest number of training rows that are stored, a random sample.
        normalize: whether to divide by the norm.
        single: whether to search in single precision, which is faster; the distances are computed in double precision.

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
        self._fast: tuple[Tensor, Tensor] | None = None
        self.declare(bank=2, squares=1)

    bank: Tensor
    squares: Tensor

    def _learn(self, gathered: Gathered) -> None:
        rows = gathered.sample["features"][: self.rows]
        if len(rows) < self.k:
            raise InputError(f"Neighbors needs at least k={self.k} training rows; got {len(rows)}: use a smaller k.")
        self.bank = self._prepare(rows)
        self.squares, self._fast = self.bank.square().sum(1), None

    def _prepare(self, rows: Tensor) -> Tensor:
        return unit(rows) if self.normalize else rows.double()

    def prepare(self) -> tuple[Tensor, Tensor]:
        """The stored rows and their squared norms, in the precision of the search."""
        if not self.single:
            return self.bank, self.squares
        if self._fast is None:
            self._fast = (self.bank.float(), self.squares.float())
        return self._fast

    def _score(self, reading: Reading) -> Tensor:
        return kth_distance(self._prepare(reading.features), self.bank, self.prepare(), self.k)
