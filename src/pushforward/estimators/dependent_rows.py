"""Rows that depend on each other: calibration by group or by time, and a sign that a random choice would break the promise."""

from __future__ import annotations

from shlex import quote
from typing import Any

import numpy as np
from scipy.stats import rankdata

from pushforward.data import Schema, as_table, is_frame
from pushforward.data.arrow import compute, is_text, value_type
from pushforward.data.cells import INSTANTS, parse_times, time_kind
from pushforward.data.column import CODED
from pushforward.data.schema import present_columns
from pushforward.data.text import date_order, parse_numbers
from pushforward.errors import ConfigError, InputError, warn_caller

__all__ = [
    "check_one_of",
    "check_same_kind",
    "column_apart",
    "labels_of",
    "one_of_each",
    "rows_of_groups",
    "rows_of_time",
    "warn_of_dependence",
]

_ORDERED = r"^\s*([0-9]{4}([-/. T]|Q|$)|[0-9]{2}:[0-9]{2})"
"""Text whose order is that of time: the year or, of a time of day, the hour is first."""
_LOOKED_AT = 5000
_STRONG = 0.25  # correlation of a column's ranks in one row and the next
_COPIES, _COPIED, _FEW = (
    0.05,
    0.02,
    20,
)  # part of the rows that are copies, part and number of the rows that they are copies of
_NEAR, _BY_CHANCE = 0.001, 2
"""Most rows that are equal to another one but for one column, where copies are not natural: part of the copies, and number."""
_COLUMNS = 100
_DISTINCT = 0.9  # part of the different rows that have different values in a column of measurements


def labels_of(name: str, X: Any, given: Any) -> np.ndarray:
    """One label for each row: those given, or the cells of the column that a text names.

    Args:
        name: of the argument, for errors.
        X: the training table.
        given: an array, or the name of a column of X.

    Raises:
        InputError: for a column that X lacks, another number of labels, labels that are missing, or a time that is text
            whose order is not that of time.
    """
    if isinstance(given, str):
        if not is_frame(X):
            raise InputError(
                f"{name}={given!r} names a column, but an array has no names: give one label for each row."
            )
        if given not in (table := as_table(X, index=True)).column_names:
            raise InputError(
                f"{name}={given!r} names no column of the table: give one of {present_columns(given, table.column_names)}, or one label for "
                "each row."
            )
        column = table.column(given)
    else:
        column = as_table({"labels": given}).column(0)
    if column.null_count:
        raise InputError(
            f"{name} is missing in {column.null_count} rows: give every row a label, or leave these rows out."
        )
    if name == "time" and is_text(column.type):
        column = _in_order(column)
    labels = column.to_numpy()
    if missing := int((labels != labels).sum()):  # NaN of an array is no null
        raise InputError(f"{name} is missing in {missing} rows: give every row a label, or leave these rows out.")
    count = as_table(X, index=True).num_rows if is_frame(X) else len(X)
    if labels.shape != (count,):
        raise InputError(f"{name} must have one label for each of the {count} rows; got shape {labels.shape}.")
    return labels


def _in_order(text: Any) -> Any:
    """Times that are text: instants as seconds, numbers as numbers, and other text as it is if its order is that of time, such as "2026Q1".

    Raises:
        InputError: for dates that begin with the day or the month, and for other text.
    """
    import pyarrow as pa

    text = compute().cast(text, pa.large_string())
    if date_order(text) == "day":
        raise InputError(
            f"time has dates such as {text[0].as_py()[:30]!r}, whose order as text is not that of time: write them as 2026-12-31 23:59:59 "
            "(pandas.to_datetime converts them)."
        )
    numbers, unreadable = parse_numbers(text)
    if not unreadable.any():
        return pa.array(numbers)
    seconds, unreadable, _ = parse_times(text, "timestamp")
    if not unreadable.any():  # instants, also with zones, by which text is not ordered
        return pa.array(seconds)
    # Text of one form is in the order of time: "2026-1-9" is after "2026-1-10", and "2026-Feb" before "2026-Jan".
    pc = compute()
    form = pc.replace_substring_regex(text, "[0-9]", "0")
    ordered = pc.and_(pc.match_substring_regex(text, _ORDERED), pc.equal(form, form[0]))
    if (row := ordered.index(False).as_py()) >= 0:
        other = text[row].as_py()
        raise InputError(
            f"time has text such as {other[:30]!r}, whose order is not that of time: give instants such as 2026-12-31 23:59:59, or numbers."
        )
    return text


