"""Which rows of a guard fit its score and which calibrate it, and the scores of the latter in limited time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pushforward.data import split_indices
from pushforward.detection import Guarantee, rows_needed
from pushforward.detection.conformal.trimming import far_scores
from pushforward.errors import CalibrationError, InputError, warn_caller
from pushforward.estimators.dependent_rows import rows_of_groups, rows_of_time

__all__ = ["score_in_time", "split_rows", "take", "trim"]

_MOST = 10_000
"""Rows that a fraction of many rows calibrates with; more make the realized rate of false alarms hardly more certain."""

_LEAST = 100
"""Rows that calibrate by default, if these are at most a quarter: they are enough for alpha = 1 %."""

_BLOCK = 1024
"""Rows that are scored between two readings of the clock."""


def split_rows(
    rows: int,
    calibration: float | int | None,
    alpha: float,
    guarantee: Guarantee,
    delta: float,
    seed: int,
    *,
    groups: np.ndarray | None = None,
    time: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, str]:
    """Divide rows into those that fit the score and those that calibrate: at random, by group, or in the order of time.

    Args:
        rows: their number.
        calibration: fraction or number of rows for calibration, of groups if there are any; None for a tenth, but at least 100
            or, of fewer than 400, a quarter. A fraction is raised to what ``alpha`` needs, if half of them are enough for that.
        alpha: promised false-alarm rate.
        guarantee: see :func:`~pushforward.detection.rows_needed`.
        delta: see :func:`~pushforward.detection.rows_needed`.
        seed: of the division.
        groups: label of each row; one row of each of some groups calibrates, and no row of these groups fits.
        time: of each row; the last rows calibrate.

    Returns:
        The indices of both, and how they were chosen.

    Raises:
        CalibrationError: if fewer than two rows are left to fit the score.
        InputError: with one group.
    """
    units, noun = rows, "rows"
    if groups is not None:
        names, groups = np.unique(groups, return_inverse=True)
        units, noun = len(names), "groups"
    if noun == "groups" and units < 2:
        raise InputError(
            "groups has one group, and calibration needs rows of groups that the score was not fitted on: give at least two."
        )
    count = _count(units, noun, calibration, alpha, guarantee, delta)
    if groups is not None:
        (fitted, kept), how = rows_of_groups(groups, count, seed), f"{count} groups"
    elif time is not None:
        (fitted, kept), how = rows_of_time(time, count), "latest"
    else:
        (fitted, kept), how = split_indices(rows, (rows - count, count), seed=seed), "random"
    if len(fitted) < 2:
        raise CalibrationError(
            f"{len(kept)} of {rows} rows calibrate and {len(fitted)} fit: use more or smaller groups."
        )
    return fitted, kept, how


def _count(
    units: int, noun: str, calibration: float | int | None, alpha: float, guarantee: Guarantee, delta: float
) -> int:
    """How many rows or groups calibrate.

    Raises:
        CalibrationError: if no row, or fewer than two rows or one group, would be left to fit the score.

    Warns:
        PushforwardWarning: if they are too few for an alarm.
    """
    needed = rows_needed(alpha, guarantee, delta)
    by_number = False
    if calibration is not None and calibration >= 1:
        count, by_number = int(calibration), True
    else:
        wanted = min(units / 4, max(units / 10, _LEAST)) if calibration is None else calibration * units
        count = min(round(min(wanted, _MOST)), units // 2)
        if count < needed <= units // 2:  # where half is not enough, there are no alarms, and the score gets the rows
            count = needed
    left = 2 if noun == "rows" else 1
    if noun == "groups" and not by_number:
        count = max(1, count)
    if units - count < left or count < 1:
        raise CalibrationError(
            f"of {'n_samples = ' if noun == 'rows' else ''}{units} {noun}, {count} calibrate and {units - count} fit: give at least "
            f"{2 * left} {noun}, and at least {left} more than calibrate."
        )
    if count < needed:
        to_give = f"calibration={needed}" if by_number else f"at least {max(2 * needed, needed + 2)} {noun}"
        warn_caller(
            f"alpha={alpha:g} with the {guarantee!r} guarantee needs {needed} calibration {noun}, and there are "
            f"{count}: predict raises no alarm, which keeps the promise. Give {to_give}, or a larger alpha."
        )
    return count


def score_in_time(
    score: Callable[[Any], np.ndarray], rows: Any, calibration: np.ndarray, seed: int, end: float
) -> np.ndarray:
    """Scores of as many calibration rows, in random order, as the time permits; when to stop depends on no score.

    Args:
        score: the fitted score.
        rows: all rows.
        calibration: indices of the rows that calibrate.
        seed: of the order.
        end: value of ``time.monotonic()`` at which to stop.
    """
    order = np.random.default_rng(seed).permutation(calibration)
    scores: list[np.ndarray] = []
    done = 0
    while done < len(order) and (left := end - time.monotonic()) > 0:
        part = order[done : done + _BLOCK]
        before = time.monotonic()
        scores.append(score(take(rows, part)))
        done += len(part)
        if time.monotonic() - before > left:
            break
    return np.concatenate(scores) if scores else np.empty(0)


def trim(scores: np.ndarray, contamination: float, excess: float = 0.0) -> tuple[np.ndarray, int]:
    """Leave out the calibration scores that are far beyond the others, at most this fraction of them.

    Args:
        scores: ``(n,)``.
        contamination: upper bound of the fraction of anomalies; 0 leaves out none.
        excess: usual mean excess of the largest scores, for the warning; 0 for that of these scores.

    Returns:
        The other scores, and how many were left out.

    Warns:
        PushforwardWarning: if nothing is to be left out, and at least three scores and 1 % are very far.
    """
    if not contamination:
        far = far_scores(
            scores[scores < np.inf], 2.0, least=excess
        )  # +inf is the score of a cell that strict=True does not allow
        if far >= max(3, 0.01 * len(scores)):
            warn_caller(
                f"{far} of {len(scores)} calibration scores are far beyond the others, as those of anomalies would be: the "
                "guard then keeps its promise and detects less. If the rows may contain anomalies, give "
                "max_contamination."
            )
        return scores, 0
    count = min(far_scores(scores, 1.0, contamination), int(contamination * len(scores)))
    return np.sort(scores)[: len(scores) - count], count


def take(rows: Any, index: np.ndarray) -> Any:
    """These rows of a tensor, a matrix or a pyarrow table."""
    return rows[index] if isinstance(rows, (torch.Tensor, np.ndarray)) else rows.take(index)
