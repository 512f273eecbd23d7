"""The warning about columns whose numbers are so large or small that the scores cannot tell them apart."""

from __future__ import annotations

import numpy as np

from pushforward.data import Schema
from pushforward.errors import warn_caller

__all__ = ["warn_of_extreme_units"]

_SMALLEST, _LARGEST = 1e-100, 1e100  # squares of numbers beyond these leave the range of float64


def warn_of_extreme_units(schema: Schema, encoded: np.ndarray) -> None:
    """Warn of columns of numbers whose largest one is beyond 1e100, or below 1e-100 and not 0.

    Args:
        schema: of the training rows.
        encoded: the training rows, ``(n, columns)``.

    Warns:
        PushforwardWarning: for each such column, with its largest number and what to do.
    """
    for i, column in enumerate(schema.columns):
        if column.kind == "categorical" or column.time:
            continue
        size = float(np.abs(encoded[np.isfinite(encoded[:, i]), i]).max(initial=0.0))
        if size == 0 or _SMALLEST <= size <= _LARGEST:
            continue
        unit, border = ("larger", f"beyond {_LARGEST:g}") if size > 1 else ("smaller", f"below {_SMALLEST:g}")
        warn_caller(
            f"column {column.name!r} has numbers of a size up to {size:.1g}, and numbers {border} are hardly told apart, so anomalies in it "
            f"are missed: measure it in a {unit} unit."
        )
