"""Likelihood ratio against a model of the background (Ren et al. 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.detection.scores.base import Score
from pushforward.detection.scores.model_outputs import check_model, log_likelihood
from pushforward.errors import ConfigError, KindError
from pushforward.models import Model
from pushforward.numerics.checks import check_integer, check_number
from pushforward.registry import register

__all__ = ["LikelihoodRatio", "check_pair", "mutate"]


def mutate(images: Tensor, rate: float, generator: torch.Generator | None = None, levels: int = 256) -> Tensor:
    """Images in which each value is replaced, with probability ``rate``, by a uniform draw from 0, ..., levels - 1.

    What a background model is trained on (Ren et al. 2019, sec. 3; 0.1 to 0.3 there): the semantics are spoilt, and the statistics
    of the background stay. Draw anew for each epoch, and give the model integers, before any dequantization.

    Args:
        images: integers of any type and shape.
        rate: in [0, 1]. A draw may hit the value that was there.
        generator: of the draws.
        levels: how many values there are.

    Returns:
        A new tensor of the same type.

    Raises:
        ConfigError: for a rate outside [0, 1], or levels that are no integer from 1 on, or too many for the type.

    Example:
        >>> import torch
        >>> from pushforward.detection.scores import mutate
        >>> spoilt = mutate(torch.zeros(1000), 0.25, torch.Generator().manual_seed(0))
        >>> bool(200 < (spoilt > 0).sum() < 300)
        True
    """
    check_number("rate", rate, 0, 1, closed="both")
    check_integer("levels", levels)
    if not images.is_floating_point() and levels - 1 > (
        1 if images.dtype is torch.bool else torch.iinfo(images.dtype).max
    ):
        raise ConfigError(f"{images.dtype} does not hold {levels} levels.")
    hit = torch.rand(images.shape, generator=generator, device=images.device) < rate
    drawn = torch.randint(levels, images.shape, generator=generator, device=images.device)
    return torch.where(hit, drawn.to(images.dtype), images)


def check_pair(first: Model, second: Model, owner: str, *, context: bool = True) -> None:
    """Refuse two models whose likelihoods have no ratio.

    Raises:
        ConfigError: for different data shapes, what is no model, or a context where there may be none.
        KindError: for different measures.
    """
    for model in (first, second):
        check_model(model, owner, context=context)
    if first.shape != second.shape:
        raise ConfigError(f"{owner} compares two models of one data shape; got {first.shape} and {second.shape}.")
    if first.measure != second.measure:
        raise KindError(
            f"{owner} cannot compare a density on {first.measure} with one on {second.measure}, which have different units: "
            "bring both models to the same data space."
        )


@register("scores")
class LikelihoodRatio(Score):
    """``-(log p(x) - log p_background(x))``, nats (Ren et al. 2019, arXiv 1906.02845, sec. 3).

    The background model is of the same kind, regularized and trained on mutated inputs (:func:`mutate`), so what both explain
    equally well cancels. Both meet the same noise where they dequantize the same images, and the difference is taken in
    float64. The pair is only as good as the gap between the models is larger than their errors.

    Args:
        foreground: the model of the data.
        background: of the background, or of anything more general.
        samples: draws of the models' own noise, where they have any.

    Raises:
        ConfigError: for different data shapes.
        KindError: for likelihoods on different measures.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import LikelihoodRatio
        >>> model = pf.models.NICE(features=2)
        >>> LikelihoodRatio(model, model)(torch.randn(2, 2)).abs()
        tensor([0., 0.], dtype=torch.float64)
    """

    needs = frozenset({"forward", "second model"})

    def __init__(self, foreground: Model, background: Model, samples: int = 1) -> None:
        super().__init__()
        check_pair(foreground, background, "LikelihoodRatio")
        self.foreground, self.background, self.samples = foreground, background, samples

    def _score(self, x: Tensor) -> Tensor:
        own = log_likelihood(self.foreground, x, self.samples)
        other = log_likelihood(self.background, x, self.samples)
        return torch.where(torch.isneginf(own), math.inf, other - own)
