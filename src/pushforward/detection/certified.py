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

    Example:
        >>> import numpy as np, pushforward as pf
        >>> x = np.random.default_rng(0).normal(size=(500, 2))
        >>> guard = pf.Guard(alpha=0.05, smoothing=0.5, random_state=0).fit(x)
        >>> certificate = guard.certify([[9.0, 9.0]], radius=0.5)
        >>> certificate.alarm, certificate.radius
        (array([ True]), 0.5)
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

    Example:
        >>> import numpy as np
        >>> from pushforward.detection import ConformalCalibrator
        >>> from pushforward.detection.certified import certify_scores
        >>> calibrator = ConformalCalibrator(np.arange(99.0))
        >>> certificate = certify_scores(np.array([50.0, 200.0]), calibrator, 0.05, radius=0.5, confidence=0.99, attempts=1000)
        >>> certificate.p_value, certificate.alarm
        (array([0.5 , 0.01]), array([False,  True]))
    """
    p_value = calibrator.p_value(lower)
    return Certificate(p_value, p_value <= level, lower, radius, confidence, attempts)
