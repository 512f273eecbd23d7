"""Whether a flow's latents are as long as they should be."""

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
    """The Euclidean norm of z = encode(x), unusual on either side: ``-log(2 min(p_low, p_high))`` of its rank.

    Under a perfect flow ||z||^2 follows chi^2 with D degrees of freedom; ranks among the reference rows hold for any model.
    A flow transforms smooth images to short z, so the short side matters.

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
