"""How the rows of a guard are read for a report, and what is said of its alarms: cells, pictures, reasons."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pushforward.data import Photographs, Problem, is_frame
from pushforward.detection.column_summary import ColumnSummary
from pushforward.detection.image_columns import image_columns
from pushforward.errors import ConfigError
from pushforward.numerics.checks import check_integer
from pushforward.report.collected import Shown
from pushforward.report.reasons import column_nats, reason
from pushforward.report.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pushforward.data import Schema
    from pushforward.estimators.guard import Guard

__all__ = ["Kept", "ReportOptions", "RowReader", "picture", "rows_of"]

_REASONS = 3
_LEAST_NATS = 3.0
"""A second and third reason must be at least so unusual."""
_UNUSUAL = -float(np.log(0.02))
"""Nats of a cell outside the range of 98 % of the training rows."""
_PICTURE = 96
"""Longest side of a picture in pixels."""


class Kept(NamedTuple):
    """What is kept of a row: a table, matrix or tensor of one row, its columns as float64, and what the user gave."""

    rows: Any
    encoded: np.ndarray
    raw: Any = None


@dataclass(frozen=True)
class ReportOptions:
    """What a report is called and what it shows.

    Attributes:
        title: of the page; None for one that names the guard or the rows.
        name: what the rows are called, such as their file.
        file: name of the guard's file.
        alarms: number of alarms that are shown.
        show_rows: whether to show whole rows of these alarms.
        values: whether to show the cells that are reasons, and pictures.
        guard: more facts about the guard, name and value.
        data: more facts about the rows.
    """

    title: str | None = None
    name: str = ""
    file: str = ""
    alarms: int = 20
    show_rows: bool = False
    values: bool = True
    guard: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_integer("alarms", self.alarms, 1)
        if self.alarms > 1000:
            raise ConfigError(f"alarms must be at most 1000; got {self.alarms}.")
        if self.show_rows and not self.values:
            raise ConfigError("show_rows=True shows values: it contradicts values=False.")

    def heading(self) -> str:
        """The title."""
        subject = self.name or self.file
        return self.title or (f"Report on {subject}" if subject else "Report of a guard")


class RowReader(ABC):
    """How the rows of a guard are read, and what is said of its alarms.

    Attributes:
        columns: the training columns, or the properties of the training images; empty if the guard's file lacks them.
        pictures: whether rows are shown as pictures.
        nouns: what one row and many are called.
        column_nouns: what one column and many are called.
    """

    pictures = False
    nouns = ("row", "rows")
    column_nouns = ("column", "columns")

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.columns: Sequence[ColumnSummary] = [] if guard.training_ is None else guard.training_.columns

    @abstractmethod
    def encode(self, rows: Any) -> tuple[np.ndarray, list[Problem]]:
        """The columns as float64, ``(n, d)``, and the differences of their schema."""

    def raw(self, part: Any, k: int) -> Any:
        """What the user gave for a row, where it is more than what the guard reads."""
        return None

    @abstractmethod
    def first_reasons(self, rows: Any, encoded: np.ndarray) -> list[str]:
        """The first reason of each of some alarms; nothing if there are none."""

    @abstractmethod
    def alarms(
        self, worst: Sequence[Shown], options: ReportOptions, pictures: dict[str, bytes]
    ) -> list[dict[str, Any]]:
        """What a report says of some alarms, as plain JSON types; pictures are added to ``pictures``."""

    def pictured(self, shown: Shown, name: str, pictures: dict[str, bytes]) -> dict[str, Any]:
        """A row with its picture, where rows are images."""
        return _alarm(shown)


def rows_of(guard: Guard) -> RowReader:
    """The reader of a guard's rows."""
    if guard.embed is not None:
        return EmbeddedRows(guard)
    return ImageRows(guard) if guard.reads_images else TableRows(guard)


