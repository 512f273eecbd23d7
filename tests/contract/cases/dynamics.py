"""Residual and continuous flows."""

from __future__ import annotations

from typing import Any

from pushforward import models, transforms
from pushforward.likelihood import Counting, Kind

from .kinds import SMALL, ModelCase, TransformCase, f, integers, m

SHORT: dict[str, Any] = {"time": 0.006, "steps": 2}

TRANSFORMS: list[TransformCase] = [
    m("InvertibleResidual", "D=5, context", lambda: transforms.InvertibleResidual(5, context=2, **SMALL)),
    m("InvertibleResidual", "image, context", lambda: transforms.InvertibleResidual((2, 3, 2), context=2, **SMALL)),
    # A short time, in which the solver's error is below rounding: what it is otherwise, test_continuous.py says.
    m("Continuous", "D=2", lambda: transforms.Continuous(2, hidden=(16,), **SHORT)),
    m("Continuous", "D=5, context", lambda: transforms.Continuous(5, hidden=(16, 16), context=2, **SHORT)),
]

MODELS: list[ModelCase] = [
    f(
        "IResNet",
        "power series",
        lambda: models.IResNet(2, blocks=2, probes=2, **SMALL),
        kind=Kind.ESTIMATE,
    ),
    f("IResNet", "exact", lambda: models.IResNet(2, blocks=2, log_det="exact", **SMALL)),
    f(
        "ResidualFlow",
        "roulette, context",
        lambda: models.ResidualFlow(2, context=2, blocks=2, coefficient=0.7, probes=2, **SMALL),
        kind=Kind.UNBIASED,
    ),
    f("ResidualFlow", "exact, context", lambda: models.ResidualFlow(5, context=2, blocks=2, log_det="exact", **SMALL)),
    f(
        "ImageIResNet",
        "power series, context",
        lambda: models.ImageIResNet(shape=(1, 4, 2), context=2, blocks=1, probes=2, hidden=(4,)),
        integers(256),
        kind=Kind.ESTIMATE,
        measure=Counting(8),
    ),
    f(
        "ImageIResNet",
        "exact, dense",
        lambda: models.ImageIResNet(shape=(1, 2, 2), blocks=1, dense=(6,), log_det="exact", levels=8, hidden=(4,)),
        integers(8),
        kind=Kind.LOWER_BOUND,
        measure=Counting(4),
    ),
    f(
        "ImageResidualFlow",
        "roulette",
        lambda: models.ImageResidualFlow(shape=(1, 2, 4), blocks=1, probes=2, coefficient=0.7, hidden=(4, 4)),
        integers(256),
        kind=Kind.LOWER_BOUND,
        measure=Counting(8),
    ),
    f("CNF", "D=1, context", lambda: models.CNF(1, context=2, hidden=(16,), **SHORT)),
    f("CNF", "D=3", lambda: models.CNF(3, hidden=(16, 16), **SHORT)),
    f("CNF", "hutchinson", lambda: models.CNF(2, log_det="hutchinson", **SMALL, **SHORT), kind=Kind.UNBIASED),
]
