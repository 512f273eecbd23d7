"""Guards in the formats of other systems: MLflow models (extra `mlflow`)."""

import importlib
from types import ModuleType

_PACKAGES = "mlflow"


def __getattr__(name: str) -> ModuleType:
    """Import a part on first use."""
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
