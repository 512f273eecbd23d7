"""Statistics of a row's nearest training rows as a module: one matrix product, and the smallest entries of each row."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.detection.table import local, neighbors
from pushforward.graphs.numeric import Part, exact, quadratic_form
from pushforward.kernels.neighbors import EQUAL

__all__ = ["NeighborsGraph"]


class NeighborsGraph(Part):
    """:class:`~pushforward.detection.table.neighbors.Neighbors` as a module.

    Squared distances are compared by 29 bits, and of equal ones that of the row with the lowest index is made smaller in the
    bits that are left. So every runtime finds the neighbors of the guard; the distances are cut off after 29 bits, as there.

    Args:
        part: fitted.
        wanted: names of statistics.
        portable: whether to do without Cholesky factors, which ONNX does not have.
    """

    def __init__(self, part: neighbors.Neighbors, wanted: set[str], *, portable: bool) -> None:
        super().__init__()
        self.wanted, self.portable = sorted(wanted), portable
        reference = torch.from_numpy(part.reference)
        squares = reference.square().sum(1)
        product = torch.cat((-2.0 * reference.T, torch.ones_like(squares)[None], squares[None]))
        self.register_buffer("product", product.contiguous())  # (x, x^2, 1) times this is the squared distance
        self.register_buffer("squares", squares)
        self.register_buffer("equal", exact(EQUAL))
        self.register_buffer("split", exact(2.0**24 + 1.0))
        self.register_buffer("less", exact(1.0 - 2.0**-29))
        self.k = max(1, min(max(neighbors.neighbors_of(name) for name in wanted), len(reference) - 1))
        self.needs_index = any(not name.startswith("knn") for name in wanted)
        self.needs_rows = any(name.startswith(("local", "density")) for name in wanted)
        self.width = max(len(reference), self.k * reference.shape[1] if self.needs_rows else 0)
        if self.needs_rows:
            self.register_buffer("reference", reference)
            self.register_buffer("ridge", exact(local.RIDGE))
            self.register_buffer("smallest", exact(local.SMALLEST))
            self.register_buffer("identity", torch.eye(reference.shape[1], dtype=torch.float64))
        if self.needs_index:
            rank = 1.0 + torch.arange(len(reference), dtype=torch.float64) * 2.0**-52
            self.register_buffer("rank", rank)
        if "lof" in wanted:
            self.register_buffer("kth", torch.from_numpy(part.kth))
            self.register_buffer("reach_floor", exact(neighbors.REACH_FLOOR))
            self.register_buffer("reach", torch.from_numpy(part.reach))

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        """The wanted statistics of rows of the space ``(n, d)``, each ``(n,)``."""
        distances, index = self._nearest(rows)
        found: dict[str, Tensor] = {}
        for name in self.wanted:
            if name.startswith("knn"):
                found[name] = distances[:, min(int(name[3:]), self.k) - 1]
            elif name == "lof":
                own = index[:, : neighbors.LOF]
                mean = torch.maximum(distances[:, : neighbors.LOF], self.kth[own]).sum(1) / own.shape[1]
                found[name] = self.reach[own].sum(1) / own.shape[1] * (mean + self.reach_floor)
        for count in (20, 50):
            names = {f"local{count}", f"density{count}"} & set(self.wanted)
            if names:
                both = self._local_gaussian(rows, self.reference[index[:, :count]])
                found |= {name: value for name, value in zip((f"local{count}", f"density{count}"), both, strict=True)
                          if name in names}  # fmt: skip
        return found

    def _nearest(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Distances and indices of the nearest rows, without one that is equal, ``(n, k)``."""
        own = rows.square().sum(1, keepdim=True)
        squared = (torch.cat((rows, own, torch.ones_like(own)), 1) @ self.product).clamp(min=0.0)
        order = self._rounded(squared) * self.rank if self.needs_index else squared
        chosen, index = order.topk(self.k + 1, 1, largest=False)
        chosen = self._cut(squared.gather(1, index) if self.needs_index else chosen)
        chosen = torch.where(chosen > self.equal * (own + self.squares[index]), chosen, 0.0)
        equal = chosen[:, :1] == 0.0
        distances = torch.where(equal, chosen[:, 1:], chosen[:, :-1]).sqrt()
        return distances, torch.where(equal, index[:, 1:], index[:, :-1])

    def _rounded(self, x: Tensor) -> Tensor:
        """x rounded to 29 bits: a number and its product with 2^24 + 1 differ, in floating point, by that (Dekker 1971)."""
        scaled = x * self.split
        return scaled - (scaled - x)

    def _cut(self, x: Tensor) -> Tensor:
        """x, not negative, without the bits after the 29th: the rounded number, or the one before it."""
        rounded = self._rounded(x)
        return torch.where(rounded <= x, rounded, self._rounded(rounded * self.less))

    def _local_gaussian(self, rows: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        """:func:`~pushforward.detection.table.local.local_gaussian` with the neighbors ``(n, k, d)``."""
        k, d = near.shape[1], near.shape[2]
        mean = near.sum(1) / k
        near, offset = near - mean.unsqueeze(1), rows - mean
        ridge = self.ridge * (near.square().sum((1, 2)) / (k * d)) + self.smallest
        size = min(d, k)
        identity = self.identity[:size, :size] * ridge[:, None, None]
        if d <= k:
            matrix = near.transpose(1, 2) @ near / k + identity
            square, log_det = quadratic_form(matrix, offset, portable=self.portable)
        else:
            matrix = near @ near.transpose(1, 2) / k + identity
            projected = (near @ offset.unsqueeze(-1)).squeeze(-1)
            form, log_det = quadratic_form(matrix, projected, portable=self.portable)
            square = (offset.square().sum(1) - form / k) / ridge
            log_det = log_det + (d - k) * ridge.log()
        square = square.clamp(min=0.0)
        return square.sqrt(), 0.5 * log_det + 0.5 * d * (square / d).log1p()
