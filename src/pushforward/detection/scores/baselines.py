"""Baseline scores that need no model: the mean and the variance of a row's values."""

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
    """Two-sided score of the mean of a row's values: ``-log(2 min(p_low, p_high))`` of its rank. Needs no model.

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
    """Two-sided score of the variance of a row's values: ``-log(2 min(p_low, p_high))`` of its rank. Needs no model.

    Models of images assign a higher likelihood to images of low variance (Nalisnick et al. 2019, arXiv 1810.09136, sec. 5).

    Example:
        >>> import torch
        >>> from pushforward.detection.scores import Variance
        >>> Variance().fit(torch.rand(99, 1, 4, 4))(torch.ones(1, 1, 4, 4)) > 2
        tensor([True])
    """

    needs = frozenset()

    def _number(self, x: Tensor) -> Tensor:
        return torch.where(far_rows(x), math.inf, x.flatten(1).double().var(1, correction=0))
