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
from pushforward.errors import CalibrationError, InputError, SchemaWarning, warn_caller
from pushforward.estimators.dependent_rows import rows_of_groups, rows_of_time

__all__ = ["score_in_time", "split_rows", "take", "trim", "untrimmed", "warn_of_rows_left_out", "warn_of_trimming"]

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
    contamination: float = 0.0,
    update: bool = False,
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
        contamination: part of the calibration scores that :func:`trim` may leave out, so as many more are taken.
        update: whether the score is there already. Then all rows or groups but two may calibrate, where ``alpha`` needs them.

    Returns:
        The indices of both, and how they were chosen.

    Raises:
        CalibrationError: if fewer than two rows are left to fit the score; in an update also if rows of the first instant leave
            fewer to calibrate than ``alpha`` needs.
        InputError: with one group.

    Warns:
        PushforwardWarning: if too few rows calibrate for an alarm.
    """
    units, noun = rows, "rows"
    if groups is not None:
        names, groups = np.unique(groups, return_inverse=True)
        units, noun = len(names), "groups"
    if noun == "groups" and units < 2:
        raise InputError(
            "groups has one group, and calibration needs rows of groups that the score was not fitted on: give at least two."
        )
    needed = rows_needed(alpha, guarantee, delta)
    count = _count(units, noun, calibration, needed, untrimmed(needed, contamination), update)
    if count < needed:
        at_least = f"at least {max(2 * untrimmed(needed, contamination), needed + 2)} {noun}"
        to_give = f"calibration={untrimmed(needed, contamination)}" if _is_number(calibration) else at_least
        warn_caller(
            f"alpha={alpha:g} with the {guarantee!r} guarantee needs {needed} calibration {noun}, and there are "
            f"{count}: predict raises no alarm, which keeps the promise. Give {to_give}, or a larger alpha."
        )
    if groups is not None:
        (fitted, kept), how = rows_of_groups(groups, count, seed), f"{count} groups"
    elif time is not None:
        (fitted, kept), how = rows_of_time(time, count), "latest"
        if len(kept) < needed <= count:
            _say_too_few_are_later(len(fitted), len(kept), alpha, guarantee, needed, update)
    else:
        (fitted, kept), how = split_indices(rows, (rows - count, count), seed=seed), "random"
    if len(fitted) < 2:
        raise CalibrationError(
            f"{len(kept)} of {rows} rows calibrate and {len(fitted)} fit: use more or smaller groups."
        )
    return fitted, kept, how


def untrimmed(needed: int, contamination: float) -> int:
    """The smallest number of scores of which ``needed`` are left after :func:`trim`."""
    count = max(needed, int(needed / (1 - contamination)) - 2)
    while count - int(contamination * count) < needed:
        count += 1
    return count


def _is_number(calibration: float | int | None) -> bool:
    """Whether the option is a number of rows, and not a part of them."""
    return calibration is not None and calibration >= 1


def _count(
    units: int, noun: str, calibration: float | int | None, needed: int, enough: int, update: bool
) -> int:  # fmt: skip
    """How many rows or groups calibrate.

    Args:
        units: number of rows or groups.
        noun: "rows" or "groups".
        calibration: see :func:`split_rows`.
        needed: number without which there is no alarm.
        enough: the same before some are left out.
        update: see :func:`split_rows`.

    Raises:
        CalibrationError: if no row, or fewer than two rows or one group, would be left to fit the score.
    """
    most = units - 2 if update else units // 2
    if calibration is not None and _is_number(calibration):
        count = int(calibration)
        if update:
            count = max(min(count, units // 2), min(needed, most))
    else:
        wanted = min(units / 4, max(units / 10, _LEAST)) if calibration is None else calibration * units
        count = min(round(min(wanted, _MOST)), units // 2)
        if (
            count < enough and needed <= most
        ):  # where half is not enough, there are no alarms, and the score gets the rows
            count = min(enough, most)
        if noun == "groups":
            count = max(1, count)
    left = 2 if noun == "rows" else 1
    if units - count < left or count < 1:
        enough = count + left if calibration is not None and _is_number(calibration) else 2 * left
        raise CalibrationError(
            f"of {'n_samples = ' if noun == 'rows' else ''}{units} {noun}, {count} calibrate, and at least {left} must be left to fit the "
            f"score: give at least {enough} {noun}."
        )
    return count


def _say_too_few_are_later(
    first: int, later: int, alpha: float, guarantee: Guarantee, needed: int, update: bool
) -> None:  # fmt: skip
    """Say that the rows after the first instant are too few: an error for an update, and a warning for a new guard."""
    said = (
        f"time is the same in the first {first} rows, and the {later} later ones are fewer than the {needed} that alpha={alpha:g} with the "
        f"{guarantee!r} guarantee needs for calibration"
    )
    if update:
        raise CalibrationError(f"{said}: give more rows, or a finer time.")
    warn_caller(
        f"{said}: predict raises no alarm, which keeps the promise. Give more rows, a finer time, or a larger alpha."
    )


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


def warn_of_trimming(trimmed: int, kept: int, needed: int, alpha: float, guarantee: Guarantee) -> None:
    """Warn that the scores that are left after :func:`trim` are too few for an alarm."""
    warn_caller(
        f"max_contamination left out {trimmed} calibration scores, and the other {kept} are fewer than the {needed} that alpha={alpha:g} "
        f"with the {guarantee!r} guarantee needs: predict raises no alarm, which keeps the promise. Give more rows, or a larger alpha."
    )


def warn_of_rows_left_out(left_out: int, offered: int) -> None:
    """Warn that rows of an update did not become neighbors because of cells that no row of ``fit`` has."""
    if left_out:
        warn_caller(
            f"{left_out} of the {offered} rows that were to become neighbors were left out, because they have a category, a missing cell or "
            "an infinite number that no row had at fit: fit again with such rows if they are normal.",
            SchemaWarning,
        )


def take(rows: Any, index: np.ndarray) -> Any:
    """These rows of a tensor, a matrix or a pyarrow table."""
    return rows[index] if isinstance(rows, (torch.Tensor, np.ndarray)) else rows.take(index)
