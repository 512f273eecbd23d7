"""Disjoint parts of a table's rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pushforward.errors import ConfigError

__all__ = ["duplicate_groups", "split_indices"]


def split_indices(
    n: int, parts: Sequence[float], seed: int = 0, groups: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """Shuffle n rows and cut them into disjoint parts, in random order.

    Args:
        n: rows.
        parts: shares that add up to 1, or numbers of rows that add up to n.
        seed: of the shuffling.
        groups: ``(n,)`` labels; rows with one label stay in one part, so sizes are met as nearly as whole groups allow.

    Returns:
        One array of row indices for each part.

    Raises:
        ConfigError: if the parts do not add up.

    Example:
        >>> [len(part) for part in split_indices(10, (0.5, 0.3, 0.2))]
        [5, 3, 2]
    """
    sizes = np.asarray(parts, dtype=np.float64)
    shares = abs(sizes.sum() - 1) < 1e-9 and n != 1
    if (sizes < 0).any() or not (shares or sizes.sum() == n):
        raise ConfigError(f"parts must be shares that add up to 1 or numbers that add up to {n}; got {tuple(parts)}.")
    ends = np.round(np.cumsum(sizes) * (n if shares else 1)).astype(int)
    order = np.random.default_rng(seed).permutation(n)
    if groups is None:
        return tuple(np.split(order, ends[:-1]))
    # Groups in random order, each as a block: a row's group goes to the part in which the group's first row falls.
    _, label = np.unique(groups, return_inverse=True)
    first = np.full(label.max(initial=-1) + 1, n)
    np.minimum.at(first, label[order], np.arange(n))
    rank = np.lexsort((np.arange(n), first[label[order]]))
    order = order[rank]
    start = np.r_[0, np.flatnonzero(np.diff(label[order])) + 1]
    block_start = np.repeat(start, np.diff(np.r_[start, n])) if n else np.empty(0, dtype=int)
    part = np.searchsorted(ends, block_start, side="right")
    return tuple(order[part == k] for k in range(len(sizes)))


def duplicate_groups(rows: np.ndarray) -> np.ndarray:
    """A label for each row, ``(n,)``; rows have one label if, and only if, they are equal (NaN equals NaN).

    Example:
        >>> duplicate_groups(np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])).tolist()
        [0, 1, 0]
    """
    values = np.ascontiguousarray(np.asarray(rows, dtype=np.float64) + 0.0)  # + 0.0 makes -0.0 and 0.0 one value
    values[np.isnan(values)] = math.nan
    if values.shape[1] == 0:
        return np.zeros(len(values), dtype=int)
    packed = values.view(np.dtype((np.void, values.shape[1] * 8))).ravel()
    return np.unique(packed, return_inverse=True)[1]
