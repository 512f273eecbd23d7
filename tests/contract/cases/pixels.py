"""Pixels: distributions of integers, PixelCNN, variational autoencoders, transformer flows."""

from __future__ import annotations

from typing import Any

from pushforward import distributions, models, transforms
from pushforward.likelihood import Counting, Kind

from .kinds import SPLINE, Case, DistributionCase, ModelCase, TransformCase, b, f, integers, m

VAE: dict[str, Any] = {"kind": Kind.LOWER_BOUND, "invertible": False, "draws": True}
SMALL: dict[str, Any] = {"width": 8, "layers": 1, "heads": 2}
TINY: dict[str, Any] = {"filters": 6, "layers": 2, "first_kernel_size": 3}

LIKELIHOODS: list[Case] = [
    Case("likelihoods.BernoulliLikelihood", "", transforms.BernoulliLikelihood),
    Case("likelihoods.CategoricalLikelihood", "", lambda: transforms.CategoricalLikelihood(5)),
    Case("likelihoods.GaussianLikelihood", "", transforms.GaussianLikelihood),
    Case("likelihoods.GaussianMixtureLikelihood", "", lambda: transforms.GaussianMixtureLikelihood(2)),
    Case("likelihoods.LogisticLikelihood", "", lambda: transforms.LogisticLikelihood(5, 2)),
]

TRANSFORMS: list[TransformCase] = [
    m("Integers", "image", lambda: transforms.Integers((1, 2, 2), levels=4), integers(4)),
    m(
        "DynamicBinarize",
        "image",
        lambda: transforms.DynamicBinarize((1, 2, 2), levels=8),
        integers(8),
        kind=Kind.ESTIMATE,
        bijective=False,
    ),
    m(
        "Variational",
        "image, convolutions, flow",
        lambda: transforms.Variational(
            (1, 3, 2),
            2,
            transforms.LogisticLikelihood(4, 1),
            transforms.Inverse(transforms.MaskedAutoregressive(2, context=3, hidden=(8,))),
            channels=(4,),
        ),
        integers(4),
        kind=Kind.LOWER_BOUND,
        data_measure=Counting(6),
        bijective=False,
    ),
    m(
        "Variational",
        "vector",
        lambda: transforms.Variational(3, 2, hidden=(8,)),
        kind=Kind.LOWER_BOUND,
        bijective=False,
    ),
    m(
        "Variational",
        "image, context",
        lambda: transforms.Variational((1, 2, 2), 2, transforms.LogisticLikelihood(4, 1), channels=(4,), context=3),
        integers(4),
        kind=Kind.LOWER_BOUND,
        data_measure=Counting(4),
        bijective=False,
    ),
    m("Patches", "color", lambda: transforms.Patches((2, 4, 2), patch=2)),
    m(
        "TokenAutoregressive",
        "flip, context",
        lambda: transforms.TokenAutoregressive((3, 2), flip=True, context=2, **SMALL),
    ),
    m("TokenAutoregressive", "spline, one token", lambda: transforms.TokenAutoregressive((1, 2), SPLINE, **SMALL)),
]

PLUSPLUS: dict[str, Any] = {"filters": 4, "layers": 1, "scales": 2}

DISCRETE_DISTRIBUTIONS: list[DistributionCase] = [
    b(
        "PixelCNN",
        "plusplus, mixture",
        lambda: distributions.PixelCNN((2, 2, 3), transforms.LogisticLikelihood(4, 2), network="plusplus", **PLUSPLUS),
        integers(4),
    ),
    b(
        "PixelCNN",
        "mixture",
        lambda: distributions.PixelCNN(
            (2, 2, 3), transforms.LogisticLikelihood(4, 2), filters=6, layers=2, first_kernel_size=3
        ),
        integers(4),
    ),
]
"""Bases that count. What holds of them is tested through their models; the tests of densities do not apply."""

MODELS: list[ModelCase] = [
    f(
        "PixelCNN",
        "gray, context",
        lambda: models.PixelCNN((1, 3, 2), 4, 2, **TINY),
        integers(4),
        measure=Counting(6),
        fast="log_prob",
    ),
    f(
        "PixelCNN",
        "color",
        lambda: models.PixelCNN((2, 2, 2), 3, **TINY),
        integers(3),
        measure=Counting(8),
        fast="log_prob",
    ),
    f(
        "PixelCNN",
        "plusplus, color, context",
        lambda: models.PixelCNN(
            (2, 3, 2), 3, 2, network="plusplus", output="logistic", components=2, dropout=0.2, **PLUSPLUS
        ),
        integers(3),
        measure=Counting(12),
        fast="log_prob",
    ),
    f(
        "VAE",
        "gray, convolutions, iaf",
        lambda: models.VAE(
            (1, 3, 3), 2, levels=4, channels=(4,), posterior="iaf", posterior_layers=1, posterior_hidden=(8,)
        ),
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
            posterior_layers=1,
            posterior_hidden=(8,),
            prior=models.NICE(2, layers=2, hidden=(8,), standardize=False),
            hidden=(8,),
        ),
        integers(2),
        measure=Counting(4),
        **VAE,
    ),
    f(
        "VAE",
        "binarized, free bits",
        lambda: models.VAE((1, 2, 2), 2, decoder="bernoulli", binarize=True, levels=8, hidden=(8,), free_bits=0.1),
        integers(8),
        measure=Counting(4),
        **(VAE | {"kind": Kind.ESTIMATE}),
    ),
    f("VAE", "vector", lambda: models.VAE(3, 2, hidden=(8,)), **VAE),
    f("VAE", "vector, context", lambda: models.VAE(3, 2, 2, hidden=(8,)), **VAE),
    f(
        "VAE",
        "gray, convolutions, context",
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
        "gray",
        lambda: models.TarFlow((1, 2, 2), 1, 4, blocks=1, **SMALL),
        integers(4),
        kind=Kind.LOWER_BOUND,
        measure=Counting(4),
        fast="log_prob",
    ),
]
