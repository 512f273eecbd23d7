"""The training rows that are most like a row in all columns but one, for every column at once."""

from __future__ import annotations

import numpy as np

__all__ = ["Similar", "similar"]


class Similar:
    """Training rows near one row.

    Attributes:
        overall: indices of the nearest ones in all columns, ``(k,)``, the nearest first.
        others: indices of the nearest ones in all columns but one, ``(k, columns)``, in order of distance.
    """

    def __init__(self, overall: np.ndarray, others: np.ndarray) -> None:
        self.overall, self.others = overall, others


def similar(
    row: np.ndarray, reference: np.ndarray, group: np.ndarray, count: int, k: int, unknown: np.ndarray | None = None
) -> Similar:
    """Find the nearest reference rows of one row; a reference row that is equal to it is left out once.

    Args:
        row: in the soft space, ``(d,)``.
        reference: in the soft space, ``(m, d)``.
        group: column of each coordinate, ``(d,)``.
        count: number of columns.
        k: number of rows; m if there are fewer.
        unknown: columns whose cells say nothing, boolean ``(count,)``.
    """
    squares = (reference - row) ** 2
    if np.array_equal(group, np.arange(count)):
        by_column = squares
    else:
        by_column = np.zeros((len(reference), count))
        order = np.argsort(group, kind="stable")
        ordered = group[order]
        first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        by_column[:, ordered[first]] = np.add.reduceat(squares[:, order], first, axis=1)
    if unknown is not None and unknown.any():
        by_column[:, unknown] = 0.0
    total = by_column.sum(1)
    rest = np.maximum(total[:, None] - by_column, 0.0)
    equal = int(total.argmin())
    if total[equal] <= 1e-20 and len(reference) > 1:
        rest[equal], total[equal] = np.inf, np.inf
    k = min(k, len(reference) - 1) or 1
    nearest = np.argpartition(rest, k - 1, axis=0)[:k]
    nearest = np.take_along_axis(nearest, np.argsort(np.take_along_axis(rest, nearest, 0), axis=0, kind="stable"), 0)
    overall = np.argpartition(total, k - 1)[:k]
    return Similar(overall[np.argsort(total[overall], kind="stable")], nearest)
