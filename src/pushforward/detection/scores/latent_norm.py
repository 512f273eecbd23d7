"""The norm of the latents, as a two-sided score."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.detection.scores.model_outputs import check_model, far_rows, latents
from pushforward.detection.scores.two_sided import TwoSidedScore
from pushforward.models import Model
from pushforward.registry import register

__all__ = ["LatentNorm"]


@register("scores")
class LatentNorm(TwoSidedScore):
    """Two-sided score of the Euclidean norm of z = encode(x): ``-log(2 min(p_low, p_high))`` of its rank.

    Under a perfect flow ||z||^2 follows chi^2 with D degrees of freedom; the ranks among reference rows are valid for any
    model. A flow encodes smooth images to z of small norm, so small norms must count as unusual too.

    Args:
        model: any model.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import LatentNorm
        >>> score = LatentNorm(pf.models.NICE(features=2)).fit(torch.randn(99, 2))
        >>> score(torch.tensor([[0.0, 0.0], [9.0, 9.0]])) > 2
        tensor([True, True])
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = check_model(model, "LatentNorm")

    def _number(self, x: Tensor) -> Tensor:
        return torch.where(far_rows(x), math.inf, latents(self.model, x).norm(dim=1))
