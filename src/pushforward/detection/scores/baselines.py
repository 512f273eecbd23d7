"""The mean and the variance of a row's own numbers: what a score must beat."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.detection.scores.model_outputs import far_rows
from pushforward.detection.scores.two_sided import TwoSidedScore
from pushforward.registry import register

__all__ = ["Brightness", "Variance"]


@register("scores")
class Brightness(TwoSidedScore):
    """The mean of all numbers of a row, unusual on either side: ``-log(2 min(p_low, p_high))`` of its rank. No model.

    Example:
        >>> import torch
        >>> from pushforward.detection.scores import Brightness
        >>> Brightness().fit(torch.rand(99, 1, 4, 4))(torch.ones(1, 1, 4, 4)) > 2
        tensor([True])
    """

    needs = frozenset()

    def _number(self, x: Tensor) -> Tensor:
        return torch.where(far_rows(x), math.inf, x.flatten(1).double().mean(1))


@register("scores")
class Variance(TwoSidedScore):
    """The variance of all numbers of a row, unusual on either side: ``-log(2 min(p_low, p_high))`` of its rank. No model.

    Likelihoods of images follow it: low variance is likely (Nalisnick et al. 2019, arXiv 1810.09136, sec. 5).

    Example:
        >>> import torch
        >>> from pushforward.detection.scores import Variance
        >>> Variance().fit(torch.rand(99, 1, 4, 4))(torch.ones(1, 1, 4, 4)) > 2
        tensor([True])
    """

    needs = frozenset()

    def _number(self, x: Tensor) -> Tensor:
        return torch.where(far_rows(x), math.inf, x.flatten(1).double().var(1, correction=0))
