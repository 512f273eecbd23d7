"""The cases of the contract tests: for every registered class, ways to build it and legal data for it.

A class without a case fails ``test_coverage.py``. To add one, append a case to the file of its kind or family, or start a file;
flags say where a property cannot hold, each with its reason. Everything else is checked of every case.
"""

import importlib
import pkgutil
from typing import Any

from .kinds import Case, DistributionCase, ModelCase, ScoreCase, TransformCase, silently

FILES = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]


def gather(kind: str) -> list[Any]:
    """The cases of one kind, of all files."""
    return [case for file in FILES for case in getattr(file, kind, ())]


TRANSFORMS: list[TransformCase] = gather("TRANSFORMS")
DISTRIBUTIONS: list[DistributionCase] = gather("DISTRIBUTIONS")
MODELS: list[ModelCase] = gather("MODELS")
NETWORKS: list[Case] = gather("NETWORKS")
TRANSFORMERS: list[Case] = gather("TRANSFORMERS")
LIKELIHOODS: list[Case] = gather("LIKELIHOODS")
DISCRETE_DISTRIBUTIONS: list[DistributionCase] = gather("DISCRETE_DISTRIBUTIONS")
SCORES: list[ScoreCase] = gather("SCORES")
POSTERIORS: list[Case] = gather("POSTERIORS")
ALL: list[Case] = [
    *TRANSFORMS, *DISTRIBUTIONS, *DISCRETE_DISTRIBUTIONS, *MODELS, *NETWORKS, *TRANSFORMERS, *LIKELIHOODS, *SCORES, *POSTERIORS,
]  # fmt: skip
APART = ("transformers", "likelihoods", "scores", "training")
MODULES: list[Case] = [case for case in ALL if not case.name.startswith(APART)]
"""What has outputs without data of its own; scores are fitted first (``test_scores.py``), and posteriors are tested beside
training."""

__all__ = [
    "ALL",
    "DISTRIBUTIONS",
    "MODELS",
    "MODULES",
    "NETWORKS",
    "SCORES",
    "TRANSFORMERS",
    "TRANSFORMS",
    "Case",
    "ModelCase",
    "ScoreCase",
    "TransformCase",
    "silently",
]
