"""Write a graph in the format that its name asks for."""

from __future__ import annotations

import os
from typing import Any

from pushforward.errors import ConfigError
from pushforward.graphs.graph import Graph
from pushforward.graphs.onnx_file import require_onnx, write_onnx
from pushforward.graphs.pt2 import write_pt2

__all__ = ["FORMATS", "format_of", "write_graph"]

FORMATS: dict[str, Any] = {"onnx": write_onnx, "pt2": write_pt2}


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that the end of a name asks for, "onnx" or "pt2".

    Raises:
        ConfigError: for another ending, or for ONNX without the extra ``export``.
    """
    name = os.fspath(path)
    found = os.path.splitext(name)[1].lower().removeprefix(".")
    if found not in FORMATS:
        raise ConfigError(f"{name}: the name must end in .onnx (ONNX) or .pt2 (torch.export).")
    if found == "onnx":
        require_onnx()
    return found


def write_graph(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Write a graph to a file, in one atomic step.

    Raises:
        ConfigError: for another ending than .onnx and .pt2, or a part that the format does not have.
        StorageError: if the file cannot be written.
    """
    FORMATS[format_of(path)](graph, path)
