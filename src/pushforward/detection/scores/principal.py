"""Distances of an input from the training rows, within and outside their principal subspaces."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.detection.scores.base import Statistic
from pushforward.detection.scores.model_outputs import far_rows, finite_reference
from pushforward.detection.scores.neighbors import kth_distance
from pushforward.errors import ConfigError, InputError
from pushforward.numerics.checks import check_integer
from pushforward.registry import register

__all__ = ["PrincipalDistances", "leading_directions"]

_FLOOR = 1e-4
"""Added to relative distances before the logarithm, so that it stays finite."""
_MOST_ROWS = 2048
"""Rows of more values than rows from which directions are learned, at most: the time grows with the cube of their number."""


def leading_directions(rows: Tensor, count: int) -> Tensor:
    """Orthonormal directions of largest variance of centered rows that have more values than there are rows.

    They come from the products of the rows with each other, so no matrix of d x d numbers is made. Of more than 2048 rows, 2048
    that a fixed seed chooses are read.

    Args:
        rows: ``(n, d)``, float64, with mean 0 and n < d.
        count: number of directions, at most.

    Returns:
        ``(d, k)``, the largest variance first, with k the least of ``count`` and the number of rows read minus 1: further directions
        would be arbitrary, since the rows do not vary along them.
    """
    if len(rows) > _MOST_ROWS:
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:_MOST_ROWS]]
        rows = rows - rows.mean(0)
    count = min(count, len(rows) - 1)
    _, weights = torch.linalg.eigh(rows @ rows.T)
    # The QR factor is orthonormal also where rows repeat and some variances are 0.
    return torch.linalg.qr(rows.T @ weights[:, -count:].flip(1)).Q.contiguous()


@register("scores")
class PrincipalDistances(Statistic):
    """Log-distances from the reference rows in their principal subspaces; needs no model.

    Let x be centered, c its first k principal coordinates, V the principal directions and v the variances of c on the
    reference. The columns are, for each k in ``sizes``,

    - ``outside k``: log ||x - V c||^2, the squared distance to the subspace (reconstruction error of a linear autoencoder);
    - ``inside k``: log sum_i c_i^2 / v_i, the Mahalanobis distance within the subspace;

    and the log-distance to the k-th nearest reference row:

    - ``neighbors``: in the subspace of the second size, in the data's units;
    - ``white neighbors``: in the smallest subspace, in units of the standard deviations.

    All distances are relative to the spread of the reference, so the columns do not depend on the unit of x.

    Where x has more values than there are reference rows, the directions are those of at most 2048 rows, which a fixed seed
    chooses, and the variances are those of all rows along them.

    Fit this statistic on the *training* rows; held-out rows then show the usual distances of new rows.

    Args:
        sizes: dimensions of three subspaces, increasing; each is reduced if there are too few rows or coordinates: n rows have
            at most n - 1 directions.
        k: index of the neighbor, 1 for the nearest.
        rows: largest number of reference rows, from the first, that are stored for the search of neighbors.

    Raises:
        ConfigError: for sizes that do not increase, or invalid counts.
        InputError: by :meth:`fit`, for fewer than k + 1 rows.

    Example:
        >>> import torch
        >>> from pushforward.detection.scores import PrincipalDistances
        >>> rows = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
        >>> distances = PrincipalDistances(sizes=(1, 2, 4)).fit(rows)
        >>> near, far = distances.values(torch.stack((torch.zeros(8), torch.full((8,), 9.0))))
        >>> bool((far > near).all())
        True
    """

    needs = frozenset()

    def __init__(self, sizes: tuple[int, ...] = (16, 64, 256), k: int = 5, rows: int = 10_000) -> None:
        super().__init__()
        if len(sizes) != 3 or not all(isinstance(size, int) and size >= 1 for size in sizes) or list(sizes) != sorted(set(sizes)):  # fmt: skip
            raise ConfigError(f"sizes must be three increasing positive integers; got {sizes!r}.")
        check_integer("rows", rows, check_integer("k", k))
        self.sizes, self.k, self.rows = tuple(sizes), k, rows
        self.declare(mean=1, directions=2, spread=1, scale=0, points=2)

    mean: Tensor
    directions: Tensor
    spread: Tensor
    scale: Tensor
    points: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns: outside and inside of each subspace, then the distances to neighbors."""
        ends = tuple(f"{side} {size}" for size in self.sizes for side in ("outside", "inside"))
        return (*ends, "neighbors", "white neighbors")

    def _learn(self, reference: Tensor) -> None:
        if len(reference) <= self.k:
            raise InputError(
                f"PrincipalDistances needs more than k={self.k} reference rows; got {len(reference)}: use a smaller k or more rows."
            )
        rows = finite_reference(reference, "the input").flatten(1).double()
        self.mean = rows.mean(0)
        rows = rows - self.mean
        count = min(self.sizes[-1], len(rows) - 1, rows.shape[1])
        if len(rows) < rows.shape[1]:
            self.directions = leading_directions(rows, count)
            variances, total = (rows @ self.directions).square().mean(0), rows.square().sum() / len(rows)
        else:
            found, directions = torch.linalg.eigh(rows.T @ rows / len(rows))
            self.directions = directions[:, -count:].flip(1).contiguous()
            variances, total = found[-count:].flip(0), found.clamp(min=0.0).sum()
        self.scale = torch.where(total > 0, total, torch.ones_like(total))
        floor = _FLOOR * self.scale / rows.shape[1]
        self.spread = variances.clamp(min=float(floor)).sqrt()
        self.points = (rows[: self.rows] @ self.directions)[:, : self._size(1)].contiguous()

    def _size(self, index: int) -> int:
        return min(self.sizes[index], self.directions.shape[1])

    def _values(self, x: Tensor) -> Tensor:
        far, rows = far_rows(x), x.flatten(1).double()
        if rows.shape[1] != len(self.mean):
            raise InputError(
                f"PrincipalDistances was fitted on rows of {len(self.mean)} values; got rows of {rows.shape[1]}."
            )
        rows = torch.where(far[:, None], 0.0, rows) - self.mean
        # Other widths of the product round a row by its place in the batch.
        wide, directions = F.pad(rows, (0, -rows.shape[1] % 8)), self.directions
        padding = (0, -directions.shape[1] % 64, 0, wide.shape[1] - len(directions))
        inside = (wide @ F.pad(directions, padding))[:, : directions.shape[1]].contiguous()
        white = inside / self.spread
        total = rows.square().sum(1)
        far = far | torch.isinf(total)
        columns = []
        for size in map(self._size, range(3)):
            outside = (total - inside[:, :size].square().sum(1)).clamp(min=0.0)
            columns += [torch.log(outside / self.scale + _FLOOR), torch.log(white[:, :size].square().mean(1) + _FLOOR)]
        small, middle = self._size(0), self._size(1)
        distance = kth_distance(inside[:, :middle], self.points, self.k) / self.scale.sqrt()
        whitened = kth_distance(white[:, :small], self.points[:, :small] / self.spread[:small], self.k)
        columns += [torch.log(distance + _FLOOR), torch.log(whitened / math.sqrt(small) + _FLOOR)]
        return torch.where(far[:, None], math.inf, torch.stack(columns, 1))
