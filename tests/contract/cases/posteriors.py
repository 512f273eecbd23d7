"""Samples of a model's weights."""

from __future__ import annotations

from pushforward import models
from pushforward.training import bayes

from .kinds import Case

POSTERIORS: list[Case] = [
    Case(
        "training.Posterior",
        "flow",
        lambda: bayes.Posterior(
            models.NICE(2, layers=2, hidden=(4,)),
            3,
            ("chain.transforms.1.network.last.weight", "chain.transforms.0.mean"),
        ),
    ),
]
