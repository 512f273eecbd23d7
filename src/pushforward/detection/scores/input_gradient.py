"""How steep the log-likelihood is at the input."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from pushforward.detection.scores.base import Need, Score
from pushforward.detection.without_preprocessing import WithoutPreprocessing, differentiable
from pushforward.models import Model
from pushforward.registry import register

__all__ = ["InputGradientNorm"]


@register("scores")
class InputGradientNorm(Score):
    """||d log p(y) / dy||, the "approximate mass" of Grathwohl et al. 2020 (arXiv 1912.03263, sec. 5.3) without its sign.

    A likely point in a region of little mass has steep surroundings. y is the input as the flow sees it, behind
    dequantization, logit and standardization, so that neither units nor integers matter. For models of integers
    without dequantization it is the slope of the formula between them.

    Args:
        model: any model without a context.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import InputGradientNorm
        >>> score = InputGradientNorm(pf.models.Flow(pf.transforms.Affine(2), pf.distributions.Normal(2)))
        >>> score(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))        # of a standard normal, ||x||
        tensor([0., 5.], dtype=torch.float64)
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"forward", "backward"})

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

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
