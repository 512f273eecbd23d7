"""Certificates: what no attack within a radius can do to the p-value of an input.

The proof is in ``smoothing.py``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pushforward.detection.conformal.calibration import ConformalCalibrator

__all__ = ["Certificate", "certify_scores"]

Array = NDArray[np.float64]


class Certificate(NamedTuple):
    """What no attacker within a radius can do to inputs; returned by :meth:`Guard.certify`.

    For each input: with probability at least ``confidence`` over the noise of the smoothing, the p-value is at most
    ``p_value`` at each of the inputs within ``radius`` that an attacker evaluates, if these are at most ``attempts``; for
    attackers who know everything. See :mod:`pushforward.detection.smoothing` for the proof.
    """

    p_value: Array
    """Bound of the p-value, ``(n,)``; 1 where nothing is certified."""
    alarm: NDArray[np.bool_]
    """Whether the alarm cannot be prevented, ``(n,)``."""
    score: Array
    """Lower bound of the smoothed score, ``(n,)``."""
    radius: float
    confidence: float
    attempts: int


def certify_scores(
    lower: Array, calibrator: ConformalCalibrator, level: float, radius: float, confidence: float, attempts: int
) -> Certificate:
    """The certificate that lower bounds of smoothed scores give after calibration.

    Args:
        lower: of each input, from :meth:`Smoothing.lower_bound` with this radius, confidence and attempts.
        calibrator: of the deployed smoothed score.
        level: p-value at or below which there is an alarm.
        radius: of the bounds.
        confidence: of the bounds.
        attempts: of the bounds.
    """
    p_value = calibrator.p_value(lower)
    return Certificate(p_value, p_value <= level, lower, radius, confidence, attempts)
