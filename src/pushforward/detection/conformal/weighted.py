"""Weighted conformal p-values: calibrated alarms where the inputs are distributed differently from the calibration rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.detection.validation import ROUNDING, score_array
from pushforward.errors import InputError
from pushforward.numerics.checks import check_number

__all__ = ["WeightedCalibrator"]


class WeightedCalibrator:
    """Conformal p-values for normal rows that are drawn from another distribution than the calibration rows.

    The calibration rows are drawn from P and new normal rows from Q, with the likelihood ratio w(x) = dQ/dP(x), known up to
    a constant factor. The p-value of a new row with score s and weight w is

        p = (w + sum of w_i over calibration rows with s_i >= s) / (w + sum of w_i),

    and P(p <= a) <= a for a new row from Q (Tibshirani, Barber, Candès and Ramdas 2019, "Conformal prediction under covariate
    shift", lemma 3 and corollary 1). With equal weights it is the p-value of
    :class:`~pushforward.detection.ConformalCalibrator`. The guarantee is on average over calibration rows and new row,
    and needs the true ratio: with an estimated one it is approximate, and wrong by at most the total variation
    distance between Q and the distribution that the estimated ratio makes of P (Lei and Candès 2021).

    Args:
        scores: anomaly scores of the calibration rows, ``(n,)``; higher is more anomalous. Infinities are allowed.
        weights: w of the calibration rows, ``(n,)``: finite, at least 0, and not all 0.

    Attributes:
        scores: the calibration scores, ascending.
        weights: w of these rows.
        n: number of calibration rows.
        effective_rows: (sum w)^2 / sum w^2, the number of equally weighted rows with the same precision (Kish 1965).

    Raises:
        InputError: for NaN, different lengths, or weights that are not allowed.

    Example:
        >>> from pushforward.detection import WeightedCalibrator
        >>> calibrator = WeightedCalibrator([0.1, 0.4, 0.2, 0.3], weights=[1, 3, 1, 3])
        >>> calibrator.p_value([0.3, 9.0], weights=[2, 2])
        array([0.8, 0.2])
        >>> round(calibrator.effective_rows, 2)
        3.2
    """

    def __init__(self, scores: ArrayLike, weights: ArrayLike) -> None:
        scores = score_array(scores, "the calibration scores")
        weights = _weights(weights, len(scores), "the calibration weights")
        if not weights.max() > 0:
            raise InputError(
                "the calibration weights are all 0: no calibration row is possible under the new distribution."
            )
        order = np.argsort(scores, kind="stable")
        self.scores, self.weights = scores[order], weights[order]
        # The common factor is arbitrary, and after this division no sum overflows.
        self._scale = float(weights.max())
        sorted_weights = weights[order] / self._scale
        self._at_least = np.append(np.cumsum(sorted_weights[::-1])[::-1], 0.0)
        self.n = len(scores)
        self.effective_rows = float(sorted_weights.sum() ** 2 / np.square(sorted_weights).sum())

    def __repr__(self) -> str:
        return f"WeightedCalibrator({self.n} rows, {self.effective_rows:.4g} effective)"

    def p_value(self, scores: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
        """Weighted conformal p-values; the value of row i depends on row i alone.

        Args:
            scores: anomaly scores of new rows, ``(m,)``.
            weights: w of the new rows, ``(m,)``, with the factor of the calibration weights.

        Returns:
            ``(m,)``, in (0, 1]. No p-value of a row is smaller than :meth:`smallest` of its weight. A row of weight 0, which
            is impossible under Q, and above all calibration scores has p-value 0.

        Raises:
            InputError: for NaN, different lengths, or weights that are not allowed.
        """
        scores = score_array(scores, "the scores", may_be_empty=True)
        above = self._at_least[np.searchsorted(self.scores, scores, side="left")]
        return self._fraction(_weights(weights, len(scores), "the weights"), above)

    def smallest(self, weights: ArrayLike) -> NDArray[np.float64]:
        """The smallest p-value that a row of each weight can have, w / (w + sum w_i); above alpha it can raise no alarm."""
        return self._fraction(_weights(weights, len(np.atleast_1d(weights)), "the weights"), 0.0)

    def alarm(self, scores: ArrayLike, weights: ArrayLike, alpha: float) -> NDArray[np.bool_]:
        """Whether each row's p-value is at most ``alpha``: false alarms on rows from Q have at most this rate.

        Raises:
            ConfigError: unless 0 < alpha < 1.
            InputError: as :meth:`p_value`.
        """
        alpha = check_number("alpha", alpha, 0, 1)
        return self.p_value(scores, weights) <= alpha * ROUNDING

    def _fraction(self, weights: NDArray[np.float64], above: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """(w + above) / (w + sum w_i); 1 where w is so much larger than the calibration weights that it overflows."""
        with np.errstate(over="ignore", invalid="ignore"):
            own = weights / self._scale
            return np.where(np.isinf(own), 1.0, (own + above) / (own + self._at_least[0]))


def _weights(values: ArrayLike, rows: int, name: str) -> NDArray[np.float64]:
    weights = score_array(values, name, may_be_empty=True)
    if len(weights) != rows:
        raise InputError(f"{name} must be one number for each score: there are {len(weights)} for {rows} scores.")
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if wrong.size:
        raise InputError(f"{name} must be finite and at least 0; the one at index {wrong[0]} is {weights[wrong[0]]:g}.")
    return weights
