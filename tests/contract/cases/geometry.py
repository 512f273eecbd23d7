"""Linear factors, block networks, Gaussianisation, circles and spheres, discrete flows."""

from __future__ import annotations

from pushforward import maps, models

from .kinds import BaseCase, Case, MapCase, ModelCase, f, m, shifted

MAPS: list[MapCase] = [
    m("QRLinear", "D=1", lambda: maps.QRLinear(1)),
    m("QRLinear", "two reflections, no bias", lambda: maps.QRLinear(5, reflections=2, bias=False, seed=3)),
    m("WoodburyLinear", "D=1", lambda: maps.WoodburyLinear(1)),
    m("WoodburyLinear", "rank 3", lambda: maps.WoodburyLinear(5, rank=3)),
    m("BlockAutoregressive", "D=1", lambda: maps.BlockAutoregressive(1, hidden=(4,))),
    m("BlockAutoregressive", "context", lambda: maps.BlockAutoregressive(3, hidden=(4, 3), context=2)),
    m("Gaussianize", "D=1", lambda: maps.Gaussianize(1, components=3)),
    m("Gaussianize", "other units", lambda: maps.Gaussianize(2, components=4), shifted),
]

BASES: list[BaseCase] = []

MODELS: list[ModelCase] = [
    f("BNAF", "D=1", lambda: models.BNAF(1, flows=1, hidden=(4,))),
    f("BNAF", "D=2", lambda: models.BNAF(2, flows=2, hidden=(4, 3)), fast="log_prob"),
    f("BNAF", "context", lambda: models.BNAF(2, context=2, flows=1, hidden=(4,)), fast="log_prob"),
]

TRANSFORMERS: list[Case] = []
