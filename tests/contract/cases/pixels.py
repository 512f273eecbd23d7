"""Pixels: laws of integers, PixelCNN, variational autoencoders, transformer flows."""

from __future__ import annotations

from typing import Any

from pushforward import bases, maps, models
from pushforward.measure import Counting

from .kinds import BaseCase, Case, MapCase, ModelCase, b, f, integers, m

TINY: dict[str, Any] = {"filters": 6, "layers": 2, "first_kernel": 3}

LIKELIHOODS: list[Case] = [
    Case("likelihoods.BernoulliLikelihood", "", maps.BernoulliLikelihood),
    Case("likelihoods.CategoricalLikelihood", "", lambda: maps.CategoricalLikelihood(5)),
    Case("likelihoods.GaussianLikelihood", "", maps.GaussianLikelihood),
    Case("likelihoods.LogisticLikelihood", "", lambda: maps.LogisticLikelihood(5, 2)),
]

PIXEL_MAPS: list[MapCase] = [
    m("Integers", "image", lambda: maps.Integers((1, 2, 2), levels=4), integers(4)),
]

DISCRETE_BASES: list[BaseCase] = [
    b("PixelCNN", "mixture", lambda: bases.PixelCNN((2, 2, 3), maps.LogisticLikelihood(4, 2), **TINY), integers(4)),
]
"""Bases that count. What holds of them is tested through their models; the tests of densities do not apply."""

PIXEL_MODELS: list[ModelCase] = [
    f("PixelCNN", "grey, context", lambda: models.PixelCNN((1, 3, 2), 4, 2, **TINY), integers(4), measure=Counting(6)),
    f("PixelCNN", "colour", lambda: models.PixelCNN((2, 2, 2), 3, **TINY), integers(3), measure=Counting(8)),
]
