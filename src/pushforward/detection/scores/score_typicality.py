"""Combination of a typicality test and the Fisher score."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from pushforward.detection.batching import by_batches
from pushforward.detection.scores.base import Need, Score
from pushforward.detection.scores.model_outputs import check_model, finite_reference
from pushforward.detection.scores.parameter_gradients import FisherScore
from pushforward.errors import InputError
from pushforward.models import Model
from pushforward.registry import register

__all__ = ["ScoreTypicality", "p_above"]


@register("scores")
class ScoreTypicality(Score):
    """-2 (log p_1 + log p_2): Fisher's combination of a typicality test and a score test (Bergamin et al. 2022,
    arXiv 2203.01097, sec. 3.3).

    p_1 is the p-value of |-log p(x) - H|, where H is the mean of -log p (Nalisnick et al. 2019), and p_2 is the p-value of
    :class:`FisherScore`. Each is (1 + #{reference >= x}) / (n + 1) on the second half of the reference. H and the Fisher
    information are fitted on the first half, because the statistics of the rows used for fitting are biased.

    p_1 and p_2 are dependent, so the sum does not follow the chi-squared distribution with 4 degrees of freedom of Fisher's
    method. Calibrate it on separate rows, like any score (:class:`~pushforward.detection.ConformalCalibrator`). Rows that are more
    extreme than all reference rows in both tests have the same score, 4 log(n + 1).

    Args:
        model: model with weights and without a context.
        damping: see :class:`FisherScore`.

    Raises:
        ConfigError: for a damping that is not positive.
        InputError: by :meth:`fit`, for fewer than two rows.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import ScoreTypicality
        >>> flow = pf.models.Flow(pf.transforms.Affine(2, trainable=True), pf.distributions.Normal(2))
        >>> draw = torch.Generator().manual_seed(0)
        >>> score = ScoreTypicality(flow).fit(torch.randn(200, 2, generator=draw))
        >>> score(torch.full((1, 2), 9.0))          # both p-values are 1/101
        tensor([18.4605], dtype=torch.float64)
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"forward", "backward"})
    batch_size: ClassVar[int] = 64
    entropy: Tensor
    deviations: Tensor
    norms: Tensor

    def __init__(self, model: Model, damping: float = 1e-8) -> None:
        super().__init__()
        self.damping = damping
        self.model = check_model(model, type(self).__name__)
        self.test = FisherScore(model, damping)
        self.declare(entropy=0, deviations=1, norms=1)

    def _learn(self, reference: Tensor) -> None:
        if len(reference) < 2:
            raise InputError("ScoreTypicality.fit splits the reference into two halves: pass at least two rows.")
        surprise = finite_reference(by_batches(self._surprise, reference, self.batch_size), "-log p")
        first, second = reference.tensor_split(2)
        self.test.fit(first)
        own, others = surprise.tensor_split(2)
        self.entropy = own.mean()
        self.deviations = (others - self.entropy).abs().sort().values
        self.norms = self.test(second).sort().values

    def _score(self, x: Tensor) -> Tensor:
        surprise = self._surprise(x)
        p_typicality = p_above(self.deviations, (surprise - self.entropy).abs())
        p_score = p_above(self.norms, self.test._score(x))
        return torch.where(torch.isposinf(surprise), math.inf, -2 * (p_typicality.log() + p_score.log()))

    def _surprise(self, x: Tensor) -> Tensor:
        return -self.model.evaluate(x).value.double()


def p_above(reference: Tensor, values: Tensor) -> Tensor:
    """(1 + #{reference >= value}) / (n + 1) for each value; the reference is in ascending order."""
    below = torch.searchsorted(reference, values.to(reference.dtype), side="left")
    return (1 + len(reference) - below).double() / (len(reference) + 1)
