"""Scores and statistics on small flows."""

from __future__ import annotations

from pushforward import models
from pushforward.detection import scores

from .kinds import ScoreCase, s


def model() -> models.Model:
    return models.NICE(2, layers=2, hidden=(16,))


SCORES: list[ScoreCase] = [
    s("Likelihood", "flow", lambda: scores.Likelihood(model())),
]