def column_apart(name: Any, X: Any, *, of_time: bool) -> tuple[str, ...]:
    """The column that ``groups`` or ``time`` names, if the score must not read it; none for an array of labels.

    New groups and later instants are beyond all training rows in such a column, so every new row would be unlike them. Instants
    that are the time are read by their time of day and week too, so they stay.
    """
    if not isinstance(name, str) or not is_frame(X) or name not in (table := as_table(X)).column_names:
        return ()
    return () if of_time and time_kind(value_type(table.column(name).type)) in INSTANTS else (name,)


def check_one_of(groups: Any, time: Any) -> None:
    """Raise ConfigError if both are given."""
    if groups is not None and time is not None:
        raise ConfigError("give groups or time, and not both.")


def check_same_kind(chosen: str, groups: Any, time: Any) -> None:
    """Refuse rows without groups or time for a guard whose promise rests on them.

    Args:
        chosen: how the rows were chosen that calibrated the guard, see ``CalibrationRecord``.
        groups: of the new rows; None for none.
        time: of the new rows; None for none.

    Raises:
        InputError: it says what to give.
    """
    if chosen.endswith(" groups") and groups is None:
        raise InputError(
            "the promise of this guard is for rows of new groups, and these rows have none: give groups=, one label for each row or the "
            "name of a column (on the command line --groups COLUMN)."
        )
    if chosen == "latest" and groups is None and time is None:
        raise InputError(
            "the promise of this guard is for later rows, and these rows have no time: give time=, an instant or number for each row or "
            "the name of a column (on the command line --time COLUMN)."
        )


def one_of_each(labels: np.ndarray, chosen: np.ndarray, seed: int) -> np.ndarray:
    """The index of one random row of each of the ``chosen`` groups, in ascending order.

    These rows and a row of a new group are exchangeable, so ranks among them keep the promise; ranks among all rows do not, because
    the rows of a group are alike ("subsampling once", Dunn, Wasserman and Ramdas 2022).
    """
    index = np.random.default_rng(seed).permutation(np.flatnonzero(np.isin(labels, chosen)))
    return np.sort(index[np.unique(labels[index], return_index=True)[1]])


