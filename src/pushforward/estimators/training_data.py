"""What a guard remembers of its training data, apart from what its score needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pushforward.data import Schema
from pushforward.data.digest import content_digest
from pushforward.detection.column_summary import ColumnSummaries, ColumnSummary
from pushforward.detection.image_columns import image_columns, image_schema
from pushforward.errors import StorageError
from pushforward.estimators.calibration_rows import take
from pushforward.io.file_format import current_versions

__all__ = ["TrainingData"]

_MOST = 100_000
"""Training rows that are summarized; the quantiles of more are hardly more certain."""


@dataclass(frozen=True)
class TrainingData:
    """How many rows a guard was fitted with, their digest, and how their columns are distributed.

    Attributes:
        rows: number of rows that ``fit`` was given, those for calibration included.
        digest: :func:`~pushforward.data.digest.content_digest` of these rows.
        versions: of pushforward, torch and python that fitted the guard.
        schema: of the table; for images, of :func:`~pushforward.detection.image_columns.image_columns`.
        summaries: of the rows that fitted the score, or of 100,000 of them; calibration rows are not in it.
    """

    rows: int
    digest: str
    versions: dict[str, str]
    schema: Schema
    summaries: ColumnSummaries

    @classmethod
    def of(cls, rows: Any, fitted: np.ndarray, schema: Schema | None, seed: int) -> Self:
        """Describe training data.

        Args:
            rows: all rows, as the score reads them: a tensor of images, a pyarrow table or a float64 matrix.
            fitted: positions of the rows that fitted the score.
            schema: of a table.
            seed: of the choice of rows.
        """
        if len(fitted) > _MOST:
            fitted = np.sort(np.random.default_rng(seed).choice(fitted, _MOST, replace=False))
        some = take(rows, fitted)
        if isinstance(rows, torch.Tensor):
            schema, encoded = image_schema(rows.shape[1]), image_columns(some)
        else:
            assert schema is not None
            encoded = schema.encode(some, warn=False)[0]
        return cls(len(rows), content_digest(rows), current_versions(), schema, ColumnSummaries.fit(schema, encoded))

    @property
    def columns(self) -> list[ColumnSummary]:
        """The summary of each column."""
        return self.summaries.columns(self.schema)

    def pack(self, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Description (plain JSON types) and tensors for a file; the schema is stored with the score."""
        return {"rows": self.rows, "digest": self.digest, "versions": self.versions}, self.summaries.pack(prefix)

    @classmethod
    def unpack(cls, description: Any, tensors: dict[str, Tensor], prefix: str, schema: Schema) -> Self:
        """Rebuild from what :meth:`pack` returned; both may come from an untrusted file.

        Raises:
            StorageError: for content that :meth:`pack` does not give.
        """
        if not isinstance(description, dict) or set(description) != {"rows", "digest", "versions"}:
            raise StorageError("it describes its training data in a form that pushforward never writes.")
        rows, digest, versions = description["rows"], description["digest"], description["versions"]
        hexadecimal = isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef")
        if type(rows) is not int or rows < 1 or not hexadecimal or not isinstance(versions, dict):
            raise StorageError("it describes its training data in a form that pushforward never writes.")
        versions = {str(name)[:40]: str(text)[:40] for name, text in list(versions.items())[:10]}
        summaries = ColumnSummaries.unpack(tensors, prefix)
        if not summaries.fits(schema):
            raise StorageError("the summary of its training data does not fit its columns.")
        return cls(rows, digest, versions, schema, summaries)
