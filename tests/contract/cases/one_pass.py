"""Scores of one pass through a model, of several models, of compressors and of distances."""

from __future__ import annotations

from pushforward import distributions, models, transforms
from pushforward.detection import scores

from .kinds import ScoreCase, integers, pair, s


def nice() -> models.Model:
    return models.NICE(2, layers=2, hidden=(16,))


def pixels() -> models.Model:
    return models.ImageNICE(shape=(1, 2, 3), layers=2, hidden=(8,))


def glow() -> models.Model:
    return models.Glow((1, 4, 4), scales=2, layers=1, hidden=(3,), levels=4)


def vae() -> models.Model:
    return models.VAE(3, 2, hidden=(8,))


def over() -> models.Model:
    return models.Flow(transforms.Standardize(2), models.Ensemble(*pair()))


def deep() -> models.Model:
    chain = transforms.Chain(transforms.Variational(4, 3, hidden=(8,)), transforms.Variational(3, 2, hidden=(8,)))
    return models.Flow(chain, distributions.Normal(2))


IMAGES = {"data": integers(256), "shape": (1, 2, 3), "reach": 1.0}
"""Compressors read 8-bit images only, so their rows stay in place."""

SCORES: list[ScoreCase] = [
    s("Typicality", "absolute", lambda: scores.Typicality(nice())),
    s("Typicality", "two-sided", lambda: scores.Typicality(nice(), "two-sided")),
    s("TwoSided", "likelihood", lambda: scores.TwoSided(scores.Likelihood(nice()))),
    s("LatentNorm", "flow", lambda: scores.LatentNorm(nice())),
    s("LatentMahalanobis", "flow", lambda: scores.LatentMahalanobis(nice())),
    s("LatentNeighbors", "flow", lambda: scores.LatentNeighbors(nice(), k=3)),
    s("Neighbors", "image", lambda: scores.Neighbors(), shape=(2, 1, 3)),
    s("Neighbors", "standardized", lambda: scores.Neighbors(1, standardize=True)),
    s("LatentDependence", "vector", lambda: scores.LatentDependence(nice())),
    s("CodeLength", "all", lambda: scores.CodeLength("png", "webp", "zlib", "bz2", "lzma"), **IMAGES),
    s("CodeLength", "two channels", lambda: scores.CodeLength("zlib"), **IMAGES | {"shape": (2, 2, 2)}),
    s("InputComplexity", "fixed", lambda: scores.InputComplexity(pixels()), **IMAGES),
    s(
        "InputComplexity",
        "fitted, two-sided",
        lambda: scores.InputComplexity(pixels(), ("png", "zlib"), form="fitted", two_sided=True),
        **IMAGES,
    ),
    s("LikelihoodPath", "vector", lambda: scores.LikelihoodPath(nice())),
    s(
        "LikelihoodPath",
        "scales",
        lambda: scores.LikelihoodPath(glow(), samples=2),
        integers(4),
        shape=(1, 4, 4),
        reach=1.0,
    ),
    s("LikelihoodPath", "latent variable", lambda: scores.LikelihoodPath(vae()), shape=(3,)),
    s(
        "DoSE",
        "gaussian, statistics that learn",
        lambda: scores.DoSE(scores.LikelihoodPath(pixels()), scores.InputComplexity(pixels(), form="fitted")),
        **IMAGES,
    ),
    s("DoSE", "kde", lambda: scores.DoSE(scores.LikelihoodPath(nice()), scores.Neighbors(2), density="kde")),
    s("DoSE", "gmm", lambda: scores.DoSE(scores.LikelihoodPath(nice()), density="gmm", components=2)),
    s("WAIC", "std", lambda: scores.WAIC(*pair(), weight=2.0, form="std")),
    s("EnsembleLikelihood", "flows", lambda: scores.EnsembleLikelihood(*pair())),
    s("Disagreement", "three", lambda: scores.Disagreement(*pair(), nice(), temperature=5.0)),
    s("EnsembleEntropy", "of an ensemble", lambda: scores.EnsembleEntropy(models.Ensemble(*pair()))),
    s("EnsembleStd", "bounds", lambda: scores.EnsembleStd(vae(), vae(), samples=2), shape=(3,)),
    s("EnsembleTypicality", "over an ensemble", lambda: scores.EnsembleTypicality(over())),
    s("LikelihoodRatio", "two flows", lambda: scores.LikelihoodRatio(*pair())),
    s(
        "GeneralModelRatio",
        "coarsest",
        lambda: scores.GeneralModelRatio(glow(), glow()),
        integers(4),
        shape=(1, 4, 4),
        reach=1.0,
    ),
    s("HierarchicalRatio", "two latents", lambda: scores.HierarchicalRatio(deep(), samples=2), shape=(4,)),
    s("Brightness", "image", scores.Brightness, shape=(1, 2, 3)),
    s("Variance", "image", scores.Variance, shape=(1, 2, 3)),
]
