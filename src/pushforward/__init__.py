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

__version__ = "0.2.0"

if TYPE_CHECKING:
    from pushforward import (
        compiled,
        data,
        detection,
        distributions,
        errors,
        inference,
        io,
        kernels,
        likelihood,
        models,
        networks,
        plot,
        registry,
        training,
        transforms,
    )
    from pushforward.compiled import compile_scorer
    from pushforward.estimators import FlowDensity, Guard, GuardOutput, NetworkGuard
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

_PACKAGES = ("distributions", "cli", "data", "detection", "display", "errors", "estimators", "export", "inference", "kernels", "transforms", "likelihood", "models", "networks",
          "numerics", "plot", "registry", "report", "compiled", "io", "service", "training")  # fmt: skip
_FROM = {
    "Counting": "likelihood",
    "Extended": "likelihood",
    "FlowDensity": "estimators",
    "Guard": "estimators",
    "GuardOutput": "estimators",
    "NetworkGuard": "estimators",
    "Lebesgue": "likelihood",
    "LogLik": "likelihood",
    "Manifold": "likelihood",
    "Measure": "likelihood",
    "Mixed": "likelihood",
    "Kind": "likelihood",
    "fit": "training",
    "compile_scorer": "compiled",
    "load": "io",
    "save": "io",
    "use_kernels": "kernels",
}

__all__ = [
    "Counting",
    "Extended",
    "FlowDensity",
    "Guard",
    "GuardOutput",
    "Kind",
    "Lebesgue",
    "LogLik",
    "Manifold",
    "Measure",
    "Mixed",
    "NetworkGuard",
    "compile_scorer",
    "compiled",
    "data",
    "detection",
    "distributions",
    "errors",
    "fit",
    "inference",
    "io",
    "kernels",
    "likelihood",
    "load",
    "models",
    "networks",
    "plot",
    "registry",
    "save",
    "training",
    "transforms",
    "use_kernels",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _FROM:
        return getattr(importlib.import_module(f"pushforward.{_FROM[name]}"), name)
    if name in _PACKAGES:
        return importlib.import_module(f"pushforward.{name}")
    raise AttributeError(f"module 'pushforward' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
