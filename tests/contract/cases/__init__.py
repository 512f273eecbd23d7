"""What the contract tests run over: for every registered class, ways to build it and legal data for it.

A class without a case fails ``test_coverage.py``. To add one, append a case to the file of its kind, or start a file for a
family; flags say where a property cannot hold, each with its reason. Everything else is checked of every case.
"""

from .bases import BASES
from .kinds import Case, MapCase, ModelCase, silently
from .maps import MAPS as PLAIN_MAPS
from .models import MODELS as PLAIN_MODELS
from .parts import NETWORKS, TRANSFORMERS
from .pixels import DISCRETE_BASES, LIKELIHOODS, PIXEL_MAPS, PIXEL_MODELS

MAPS: list[MapCase] = [*PLAIN_MAPS, *PIXEL_MAPS]
MODELS: list[ModelCase] = [*PLAIN_MODELS, *PIXEL_MODELS]
ALL: list[Case] = [*MAPS, *BASES, *DISCRETE_BASES, *MODELS, *NETWORKS, *TRANSFORMERS, *LIKELIHOODS]
MODULES: list[Case] = [case for case in ALL if not case.name.startswith(("transformers", "likelihoods"))]

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
