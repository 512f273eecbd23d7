"""A weighted sum of scores, each on the scale of its tail probability among reference rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pushforward.detection.batching import by_batches
from pushforward.detection.scores.base import Need, Score
from pushforward.detection.scores.model_outputs import far_rows, finite_reference
from pushforward.errors import ConfigError
from pushforward.numerics.checks import check_number
from pushforward.registry import register

__all__ = ["SurpriseSum", "surprise", "surprise_scale"]

_LEVELS = 46
"""Number of quantiles that are stored: from the smallest value to the 90th percentile, 2 percent apart."""
_LEAST_EXCESS = 0.02
"""Smallest scale of a tail, in units of the score: with few rows or equal values an exponential tail would be too short."""


def surprise(values: Tensor, knots: Tensor, levels: Tensor, excess: Tensor) -> Tensor:
    """-log tail probability of values, nats, ``(n,)``: it rises without bound, and is continuous.

    Between quantiles it is interpolated; beyond the last one, u, it is the last level plus (v - u) / excess, the tail of an
    exponential distribution.

    Args:
        values: float64, ``(n,)``.
        knots: quantiles of the reference values, ascending, ``(K,)``.
        levels: -log of the fraction of reference values above each quantile, ``(K,)``.
        excess: mean of what reference values beyond the last quantile exceed it by, ``()``.
    """
    # A value that equals several knots is at the first of them, whose level counts all that are as large.
    low = ((values[:, None] > knots).sum(1) - 1).clamp(0, len(knots) - 2)
    width, over = knots[low + 1] - knots[low], values - knots[low]
    some = width > 0
    part = torch.where(some, over / torch.where(some, width, 1.0), torch.sign(over)).clamp(0.0, 1.0)
    inside = levels[low] + part * (levels[low + 1] - levels[low])
    return inside + (values - knots[-1]).clamp(min=0.0) / excess


def surprise_scale(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The quantiles, their levels and the excess of :func:`surprise` from reference values.

    Args:
        values: of each score, finite, float64, ``(n, scores)``.

    Returns:
        Knots ``(scores, K)``, levels ``(K,)`` and excess ``(scores,)``.
    """
    above = torch.linspace(1.0, 0.1, _LEVELS, dtype=torch.float64, device=values.device)
    knots = torch.quantile(values, 1.0 - above, dim=0).T.contiguous()
    beyond = (values - knots[:, -1]).clamp(min=0.0)
    counts = (beyond > 0).sum(0).clamp(min=1)
    return knots, -above.log(), (beyond.sum(0) / counts).clamp(min=_LEAST_EXCESS)


@register("scores")
class SurpriseSum(Score):
    """sum_k w_k t_k(x), where t_k = -log P(s_k >= s_k(x)) is the tail probability of score k among reference rows, in nats.

    On this scale scores of different kinds can be added: an input that one of them finds very unusual has a large sum,
    whatever the others say (the sum of Fisher 1932 with weights, as in the pool of tables). Up to the 90th percentile of the
    reference rows the tail probability is their fraction, interpolated; beyond, it is that of an exponential distribution.
    The sum promises nothing: calibrate it on other rows.

    Scores that are fitted stay as they are, since some need training rows and others held-out rows.

    Args:
        scores: at least one :class:`~pushforward.detection.scores.Score`.
        weights: of each score, from 0; None for 1. A score with the weight 0 is not evaluated.

    Raises:
        ConfigError: for no scores, or weights that do not fit them.
        InputError: by :meth:`fit`, for an infinite score of a reference row.

    Example:
        >>> import torch
        >>> from pushforward.detection.scores import Brightness, Neighbors, SurpriseSum
        >>> rows = torch.rand(500, 4, generator=torch.Generator().manual_seed(0))
        >>> score = SurpriseSum(Neighbors().fit(rows[:250]), Brightness(), weights=(2.0, 1.0)).fit(rows[250:])
        >>> bool(score(torch.full((1, 4), 2.0)) > score(rows[250:]).max())
        True
    """

    def __init__(self, *scores: Score, weights: tuple[float, ...] | None = None) -> None:
        super().__init__()
        if not scores or not all(isinstance(part, Score) for part in scores):
            raise ConfigError("SurpriseSum adds scores: pass at least one Score.")
        if weights is not None and len(weights) != len(scores):
            raise ConfigError(f"SurpriseSum needs one weight for each of {len(scores)} scores; got {len(weights)}.")
        for weight in weights or ():
            check_number("weights", weight, 0, math.inf, closed="left")
        if weights is not None and not any(weights):
            raise ConfigError("SurpriseSum needs a weight above 0.")
        self.scores = nn.ModuleList(scores)
        self.weights = None if weights is None else tuple(weights)
        self.needs: frozenset[Need] = frozenset().union(*(part.needs for part in scores))  # pyright: ignore[reportIncompatibleVariableOverride]
        self.declare(knots=2, levels=1, excess=1, factors=1)

    knots: Tensor
    levels: Tensor
    excess: Tensor
    factors: Tensor

    def terms(self, x: Tensor) -> Tensor:
        """w_k t_k of each row and each score with a weight above 0, nats, float64, ``(n, scores)``."""
        return self.combine(torch.stack([part(x) for part in self.used()], 1))

    def combine(self, values: Tensor) -> Tensor:
        """w_k t_k of the values ``(n, scores)`` of the scores with a weight above 0."""
        columns = [
            self.factors[k] * surprise(values[:, k], self.knots[k], self.levels, self.excess[k])
            for k in range(values.shape[1])
        ]
        return torch.stack(columns, 1)

    def used(self) -> list[Score]:
        """The scores with a weight above 0."""
        weights = self.weights or (1.0,) * len(self.scores)
        return [part for part, weight in zip(self.scores, weights, strict=True) if weight]  # pyright: ignore[reportReturnType]

    def _learn(self, reference: Tensor) -> None:
        for part in self.used():
            if not part.fitted:
                part.fit(reference)
        found = by_batches(lambda x: torch.stack([part(x) for part in self.used()], 1), reference, self.batch_size)
        values = finite_reference(found, "a score")
        self.knots, self.levels, self.excess = surprise_scale(values)
        self.factors = values.new_tensor([weight for weight in self.weights or (1.0,) * len(self.scores) if weight])

    def _score(self, x: Tensor) -> Tensor:
        far = far_rows(x)
        return torch.where(far, math.inf, self.terms(x).sum(1))
