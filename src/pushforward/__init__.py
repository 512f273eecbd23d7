"""pushforward: exact-likelihood density models, and guards that know when an input is unlike the training data.

The names below are loaded on first use, so ``import pushforward`` costs little more than nothing.

>>> import torch, pushforward as pf
>>> model = pf.models.NSF(features=2)
>>> model.log_prob(torch.zeros(1, 2)).shape
torch.Size([1])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pushforward import (
        data,
        detection,
        distributions,
        errors,
        kernels,
        measure,
        models,
        networks,
        registry,
        serving,
        storage,
        training,
        transforms,
    )
    from pushforward.compiled import compile_scorer
    from pushforward.estimators import FlowDensity, Guard
    from pushforward.io import load, save
    from pushforward.kernels import use_kernels
    from pushforward.likelihood import (
        Counting,
        Extended,
        Kind,
        Lebesgue,
        LogLik,
        Manifold,
        Measure,
        Mixed,
    )
    from pushforward.training import fit

_ROOMS = ("distributions", "cli", "data", "detection", "errors", "estimators", "experiments", "kernels", "transforms", "measure", "models", "networks",
          "numerics", "registry", "serving", "storage", "training")  # fmt: skip
_FROM = {
    "Counting": "measure",
    "Extended": "measure",
    "FlowDensity": "estimators",
    "Guard": "estimators",
    "Lebesgue": "measure",
    "LogLik": "measure",
    "Manifold": "measure",
    "Measure": "measure",
    "Mixed": "measure",
    "Kind": "measure",
    "fit": "training",
    "compile_scorer": "serving",
    "load": "storage",
    "save": "storage",
    "use_kernels": "kernels",
}

__all__ = [
    "Counting", "Extended", "FlowDensity", "Guard", "Lebesgue", "LogLik", "Manifold", "Measure", "Mixed", "Kind",
    "distributions", "data", "detection", "errors", "fit", "compile_scorer", "kernels", "load", "transforms", "measure", "models", "networks", "registry", "save",
    "serving", "storage", "training", "use_kernels",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _FROM:
        return getattr(importlib.import_module(f"pushforward.{_FROM[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"pushforward.{name}")
    raise AttributeError(f"module 'pushforward' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
