"""Scores and statistics that take derivatives."""

from __future__ import annotations

from typing import Any

from pushforward import models
from pushforward.detection import scores

from .kinds import ScoreCase, integers, s


def flow() -> models.Model:
    return models.NICE(2, layers=2, hidden=(16,))


def images() -> models.Model:
    return models.Glow((1, 4, 4), scales=1, layers=1, hidden=(4, 4), levels=8)


def vae(**more: Any) -> models.VAE:
    return models.VAE(2, latent=1, hidden=(8,), posterior_hidden=(8,), posterior_context=2, **more)


IMAGE = {"shape": (1, 4, 4), "reach": 1.0}  # integers beyond the levels have probability 0, and their score is +inf

SCORES: list[ScoreCase] = [
    s("InputGradientNorm", "flow", lambda: scores.InputGradientNorm(flow())),
    s("InputGradientNorm", "images", lambda: scores.InputGradientNorm(images()), integers(8), **IMAGE),
    s("ParameterGradients", "flow", lambda: scores.ParameterGradients(flow())),
    s(
        "ParameterGradients",
        "grouped, of images",
        lambda: scores.ParameterGradients(images(), groups=3),
        integers(8),
        **IMAGE,
    ),
    s("LayerGradients", "flow", lambda: scores.LayerGradients(flow())),
    s("FisherScore", "flow", lambda: scores.FisherScore(flow())),
    s("ScoreTypicality", "flow", lambda: scores.ScoreTypicality(flow())),
    s("LocalDimension", "flow", lambda: scores.LocalDimension(flow())),
    s(
        "LocalDimension",
        "smooth, of images",
        lambda: scores.LocalDimension(images(), smooth=True),
        integers(8),
        **IMAGE,
    ),
    s("DualThreshold", "flow", lambda: scores.DualThreshold(flow(), scale=1.0)),
    s("LikelihoodRegret", "latent", lambda: scores.LikelihoodRegret(vae(), steps=3, samples=3)),
    s(
        "LikelihoodRegret",
        "encoder",
        lambda: scores.LikelihoodRegret(vae(posterior="iaf"), "encoder", steps=2, samples=2),
    ),
]
