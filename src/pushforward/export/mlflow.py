"""Guards as MLflow models: logged, registered, loaded and served as any other model, without pickle.

The model is a folder with the guard's own file. MLflow loads it by the name of this module (``loader_module``), so nothing
in it is executed and no Python object is stored.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pushforward import __version__
from pushforward.data.column import Column
from pushforward.errors import ConfigError, StorageError
from pushforward.estimators import Guard
from pushforward.estimators.validation import require_fitted

__all__ = ["GuardModel", "load_model", "log_model", "save_model", "signature"]

_FILE = "guard.safetensors"
_LOADER = "pushforward.export.mlflow"


def save_model(guard: Guard, path: str | os.PathLike[str], **options: Any) -> None:
    """Write a guard as an MLflow model to a new folder.

    Args:
        guard: a fitted guard.
        path: the folder, which must not exist.
        options: further arguments of ``mlflow.pyfunc.save_model``, such as ``input_example`` and ``metadata``.

    Raises:
        ConfigError: without the package mlflow, or for a guard with ``embed``, which MLflow could not load without its network.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> from pushforward.export import mlflow as guards  # doctest: +SKIP
        >>> guard = pf.Guard(alpha=0.1, n_estimators=1, max_steps=10).fit(np.eye(30))  # doctest: +SKIP
        >>> guards.save_model(guard, "model")  # doctest: +SKIP
        >>> import mlflow  # doctest: +SKIP
        >>> mlflow.pyfunc.load_model("model").predict(np.eye(30))["alarm"]  # doctest: +SKIP
    """
    mlflow = _mlflow()
    with tempfile.TemporaryDirectory() as folder:
        mlflow.pyfunc.save_model(path=os.fspath(path), **_arguments(guard, folder, options))


def log_model(guard: Guard, name: str = "guard", **options: Any) -> Any:
    """Log a guard as a model of the active MLflow run, and register it if ``registered_model_name`` is given.

    Args:
        guard: a fitted guard.
        name: of the model.
        options: further arguments of ``mlflow.pyfunc.log_model``.

    Returns:
        MLflow's ``ModelInfo``; its ``model_uri`` is what :func:`load_model` and ``mlflow.pyfunc.load_model`` take.

    Raises:
        ConfigError: as :func:`save_model`.
    """
    mlflow = _mlflow()
    place = "name" if int(mlflow.__version__.split(".")[0]) >= 3 else "artifact_path"
    with tempfile.TemporaryDirectory() as folder:
        return mlflow.pyfunc.log_model(**{place: name}, **_arguments(guard, folder, options))


def load_model(model_uri: str, *, public_key: Any = None) -> Guard:
    """Load the guard itself, with all its methods, from an MLflow model.

    Args:
        model_uri: a path, or a URI such as "runs:/RUN/guard" and "models:/NAME/VERSION".
        public_key: file of the key with which the guard's file must be signed.

    Raises:
        StorageError: if the model is not a guard.
        ConfigError: without the package mlflow.
    """
    from_uri = _mlflow().artifacts.download_artifacts(artifact_uri=model_uri)
    found = sorted(Path(from_uri).rglob(_FILE))
    if len(found) != 1:
        raise StorageError(f"{model_uri} is not an MLflow model of a guard: it has {len(found)} files {_FILE}.")
    return Guard.load(found[0], public_key=public_key)


class GuardModel:
    """What ``mlflow.pyfunc`` calls.

    Args:
        guard: a fitted guard.
    """

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """A pandas frame of log_prob (where the score has a density), anomaly_score, p_value and alarm, one row for each input."""
        import pandas as pd

        if self.guard.reads_images:
            model_input = np.asarray(model_input)
        elif self.guard.schema_.positional:
            model_input = np.asarray(model_input, dtype=np.float64)
        return pd.DataFrame(self.guard.assess(model_input))


def signature(guard: Guard) -> Any:
    """The MLflow signature of a guard: the names and types of its columns, and of what it returns.

    Continuous columns are doubles. Integers, categories, flags that can be missing, and instants are of any type, because MLflow refuses an
    integer column of pandas that a missing cell made a column of floats, and a column of pandas' type ``category``, which
    :class:`~pushforward.Guard` reads.

    Raises:
        ConfigError: without the package mlflow.
    """
    _mlflow()
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec
    from mlflow.types.schema import AnyType

    require_fitted(guard)
    if guard.reads_images:
        kind = guard.score_.shape  # pyright: ignore[reportAttributeAccessIssue]  scores of images have it
        top = getattr(guard.score_, "top", 255)
        number = np.uint8 if top <= 255 else np.uint16 if top <= 65_535 else np.int64
        inputs = Schema([TensorSpec(np.dtype(number), (-1, *kind))])
    elif guard.schema_.positional:
        inputs = Schema([TensorSpec(np.dtype(np.float64), (-1, len(guard.schema_)))])
    else:
        kinds = {"numeric": DataType.double, "boolean": DataType.boolean}

        def kind_of(column: Column) -> Any:
            loose = column.time or column.kind not in kinds or (column.missing and column.kind == "boolean")
            return AnyType() if loose else kinds[column.kind]

        inputs = Schema([ColSpec(kind_of(column), column.name) for column in guard.schema_.columns])
    names = (["log_prob"] if guard.score_.has_density else []) + ["anomaly_score", "p_value"]
    outputs: list[Any] = [ColSpec(DataType.double, name) for name in names] + [ColSpec(DataType.boolean, "alarm")]
    return ModelSignature(inputs, Schema(outputs))


def _load_pyfunc(path: str) -> GuardModel:
    """The function that MLflow looks for in the loader module."""
    return GuardModel(Guard.load(path))


def _arguments(guard: Guard, folder: str, options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of MLflow's save_model and log_model, after the guard was written to a folder."""
    if not isinstance(guard, Guard):
        raise ConfigError(f"an MLflow model is made of a Guard; got {type(guard).__name__}.")
    require_fitted(guard)
    if guard.embed is not None:
        raise ConfigError(
            "MLflow cannot load a guard with embed=, since the network is not in the file: fit a guard on the features of the network, and "
            "log the network by itself."
        )
    file = Path(folder, _FILE)
    guard.save(file)
    return {
        "loader_module": _LOADER,
        "data_path": str(file),
        "signature": signature(guard),
        "pip_requirements": [f"pushforward[mlflow]=={__version__}"],
        **options,
    }


def _mlflow() -> Any:
    try:
        import mlflow
        import mlflow.pyfunc
    except ImportError:
        raise ConfigError('MLflow models need the package mlflow: pip install "pushforward[mlflow]".') from None
    return mlflow
