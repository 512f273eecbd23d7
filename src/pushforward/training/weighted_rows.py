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

__all__ = ["WeightedRows", "effective_rows", "row_weights", "systematic"]

_FEW, _SHARE = 100, 0.05
"""Weights that are worth fewer rows, and less than a quarter of their number, and one row with a larger part of the weight, warn."""


class WeightedRows(ArrayRows):
    """Rows of a tensor, which a pass draws as often as their weights say.

    A pass makes as many draws as the rows are worth of equal weight, n = sum(w)^2 / sum(w^2). Row i is drawn n w_i / sum(w) times,
    rounded up or down at random so that the mean is exact (systematic resampling, Kitagawa 1996). So every step has equal weights,
    and the mean loss of a pass is that of the weighted rows. Held-out values are averaged with the weights themselves.

    Args:
        spec: as for :class:`~pushforward.training.sources.ArrayRows`.
        x: as there.
        context: as there.
        rows: as there.
        batch_size: as there.
        seed: as there.
        weights: of all rows of ``x``, ``(n,)``, float64; those of ``rows`` are positive.
        worth: number of rows of equal weight that one of ``rows`` is worth, on average.
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
        worth: float,
    ) -> None:
        self.weights, self.worth = weights, worth
        own = weights[rows]
        self.shares = own / own.sum()
        super().__init__(spec, x, context, rows, batch_size, seed)

    @property
    def reads(self) -> int:
        """Number of rows that a pass reads: what they are worth. A part of the rows has its part of that, whichever they are."""
        return max(1, round(self.worth * len(self.rows)))

    def part(self, rows: Tensor, batch_size: int | None) -> WeightedRows:
        """A source of some of the rows, which shares the tensors."""
        return WeightedRows(self.spec, self.x, self.context, rows, batch_size, self.seed, self.weights, self.worth)

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


def effective_rows(weights: Tensor) -> float:
    """The number of rows of equal weight that weights are worth, sum(w)^2 / sum(w^2).

    >>> effective_rows(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    2.0
    """
    return float(weights.sum().square() / weights.square().sum())


def row_weights(weights: Any, count: int, what: str = "rows") -> Tensor | None:
    """Weights as ``(count,)``, float64, relative to the largest; None if all are equal, since they then say nothing.

    Warns if they are worth so few rows that a density becomes spikes there.

    Args:
        weights: an array, tensor, series or list.
        count: number of rows.
        what: the rows, for messages.

    Raises:
        InputError: for another number of weights, one that is negative or not a finite number, or weights that are all 0.
    """
    rule = f"weights are one number of at least 0 for each of the {count} {what}"
    values = _numbers(weights)
    if values is None:
        raise InputError(f"{rule}; these cannot be read as such: give an array of numbers.")
    if values.shape == (count, 1):
        values = values[:, 0]
    if values.shape != (count,):
        raise InputError(f"{rule}; got the shape {values.shape}.")
    wrong = ~np.isfinite(values) | (values < 0)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f"{rule}; that of row {row} is {values[row]:g}.")
    if not values.max() > 0:
        raise InputError("all weights are zero, so there is nothing to fit: give some rows a positive weight.")
    if values.min() == values.max():
        return None
    found = torch.from_numpy(values / values.max())
    _warn_of_few_rows(found, what)
    return found


def _numbers(weights: Any) -> np.ndarray | None:
    """Weights as float64, masked ones as NaN; None if they are no numbers."""
    if isinstance(weights, Tensor) and weights.is_complex():
        return None
    try:
        values = weights.detach().double().cpu().numpy() if isinstance(weights, Tensor) else weights
        values = values if isinstance(values, np.ndarray) else np.asarray(values)
        if values.dtype.kind not in "biufO":
            return None
        return np.array(np.ma.filled(values.astype(np.float64), np.nan))
    except (TypeError, ValueError, RuntimeError):
        return None


def _warn_of_few_rows(weights: Tensor, what: str) -> None:
    effective, largest = effective_rows(weights), float(weights.max() / weights.sum())
    few = effective < min(_FEW, len(weights) / 4)
    if few or largest > max(_SHARE, 10 / len(weights)):
        warn_caller(
            f"the weights are worth {effective:.1f} of {len(weights)} {what} of equal weight, and row {int(weights.argmax())} alone has "
            f"{largest:.0%} of all weight, so the density can become spikes at few rows: use more rows, or cut large weights off."
        )
