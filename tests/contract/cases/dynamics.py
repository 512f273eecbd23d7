"""Residual and continuous flows."""

from __future__ import annotations

from pushforward import maps, models
from pushforward.measure import Relation

from .kinds import SMALL, MapCase, ModelCase, f, m

MAPS: list[MapCase] = [
    m("InvertibleResidual", "D=5, context", lambda: maps.InvertibleResidual(5, context=2, **SMALL)),
]

MODELS: list[ModelCase] = [
    f(
        "IResNet",
        "power series",
        lambda: models.IResNet(2, blocks=2, probes=2, **SMALL),
        relation=Relation.ESTIMATE,
    ),
    f("IResNet", "exact", lambda: models.IResNet(2, blocks=2, log_det="exact", **SMALL)),
    f(
        "ResidualFlow",
        "roulette, context",
        lambda: models.ResidualFlow(2, context=2, blocks=2, coefficient=0.7, probes=2, **SMALL),
        relation=Relation.UNBIASED,
    ),
    f("ResidualFlow", "exact, context", lambda: models.ResidualFlow(5, context=2, blocks=2, log_det="exact", **SMALL)),
]
