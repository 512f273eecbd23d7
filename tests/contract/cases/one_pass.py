"""Scores of one pass through a model, of several models, of compressors and of distances."""

from __future__ import annotations

from pushforward import models
from pushforward.detection import scores

from .kinds import ScoreCase, s


def nice() -> models.Model:
    return models.NICE(2, couplings=2, hidden=(16,))


SCORES: list[ScoreCase] = [
    s("Typicality", "absolute", lambda: scores.Typicality(nice())),
    s("Typicality", "two-sided", lambda: scores.Typicality(nice(), "two-sided")),
    s("TwoSided", "likelihood", lambda: scores.TwoSided(scores.Likelihood(nice()))),
    s("LatentNorm", "flow", lambda: scores.LatentNorm(nice())),
    s("LatentMahalanobis", "flow", lambda: scores.LatentMahalanobis(nice())),
    s("LatentNeighbours", "flow", lambda: scores.LatentNeighbours(nice(), k=3)),
    s("Neighbours", "image", lambda: scores.Neighbours(), shape=(2, 1, 3)),
    s("Neighbours", "standardised", lambda: scores.Neighbours(1, standardize=True)),
    s("LatentDependence", "vector", lambda: scores.LatentDependence(nice())),
]
