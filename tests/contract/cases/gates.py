"""Gated couplings: the transformer, half open and open, and InFlow."""

from __future__ import annotations

from pushforward import models, transforms
from pushforward.likelihood import Counting, Kind

from .kinds import Case, ModelCase, TransformCase, f, integers, m

HALF = transforms.GatedAffineTransformer(gate=0.5)

TRANSFORMERS: list[Case] = [
    Case("transformers.GatedAffineTransformer", "open", transforms.GatedAffineTransformer),
    Case("transformers.GatedAffineTransformer", "half", lambda: HALF),
]

TRANSFORMS: list[TransformCase] = [
    m("Coupling", "switched, half", lambda: transforms.Coupling(3, HALF, hidden=(8,))),
]

MODELS: list[ModelCase] = [
    f("InFlow", "D=4", lambda: models.InFlow(4, hidden=(8,))),
    f("InFlow", "half open", lambda: models.InFlow(3, blocks=1, hidden=(8,), gate=0.5, variance=2.0)),
    f(
        "ImageInFlow",
        "",
        lambda: models.ImageInFlow(shape=(1, 2, 4), blocks=1, hidden=(4,), levels=8),
        integers(8),
        kind=Kind.LOWER_BOUND,
        measure=Counting(8),
    ),
]
