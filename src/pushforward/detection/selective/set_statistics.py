"""Coverage and size of prediction sets."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pushforward.detection.selective.inputs import class_labels
from pushforward.detection.validation import plain_array
from pushforward.errors import InputError

__all__ = ["set_statistics"]


def set_statistics(sets: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Coverage and size of prediction sets on labeled rows.

    Args:
        sets: ``(n, K)`` booleans.
        labels: ``(n,)``, integers from 0 to K - 1.

    Returns:
        ``coverage``; ``worst_class_coverage``; ``worst_size_coverage``, the lowest coverage among sets of one size that at
        least 5 % of the rows have (size-stratified; Angelopoulos et al. 2021); ``size``; ``single`` and ``empty``, the
        fractions of sets with one label and with none.

    Raises:
        InputError: for other shapes, no rows, or labels out of range.

    Example:
        >>> set_statistics([[True, False], [True, True]], [0, 1])["size"]
        1.5
    """
    table = plain_array(sets, "sets")
    if table.dtype != np.bool_ or table.ndim != 2 or 0 in table.shape:
        raise InputError(f"sets must be booleans of shape (rows, classes); got {table.dtype} of shape {table.shape}.")
    y = class_labels(labels, *table.shape)
    hit, size = table[np.arange(len(y)), y], table.sum(1)
    by_size = [hit[size == k].mean() for k in np.unique(size) if (size == k).mean() >= 0.05]
    return {
        "coverage": float(hit.mean()),
        "worst_class_coverage": float(min(hit[y == k].mean() for k in np.unique(y))),
        "worst_size_coverage": float(min(by_size, default=hit.mean())),
        "size": float(size.mean()),
        "single": float((size == 1).mean()),
        "empty": float((size == 0).mean()),
    }
