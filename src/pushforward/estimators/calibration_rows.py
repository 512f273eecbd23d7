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
from pushforward.errors import CalibrationError, warn_caller
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
        calibration: fraction or number of rows for calibration; None for a tenth, but at least 100 or, of fewer than 400
            rows, a quarter. A fraction is raised to what ``alpha`` needs, if half of the rows are enough for that.
        alpha: promised false-alarm rate.
        guarantee: see :func:`~pushforward.detection.rows_needed`.
        delta: see :func:`~pushforward.detection.rows_needed`.
        seed: of the division.
        groups: label of each row; whole groups calibrate.
        time: of each row; the last rows calibrate.

    Returns:
        The indices of both, and how they were chosen.

    Raises:
        CalibrationError: if fewer than two rows are left to fit the score.
    """
    needed = rows_needed(alpha, guarantee, delta)
    if calibration is not None and calibration >= 1:
        count = int(calibration)
    else:
        wanted = min(rows / 4, max(rows / 10, _LEAST)) if calibration is None else calibration * rows
        count = min(round(min(wanted, _MOST)), rows // 2)
        if count < needed <= rows // 2:  # where half is not enough, there are no alarms, and the score gets the rows
            count = needed
    if rows - count < 2 or count < 1:
        raise CalibrationError(
            f"of n_samples = {rows} rows, {count} calibrate and {rows - count} fit: give at least 4 rows, and at "
            "least 2 more than calibrate."
        )
    if count < needed:
        by_number = calibration is not None and calibration >= 1
        rows_to_give = f"calibration={needed}" if by_number else f"at least {max(2 * needed, needed + 2)} rows"
        warn_caller(
            f"alpha={alpha:g} with the {guarantee!r} guarantee needs {needed} calibration rows, and there are "
            f"{count}: predict raises no alarm, which keeps the promise. Give {rows_to_give}, or a larger alpha."
        )
    if groups is not None:
        fitted, kept, chosen = rows_of_groups(groups, count, seed)
        how = f"{chosen} groups"
    elif time is not None:
        (fitted, kept), how = rows_of_time(time, count), "latest"
    else:
        (fitted, kept), how = split_indices(rows, (rows - count, count), seed=seed), "random"
    if len(fitted) < 2:
        raise CalibrationError(
            f"{len(kept)} of {rows} rows calibrate and {len(fitted)} fit: use more or smaller groups."
        )
    return fitted, kept, how


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


def trim(scores: np.ndarray, contamination: float) -> tuple[np.ndarray, int]:
    """Leave out the calibration scores that are far beyond the others, at most this fraction of them.

    Args:
        scores: ``(n,)``.
        contamination: upper bound of the fraction of anomalies; 0 leaves out none.

    Returns:
        The other scores, and how many were left out.

    Warns:
        PushforwardWarning: if nothing is to be left out, and at least three scores and 1 % are very far.
    """
    if not contamination:
        far = far_scores(scores, 2.0)
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
