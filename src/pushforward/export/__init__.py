"""Guards in the formats of other systems: MLflow, and graphs for ONNX Runtime and PyTorch."""

import importlib
from typing import Any

from pushforward.export.compare import Agreement, compare, graph_inputs, run_graph
from pushforward.export.scores import export_score

__all__ = ["Agreement", "compare", "export_score", "graph_inputs", "run_graph"]

_PACKAGES = ("mlflow",)


def __getattr__(name: str) -> Any:
    """Import a part on first use."""
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
