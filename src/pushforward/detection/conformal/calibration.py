"""Split-conformal calibration: p-values from anomaly scores, and alarms with a guaranteed false-alarm rate.

A higher score is more anomalous, n is the number of calibration rows, and m is the number of tested rows.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

from pushforward.detection.conformal.guarantees import (
    FalseAlarmDistribution,
    Guarantee,
    alarm_count,
    false_alarm_distribution,
    realized_interval,
    rows_needed,
)
from pushforward.detection.validation import ROUNDING, score_array
from pushforward.errors import CalibrationError, InputError
from pushforward.numerics.checks import check_number

__all__ = [
    "ConformalCalibrator",
    "FalseAlarmDistribution",
    "Guarantee",
    "benjamini_hochberg",
    "false_alarm_distribution",
    "realized_interval",
    "rows_needed",
]


class ConformalCalibrator:
    """Convert anomaly scores into p-values by ranking them among the scores of held-out normal rows.

    ``p(s) = (1 + #{i: s_i >= s}) / (n + 1)``, where s_1..s_n are the calibration scores. A tie makes the p-value larger.

    Guarantee: if a new normal row and the calibration rows are exchangeable, then ``P(p <= a) <= a`` for every a, for
    any model and any score, without further assumptions (Vovk, Gammerman & Shafer 2005; Bates et al. 2023, "Testing
    for outliers with conformal p-values"). The probability is over the calibration rows *and* the new row. Given one
    calibration set, the false-alarm rate has a known distribution (:func:`false_alarm_distribution`);
    ``guarantee="pac"`` bounds this rate too (Vovk 2012, "Conditional validity of inductive conformal predictors").

    Assumptions: the calibration rows are used for nothing else (not for training, early stopping, or the choice of a
    score), and new normal rows come from the same distribution. There is no guarantee under drift.

    Args:
        scores: anomaly scores of the calibration rows, shape (n,); higher is more anomalous. Infinities are allowed.

    Attributes:
        scores: calibration scores in ascending order, float64, read-only.
        n: number of calibration scores.

    Raises:
        InputError: for NaN, no scores, or anything that is not a one-dimensional array of real numbers.

    Example:
        >>> from pushforward.detection import ConformalCalibrator
        >>> calibrator = ConformalCalibrator([0.1, 0.4, 0.2, 0.3])
        >>> calibrator.p_value([0.0, 0.3, 9.0])
        array([1. , 0.6, 0.2])
        >>> calibrator.threshold(alpha=0.25)
        0.2
    """

    def __init__(self, scores: ArrayLike) -> None:
        self.scores = np.sort(score_array(scores, "the calibration scores"))
        self.scores.flags.writeable = False
        self.n = self.scores.size

    def __repr__(self) -> str:
        return f"ConformalCalibrator({self.n} rows, scores {self.scores[0]:.4g} to {self.scores[-1]:.4g})"

    def p_value(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Conformal p-values; a small one means unlike the calibration rows. The value of row i depends on row i alone.

        Args:
            scores: anomaly scores of new rows, shape (m,), in the precision of the calibration scores, so that equal
                scores compare equal.

        Returns:
            Shape (m,), values in {1/(n+1), 2/(n+1), ..., 1}. A score of +inf gets 1/(n+1) unless some calibration
            scores are +inf too.

        Raises:
            InputError: for NaN or a wrong shape or type.
        """
        scores = score_array(scores, "the scores", may_be_empty=True)
        at_least = self.n - np.searchsorted(self.scores, scores, side="left")
        return (1 + at_least) / (self.n + 1)

    def threshold(self, alpha: float, guarantee: Guarantee = "marginal", delta: float = 0.05) -> float:
        """The p-value at or below which to raise an alarm: the largest k/(n+1) that satisfies the guarantee.

        Args:
            alpha: largest false-alarm rate.
            guarantee: ``"marginal"``: P(alarm on a new normal row) <= alpha, over calibration rows and new row; k is
                the largest with k/(n+1) <= alpha. ``"pac"``: with probability >= 1 - delta over the calibration rows,
                the rate given those rows is <= alpha; k is the largest with P(Beta(k, n+1-k) <= alpha) >= 1 - delta
                (Vovk 2012; the calibration rows must then be independent, not only exchangeable).
            delta: probability that the PAC guarantee may fail; unused by the marginal guarantee.

        Returns:
            k/(n+1), computed in the same way as by :meth:`p_value`, so the comparison ``p <= threshold`` is exact.

        Raises:
            CalibrationError: if n rows are too few for this guarantee; the message says how many are needed.
            ConfigError: for an invalid alpha, guarantee or delta.
        """
        return alarm_count(self.n, alpha, guarantee, delta) / (self.n + 1)

    def score_threshold(self, alpha: float, guarantee: Guarantee = "marginal", delta: float = 0.05) -> float:
        """The conformal quantile: the score at or above which to raise an alarm. It gives the same decisions as ``p_value(s) <= threshold(...)``.

        It is the next float64 above the k-th largest calibration score, because a tie with that score raises no alarm.
        Compare in float64.

        Args:
            alpha: see :meth:`threshold`.
            guarantee: see :meth:`threshold`.
            delta: see :meth:`threshold`.

        Raises:
            CalibrationError: see :meth:`threshold`; also if so many calibration scores are +inf that no score can raise
                an alarm.
            ConfigError: see :meth:`threshold`.
        """
        k = alarm_count(self.n, alpha, guarantee, delta)
        highest_normal = float(self.scores[self.n - k])
        if highest_normal == math.inf:
            raise CalibrationError(
                f"{int(np.isposinf(self.scores).sum())} of the {self.n} calibration scores are +inf, so at "
                f"alpha={alpha:g} no score could raise an alarm: use more calibration rows, a larger alpha, or a "
                "model with a positive density at normal rows."
            )
        return math.nextafter(highest_normal, math.inf)


def benjamini_hochberg(p: ArrayLike, fdr: float) -> NDArray[np.bool_]:
    """Select rows of a batch so that the expected fraction of normal rows among the selected is at most ``fdr``.

    The rows of the k smallest p-values are selected, for the largest k with ``p_(k) <= fdr * k / m`` (Benjamini &
    Hochberg 1995). P-values from one calibration set are dependent, but positively (PRDS) if the scores are
    continuous. This is sufficient: the false discovery rate is at most fdr times the fraction of normal rows in the
    batch, on average over calibration sets (Bates et al. 2023, Theorem 2, with Benjamini & Yekutieli 2001).

    A conformal p-value is never below 1/(n+1), so k rows can only be selected if ``1/(n+1) <= fdr * k / m``: to find
    a single anomaly among m rows, n >= m/fdr - 1 calibration rows are needed. An empty selection may mean that there
    are too few calibration rows.

    Args:
        p: p-values of the batch, shape (m,), each in [0, 1].
        fdr: largest false discovery rate.

    Returns:
        Boolean mask of the selected rows, shape (m,).

    Raises:
        InputError: for NaN, values outside [0, 1], or a wrong shape or type.
        ConfigError: unless 0 < fdr < 1.

    Example:
        >>> from pushforward.detection import benjamini_hochberg
        >>> benjamini_hochberg([0.01, 0.8, 0.04, 0.03], fdr=0.1)
        array([ True, False,  True,  True])
    """
    p = score_array(p, "the p-values", may_be_empty=True)
    fdr = check_number("fdr", fdr, 0, 1)
    outside = np.flatnonzero((p < 0) | (p > 1))
    if outside.size:
        raise InputError(f"p-values must be in [0, 1]; got {p[outside[0]]:g} at index {outside[0]}.")
    return false_discovery_control(p, method="bh") <= fdr * ROUNDING if p.size else np.zeros(0, dtype=np.bool_)
