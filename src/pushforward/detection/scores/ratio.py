"""Likelihood ratio against a background model (Ren et al. 2019)."""

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
    """Replace each value of the images, with probability ``rate``, by a uniform draw from 0, ..., levels - 1.

    A background model is trained on such images (Ren et al. 2019, sec. 3, with rates from 0.1 to 0.3): mutation destroys the
    semantics and keeps the statistics of the background. Mutate anew in each epoch, and before any dequantization.

    Args:
        images: integers of any type and shape.
        rate: probability of a replacement, in [0, 1]. The new value may equal the old one.
        generator: generator of the draws.
        levels: number of values.

    Returns:
        A new tensor of the same type.

    Raises:
        ConfigError: for a rate outside [0, 1], or ``levels`` that are below 1 or too many for the type.

    Example:
        >>> import torch
        >>> from pushforward.detection.scores import mutate
        >>> mutated = mutate(torch.zeros(1000), 0.25, torch.Generator().manual_seed(0))
        >>> bool(200 < (mutated > 0).sum() < 300)
        True
    """
    check_number("rate", rate, 0, 1, closed="both")
    check_integer("levels", levels)
    if not images.is_floating_point() and levels - 1 > (
        1 if images.dtype is torch.bool else torch.iinfo(images.dtype).max
    ):
        raise ConfigError(f"{images.dtype} cannot represent {levels} levels: use another dtype or fewer levels.")
    hit = torch.rand(images.shape, generator=generator, device=images.device, dtype=torch.float32) < rate
    drawn = torch.randint(levels, images.shape, generator=generator, device=images.device)
    return torch.where(hit, drawn.to(images.dtype), images)


def check_pair(first: Model, second: Model, owner: str, *, context: bool = True) -> None:
    """Check that the likelihoods of two models can be compared.

    Raises:
        ConfigError: for different data shapes, an argument that is not a model, or a context that is not allowed.
        KindError: for different measures.
    """
    for model in (first, second):
        check_model(model, owner, context=context)
    if first.shape != second.shape:
        raise ConfigError(f"{owner} needs two models of the same data shape; got {first.shape} and {second.shape}.")
    if first.measure != second.measure:
        raise KindError(
            f"{owner} cannot compare a density on {first.measure} with one on {second.measure}, which have different units: "
            "use two models of the same data space."
        )


@register("scores")
class LikelihoodRatio(Score):
    """``-(log p(x) - log p_background(x))``, nats (Ren et al. 2019, arXiv 1906.02845, sec. 3).

    The background model has the same architecture, is regularized, and is trained on mutated inputs (:func:`mutate`), so that
    features that both models explain equally well cancel. Both models dequantize with the same noise, and the difference is
    computed in float64. The score is useful only if the difference between the models exceeds their errors.

    Args:
        foreground: model of the data.
        background: model of the background, or a more general model.
        samples: number of draws of the models' noise, for stochastic models.

    Raises:
        ConfigError: for different data shapes.
        KindError: for models with different measures.

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
        self.foreground, self.background = foreground, background
        self.samples = check_integer("samples", samples)

    def _score(self, x: Tensor) -> Tensor:
        own = log_likelihood(self.foreground, x, self.samples)
        other = log_likelihood(self.background, x, self.samples)
        return torch.where(torch.isneginf(own), math.inf, other - own)
