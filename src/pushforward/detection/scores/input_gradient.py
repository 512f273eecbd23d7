"""The norm of the gradient of the log-likelihood with respect to the input."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from pushforward.detection.scores.base import Need, Score
from pushforward.detection.scores.model_outputs import check_model
from pushforward.detection.without_preprocessing import WithoutPreprocessing, differentiable
from pushforward.models import Model
from pushforward.registry import register

__all__ = ["InputGradientNorm"]


@register("scores")
class InputGradientNorm(Score):
    """||d log p(y) / dy||, minus the "approximate mass" of Grathwohl et al. 2020 (arXiv 1912.03263, sec. 5.3).

    log p is steep around a likely point in a region of little mass. y is the input after dequantization, logit and
    standardization, so the score does not depend on units and is defined for integers. For models of integers without
    dequantization it is the gradient of the formula of log p, extended to real numbers.

    Args:
        model: model without a context.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import InputGradientNorm
        >>> score = InputGradientNorm(pf.models.Flow(pf.transforms.Affine(2), pf.distributions.Normal(2)))
        >>> score(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))        # ||x|| for a standard normal
        tensor([0., 5.], dtype=torch.float64)
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"forward", "backward"})

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = check_model(model, type(self).__name__)

    def _score(self, x: Tensor) -> Tensor:
        inner = WithoutPreprocessing(self.model)
        y, added = inner.preprocess(x)
        with differentiable(y) as at:
            value = inner(at)
            slope = torch.zeros_like(at)
            if value.requires_grad:
                (slope,) = torch.autograd.grad(value.sum(), at, allow_unused=True, materialize_grads=True)
        impossible = torch.isneginf(added + value.detach())
        return torch.where(impossible, math.inf, slope.double().flatten(1).norm(dim=1))
