"""What the contract tests run over: for every registered class, ways to build it and legal data for it.

A class without a case fails ``test_coverage.py``. To add one, append a case to the file of its kind, or start a file for a
family; flags say where a property cannot hold, each with its reason. Everything else is checked of every case.
"""

from . import images
from .bases import BASES
from .kinds import Case, MapCase, ModelCase, silently
from .maps import MAPS
from .models import MODELS
from .parts import NETWORKS, TRANSFORMERS

MAPS = [*MAPS, *images.MAPS]
MODELS = [*MODELS, *images.MODELS]
NETWORKS = [*NETWORKS, *images.NETWORKS]
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
