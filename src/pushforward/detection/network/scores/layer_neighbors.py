"""Distances of inner layers to the nearest training rows."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore
from pushforward.detection.network.scores.neighbors import kth_distance, unit
from pushforward.detection.network.streaming import Gathered
from pushforward.errors import InputError
from pushforward.numerics.checks import check_integer

__all__ = ["LayerNeighbors"]


class LayerNeighbors(NetworkScore):
    """Sum over inner layers of the distance of ``z / ||z||`` to its k-th nearest training row.

    :class:`Neighbors` (Sun et al. 2022, arXiv 2204.06507, section 3) at each inner layer, averaged over positions.

    Args:
        k: index of the neighbor.
        rows: largest number of training rows that are stored, a random sample.
        single: whether to score in single precision where the network computes in it, which is faster.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.LayerNeighbors()
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).p_value.shape
        torch.Size([1])
    """

    needs = frozenset({"layers"})

    def __init__(self, k: int = 1, rows: int = 250, single: bool = False) -> None:
        super().__init__()
        check_integer("rows", rows, check_integer("k", k))
        self.k, self.rows, self.single = k, rows, bool(single)
        self.declare(packed=1, sizes=1)

    packed: Tensor
    sizes: Tensor

    def _learn(self, gathered: Gathered) -> None:
        banks = [unit(gathered.sample[f"layer {name}"][: self.rows].double()) for name in gathered.layers]
        if len(banks[0]) < self.k:
            raise InputError(
                f"LayerNeighbors needs at least k={self.k} training rows; got {len(banks[0])}: use a smaller k."
            )
        self.packed = torch.cat([bank.flatten() for bank in banks])
        self.sizes = torch.tensor([size for bank in banks for size in bank.shape], dtype=torch.float64)

    def _derive(self, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """The stored rows of each layer and their squared norms."""
        parts, start = [], 0
        for rows, width in self.sizes.long().reshape(-1, 2).tolist():
            bank = self.packed[start : start + rows * width].reshape(rows, width).to(dtype)
            parts.append((bank, bank.square().sum(1)))
            start += rows * width
        return parts

    def _score(self, reading: Reading) -> Tensor:
        dtype = self.precision(reading)
        layers = zip(reading.layers.values(), self.prepared(dtype), strict=True)
        parts = [kth_distance(unit(rows.to(dtype)), bank, squares, self.k) for rows, (bank, squares) in layers]
        return torch.stack(parts).sum(0)
