"""Scores that ask whether a number is unusual on either side, among those of in-distribution rows."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import final

import torch
from torch import Tensor

from pushforward.detection.batching import by_batches
from pushforward.detection.scores.base import Need, Score, Statistic
from pushforward.detection.scores.model_outputs import far_rows, finite_reference
from pushforward.errors import ConfigError
from pushforward.registry import register

__all__ = ["TwoSided", "TwoSidedScore", "two_sided"]


def two_sided(values: Tensor, reference: Tensor) -> Tensor:
    """-log p with p = min(1, 2 min(p_low, p_high)), the two-sided rank among m reference values, plus an excess beyond them.

    p_low = (1 + #{r <= v}) / (m + 1), and p_high likewise with >=: conformal p-values of either side. Beyond the outermost
    reference value all ranks are equal; there p falls on as an exponential tail does that is fitted to the outermost tenth,
    -log p + (v - max) / (mean excess), so that farther is higher and infinitely far is +inf.

    Args:
        values: ``(n,)``.
        reference: ``(m,)``, ascending.
    """
    values, count = values.double(), len(reference)
    below = torch.searchsorted(reference, values, right=True)
    above = count - torch.searchsorted(reference, values)
    p = 2 * (torch.minimum(below, above) + 1).double() / (count + 1)
    high = (values - reference[-1]).clamp(min=0) / _mean_excess(reference)
    low = (reference[0] - values).clamp(min=0) / _mean_excess(-reference.flip(0))
    return -p.clamp(max=1).log() + high + low


def _mean_excess(ascending: Tensor) -> Tensor:
    """Mean of the outermost tenth over the value before it; where all of these are equal, half the range, or 1."""
    outer = max(1, len(ascending) // 10)
    tail = ascending[-outer:].mean() - ascending[max(0, len(ascending) - outer - 1)]
    half = (ascending[-1] - ascending[0]) / 2
    return torch.where(tail > 0, tail, torch.where(half > 0, half, 1.0))


class TwoSidedScore(Score):
    """A score that is :func:`two_sided` of one number; subclasses are leaves and say which, in :meth:`_number`."""

    def __init__(self) -> None:
        super().__init__()
        self.declare(reference=1)

    reference: Tensor
    """The number of each reference row, ascending."""

    @abstractmethod
    def _number(self, x: Tensor) -> Tensor:
        """The number of at most ``batch_size`` rows, ``(n,)``, infinite for a row that is infinitely far."""

    @final
    def numbers(self, x: Tensor) -> Tensor:
        """The number of each row before it is ranked, float64, ``(n,)``."""
        return by_batches(lambda part: self._number(part).double(), self._check(x), self.batch_size)

    def _learn(self, reference: Tensor) -> None:
        self.reference = finite_reference(self.numbers(reference), type(self).__name__).sort().values

    @final
    def _score(self, x: Tensor) -> Tensor:
        return two_sided(self._number(x), self.reference)


@register("scores")
class TwoSided(TwoSidedScore):
    """Any statistic of one column as a score, unusual on either side: ``-log(2 min(p_low, p_high))`` of its rank.

    The ranks are conformal p-values among the reference rows, with an exponential tail beyond the outermost of them.

    Args:
        statistic: of one column; it is fitted on the same reference rows.

    Raises:
        ConfigError: if it has several columns, which :class:`~pushforward.detection.scores.DoSE` joins.

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
            raise ConfigError("TwoSided takes a statistic of one column; DoSE joins several.")
        self.statistic = statistic
        self.needs: frozenset[Need] = statistic.needs  # pyright: ignore[reportIncompatibleVariableOverride]

    def _learn(self, reference: Tensor) -> None:
        self.statistic.fit(reference)
        super()._learn(reference)

    def _number(self, x: Tensor) -> Tensor:
        values = self.statistic.values(x)[:, 0]
        return torch.where(far_rows(x), math.inf, values)
