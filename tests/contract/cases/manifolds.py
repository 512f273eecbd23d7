"""Conformal transforms, embeddings, models of densities on a learned surface."""

from __future__ import annotations

from pushforward import models, transforms
from pushforward.detection import scores
from pushforward.likelihood import Kind, Lebesgue, Manifold

from .kinds import ModelCase, ScoreCase, TransformCase, f, m, s

SURFACE = {"latent_measure": Lebesgue(2), "data_measure": Manifold(2, 3), "bijective": False}


def sphere() -> transforms.ConformalEmbedding:
    return transforms.ConformalEmbedding(
        transforms.ConformalScale(3),
        transforms.Householder(3),
        transforms.SpecialConformal(3, spread=0.5),
        transforms.Pad(3, 2),
    )


def coupled(features: int, context: int = 0) -> transforms.Chain:
    spline = transforms.SplineTransformer(bins=4, bound=3.0)
    return transforms.Chain(
        transforms.Coupling(features, spline, hidden=(8,), context=context),
        transforms.Coupling(features, flip=True, hidden=(8,), context=context),
        transforms.Householder(features),
    )


TRANSFORMS: list[TransformCase] = [
    m("ConformalScale", "D=1", lambda: transforms.ConformalScale(1)),
    m("ConformalScale", "image", lambda: transforms.ConformalScale((2, 3, 2))),
    m("Inversion", "", lambda: transforms.Inversion(3)),
    m("SpecialConformal", "start", lambda: transforms.SpecialConformal(3)),
    m("SpecialConformal", "random", lambda: transforms.SpecialConformal(3, spread=0.5)),
    m("PiecewiseOrthogonal", "D=3", lambda: transforms.PiecewiseOrthogonal(3)),
    m("PiecewiseOrthogonal", "image", lambda: transforms.PiecewiseOrthogonal((2, 1, 3))),
    m("OrthogonalEmbedding", "square", lambda: transforms.OrthogonalEmbedding(3)),
    m("OrthogonalEmbedding", "plane", lambda: transforms.OrthogonalEmbedding(3, 2), **SURFACE),
    m(
        "OrthogonalEmbedding",
        "image",
        lambda: transforms.OrthogonalEmbedding((3, 2, 2), 1),
        latent_measure=Lebesgue(4),
        data_measure=Manifold(4, 12),
        bijective=False,
    ),
    m("Pad", "", lambda: transforms.Pad(3, 2), **SURFACE),
    m("ConformalEmbedding", "sphere", sphere, **SURFACE),
    m("Injective", "surface", lambda: transforms.Injective(coupled(3), 2), **SURFACE),
    m(
        "Injective",
        "curve, context",
        lambda: transforms.Injective(coupled(2, 2), 1),
        latent_measure=Lebesgue(1),
        data_measure=Manifold(1, 2),
        bijective=False,
    ),
    m(
        "FreeFormEmbedding",
        "",
        lambda: transforms.FreeFormEmbedding(3, 2, hidden=(8,)),
        kind=Kind.ESTIMATE,
        noisy=False,
        **SURFACE,
    ),
]

ON_SURFACE = {"measure": Manifold(2, 3), "invertible": False}

MODELS: list[ModelCase] = [
    f(
        "ConformalEmbeddingFlow",
        "sphere",
        lambda: models.ConformalEmbeddingFlow(3, 2, layers=2, hidden=(8,)),
        **ON_SURFACE,
    ),
    f(
        "RectangularFlow",
        "surface",
        lambda: models.RectangularFlow(3, 2, layers=2, hidden=(8,), latent_layers=2, latent_hidden=(8,)),
        exports=False,
        **ON_SURFACE,
    ),
    f(
        "RectangularFlow",
        "images",
        lambda: models.RectangularFlow((1, 4, 4), 2, layers=2, hidden=(4,), latent_layers=2, latent_hidden=(8,)),
        measure=Manifold(2, 16),
        invertible=False,
        exports=False,
    ),
    f(
        "RectangularFlow",
        "free-form curve",
        lambda: models.RectangularFlow(3, 1, decoder="free-form", volume="encoder", noise=0.01, hidden=(8,)),
        kind=Kind.ESTIMATE,
        measure=Manifold(1, 3),
        invertible=False,
        noisy=False,
        exports=False,
    ),
]


def tube() -> models.Model:
    return models.RectangularFlow(3, 2, layers=2, hidden=(8,), latent_layers=2, latent_hidden=(8,))


SCORES: list[ScoreCase] = [
    s("ManifoldLikelihood", "both", lambda: scores.ManifoldLikelihood(tube()), shape=(3,)),
    s("ManifoldLikelihood", "residual", lambda: scores.ManifoldLikelihood(tube(), use="residual"), shape=(3,)),
]
