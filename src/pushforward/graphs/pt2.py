"""Graphs as .pt2 files of torch.export, which plain PyTorch loads."""

from __future__ import annotations

import inspect
import io
import json
import os
import warnings
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from pushforward.errors import ConfigError, PushforwardError
from pushforward.graphs.graph import Graph
from pushforward.io import atomic_write
from pushforward.numerics import keeps_distribution_checks

__all__ = ["METADATA", "program_of", "write_pt2"]

METADATA = "pushforward.json"
"""Name of the extra file with the metadata."""


def program_of(graph: Graph) -> ExportedProgram:
    """Trace a graph, with a dynamic number of rows.

    Raises:
        ConfigError: for a network that torch.export cannot trace.
    """
    rows: Any = Dim("rows", min=0) if graph.part else Dim.DYNAMIC
    shapes: Any = tuple({0: rows} for _ in graph.example)
    parameters = inspect.signature(graph.module.forward).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        shapes = (shapes,)
    with torch.no_grad(), warnings.catch_warnings(), keeps_distribution_checks():
        warnings.simplefilter("ignore")  # about the inside of torch.export
        try:
            return torch.export.export(graph.module, graph.example, dynamic_shapes=shapes)
        except PushforwardError:
            raise
        except Exception as error:  # torch.export raises many types
            reason = (str(error).strip().splitlines() or [""])[0]
            raise ConfigError(
                f"torch.export cannot trace this guard ({type(error).__name__}: {reason[:300]}): a network must run the same operations for every "
                "batch, without branches or loops that depend on values, and for any number of rows."
            ) from error


def write_pt2(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Write a graph as a .pt2 file, in one atomic step.

    Raises:
        StorageError: if the file cannot be written.
    """
    stream, program = io.BytesIO(), program_of(graph)
    # What is loaded only scores, so it keeps nothing for gradients. The parameters themselves are those of the user's model.
    for name, value in program.state_dict.items():
        if isinstance(value, nn.Parameter):
            program.state_dict[name] = nn.Parameter(value.detach(), requires_grad=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, stream, extra_files={METADATA: json.dumps(graph.facts)})
    with atomic_write(path) as file:
        file.write(stream.getvalue())
