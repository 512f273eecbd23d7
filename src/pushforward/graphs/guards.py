"""Guards of tables and of images as graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pushforward.data import Schema
from pushforward.detection.image_score import ImageScore
from pushforward.detection.input_score import InputScore
from pushforward.detection.table_score import TableScore
from pushforward.errors import ConfigError
from pushforward.graphs.graph import OUTPUTS, Graph, Promise, promised, unique_names
from pushforward.graphs.guard_inputs import MISSING, about, codes_of_texts
from pushforward.graphs.scores import ImageGraph
from pushforward.graphs.table import TableGraph

__all__ = ["guard_graph"]


class _OfMatrix(nn.Module):
    """The outputs for one matrix of rows, or one stack of images."""

    def __init__(self, score: nn.Module, promise: Promise) -> None:
        super().__init__()
        self.score, self.promise = score, promise

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return promised(self.score(x), self.promise)


class _OfColumns(nn.Module):
    """The outputs for one vector for each column: float64, or int64 codes."""

    def __init__(self, score: nn.Module, promise: Promise) -> None:
        super().__init__()
        self.score, self.promise = score, promise

    def forward(self, *columns: Tensor) -> dict[str, Tensor]:
        return promised(self.score(torch.stack([_numbers(column) for column in columns], 1)), self.promise)


def _numbers(column: Tensor) -> Tensor:
    """A column of float64 as it is; codes with NaN for a missing cell."""
    return column if column.is_floating_point() else torch.where(column == MISSING, torch.nan, column.double())


def guard_graph(
    score: InputScore,
    calibration: np.ndarray,
    level: float,
    facts: Mapping[str, Any],
    *,
    columns: bool,
    portable: bool,
) -> Graph:
    """The graph of a guard.

    Args:
        score: of tables or of images.
        calibration: scores, ascending.
        level: p-value at or below which there is an alarm.
        facts: metadata of the file; the columns are added.
        columns: whether a table enters as one input for each column, or as one matrix.
        portable: whether to do without operations that ONNX does not have.

    Raises:
        ConfigError: for a score that has no graph; it says which part and what to do.
    """
    if isinstance(score, TableScore) and score.strict:
        raise ConfigError(
            "a guard with strict=True has no graph, because a graph does not read cells as strictly: fit it without."
        )
    if isinstance(score, TableScore):
        module = TableGraph(score.uncompiled(), portable=portable)
        promise = Promise(calibration, level, TableGraph.rounding)
        return _table_graph(module, promise, score.features.schema, dict(facts), columns)
    if isinstance(score, ImageScore):
        module = ImageGraph(score)
        promise = Promise(calibration, level, ImageGraph.rounding)
        example = torch.zeros(2, *score.shape, dtype=torch.uint8 if score.top < 256 else torch.int32)
        shape = {"channels": score.shape[0], "height": score.shape[1], "width": score.shape[2]}
        images = {"inputs": [{"input": "images", "type": str(example.dtype).removeprefix("torch."), **shape}]}
        return Graph(_OfMatrix(module, promise).eval(), (example,), ("images",), OUTPUTS, dict(facts) | images)
    raise ConfigError(
        f"{type(score).__name__} has no graph: its noise comes from a cryptographic hash of each row, which other runtimes do not "
        "have; export a guard that was fitted without smoothing."
        if type(score).__name__ == "SmoothedScore"
        else f"{type(score).__name__} has no graph: only a score that a guard fits itself has one."
    )


def _table_graph(module: TableGraph, promise: Promise, schema: Schema, facts: dict[str, Any], columns: bool) -> Graph:
    if not columns:
        facts["columns"] = [about(column, "X", index) for index, column in enumerate(schema.columns)]
        example = torch.zeros(2, len(schema), dtype=torch.float64)
        return Graph(_OfMatrix(module, promise).eval(), (example,), ("X",), OUTPUTS, facts, part=module.pool.part)
    names = unique_names(schema.names)
    facts["columns"] = [about(column, name) for column, name in zip(schema.columns, names, strict=True)]
    texts = {
        name: codes_of_texts(column.categories)
        for column, name in zip(schema.columns, names, strict=True)
        if column.kind == "categorical"
    }
    example = tuple(
        torch.zeros(2, dtype=torch.int64 if c.kind == "categorical" else torch.float64) for c in schema.columns
    )
    return Graph(_OfColumns(module, promise).eval(), example, names, OUTPUTS, facts, texts, module.pool.part)
