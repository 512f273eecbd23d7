"""Metrics of open-set recognition: rows of known classes are classified, rows of unknown ones rejected."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.detection.metrics import oscr
from pushforward.detection.validation import ROUNDING, plain_array, score_array
from pushforward.errors import InputError
from pushforward.numerics.checks import check_number

__all__ = ["OpenSetCurve", "correct_rate_at_acceptance", "open_set_curve", "oscr"]


class OpenSetCurve(NamedTuple):
    """One point for each distinct score, in ascending order; see :func:`open_set_curve`.

    Example:
        >>> import numpy as np
        >>> from pushforward.detection.selective import open_set_curve
        >>> curve = open_set_curve(np.array([0.1, 0.2, 0.3]), np.array([True, True, False]), np.array([0.25, 0.9]))
        >>> curve.accepted_anomalies, curve.correct_rate.round(2)
        (array([0. , 0. , 0.5, 0.5, 1. ]), array([0.33, 0.67, 0.67, 0.67, 0.67]))
    """

    threshold: NDArray[np.float64]
    """Rows with at most this score are accepted."""
    accepted_anomalies: NDArray[np.float64]
    """Fraction of the anomalies that are accepted: the false positive rate of Dhamija et al."""
    correct_rate: NDArray[np.float64]
    """Fraction of the normal rows that are accepted and classified correctly."""


def open_set_curve(normal: ArrayLike, correct: ArrayLike, anomalous: ArrayLike) -> OpenSetCurve:
    """Open-set classification rate curve (Dhamija et al. 2018); :func:`~pushforward.detection.oscr` is its area.

    Args:
        normal: scores of rows of known classes, shape (n,); higher is rejected first.
        correct: whether the class of each of them was predicted correctly, booleans of shape (n,).
        anomalous: scores of rows of unknown classes, shape (m,).

    Raises:
        InputError: for NaN, an empty group, a wrong shape or type, or ``correct`` of another length.

    Example:
        >>> open_set_curve([0, 1, 2], [True, False, True], [1.5, 3]).correct_rate.round(2)
        array([0.33, 0.33, 0.33, 0.67, 0.67])
    """
    known, unknown = score_array(normal, "the normal scores"), score_array(anomalous, "the anomalous scores")
    mask = plain_array(correct, "correct")
    if mask.dtype != np.bool_ or mask.shape != known.shape:
        raise InputError(f"correct must contain one boolean for each of the {known.size} normal rows.")
    threshold = np.unique(np.concatenate([known, unknown]))
    right = np.searchsorted(np.sort(known[mask]), threshold, side="right") / known.size
    return OpenSetCurve(threshold, np.searchsorted(np.sort(unknown), threshold, side="right") / unknown.size, right)


def correct_rate_at_acceptance(
    normal: ArrayLike, correct: ArrayLike, anomalous: ArrayLike, acceptance: float = 0.1
) -> float:
    """Fraction of normal rows accepted and classified correctly when at most a fraction ``acceptance`` of anomalies is accepted.

    This is CCR at a false positive rate (Dhamija et al. 2018). The threshold is the highest such; it is set on the tested
    anomalies, so this metric measures separation.

    Args:
        normal: scores of rows of known classes, shape (n,).
        correct: whether the class of each of them was predicted correctly, booleans of shape (n,).
        anomalous: scores of rows of unknown classes, shape (m,).
        acceptance: largest fraction of anomalies that are accepted, in [0, 1].

    Raises:
        InputError: see :func:`open_set_curve`.
        ConfigError: for an acceptance outside [0, 1].

    Example:
        >>> correct_rate_at_acceptance([0, 1, 2, 3], [True] * 4, [1.5, 3], acceptance=0.5)
        0.75
    """
    curve = open_set_curve(normal, correct, anomalous)
    allowed = check_number("acceptance", acceptance, 0, 1, closed="both") * ROUNDING
    within = curve.correct_rate[curve.accepted_anomalies <= allowed]
    return float(within[-1]) if within.size else 0.0
