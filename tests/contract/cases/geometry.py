"""Linear factors, block networks, Gaussianisation, circles and spheres, discrete flows."""

from __future__ import annotations

from pushforward import maps

from .kinds import BaseCase, Case, MapCase, ModelCase, m

MAPS: list[MapCase] = [
    m("QRLinear", "D=1", lambda: maps.QRLinear(1)),
    m("QRLinear", "two reflections, no bias", lambda: maps.QRLinear(5, reflections=2, bias=False, seed=3)),
    m("WoodburyLinear", "D=1", lambda: maps.WoodburyLinear(1)),
    m("WoodburyLinear", "rank 3", lambda: maps.WoodburyLinear(5, rank=3)),
]

BASES: list[BaseCase] = []

MODELS: list[ModelCase] = []

TRANSFORMERS: list[Case] = []