def picture(image: Tensor) -> bytes:
    """A PNG of one image of integers, ``(channels, height, width)``, or of floating-point numbers, which are scaled to their range."""
    from PIL import Image

    x = image.detach().cpu()
    x = x[:3] if x.shape[0] >= 3 else x[:1]
    if x.dtype != torch.uint8:
        x = torch.nan_to_num(x.double(), posinf=0.0, neginf=0.0)
        low, high = min(0.0, float(x.min())), max(float(x.max()), 1.0)
        x = ((x - low) * (255.0 / (high - low))).round().to(torch.uint8)
    array = x.permute(1, 2, 0).numpy() if x.shape[0] == 3 else x[0].numpy()
    shown = Image.fromarray(np.ascontiguousarray(array))
    shown.thumbnail((_PICTURE, _PICTURE))
    file = io.BytesIO()
    shown.save(file, "PNG", optimize=True)
    return file.getvalue()


def photograph(given: Any) -> bytes | None:
    """A PNG of what :class:`~pushforward.data.Photographs` reads, or of a tensor of an image; None for anything else."""
    if isinstance(given, Tensor):
        return picture(given) if given.dim() == 3 and given.shape[0] in (1, 3, 4) else None
    try:
        shown = Photographs._open(given)
        shown.thumbnail((_PICTURE, _PICTURE))
        file = io.BytesIO()
        shown.convert("RGB").save(file, "PNG", optimize=True)
        return file.getvalue()
    except Exception:  # texts, recordings, and files that are gone are no pictures
        return None


class TableRows(RowReader):
    """Rows of a table: reasons are columns, in the units of the data."""

    def __init__(self, guard: Guard) -> None:
        super().__init__(guard)
        self._place = {name: j for j, name in enumerate(guard.schema_.names)}

    def encode(self, rows: Any) -> tuple[np.ndarray, list[Problem]]:
        return self.guard.schema_.encode(rows, warn=False, owner="Guard")

    def first_reasons(self, rows: Any, encoded: np.ndarray) -> list[str]:
        return [row[0][0] for row in self._explained(rows, encoded) if row]

    def alarms(
        self, worst: Sequence[Shown], options: ReportOptions, pictures: dict[str, bytes]
    ) -> list[dict[str, Any]]:
        if not worst:
            return []
        encoded = np.stack([shown.content.encoded for shown in worst])
        explained = self._explained(_joined([shown.content.rows for shown in worst]), encoded)
        found = []
        for k, shown in enumerate(worst):
            cells = _cells(shown.content.rows, self.guard.schema_)
            reasons = [self._reason(part, cells, encoded[k], options.values) for part in explained[k]]
            entry = self.pictured(shown, "alarm", pictures) if options.values else _alarm(shown)
            found.append(entry | {"reasons": reasons})
            if options.show_rows:
                found[-1]["cells"] = [
                    [name, "missing" if np.isnan(v) else visible(cell)]
                    for name, cell, v in zip(self.guard.schema_.names, cells, encoded[k], strict=True)
                ]
        return found

    def _explained(self, rows: Any, encoded: np.ndarray) -> list[list[_Part]]:
        """The reasons of each row, the first one first: those of ``explain``, or each column by itself where it cannot."""
        try:
            found = self.guard.score_.explain(rows)
        except ConfigError:
            nats, names = _by_itself(self.columns, encoded), self.guard.schema_.names
            if nats is None:
                return [[] for _ in encoded]
            order = np.argsort(-nats, axis=1, kind="stable")[:, :_REASONS]
            return [_main([_Part(names[j], float(row[j])) for j in own]) for row, own in zip(nats, order, strict=True)]
        main: Any = getattr(found, "main_reasons", None)
        if main is not None:  # reasons with sentences
            return [
                [_Part(r.column, float(r.excess), r.sentence) for r in main(k, _REASONS)] for k in range(len(encoded))
            ]
        return [_main([_Part(*part) for part in found.top(k, _REASONS)]) for k in range(len(encoded))]

    def _reason(self, part: _Part, cells: Sequence[Any], encoded: np.ndarray, values: bool) -> dict[str, Any]:
        j = self._place[part.column]
        if self.columns:
            found = reason(self.columns[j], part.nats, cells[j], float(encoded[j]), values=values)
        else:
            found = {"column": part.column, "nats": part.nats if np.isfinite(part.nats) else None, "usual": "",
                     "value": visible(cells[j]) if values else None, "finding": "unlikely"}  # fmt: skip
        return found | {"sentence": part.sentence if values else ""}


class _Part(NamedTuple):
    """One reason: a column, how unusual it is in nats, and a sentence that contains the cell, or ""."""

    column: str
    nats: float
    sentence: str = ""


