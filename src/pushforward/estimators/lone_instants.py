"""The warning about training rows whose instant is far from all others."""

from __future__ import annotations

import numpy as np

from pushforward.data import Schema
from pushforward.data.instants import ends_of
from pushforward.errors import warn_caller

__all__ = ["warn_of_lone_instants"]


def warn_of_lone_instants(schema: Schema, encoded: np.ndarray) -> None:
    """Warn of columns of timestamps and dates in which a few rows are far before or after all others.

    Args:
        schema: of the training rows.
        encoded: the training rows, ``(n, columns)``.

    Warns:
        PushforwardWarning: for each such column, with one of the instants and what to do.
    """
    for i, column in enumerate(schema.columns):
        values = encoded[np.isfinite(encoded[:, i]), i]
        if column.time not in ("timestamp", "timestamp_utc", "date") or not values.size:
            continue
        first, last = ends_of(values)
        alone = values[(values < first) | (values > last)]
        if alone.size:
            example, begin, end = map(column.text, (float(alone[0]), first, last))
            rows = "1 row is" if alone.size == 1 else f"{alone.size} rows are"
            warn_caller(
                f"column {column.name!r}: {rows} far from all others in time ({example}; the others are from {begin} to {end}): correct "
                f"such instants or leave the rows out. Other rows are compared as if these were not there."
            )
