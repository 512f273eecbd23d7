"""`WeightedRows`: rows of a tensor with weights, such as those of importance sampling or of a survey."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushforward.errors import InputError, warn_caller
from pushforward.training.input_spec import InputSpec, Pair
from pushforward.training.seeds import Purpose, generator
from pushforward.training.sources import ArrayRows

__all__ = ["WeightedRows", "row_weights", "systematic"]

_SHARE, _FEW = 0.05, 10
"""A row is heavy if it has more than this part of the weight, and more than that many rows of equal weights would have."""


class WeightedRows(ArrayRows):
    """Rows of a tensor, which a pass draws as often as their weights say.

    A pass over n rows makes n draws. Row i is drawn n w_i / sum(w) times, rounded up or down at random so that the mean is
    exact (systematic resampling, Kitagawa 1996), so the mean loss of a pass is that of the weighted rows and every step has
    equal weights. Held-out values are averaged with the weights themselves.

    Args:
        spec: as for :class:`~pushforward.training.sources.ArrayRows`.
        x: as there.
        context: as there.
        rows: as there.
        batch_size: as there.
        seed: as there.
        weights: of all rows of ``x``, ``(n,)``, float64; those of ``rows`` are positive.
    """

    def __init__(
        self,
        spec: InputSpec,
        x: Tensor,
        context: Tensor | None,
        rows: Tensor,
        batch_size: int | None,
        seed: int,
        weights: Tensor,
    ) -> None:
        self.weights = weights
        own = weights[rows]
        self.shares = own / own.sum()
        super().__init__(spec, x, context, rows, batch_size, seed)

    def part(self, rows: Tensor, batch_size: int | None) -> WeightedRows:
        """A source of some of the rows, which shares the tensors."""
        return WeightedRows(self.spec, self.x, self.context, rows, batch_size, self.seed, self.weights)

    def ordered_weights(self) -> Iterator[Tensor]:
        """The weights of the rows of :meth:`ordered`, batch by batch; their sum is 1."""
        for index, part in enumerate(self.shares.split(2 * self.batch_size)):
            if self._is_own(index):
                yield part

    def raw_sample(self, most: int) -> Pair:
        """Draws of the rows by their weights."""
        shuffler = generator(self.seed, Purpose.INITIALIZE)
        return self.read(self.rows[systematic(self.shares, min(most, len(self.rows)), shuffler)])

    def digest(self) -> str:
        """Hash of rows, as for arrays, and of all weights."""
        return hashlib.sha256(super().digest().encode() + self.shares.numpy().tobytes()).hexdigest()[:16]

    def _choose(self, count: int, shuffler: torch.Generator) -> Tensor:
        chosen = systematic(self.shares, count, shuffler)
        return chosen[torch.randperm(count, generator=shuffler)]


def systematic(shares: Tensor, count: int, shuffler: torch.Generator) -> Tensor:
    """``count`` indices, of which each occurs ``count`` times its share, rounded up or down at random.

    Args:
        shares: positive numbers whose sum is 1, ``(n,)``, float64.
        count: number of indices.
        shuffler: of the one random number that is needed.

    >>> systematic(torch.tensor([0.5, 0.25, 0.25]), 4, torch.Generator().manual_seed(0)).tolist()
    [0, 0, 1, 2]
    """
    first = torch.rand(1, generator=shuffler, dtype=torch.float64)
    points = (torch.arange(count, dtype=torch.float64) + first) / count
    return torch.searchsorted(shares.double().cumsum(0), points).clamp(max=len(shares) - 1)


def row_weights(weights: Any, count: int) -> Tensor | None:
    """Weights as ``(count,)``, float64, relative to the largest; None if all are equal, since they then say nothing.

    Warns if one row has so much of the weight that a density becomes a spike there.

    Args:
        weights: an array, tensor, series or list.
        count: number of rows.

    Raises:
        InputError: for another number of weights, one that is negative or not a finite number, or weights that are all 0.
    """
    what = f"weights are one number of at least 0 for each of the {count} rows"
    try:
        values = np.asarray(weights.detach().cpu() if isinstance(weights, Tensor) else weights)
        values = values.astype(np.float64) if values.dtype.kind in "biufO" else None
    except (TypeError, ValueError):
        values = None
    if values is None:
        raise InputError(f"{what}; these cannot be read as such: give an array of numbers.")
    if values.shape == (count, 1):
        values = values[:, 0]
    if values.shape != (count,):
        raise InputError(f"{what}; got the shape {values.shape}.")
    wrong = ~np.isfinite(values) | (values < 0)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f"{what}; that of row {row} is {values[row]:g}.")
    if not values.max() > 0:
        raise InputError("all weights are zero, so there is nothing to fit: give some rows a positive weight.")
    if values.min() == values.max():
        return None
    values = values / values.max()
    _warn_of_heavy_row(values / values.sum())
    return torch.from_numpy(values)


def _warn_of_heavy_row(shares: np.ndarray) -> None:
    row = int(shares.argmax())
    if shares[row] > max(_SHARE, _FEW / len(shares)):
        warn_caller(
            f"row {row} has {shares[row]:.0%} of the weight, and all {len(shares)} weights are worth {1 / np.square(shares).sum():.1f} rows "
            "of equal weight, so the density can become a spike at that row: use more rows, or cut large weights off."
        )
