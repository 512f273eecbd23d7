"""Scores by the two-sided rank of a number among the numbers of in-distribution rows."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import final

import torch
from torch import Tensor

from pushforward.detection.batching import by_batches
from pushforward.detection.modes import evaluation
from pushforward.detection.scores.base import Need, Score, Statistic
from pushforward.detection.scores.model_outputs import far_rows, finite_reference
from pushforward.errors import ConfigError
from pushforward.registry import register

__all__ = ["TwoSided", "TwoSidedScore", "two_sided"]


def two_sided(values: Tensor, reference: Tensor) -> Tensor:
    """-log p with the two-sided p-value p = min(1, 2 min(p_low, p_high)) of each value among m reference values.

    p_low = (1 + #{r <= v}) / (m + 1) and p_high = (1 + #{r >= v}) / (m + 1) are conformal p-values. All values outside the range
    of the reference have the same rank, so there an exponential tail is added, fitted to the outermost tenth of the
    reference: -log p + (v - max) / (mean excess) above the maximum, and the same below the minimum. An infinite value gets
    +inf.

    Args:
        values: values to rank, ``(n,)``.
        reference: reference values in ascending order, ``(m,)``.
    """
    values, count = values.double(), len(reference)
    below = torch.searchsorted(reference, values, right=True)
    above = count - torch.searchsorted(reference, values)
    p = 2 * (torch.minimum(below, above) + 1).double() / (count + 1)
    high = (values - reference[-1]).clamp(min=0) / _mean_excess(reference)
    low = (reference[0] - values).clamp(min=0) / _mean_excess(-reference.flip(0))
    return -p.clamp(max=1).log() + high + low


def _mean_excess(ascending: Tensor) -> Tensor:
    """Mean of the largest tenth minus the next smaller value; half the range if that is 0, and 1 if the range is 0."""
    outer = max(1, len(ascending) // 10)
    tail = ascending[-outer:].mean() - ascending[max(0, len(ascending) - outer - 1)]
    half = (ascending[-1] - ascending[0]) / 2
    return torch.where(tail > 0, tail, torch.where(half > 0, half, 1.0))


class TwoSidedScore(Score):
    """Base class of scores that are :func:`two_sided` of one number, which subclasses compute in :meth:`_number`."""

    def __init__(self) -> None:
        super().__init__()
        self.declare(reference=1)

    reference: Tensor
    """The number of each reference row, ascending."""

    @abstractmethod
    def _number(self, x: Tensor) -> Tensor:
        """The number of at most ``batch_size`` rows, ``(n,)``, infinite for a row with an infinite entry."""

    @final
    def numbers(self, x: Tensor) -> Tensor:
        """The number of each row, before ranking, float64, ``(n,)``."""
        with evaluation(self):
            return by_batches(lambda part: self._number(part).double(), self._check(x), self.batch_size)

    def _learn(self, reference: Tensor) -> None:
        self.reference = finite_reference(self.numbers(reference), type(self).__name__).sort().values

    @final
    def _score(self, x: Tensor) -> Tensor:
        return two_sided(self._number(x), self.reference)


@register("scores")
class TwoSided(TwoSidedScore):
    """Two-sided score of any statistic of one column: ``-log(2 min(p_low, p_high))`` of its rank.

    p_low and p_high are conformal p-values among the reference rows. Outside the range of the reference the score continues
    with an exponential tail.

    Args:
        statistic: statistic of one column; it is fitted on the same reference rows.

    Raises:
        ConfigError: for a statistic of several columns; :class:`~pushforward.detection.scores.DoSE` combines several.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import Likelihood, TwoSided
        >>> score = TwoSided(Likelihood(pf.models.NICE(features=2))).fit(torch.randn(99, 2))
        >>> score(torch.zeros(1, 2)) > 2                        # too likely: -log(2 / 100) = 3.9 or more
        tensor([True])
    """

    def __init__(self, statistic: Statistic) -> None:
        super().__init__()
        if not isinstance(statistic, Statistic) or len(statistic.names) != 1:
            raise ConfigError("TwoSided needs a statistic of one column; use DoSE to combine several columns.")
        self.statistic = statistic
        self.needs: frozenset[Need] = statistic.needs  # pyright: ignore[reportIncompatibleVariableOverride]

    def _learn(self, reference: Tensor) -> None:
        self.statistic.fit(reference)
        super()._learn(reference)

    def _number(self, x: Tensor) -> Tensor:
        values = self.statistic.values(x)[:, 0]
        return torch.where(far_rows(x), math.inf, values)
