"""What a deployed threshold does: set on calibration scores alone, then counted on normal and anomalous rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pushforward.detection.conformal.calibration import ConformalCalibrator
from pushforward.detection.conformal.guarantees import Guarantee, realized_interval
from pushforward.detection.validation import score_array

__all__ = ["OperatingPoint", "operating_point"]


@dataclass(frozen=True)
class OperatingPoint:
    """A calibrated threshold at work; made by :func:`operating_point`.

    Attributes:
        alpha: the promised false-alarm rate.
        threshold: alarm at or above this score.
        tpr: share of anomalies that alarm.
        false_alarm_rate: share of the normal test rows that alarm.
        expected: where that share falls with probability 95% if calibration and test rows are exchangeable.
    """

    alpha: float
    threshold: float
    tpr: float
    false_alarm_rate: float
    expected: tuple[float, float]

    @property
    def within_expectation(self) -> bool:
        """Whether the false alarms do not exceed what the promise explains."""
        return self.false_alarm_rate <= self.expected[1]


def operating_point(
    calibration: ArrayLike,
    normal: ArrayLike,
    anomalous: ArrayLike,
    alpha: float = 0.01,
    guarantee: Guarantee = "marginal",
    delta: float = 0.05,
) -> OperatingPoint:
    """Detection and false-alarm rate at a threshold that was calibrated on other normal rows.

    This is the figure that a user lives with: :func:`tpr_at_fpr` reads its threshold off the very rows that it judges.

    Args:
        calibration: scores of held-out normal rows, shape (n,), used for nothing else.
        normal: scores of normal test rows, shape (k,).
        anomalous: scores of anomalous test rows, shape (m,).
        alpha: promised false-alarm rate; 0.01 and 0.05 are usual.
        guarantee: see :meth:`ConformalCalibrator.threshold`.
        delta: see :meth:`ConformalCalibrator.threshold`.

    Raises:
        CalibrationError: if the calibration rows are too few for the promise.
        InputError: for NaN, an empty group, or a wrong shape or type.
        ConfigError: for an argument that makes no sense.

    Example:
        >>> from pushforward.detection import operating_point
        >>> work = operating_point(calibration=range(100), normal=[1, 50, 99], anomalous=[97, 200, 300], alpha=0.05)
        >>> round(work.tpr, 3), round(work.false_alarm_rate, 3), work.within_expectation
        (1.0, 0.333, True)
    """
    calibrator = ConformalCalibrator(calibration)
    normal, anomalous = score_array(normal, "the normal scores"), score_array(anomalous, "the anomalous scores")
    threshold = calibrator.score_threshold(alpha, guarantee, delta)
    return OperatingPoint(
        alpha,
        threshold,
        float(np.mean(anomalous >= threshold)),
        float(np.mean(normal >= threshold)),
        realized_interval(calibrator.n, normal.size, alpha, 0.95, guarantee, delta),
    )
