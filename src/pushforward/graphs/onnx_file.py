"""Graphs as ONNX files: translation, names, text inputs, metadata."""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from typing import Any

import torch

from pushforward.errors import ConfigError
from pushforward.graphs.decompositions import DECOMPOSITIONS, is_lacking
from pushforward.graphs.graph import Graph
from pushforward.graphs.pt2 import program_of
from pushforward.io import atomic_write

__all__ = ["OPSET", "onnx_model", "require_onnx", "write_onnx"]

OPSET = 18
_IR_VERSION = 10
"""Readable by ONNX Runtime 1.18 and later."""
_INSTALL = 'ONNX files need the packages onnx and onnxscript: pip install "pushforward[export]".'


def require_onnx() -> None:
    """Check that the packages are there.

    Raises:
        ConfigError: if not.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ConfigError(_INSTALL) from None


def write_onnx(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Write a graph as an ONNX file, in one atomic step.

    Raises:
        ConfigError: without the extra ``export``, or for an operation that ONNX does not have.
        StorageError: if the file cannot be written.
    """
    data = onnx_model(graph).SerializeToString()
    with atomic_write(path) as file:
        file.write(data)


def onnx_model(graph: Graph) -> Any:
    """The ``onnx.ModelProto`` of a graph.

    Raises:
        ConfigError: without the extra ``export``, or for an operation that ONNX does not have.
    """
    require_onnx()
    from onnxscript import optimizer

    from pushforward.graphs.onnx_parts import finish
    from pushforward.graphs.operators import quadratic_form

    program = program_of(graph)
    quiet = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(quiet):
        warnings.simplefilter("ignore")  # about the inside of torch.export and torch.onnx
        if any(map(is_lacking, program.graph.nodes)):
            program = program.run_decompositions(DECOMPOSITIONS)
        try:
            # Not optimized: the rules of onnxscript drop the addition of a small constant, such as 1e-9.
            translated = torch.onnx.export(
                program, (), dynamo=True, opset_version=OPSET, optimize=False, verbose=False,
                custom_translation_table={torch.ops.pushforward.quadratic_form.default: quadratic_form},
            )  # fmt: skip
        except torch.onnx.OnnxExporterError as error:
            raise ConfigError(f"ONNX has no operation for a part of this guard: {_reason(error)}") from error
        assert translated is not None
        optimizer.inline(translated.model)
        optimizer.fold_constants(translated.model)
        optimizer.remove_unused_nodes(translated.model)
    model = translated.model_proto
    model.ir_version = min(model.ir_version, _IR_VERSION)
    model = finish(model, graph)
    for key, value in graph.facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    return model


def _reason(error: BaseException) -> str:
    """The last line of the exporter's summary that names an operation."""
    text = [line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()]
    return (text[0] if text else type(error).__name__)[:300]
