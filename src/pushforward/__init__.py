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
        bases,
        data,
        detection,
        errors,
        kernels,
        maps,
        measure,
        models,
        networks,
        registry,
        serving,
        storage,
        training,
    )
    from pushforward.estimators import FlowDensity, Guard
    from pushforward.kernels import use_kernels
    from pushforward.measure import (
        Counting,
        Extended,
        Lebesgue,
        LogLik,
        Manifold,
        Measure,
        Mixed,
        Relation,
    )
    from pushforward.serving import freeze
    from pushforward.storage import load, save
    from pushforward.training import fit

_ROOMS = ("bases", "cli", "data", "detection", "errors", "estimators", "experiments", "kernels", "maps", "measure", "models", "networks",
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
    "Relation": "measure",
    "fit": "training",
    "freeze": "serving",
    "load": "storage",
    "save": "storage",
    "use_kernels": "kernels",
}

__all__ = [
    "Counting", "Extended", "FlowDensity", "Guard", "Lebesgue", "LogLik", "Manifold", "Measure", "Mixed", "Relation",
    "bases", "data", "detection", "errors", "fit", "freeze", "kernels", "load", "maps", "measure", "models", "networks", "registry", "save",
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
