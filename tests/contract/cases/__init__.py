"""What the contract tests run over: for every registered class, ways to build it and legal data for it.

A class without a case fails ``test_coverage.py``. To add one, append a case to the file of its kind, or start a file for a
family; flags say where a property cannot hold, each with its reason. Everything else is checked of every case.
"""

from . import bases, geometry, maps, models, parts
from .kinds import BaseCase, Case, MapCase, ModelCase, silently

MAPS: list[MapCase] = [*maps.MAPS, *geometry.MAPS]
BASES: list[BaseCase] = [*bases.BASES, *geometry.BASES]
MODELS: list[ModelCase] = [*models.MODELS, *geometry.MODELS]
NETWORKS: list[Case] = [*parts.NETWORKS]
TRANSFORMERS: list[Case] = [*parts.TRANSFORMERS, *geometry.TRANSFORMERS]
ALL: list[Case] = [*MAPS, *BASES, *MODELS, *NETWORKS, *TRANSFORMERS]
MODULES: list[Case] = [case for case in ALL if not case.name.startswith("transformers")]

__all__ = [
    "ALL",
    "BASES",
    "MAPS",
    "MODELS",
    "MODULES",
    "NETWORKS",
    "TRANSFORMERS",
    "Case",
    "MapCase",
    "ModelCase",
    "silently",
]
