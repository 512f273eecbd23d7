"""Detection rate and false-alarm rate of a threshold that is calibrated on separate normal rows."""

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
    """A calibrated threshold with its measured rates; returned by :func:`operating_point`.

    Attributes:
        alpha: guaranteed false-alarm rate.
        threshold: score at or above which an alarm is raised.
        tpr: fraction of anomalies that raise an alarm.
        false_alarm_rate: fraction of the normal test rows that raise an alarm.
        expected: 95% interval of the false-alarm rate if calibration and test rows are exchangeable.

    Example:
        >>> import numpy as np
        >>> from pushforward.detection import operating_point
        >>> rng = np.random.default_rng(0)
        >>> found = operating_point(rng.normal(size=500), rng.normal(size=500), rng.normal(4, 1, size=200), alpha=0.05)
        >>> found.alpha, found.tpr > 0.9
        (0.05, True)
    """

    alpha: float
    threshold: float
    tpr: float
    false_alarm_rate: float
    expected: tuple[float, float]

    @property
    def within_expectation(self) -> bool:
        """Whether the false-alarm rate is at most the upper end of ``expected``."""
        return self.false_alarm_rate <= self.expected[1]


def operating_point(
    calibration: ArrayLike,
    normal: ArrayLike,
    anomalous: ArrayLike,
    alpha: float = 0.01,
    guarantee: Guarantee = "marginal",
    delta: float = 0.05,
) -> OperatingPoint:
    """Detection rate and false-alarm rate at a threshold that is calibrated on other normal rows.

    These are the rates of a deployed guard. :func:`tpr_at_fpr`, in contrast, sets its threshold on the tested rows.

    Args:
        calibration: scores of held-out normal rows that are used for nothing else, shape (n,).
        normal: scores of normal test rows, shape (k,).
        anomalous: scores of anomalous test rows, shape (m,).
        alpha: largest false-alarm rate; usually 0.01 or 0.05.
        guarantee: see :meth:`ConformalCalibrator.threshold`.
        delta: see :meth:`ConformalCalibrator.threshold`.

    Raises:
        CalibrationError: if the calibration rows are too few for the guarantee.
        InputError: for NaN, an empty group, or a wrong shape or type.
        ConfigError: for an invalid argument.

    Example:
        >>> from pushforward.detection import operating_point
        >>> point = operating_point(calibration=range(100), normal=[1, 50, 99], anomalous=[97, 200, 300], alpha=0.05)
        >>> round(point.tpr, 3), round(point.false_alarm_rate, 3), point.within_expectation
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
