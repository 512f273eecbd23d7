"""`CellReport`: the part of a row's score that is due to each cell, by replacing cells; and the cell's usual values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pushforward.detection.table.conditional import NEAR, conditional, residuals
from pushforward.detection.table.linear import Linear
from pushforward.detection.table.reasons import Reasons
from pushforward.detection.table.similar import Similar, similar

__all__ = ["CellReport", "report_cells"]

_REPLACED = 3  # similar rows whose cells replace a cell
_EXAMINED = 24  # columns of a row
_SCORED = 4096  # rows that are scored at a time
_SHARES = 50  # similar rows among which categories are counted
_PASSES = 3  # of the prediction of unknown cells from each other
_PRIOR = 2.0  # rows that the frequencies of all rows count for
_PRIOR_MISSING = 20.0  # the same for missing cells, which few rows have


@dataclass(frozen=True)
class CellReport:
    """What reasons say of each column, ``(n, columns)``.

    Attributes:
        excess: part of the score that is due to the cell, nats.
        low, high: range of 95 % of the rows with such other columns; of coded columns the most likely code. Within the values of
            the training rows; NaN where they lie outside of them, because the other columns are unlike those of any training row.
        own_low, own_high: range of 95 % of all training rows that have a value.
        p_value: P(as unusual given the other columns) among training rows; of an instant the smallest one of its value and its places
            on the circles of the calendar, times their number.
        share: probability of the most likely code given the other columns, or of a missing cell where it is missing.
    """

    excess: np.ndarray
    low: np.ndarray
    high: np.ndarray
    own_low: np.ndarray
    own_high: np.ndarray
    p_value: np.ndarray
    share: np.ndarray


def report_cells(
    reasons: Reasons,
    matrix: np.ndarray,
    unknown: np.ndarray,
    *,
    coded: np.ndarray,
    flags: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
    soft: Callable[[np.ndarray], np.ndarray],
    from_soft: Callable[[np.ndarray], np.ndarray],
    linear: Linear,
    coordinate: np.ndarray,
    circle: np.ndarray,
    placed: np.ndarray,
    level: float = 0.95,
) -> CellReport:
    """Report on the cells of some rows.

    The excess of a cell is the mean of two numbers: by how much the score falls when the cells of the three training rows
    that are nearest in the other columns take its place, and by how much the scores of the three nearest training rows rise
    when they get the cell. These are the last and the first step of a Shapley value. The first number alone finds a single
    changed cell; with the second, columns that changed together are found too.

    Cells that say nothing (unknown categories, for example) are replaced by those of the nearest training row first, so that
    they do not make other columns look unusual.

    Args:
        reasons: fitted.
        matrix: rows of the feature matrix, ``(n, w)``, finite.
        unknown: columns whose cells say nothing, boolean ``(n, columns)``.
        coded: whether each column has codes of categories or flags, ``(columns,)``.
        flags: position in the feature matrix of the missing indicator of each column, -1 for none, ``(columns,)``.
        score: of rows of the feature matrix.
        soft: the soft space of rows of the feature matrix.
        from_soft: the inverse, by coordinate.
        linear: the Gaussian of the soft space.
        coordinate: matrix column of each coordinate, ``(d,)``.
        circle: whether a coordinate is cos or sin of an instant, boolean ``(d,)``.
        placed: the rows of ``reasons`` in the soft space.
        level: of the usual range.
    """
    group, groups = reasons.groups[coordinate], reasons.groups
    apart = reasons.apart(coordinate, circle)
    places = {column: np.flatnonzero(circle & (group == column)) for column in set(group[circle].tolist())}
    where = soft(matrix)
    value = np.array([int(np.flatnonzero(groups == g)[0]) for g in range(reasons.count)])  # column of the value
    first = np.array([int(np.flatnonzero(coordinate == j)[0]) for j in value])
    n, width = len(matrix), reasons.count
    excess = np.zeros((n, width))
    found = {name: np.full((n, width), np.nan) for name in ("low", "high", "p_value", "share")}
    half = reasons.half_width(level)
    present = np.ones((len(reasons.rows), width), dtype=bool)  # a missing cell has a value that took its place
    present[:, flags >= 0] = reasons.rows[:, flags[flags >= 0]] < 0.5
    counted = bool(coded.any() or (flags >= 0).any())
    pending: list[tuple[int, np.ndarray, np.ndarray, int]] = []
    rows_to_score: list[np.ndarray] = []
    waiting = 0

    def settle() -> None:
        nonlocal waiting
        if pending:
            scores = score(np.concatenate(rows_to_score))
            at = 0
            for i, columns, gone, k in pending:
                at = _settle(excess, scores, at, i, columns, gone, k)
        pending.clear()
        rows_to_score.clear()
        waiting = 0

    for i in range(n):
        near = similar(where[i], placed, group, width, max(NEAR, _SHARES if counted else 0), unknown[i])
        gone = np.flatnonzero(unknown[i])
        row, point = matrix[i], where[i]
        if gone.size:
            row, point = _filled(
                row, unknown[i], reasons, near, coded, value, first, soft, from_soft, linear, group, apart
            )
        here = conditional(point, residuals(linear, point[None], apart)[0], reasons, near, group)
        low, high = from_soft(np.array([here.middle - half * here.spread, here.middle + half * here.spread]))
        found["low"][i], found["high"][i] = low[first], high[first]
        tails = reasons.tail(here.size[None])[0]
        found["p_value"][i] = np.maximum(tails[first], reasons.least)
        for column, mine in places.items():
            least = min(float(tails[mine].min()), float(tails[first[column]]))
            found["p_value"][i, column] = np.clip((1 + len(mine)) * least, reasons.least, 1.0)
        for column in np.flatnonzero(coded):
            some, others = present[:, column], near.others[:, column]
            codes, others = reasons.rows[:, value[column]], others[some[others]]
            shares, p_value = _codes(codes, some, others, float(row[value[column]]))
            found["low"][i, column] = found["high"][i, column] = float(shares.argmax())
            found["share"][i, column] = shares.max()
            found["p_value"][i, column] = p_value
        for column in np.flatnonzero(flags >= 0):
            if row[flags[column]]:
                given = near.others[:_SHARES, column]
                everywhere = np.ones(len(reasons.rows), dtype=bool)
                shares, p_value = _codes(reasons.rows[:, flags[column]], everywhere, given, 1.0, _PRIOR_MISSING)
                found["share"][i, column], found["p_value"][i, column] = shares[1], p_value
        columns = np.flatnonzero(~unknown[i])
        if len(columns) > _EXAMINED:
            unusual = np.full(width, -1.0)
            np.maximum.at(unusual, group, here.size / half.clip(1e-12) + np.abs(point) / 10)
            columns = np.sort(columns[np.argsort(-unusual[columns], kind="stable")[:_EXAMINED]])
        candidates, k = _candidates(row, matrix[i], reasons, near, columns, groups)
        pending.append((i, columns, gone, k))
        rows_to_score.append(candidates)
        waiting += len(candidates)
        if waiting >= _SCORED:
            settle()
    settle()
    _keep_within(found["low"], found["high"], reasons.rows[:, value], coded)
    own_low, own_high = np.quantile(reasons.rows[:, value], ((1 - level) / 2, (1 + level) / 2), axis=0)
    for column in np.flatnonzero(present.any(0) & ~present.all(0)):
        known = reasons.rows[present[:, column], value[column]]
        own_low[column], own_high[column] = np.quantile(known, ((1 - level) / 2, (1 + level) / 2))
    return CellReport(excess, own_low=np.tile(own_low, (n, 1)), own_high=np.tile(own_high, (n, 1)), **found)


def _keep_within(low: np.ndarray, high: np.ndarray, values: np.ndarray, coded: np.ndarray) -> None:
    """Clip ranges of numbers to the values of the training rows; NaN for a range outside of them."""
    least, most = values.min(0), values.max(0)
    rounding = 1e-6 * (most - least)
    outside = ((high < least - rounding) | (low > most + rounding)) & ~coded
    low[:], high[:] = np.where(coded, low, np.clip(low, least, most)), np.where(coded, high, np.clip(high, least, most))
    low[outside] = high[outside] = np.nan


def _filled(
    row: np.ndarray,
    unknown: np.ndarray,
    reasons: Reasons,
    near: Similar,
    coded: np.ndarray,
    value: np.ndarray,
    first: np.ndarray,
    soft: Callable[[np.ndarray], np.ndarray],
    from_soft: Callable[[np.ndarray], np.ndarray],
    linear: Linear,
    group: np.ndarray,
    apart: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The row with its unknown cells as in the nearest training row, then numbers as predicted from the other columns."""
    row = row.copy()
    lost = unknown[reasons.groups]
    row[lost] = reasons.rows[near.overall[0], lost]
    point = soft(row[None])[0]
    numbers = unknown & ~coded
    for _ in range(_PASSES if numbers.any() else 0):
        middle = conditional(point, residuals(linear, point[None], apart)[0], reasons, near, group).middle
        row[value[numbers]] = from_soft(middle[None])[0][first[numbers]]
        point = soft(row[None])[0]
    return row, point


