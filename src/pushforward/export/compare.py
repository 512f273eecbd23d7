"""Whether an exported graph gives the alarms of its guard, row by row."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pushforward.data import as_images, as_table, is_frame
from pushforward.data.cells import text_of
from pushforward.errors import ConfigError, InputError, StorageError
from pushforward.estimators import Guard
from pushforward.estimators.feature_names import in_order
from pushforward.estimators.guard_inputs import with_its_channels
from pushforward.estimators.validation import require_fitted
from pushforward.graphs.files import format_of
from pushforward.io.files import existing_path, plain_errors

__all__ = ["Agreement", "compare", "graph_inputs", "run_graph"]

_ROWS = 10_000
"""Rows that a graph gets at a time."""


@dataclass(frozen=True)
class Agreement:
    """The alarms of a guard and of its graph on the same rows.

    Attributes:
        rows: number of rows.
        alarms: of the guard.
        near: rows whose rank among the calibration scores is at most one from that of the threshold.
        different: rows with an alarm of one and none of the other.
        different_near: those among them that are near the threshold.
        p_value: largest difference of the p-values.
        score: largest difference of the scores, abs(a - b) / (1 + abs(a)) with a of the guard; inf if one of two scores is infinite or
            NaN and the other is not the same.

    Example:
        >>> from pushforward.export import Agreement
        >>> found = Agreement(rows=100, alarms=6, near=1, different=0, different_near=0, p_value=0.0, score=1e-7)
        >>> found.different == 0  # what compare(guard, path, rows) returns
        True
    """

    rows: int
    alarms: int
    near: int
    different: int
    different_near: int
    p_value: float
    score: float

    @property
    def agrees(self) -> bool:
        """Whether every alarm is the same, but for rows within one calibration rank of the threshold."""
        return self.different == self.different_near

    @classmethod
    def of(cls, guard: Guard, expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> Agreement:
        """From the outputs of the guard, ``guard.assess``, and those of the graph."""
        n = guard.calibrator_.n
        near = np.abs(expected["p_value"] * (n + 1) - guard.level_ * (n + 1)) < 1.5
        different = expected["alarm"] != found["alarm"]
        score, other = expected["anomaly_score"], found["anomaly_score"]
        with np.errstate(invalid="ignore"):
            distance = np.abs(score - other) / (1.0 + np.abs(score))
            distance = np.where(np.isfinite(score) & np.isfinite(other), distance, np.inf)
        distance[(score == other) | (np.isnan(score) & np.isnan(other))] = 0.0
        return cls(
            len(near), int(expected["alarm"].sum()), int(near.sum()), int(different.sum()), int((different & near).sum()),
            float(np.abs(expected["p_value"] - found["p_value"]).max(initial=0.0)), float(distance.max(initial=0.0)),
        )  # fmt: skip


def compare(guard: Guard, path: str | os.PathLike[str], X: Any) -> Agreement:
    """Run an exported graph on rows, and compare its alarms with those of the guard.

    Args:
        guard: that was exported.
        path: the file, ``.onnx`` (needs onnxruntime) or ``.pt2``.
        X: rows or images, as for ``guard.assess``.

    Raises:
        ConfigError: for the guard of a network, another ending of the name, or without onnxruntime.
        StorageError: if the file is absent, or is not a graph.
        InputError: for rows that the guard does not read.

    Example:
        >>> import numpy as np, pathlib, tempfile, pushforward as pf
        >>> from pushforward.export import compare
        >>> x = np.random.default_rng(0).normal(size=(300, 2))
        >>> guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(x)
        >>> path = pathlib.Path(tempfile.mkdtemp(), "guard.pt2")
        >>> guard.export(path)
        >>> compare(guard, path, x).different
        0
    """
    if not isinstance(guard, Guard):
        raise ConfigError(
            "compare is for guards of tables and images: for the guard of a network run the graph, and compare its alarm with guard(x).alarm."
        )
    return Agreement.of(guard, guard.assess(X), run_graph(guard, path, X))


def run_graph(guard: Guard, path: str | os.PathLike[str], X: Any) -> dict[str, np.ndarray]:
    """The outputs of an exported graph for rows that the guard reads.

    Args:
        guard: that was exported.
        path: the file, ``.onnx`` (needs onnxruntime) or ``.pt2``.
        X: rows or images, as for ``guard.assess``.

    Returns:
        An array by the name of each output, such as ``p_value``, ``alarm`` and ``anomaly_score``.

    Raises:
        ConfigError: for something that is no guard of tables or images, another ending of the name, or without onnxruntime.
        StorageError: if the file is absent, or is not a graph.
        InputError: for rows that the guard does not read.

    Example:
        >>> import numpy as np, pathlib, tempfile, pushforward as pf
        >>> x = np.random.default_rng(0).normal(size=(300, 2))
        >>> guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(x)
        >>> path = pathlib.Path(tempfile.mkdtemp(), "guard.pt2")
        >>> guard.export(path)
        >>> pf.export.run_graph(guard, path, [[0.0, 0.0], [9.0, 9.0]])["alarm"]
        array([False,  True])
    """
    found = format_of(path)
    where = existing_path(path)
    if found == "pt2":
        return _run_pt2(where, graph_inputs(guard, X, ("X",)))
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError('to run an ONNX file needs onnxruntime: pip install "pushforward[export]".') from None
    with plain_errors(path):
        session = onnxruntime.InferenceSession(os.fspath(where), providers=["CPUExecutionProvider"])
    names = tuple(value.name for value in session.get_inputs())
    matrix = names == ("X",) and len(session.get_inputs()[0].shape) == 2  # and no column of this name
    outputs = [value.name for value in session.get_outputs()]
    feeds = graph_inputs(guard, X, names, matrix=matrix)
    for value in session.get_inputs():
        _check_shape(path, value.shape, feeds[value.name])
    count = len(next(iter(feeds.values())))
    parts: list[Any] = [
        session.run(None, {name: values[a : a + _ROWS] for name, values in feeds.items()})
        for a in range(0, max(1, count), _ROWS)
    ]
    return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(outputs)}


def _check_shape(path: str | os.PathLike[str], shape: Sequence[Any], values: np.ndarray) -> None:
    """Compare all dimensions but the first that the graph fixes with those of its input."""
    fixed = [size if isinstance(size, int) else None for size in shape[1:]]
    if len(fixed) != values.ndim - 1 or any(s not in (None, n) for s, n in zip(fixed, values.shape[1:], strict=True)):
        wanted = " x ".join("any" if size is None else str(size) for size in fixed) or "1"
        found = " x ".join(map(str, values.shape[1:])) or "1"
        raise InputError(
            f"{path} takes rows of {wanted} numbers, and those of the guard have {found}: give the file that this guard exported."
        )


def _run_pt2(path: str | os.PathLike[str], feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import torch

    if not zipfile.is_zipfile(path):  # torch would also log a traceback
        raise StorageError(f"{path} is damaged, or its name has the wrong ending: it is no file of torch.export.")
    with plain_errors(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the inside of torch.export
        program = torch.export.load(os.fspath(path))
        run = program.module()
        names = set(program.graph_signature.user_inputs)
        shapes = [node.meta["val"].shape for node in program.graph.nodes if node.name in names]
    if len(shapes) != len(feeds):
        raise InputError(
            f"{path} has {len(shapes)} inputs, as the graph of a network: give the file that this guard exported."
        )
    _check_shape(path, shapes[0], *feeds.values())
    (rows,) = (torch.from_numpy(values) for values in feeds.values())
    size = _ROWS // 10  # a .pt2 graph scores all rows at once
    with torch.no_grad():
        parts = [run(rows[a : a + size]) for a in range(0, max(1, len(rows)), size)]
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def graph_inputs(guard: Guard, X: Any, names: tuple[str, ...], *, matrix: bool | None = None) -> dict[str, np.ndarray]:
    """The inputs of a graph for rows that the guard reads: ``{"X": matrix}``, ``{"images": ...}`` or one vector a column.

    Args:
        guard: that was exported.
        X: rows or images, as for ``guard.assess``.
        names: of the graph's inputs, in order.
        matrix: whether a table enters as one matrix; None: if the only name is "X". A graph of columns whose only column has this
            name needs False.

    Raises:
        ConfigError: for something that is no guard of tables or images.
        NotFittedError: for a guard that was not fitted.
        InputError: for rows that the guard does not read.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> x = np.random.default_rng(0).normal(size=(300, 2))
        >>> guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(x)
        >>> pf.export.graph_inputs(guard, x[:3], ("X",))["X"].shape
        (3, 2)
    """
    if not isinstance(guard, Guard):
        raise ConfigError(f"guard must be a pf.Guard of tables or images; got {type(guard).__name__}.")
    require_fitted(guard)
    if guard.embed is not None:
        X = guard.embedder_(in_order(guard.embedded_columns_, X))
    if guard.reads_images:
        return {"images": _pixels(guard, X)}
    schema = guard.schema_
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoded = schema.encode(X, strict=False, owner="Guard")[0]
    if names == ("X",) if matrix is None else matrix:
        return {"X": np.ascontiguousarray(encoded, dtype=np.float64)}
    if len(names) != len(schema):
        raise InputError(
            f"the graph has {len(names)} inputs, and the guard's table {len(schema)} columns: give the file that this guard exported."
        )
    table = as_table(X, index=schema.names)
    feeds: dict[str, np.ndarray] = {}
    for index, (column, name) in enumerate(zip(schema.columns, names, strict=True)):
        if column.kind == "categorical":
            position = index if schema.positional or not is_frame(X) else column.name
            text = text_of(column.name, table.column(position)).fill_null("")
            feeds[name] = np.array(text.to_pylist(), dtype=object)
        else:
            feeds[name] = np.ascontiguousarray(encoded[:, index])
    return feeds


def _pixels(guard: Guard, X: Any) -> np.ndarray:
    """Images in the type that the graph takes."""
    images, top = with_its_channels(guard, as_images(X), X).numpy(), getattr(guard.score_, "top", 255)
    kind = np.dtype(np.uint8 if top < 256 else np.int32)
    if images.size and images.max() > np.iinfo(kind).max:
        raise InputError(
            f"the graph takes images of {kind.name}, and these have numbers up to {images.max()}: they are alarms of the guard, and "
            "no other program can give them to the graph."
        )
    return np.ascontiguousarray(images.astype(kind, copy=False))
