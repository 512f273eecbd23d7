"""Pixels: laws of integers, PixelCNN, variational autoencoders, transformer flows."""

from __future__ import annotations

from typing import Any

from pushforward import bases, maps, models
from pushforward.measure import Counting, Relation

from .kinds import SPLINE, BaseCase, Case, MapCase, ModelCase, b, f, integers, m

VAE: dict[str, Any] = {"relation": Relation.LOWER, "invertible": False, "draws": True}
SMALL: dict[str, Any] = {"width": 8, "layers": 1, "heads": 2}
TINY: dict[str, Any] = {"filters": 6, "layers": 2, "first_kernel": 3}

LIKELIHOODS: list[Case] = [
    Case("likelihoods.BernoulliLikelihood", "", maps.BernoulliLikelihood),
    Case("likelihoods.CategoricalLikelihood", "", lambda: maps.CategoricalLikelihood(5)),
    Case("likelihoods.GaussianLikelihood", "", maps.GaussianLikelihood),
    Case("likelihoods.GaussianMixtureLikelihood", "", lambda: maps.GaussianMixtureLikelihood(2)),
    Case("likelihoods.LogisticLikelihood", "", lambda: maps.LogisticLikelihood(5, 2)),
]

MAPS: list[MapCase] = [
    m("Integers", "image", lambda: maps.Integers((1, 2, 2), levels=4), integers(4)),
    m(
        "DynamicBinarize",
        "image",
        lambda: maps.DynamicBinarize((1, 2, 2), levels=8),
        integers(8),
        relation=Relation.ESTIMATE,
        bijective=False,
    ),
    m(
        "Variational",
        "image, convolutions, flow",
        lambda: maps.Variational(
            (1, 3, 2),
            2,
            maps.LogisticLikelihood(4, 1),
            maps.Inverse(maps.MaskedAutoregressive(2, context=3, hidden=(8,))),
            channels=(4,),
        ),
        integers(4),
        relation=Relation.LOWER,
        data_measure=Counting(6),
        bijective=False,
    ),
    m(
        "Variational",
        "vector",
        lambda: maps.Variational(3, 2, hidden=(8,)),
        relation=Relation.LOWER,
        bijective=False,
    ),
    m(
        "Variational",
        "image, context",
        lambda: maps.Variational((1, 2, 2), 2, maps.LogisticLikelihood(4, 1), channels=(4,), context=3),
        integers(4),
        relation=Relation.LOWER,
        data_measure=Counting(4),
        bijective=False,
    ),
    m("Patches", "colour", lambda: maps.Patches((2, 4, 2), patch=2)),
    m("TokenAutoregressive", "flip, context", lambda: maps.TokenAutoregressive((3, 2), flip=True, context=2, **SMALL)),
    m("TokenAutoregressive", "spline, one token", lambda: maps.TokenAutoregressive((1, 2), SPLINE, **SMALL)),
]

PLUSPLUS: dict[str, Any] = {"filters": 4, "layers": 1, "scales": 2}

DISCRETE_BASES: list[BaseCase] = [
    b(
        "PixelCNN",
        "plusplus, mixture",
        lambda: bases.PixelCNN((2, 2, 3), maps.LogisticLikelihood(4, 2), kind="plusplus", **PLUSPLUS),
        integers(4),
    ),
    b("PixelCNN", "mixture", lambda: bases.PixelCNN((2, 2, 3), maps.LogisticLikelihood(4, 2), **TINY), integers(4)),
]
"""Bases that count. What holds of them is tested through their models; the tests of densities do not apply."""

MODELS: list[ModelCase] = [
    f(
        "PixelCNN",
        "grey, context",
        lambda: models.PixelCNN((1, 3, 2), 4, 2, **TINY),
        integers(4),
        measure=Counting(6),
        fast="log_prob",
    ),
    f(
        "PixelCNN",
        "colour",
        lambda: models.PixelCNN((2, 2, 2), 3, **TINY),
        integers(3),
        measure=Counting(8),
        fast="log_prob",
    ),
    f(
        "PixelCNN",
        "plusplus, colour, context",
        lambda: models.PixelCNN(
            (2, 3, 2), 3, 2, network="plusplus", output="logistic", components=2, dropout=0.2, **PLUSPLUS
        ),
        integers(3),
        measure=Counting(12),
        fast="log_prob",
    ),
    f(
        "VAE",
        "grey, convolutions, iaf",
        lambda: models.VAE((1, 3, 3), 2, levels=4, channels=(4,), posterior="iaf", steps=1, posterior_hidden=(8,)),
        integers(4),
        measure=Counting(9),
        **VAE,
    ),
    f(
        "VAE",
        "binary, nsf, prior",
        lambda: models.VAE(
            (1, 2, 2),
            2,
            decoder="bernoulli",
            posterior="nsf",
            steps=1,
            posterior_hidden=(8,),
            prior=models.NICE(2, couplings=2, hidden=(8,), standardize=False),
            hidden=(8,),
        ),
        integers(2),
        measure=Counting(4),
        **VAE,
    ),
    f(
        "VAE",
        "binarised, free bits",
        lambda: models.VAE((1, 2, 2), 2, decoder="bernoulli", binarize=True, levels=8, hidden=(8,), free_bits=0.1),
        integers(8),
        measure=Counting(4),
        **(VAE | {"relation": Relation.ESTIMATE}),
    ),
    f("VAE", "vector", lambda: models.VAE(3, 2, hidden=(8,)), **VAE),
    f("VAE", "vector, context", lambda: models.VAE(3, 2, 2, hidden=(8,)), **VAE),
    f(
        "VAE",
        "grey, convolutions, context",
        lambda: models.VAE((1, 3, 2), 2, 2, levels=4, channels=(4,)),
        integers(4),
        measure=Counting(6),
        **VAE,
    ),
    f(
        "TarFlow",
        "real, context",
        lambda: models.TarFlow((2, 1, 2), 1, None, 2, blocks=2, noise=0.1, **SMALL),
        fast="log_prob",
    ),
    f(
        "TarFlow",
        "grey",
        lambda: models.TarFlow((1, 2, 2), 1, 4, blocks=1, **SMALL),
        integers(4),
        relation=Relation.LOWER,
        measure=Counting(4),
        fast="log_prob",
    ),
]
