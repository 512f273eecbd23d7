"""Combinations of statistics: the default, versions of it, and what else was tried on the development networks."""

from __future__ import annotations

__all__ = ["ABLATIONS", "COMBINATIONS", "DEFAULT"]

N, N3, E, V, R = "Neighbors k=1 of 500", "Neighbors k=3 of 1000", "Energy", "ViM", "RelativeMahalanobis"
LR, L, LN = "LayerRelativeMahalanobis", "LayerMahalanobis", "LayerNeighbors k=1 of 250"

DEFAULT = {N: 1.0, E: 0.5, V: 0.5, R: 1.0, LR: 1.0, L: 0.5, LN: 0.5}
"""Statistics of the default (:func:`pushforward.detection.network.default_score`) with their weights."""


def _without(*names: str) -> dict[str, float]:
    return {name: weight for name, weight in DEFAULT.items() if name not in names}


BEFORE = {N3: 1.0, E: 1.0, R: 1.0, L: 0.5}

ABLATIONS: dict[str, dict[str, float]] = {
    "default": DEFAULT,
    "default with FeatureFlow": DEFAULT | {"FeatureFlow": 1.0},
    "default without neighbors": _without(N),
    "default without energy and ViM": _without(E, V),
    "default without relative Mahalanobis": _without(R),
    "default without relative inner layers": _without(LR),
    "default without neighbors of layers": _without(LN),
    "default without layers": _without(LR, L, LN),
    "energy, neighbors, relative Mahalanobis, layers": BEFORE,
}
"""The default and versions of it, for the card; the last was the default before."""

COMBINATIONS: dict[str, dict[str, float]] = ABLATIONS | {
    "before, with Entropy for Energy": {N3: 1.0, "Entropy": 1.0, R: 1.0, L: 0.5},
    "before, with GEN for Energy": {N3: 1.0, "GEN": 1.0, R: 1.0, L: 0.5},
    "before, with Energy and Entropy": {N3: 1.0, E: 0.5, "Entropy": 0.5, R: 1.0, L: 0.5},
    "before, with less layers": {N3: 1.0, E: 1.0, R: 1.0, L: 0.125},
    "before, with ViM for Energy": {N3: 1.0, V: 1.0, R: 1.0, L: 0.5},
    "default with Energy alone": _without(V) | {E: 1.0},
    "default with ViM alone": _without(E) | {V: 1.0},
    "default with Energy and ViM counting one each": DEFAULT | {E: 1.0, V: 1.0},
    "default with Entropy for Energy": _without(E) | {"Entropy": 0.5},
    "default with GEN for Energy": _without(E) | {"GEN": 0.5},
    "default with layers counting one": DEFAULT | {L: 1.0},
    "default with layers counting a quarter": DEFAULT | {L: 0.25},
    "default with mixture": DEFAULT | {"Mixture": 1.0},
    "default with neighbors of layers counting one": DEFAULT | {LN: 1.0},
    "default with neighbors of layers for layers": _without(L),
    "default with neighbors of layers for neighbors": _without(N) | {LN: 1.0},
    "default with 3 neighbors of 1000": _without(N) | {N3: 1.0},
    "default with 1 neighbor of 100": _without(N) | {"Neighbors k=1 of 100": 1.0},
    "default with 1 neighbor of 500, of layers too": _without(LN) | {"LayerNeighbors": 0.5},
    "default with 3 neighbors of 1000, of layers 1 of 500": _without(N, LN) | {N3: 1.0, "LayerNeighbors": 0.5},
    "default with 3 neighbors of 1000, of layers too": _without(N, LN) | {N3: 1.0, "LayerNeighbors k=3 of 1000": 0.5},
    "default with 1 neighbor of 250, of layers too": _without(N) | {"Neighbors k=1 of 250": 1.0},
    "default with 1 neighbor of 100, of layers too": _without(N, LN)
    | {"Neighbors k=1 of 100": 1.0, "LayerNeighbors k=1 of 100": 0.5},
    "relative inner layers, relative Mahalanobis": {R: 1.0, LR: 1.0},
}
"""What was compared on the development networks, each with three rules."""