def _main(parts: list[_Part]) -> list[_Part]:
    """The first reason, and others that are unusual enough."""
    return [part for k, part in enumerate(parts) if k == 0 or part.nats >= _LEAST_NATS]


class EmbeddedRows(TableRows):
    """Features that a network finds in photographs or other inputs; those that are pictures are shown."""

    pictures = True
    nouns = ("input", "inputs")
    column_nouns = ("feature", "features")

    def raw(self, part: Any, k: int) -> Any:
        if is_frame(part):  # numbers for the network, whose rows are no pictures
            return None
        return part[k] if isinstance(part, (list, tuple)) or hasattr(part, "shape") else None

    def pictured(self, shown: Shown, name: str, pictures: dict[str, bytes]) -> dict[str, Any]:
        given = shown.content.raw
        reads_files = isinstance(self.guard.embedder_.prepare, Photographs)
        found = photograph(given) if reads_files or not isinstance(given, (str, os.PathLike, bytes)) else None
        if found is None:  # a text that happens to name a file is a text
            return _alarm(shown)
        key = f"{name}-{shown.row}.png"
        pictures[key] = found
        return _alarm(shown) | {"picture": key}


class ImageRows(RowReader):
    """Images: reasons are pictures, and properties of them that are unusual."""

    pictures = True
    nouns = ("image", "images")
    column_nouns = ("property", "properties")

    def encode(self, rows: Tensor) -> tuple[np.ndarray, list[Problem]]:
        return image_columns(rows), []

    def first_reasons(self, rows: Any, encoded: np.ndarray) -> list[str]:
        nats = _by_itself(self.columns, encoded)
        if nats is None:
            return []
        names = [summary.column.name for summary in self.columns]
        return [names[k] if row[k] > _UNUSUAL else "the content" for row, k in zip(nats, nats.argmax(1), strict=True)]

    def alarms(
        self, worst: Sequence[Shown], options: ReportOptions, pictures: dict[str, bytes]
    ) -> list[dict[str, Any]]:
        found = []
        for shown in worst:
            entry = self.pictured(shown, "alarm", pictures) if options.values else _alarm(shown)
            nats = _by_itself(self.columns, shown.content.encoded[None])
            values = shown.content.encoded
            if nats is not None:
                order = [int(j) for j in np.argsort(-nats[0], kind="stable") if nats[0, j] > _UNUSUAL][:_REASONS]
                entry["reasons"] = [
                    reason(
                        self.columns[j], float(nats[0, j]), None, float(values[j]), values=options.values, noun="image"
                    )
                    for j in order
                ]
            if nats is not None and not entry["reasons"]:
                entry["sentence"] = "Its brightness, contrast and sharpness are usual; its content is not."
            found.append(entry)
        return found

    def pictured(self, shown: Shown, name: str, pictures: dict[str, bytes]) -> dict[str, Any]:
        key = f"{name}-{shown.row}.png"
        pictures[key] = picture(shown.content.rows[0])
        return _alarm(shown) | {"picture": key}


def _alarm(shown: Shown) -> dict[str, Any]:
    return {"row": shown.row, "score": shown.score, "p_value": shown.p_value, "picture": None, "prediction": None,
            "sentence": "", "reasons": [], "cells": None}  # fmt: skip


def _by_itself(columns: Sequence[ColumnSummary], encoded: np.ndarray) -> np.ndarray | None:
    if not columns:
        return None
    return np.stack([column_nats(summary, values) for summary, values in zip(columns, encoded.T, strict=True)], axis=1)


def _joined(rows: Sequence[Any]) -> Any:
    if isinstance(rows[0], np.ndarray):
        return np.concatenate(rows)
    import pyarrow as pa

    return pa.concat_tables(rows, promote_options="default")


def _cells(row: Any, schema: Schema) -> list[Any]:
    """The cells of a table of one row, in the order of the guard's columns."""
    if isinstance(row, np.ndarray):
        return row[0].tolist()
    same = not schema.positional and set(schema.names) <= set(row.column_names)
    return [_python_value(row.column(name if same else k)[0]) for k, name in enumerate(schema.names)]


def _python_value(cell: Any) -> Any:
    """A cell of pyarrow as one of Python; None for an instant that Python cannot represent."""
    try:
        return cell.as_py()
    except (OverflowError, ValueError):
        return None
