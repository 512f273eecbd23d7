"""Guards as files of other runtimes: what `Guard.export` and `NetworkGuard.export` do."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pushforward import __version__, io
from pushforward.detection.modes import evaluation
from pushforward.detection.network.digest import digest
from pushforward.detection.network.reading import floating_type, plain_tensor
from pushforward.detection.table_score import TableScore
from pushforward.errors import ConfigError, InputError
from pushforward.graphs.files import format_of, write_graph
from pushforward.graphs.guards import guard_graph
from pushforward.graphs.network import network_graph
from pushforward.numerics.checks import check_choice

if TYPE_CHECKING:
    from pushforward.estimators.guard import Guard
    from pushforward.estimators.network_guard import NetworkGuard

__all__ = ["export_guard", "export_network_guard"]


def export_guard(guard: Guard, path: str | os.PathLike[str], inputs: str = "auto") -> None:
    """Write a fitted guard as a graph; see :meth:`~pushforward.Guard.export`."""
    check_choice("inputs", inputs, ("auto", "columns", "matrix"))
    kind = format_of(path)
    if inputs == "columns" and kind == "pt2":
        raise ConfigError("a .pt2 file of a table takes one matrix: use inputs='matrix'.")
    columns = kind == "onnx" and (inputs == "columns" or (inputs == "auto" and _has_columns(guard.score_)))
    header, tensors = guard.contents()
    facts = {
        "pushforward": __version__,
        "digest": io.file_digest(header, tensors),
        "alpha": guard.alpha,
        "guarantee": guard.guarantee,
        **({"delta": guard.delta} if guard.guarantee == "pac" else {}),
        "alarm at p-values up to": guard.level_,
        "calibration rows": guard.calibrator_.n,
        "promised for": str(guard.calibration_),
        **({} if guard.embed is None else {"inputs are features of the network": guard.digest_}),
    }
    graph = guard_graph(
        guard.score_, guard.calibrator_.scores, guard.level_, facts, columns=columns, portable=kind == "onnx"
    )
    write_graph(graph, path)


def _has_columns(score: Any) -> bool:
    """Whether the inputs are columns: of a table that had names or text."""
    if not isinstance(score, TableScore):
        return False
    schema = score.features.schema
    return not schema.positional or any(column.kind == "categorical" for column in schema.columns)


def export_network_guard(
    guard: NetworkGuard, path: str | os.PathLike[str], example: Any, inputs: tuple[str, ...] | None = None
) -> None:
    """Write a fitted guard and its network as one graph; see :meth:`~pushforward.NetworkGuard.export`."""
    format_of(path)
    if guard.read is not None or not isinstance(guard.net, torch.nn.Module):
        raise ConfigError("a guard with read= cannot be exported: fit one that reads the module by hooks.")
    given, names = _tensors(guard.net, example)
    if inputs is not None and len(inputs) != len(given):
        raise ConfigError(f"inputs must name {len(given)} inputs of the network; got {len(inputs)}.")
    facts: dict[str, Any] = {
        "pushforward": __version__,
        "network": digest(guard.net),
        "alpha": guard.alpha,
        "guarantee": guard.guarantee,
        **({"delta": guard.delta} if guard.guarantee == "pac" else {}),
        "alarm at p-values up to": guard.levels_ if guard.per_class else guard.levels_[None],
        "per class": guard.per_class,
        "calibration rows": sum(c.n for c in guard.calibrators_.values()),
        "promised": guard.promised_,
    }
    with evaluation(guard.net):  # a graph puts its modules into evaluation mode, and the network stays as it is
        graph = network_graph(
            guard.reader_, guard.score_, guard.classes_, {k: c.scores for k, c in guard.calibrators_.items()}, guard.levels_,
            given, inputs or names, facts,
        )  # fmt: skip
        write_graph(graph, path)


def _tensors(net: torch.nn.Module, example: Any) -> tuple[tuple[Tensor, ...], tuple[str, ...]]:
    """The positional inputs in an example, on at least two rows, and the names that the network has for them."""
    if isinstance(example, Mapping):
        raise ConfigError(
            "a network that takes keyword arguments cannot be exported: wrap it in a module with positional ones."
        )
    given = example if isinstance(example, (tuple, list)) else (example,)
    found = tuple(plain_tensor(each, floating_type(net)) for each in given)
    if not found or any(each.dim() < 1 or len(each) == 0 for each in found):
        raise InputError("the example must be a batch of the network's inputs, with at least one row.")
    device = next((tensor.device for tensor in net.parameters()), torch.device("cpu"))
    found = tuple(torch.cat((each, each))[: max(2, len(each))].to(device) for each in found)
    parameters = [
        p.name
        for p in inspect.signature(net.forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    names = parameters[: len(found)]
    names += [f"input_{index}" for index in range(len(names), len(found))]
    return found, tuple(names)
