"""Split a data set into disjoint parts, with equal rows in one part where that is needed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from pushforward.data.tables import plain_array
from pushforward.errors import ConfigError, InputError
from pushforward.numerics import splitmix
from pushforward.numerics.checks import check_integer, check_seed

__all__ = ["duplicate_groups", "split_indices"]


def split_indices(n: int, parts: Sequence[float], seed: int = 0, groups: Any = None) -> tuple[np.ndarray, ...]:
    """Split the rows 0 to n - 1 at random into disjoint parts.

    Args:
        n: number of rows.
        parts: size of each part, all as counts (integers) or all as fractions of n (floats). If they add up to less than
            all rows, some rows are in no part.
        seed: the same seed gives the same parts.
        groups: ``(n,)`` labels, for instance from :func:`duplicate_groups`. Rows with the same label go to the same part,
            and the sizes are as near to ``parts`` as the groups allow. Do not use it for a calibration part, whose promise
            needs rows that are drawn one by one.

    Returns:
        Sorted indices of each part, in the order of ``parts``.

    Raises:
        ConfigError: for parts that are not sizes, or that add up to more than all rows; for a seed that is no integer.
        InputError: if a part with a size above 0 would be empty, or if there is not one label for each row.

    Example:
        >>> [len(part) for part in split_indices(10, (0.6, 0.2, 0.2), seed=0)]
        [6, 2, 2]
    """
    check_integer("n", n, 0)
    if not isinstance(parts, (list, tuple, np.ndarray)):
        raise ConfigError(f"parts must be a list of sizes; got {parts!r:.80}.")
    sizes = _sizes(n, list(parts))
    generator = np.random.default_rng(check_seed(seed))
    if groups is None:
        order = generator.permutation(n)
        ends = np.cumsum(sizes)
        return tuple(np.sort(order[end - size : end]) for size, end in zip(sizes, ends, strict=True))
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise InputError(f"groups must have one label for each of the {n} rows; got shape {labels.shape}.")
    _, group_of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    part_of = _part_of_each_group(counts, sizes, n, generator)
    return tuple(np.flatnonzero(part_of[group_of] == part) for part in range(len(sizes)))


def duplicate_groups(rows: Any) -> np.ndarray:
    """A label for each row, equal if and only if the rows are equal (NaN equals NaN, and -0.0 equals 0.0).

    A validation part with copies of training rows does not show overfitting. Pass these labels to :func:`split_indices` to
    avoid that.

    Args:
        rows: ``(n, ...)`` array of numbers.

    Returns:
        ``(n,)`` integers 0 to K - 1, in the order of first appearance.

    Raises:
        InputError: if it is not an array of numbers.

    Example:
        >>> duplicate_groups([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]).tolist()
        [0, 1, 0]
    """
    values = plain_array(rows, "the rows")
    if values.ndim == 0 or values.dtype.kind not in "fiub":
        raise InputError(
            f"expected an array of numbers with one row for each case; got {values.dtype} of shape {values.shape}."
        )
    values = values.reshape(len(values), int(np.prod(values.shape[1:])))
    if values.dtype.kind == "f":
        values = values.astype(np.float64, order="C")  # a copy, because it is changed below
        values[values == 0] = 0.0
        values[np.isnan(values)] = np.nan
        bits = values.view(np.uint64)
    else:
        bits = values.astype(np.int64, order="C").view(np.uint64)
    if len(bits) == 0:
        return np.empty(0, dtype=np.int64)
    _, first, label = np.unique(_hash(bits), return_index=True, return_inverse=True)
    if not np.array_equal(
        bits[first[label]], bits
    ):  # two different rows have one hash, in one of 10^7 tables of 10^6 rows
        _, first, label = np.unique(bits, axis=0, return_index=True, return_inverse=True)
        label = label.reshape(-1)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[label]


def _sizes(n: int, parts: list[Any]) -> list[int]:
    if not parts:
        raise ConfigError("parts must have at least one size.")
    if all(isinstance(part, (int, np.integer)) and not isinstance(part, bool) for part in parts):
        sizes = [int(part) for part in parts]
        if min(sizes) < 0 or sum(sizes) > n:
            raise ConfigError(f"parts must be counts of at least 0 that add up to at most {n} rows; got {sizes}.")
        return sizes
    if not all(isinstance(part, (float, np.floating)) and 0 <= part <= 1 for part in parts):
        raise ConfigError(f"parts must be all counts (integers) or all fractions in [0, 1] (floats); got {parts}.")
    if sum(parts) > 1 + 1e-9:
        raise ConfigError(f"the fractions must add up to at most 1; got {parts}.")
    # Rounding the running sum keeps each size within one row of its fraction, and the total exact.
    edges = [0, *(round(n * min(total, 1.0)) for total in np.cumsum(parts).tolist())]
    sizes = [high - low for low, high in itertools.pairwise(edges)]
    for fraction, size in zip(parts, sizes, strict=True):
        if fraction > 0 and size == 0:
            raise InputError(
                f"{n} rows are too few for a fraction of {fraction:g}: give at least {int(np.ceil(1 / fraction))}."
            )
    return sizes


def _part_of_each_group(counts: np.ndarray, sizes: list[int], n: int, generator: np.random.Generator) -> np.ndarray:
    """The part of each group; len(sizes) means no part."""
    targets = [*sizes, n - sum(sizes)]
    order = generator.permutation(len(counts))
    # The groups in random order are intervals of the rows 0 to n; each goes to the part that contains its middle.
    middles = np.cumsum(counts[order]) - counts[order] / 2
    part_of = np.empty(len(counts), dtype=np.int64)
    part_of[order] = np.searchsorted(np.cumsum(targets), middles, side="left").clip(max=len(sizes))
    for part, size in enumerate(sizes):
        if size == 0 or (part_of == part).any():
            continue
        # A large group covers this part, so it gets the smallest group of the part that has the most groups.
        groups_of = np.bincount(part_of, minlength=len(targets))
        donor = int(groups_of.argmax())
        if groups_of[donor] < 2:
            raise InputError(
                f"{len(counts)} groups of equal rows are too few for {len(sizes)} parts: give more rows that differ, or fewer parts."
            )
        members = np.flatnonzero(part_of == donor)
        part_of[members[counts[members].argmin()]] = part
    return part_of


def _hash(bits: np.ndarray) -> np.ndarray:
    """A 64-bit hash (SplitMix64) of each row of 64-bit words."""
    key = np.zeros(len(bits), dtype=np.uint64)
    for column in range(bits.shape[1]):
        key = splitmix.mix((key ^ bits[:, column]) + np.uint64(splitmix.GOLDEN))
    return key
