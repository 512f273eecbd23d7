"""Conformal maps, embeddings, models of densities on a learned surface."""

from __future__ import annotations

from pushforward import maps, models
from pushforward.detection import scores
from pushforward.measure import Lebesgue, Manifold, Relation

from .kinds import MapCase, ModelCase, ScoreCase, f, m, s

SURFACE = {"latent_measure": Lebesgue(2), "data_measure": Manifold(2, 3), "bijective": False}


def sphere() -> maps.ConformalEmbedding:
    return maps.ConformalEmbedding(
        maps.ConformalScale(3), maps.Householder(3), maps.SpecialConformal(3, spread=0.5), maps.Pad(3, 2)
    )


def coupled(features: int, context: int = 0) -> maps.Chain:
    spline = maps.SplineTransformer(bins=4, bound=3.0)
    return maps.Chain(
        maps.Coupling(features, spline, hidden=(8,), context=context),
        maps.Coupling(features, flip=True, hidden=(8,), context=context),
        maps.Householder(features),
    )


MAPS: list[MapCase] = [
    m("ConformalScale", "D=1", lambda: maps.ConformalScale(1)),
    m("ConformalScale", "image", lambda: maps.ConformalScale((2, 3, 2))),
    m("Inversion", "", lambda: maps.Inversion(3)),
    m("SpecialConformal", "start", lambda: maps.SpecialConformal(3)),
    m("SpecialConformal", "random", lambda: maps.SpecialConformal(3, spread=0.5)),
    m("PiecewiseOrthogonal", "D=3", lambda: maps.PiecewiseOrthogonal(3)),
    m("PiecewiseOrthogonal", "image", lambda: maps.PiecewiseOrthogonal((2, 1, 3))),
    m("OrthogonalEmbedding", "square", lambda: maps.OrthogonalEmbedding(3)),
    m("OrthogonalEmbedding", "plane", lambda: maps.OrthogonalEmbedding(3, 2), **SURFACE),
    m(
        "OrthogonalEmbedding",
        "image",
        lambda: maps.OrthogonalEmbedding((3, 2, 2), 1),
        latent_measure=Lebesgue(4),
        data_measure=Manifold(4, 12),
        bijective=False,
    ),
    m("Pad", "", lambda: maps.Pad(3, 2), **SURFACE),
    m("ConformalEmbedding", "sphere", sphere, **SURFACE),
    m("Injective", "surface", lambda: maps.Injective(coupled(3), 2), **SURFACE),
    m(
        "Injective",
        "curve, context",
        lambda: maps.Injective(coupled(2, 2), 1),
        latent_measure=Lebesgue(1),
        data_measure=Manifold(1, 2),
        bijective=False,
    ),
    m(
        "FreeFormEmbedding",
        "",
        lambda: maps.FreeFormEmbedding(3, 2, hidden=(8,)),
        relation=Relation.ESTIMATE,
        noisy=False,
        **SURFACE,
    ),
]

ON_SURFACE = {"measure": Manifold(2, 3), "invertible": False}

MODELS: list[ModelCase] = [
    f(
        "ConformalEmbeddingFlow",
        "sphere",
        lambda: models.ConformalEmbeddingFlow(3, 2, couplings=2, hidden=(8,)),
        **ON_SURFACE,
    ),
    f(
        "RectangularFlow",
        "surface",
        lambda: models.RectangularFlow(3, 2, couplings=2, hidden=(8,), latent_couplings=2, latent_hidden=(8,)),
        exports=False,
        **ON_SURFACE,
    ),
    f(
        "RectangularFlow",
        "free-form curve",
        lambda: models.RectangularFlow(3, 1, kind="free-form", volume="encoder", noise=0.01, hidden=(8,)),
        relation=Relation.ESTIMATE,
        measure=Manifold(1, 3),
        invertible=False,
        noisy=False,
        exports=False,
    ),
]


def tube() -> models.Model:
    return models.RectangularFlow(3, 2, couplings=2, hidden=(8,), latent_couplings=2, latent_hidden=(8,))


SCORES: list[ScoreCase] = [
    s("OnManifold", "both", lambda: scores.OnManifold(tube()), shape=(3,)),
    s("OnManifold", "residual", lambda: scores.OnManifold(tube(), use="residual"), shape=(3,)),
]