def rows_of_groups(labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that fit, and one row of each of ``count`` other groups, chosen at random, which calibrate.

    Args:
        labels: of the group of each row.
        count: number of groups for calibration, less than that of groups.
        seed: of the choice.
    """
    chosen = np.random.default_rng(seed).permutation(np.unique(labels))[:count]
    return np.flatnonzero(~np.isin(labels, chosen)), one_of_each(labels, chosen, seed)


def rows_of_time(instants: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that fit and the last ``count`` rows in the order of time, which calibrate; rows of one instant stay together.

    Raises:
        InputError: if all rows have one instant.
    """
    _, rank = np.unique(instants, return_inverse=True)
    first = int(np.sort(rank)[len(rank) - count])
    kept = rank >= max(first, 1)
    if kept.all() or not kept.any():
        raise InputError("time is the same in all rows: give the time of each row, or leave time= out.")
    return np.flatnonzero(~kept), np.flatnonzero(kept)


def warn_of_dependence(schema: Schema, encoded: np.ndarray) -> None:
    """Warn if rows that follow each other in time are alike, or if many rows are copies of others.

    Args:
        schema: of the training rows.
        encoded: the training rows, ``(n, columns)``.

    Warns:
        PushforwardWarning: with what was found and what to do.
    """
    _warn_of_time(schema, encoded)
    _warn_of_copies(schema, encoded)


def _warn_of_time(schema: Schema, encoded: np.ndarray) -> None:
    """Warn if a column of instants shows that rows that follow each other are alike."""
    times = [i for i, column in enumerate(schema.columns) if column.time in ("timestamp", "timestamp_utc", "date")]
    numbers = [i for i, column in enumerate(schema.columns) if column.kind not in CODED and not column.time]
    for i in times:
        known = np.flatnonzero(np.isfinite(encoded[:, i]))
        order = known[np.argsort(encoded[known, i], kind="stable")][:_LOOKED_AT]
        if len(order) < 50:
            continue
        for j in numbers:
            values = encoded[order, j]
            values = values[np.isfinite(values)]
            if len(values) < 50:
                continue
            ranks = rankdata(values)
            now, later = ranks[:-1], ranks[1:]
            alike = float(np.corrcoef(now, later)[0, 1]) if np.ptp(now) and np.ptp(later) else 0.0
            if alike > _STRONG:
                name, other = schema.columns[i].name, schema.columns[j].name
                warn_caller(
                    f"rows that follow each other in {name!r} are alike (correlation of {other!r} with the next row: "
                    f"{alike:.2f}), so a random choice of calibration rows promises too much for later rows: "
                    f"fit(X, time={name!r}), on the command line --time {quote(name)}, calibrates on the latest rows."
                )
                return


def _warn_of_copies(schema: Schema, encoded: np.ndarray) -> None:
    """Warn if many rows of measurements are copies of others, as a join or oversampling makes them.

    Rows of a few categories and counts have equals by nature, which new rows have too. Then many rows also differ in a single
    column. So rows are measurements if hardly any do, or if at least two columns of numbers tell nearly all different rows
    apart. Readings of a standby are copies of few rows, and are left alone.
    """
    rows = len(encoded)
    hashes = _hashes(encoded)
    _, first, count = np.unique(hashes.sum(1), return_index=True, return_counts=True)
    copies, copied = rows - len(first), int((count > 1).sum())
    if copies < _COPIES * rows or copied < max(_FEW, _COPIED * len(first)):
        return
    different = encoded[first]
    telling = [
        column.name
        for i, column in enumerate(schema.columns)
        if column.kind not in CODED and len(np.unique(different[:, i])) >= _DISTINCT * len(first)
    ]
    if len(telling) > 1 or _hardly_alike(hashes[first], max(_BY_CHANCE, _NEAR * copies)):
        warn_caller(
            f"{copies} of {rows} rows are copies of another row, and the calibration rows that are copies look more normal than new rows "
            "will, so there will be more false alarms than promised: leave the copies out, as with DataFrame.drop_duplicates(), or give "
            "fit(X, groups=...) one label for each set of copies."
        )


def _hardly_alike(hashes: np.ndarray, most: float) -> bool:
    """Whether at most so many of different rows are equal to another one but for a single column, for each of up to 100 columns.

    Args:
        hashes: of the cells of different rows, ``(n, columns)``.
        most: number of rows.
    """
    total = hashes.sum(1)
    return hashes.shape[1] > 1 and all(
        len(total) - len(np.unique(total - each)) <= most for each in hashes.T[:: -(-hashes.shape[1] // _COLUMNS)]
    )


def _hashes(encoded: np.ndarray) -> np.ndarray:
    """A number for each cell, uint64 ``(n, columns)``; the sums over equal rows are equal, and over others by a chance of about 2^-64."""
    found = np.empty(encoded.shape, np.uint64)
    for i, (seed, factor) in enumerate(_odd_numbers(encoded.shape[1])):
        bits = np.ascontiguousarray(encoded[:, i], np.float64).view(np.uint64) + seed
        for shift in (30, 27):  # numbers of few digits have zeros in their low bits
            bits = (bits ^ (bits >> np.uint64(shift))) * factor  # wraps
        found[:, i] = bits ^ (bits >> np.uint64(31))
    return found


def _odd_numbers(count: int) -> np.ndarray:
    """Pairs of random odd numbers, ``(count, 2)``."""
    return np.random.default_rng(0).integers(0, 2**63, (count, 2), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