def _candidates(
    row: np.ndarray, given: np.ndarray, reasons: Reasons, near: Similar, columns: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, int]:
    """The rows whose scores give the excess: the given row, the row, k near rows, replaced cells, then inserted cells."""
    base = reasons.rows[near.overall[:_REPLACED]]
    k = len(base)
    parts: list[Any] = [given[None], row[None], base]
    for column in columns:
        mine = groups == column
        replaced = np.repeat(row[None], k, axis=0)
        replaced[:, mine] = reasons.rows[near.others[:k, column]][:, mine]
        inserted = base.copy()
        inserted[:, mine] = row[mine]
        parts += [replaced, inserted]
    return np.concatenate(parts), k


def _settle(
    excess: np.ndarray, scores: np.ndarray, at: int, i: int, columns: np.ndarray, gone: np.ndarray, k: int
) -> int:
    """Write the excess of one row's cells, and return where the scores of the next row begin."""
    given, own, base = scores[at], scores[at + 1], scores[at + 2 : at + 2 + k]
    at += 2 + k
    part = scores[at : at + 2 * k * len(columns)].reshape(len(columns), 2, k)
    fall, rise = own - part[:, 0].mean(1), (part[:, 1] - base).mean(1)
    excess[i, columns] = np.maximum(0.5 * (fall + rise), 0.0)
    if gone.size:
        excess[i, gone] = max(given - own, 0.0) / len(gone)
    return at + 2 * k * len(columns)


def _codes(
    codes: np.ndarray, present: np.ndarray, near: np.ndarray, own: float, prior: float = _PRIOR
) -> tuple[np.ndarray, float]:  # fmt: skip
    """The probability of each code among similar rows that have one, and P(a code that is at most as likely as this one)."""
    size = int(max(codes.max(), own)) + 1
    overall = np.bincount(codes[present].astype(int), minlength=size) / max(1, present.sum())
    counts = np.bincount(codes[near].astype(int), minlength=size)
    share = (counts + prior * overall) / (len(near) + prior)
    return share, float(share[share <= share[int(own)] + 1e-12].sum())
