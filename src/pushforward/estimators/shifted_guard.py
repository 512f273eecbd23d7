"""`ShiftedGuard`: a guard whose promise is for rows with another distribution of inputs than its calibration rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.data import as_table, split_indices
from pushforward.detection.conformal.likelihood_ratio import ClassifierRatio
from pushforward.detection.conformal.weighted import WeightedCalibrator
from pushforward.errors import ConfigError, InputError
from pushforward.estimators.guard import Guard
from pushforward.estimators.validation import require_fitted

__all__ = ["ShiftedGuard"]

Weights = ArrayLike | Callable[[Any], ArrayLike]
"""Likelihood ratios of rows: one number for each, or a function of the rows that gives them."""


class ShiftedGuard:
    """A guard for inputs whose distribution is known to have shifted, by weighted conformal p-values.

    Normal rows were drawn from P, and are now drawn from Q, for example because one site sends twice as many of them as
    before, while a normal row is still the same kind of row. Where w(x) = dQ/dP(x) is known, P(p <= a) <= a for normal rows
    from Q (:class:`~pushforward.detection.WeightedCalibrator`). Where it is not, rows of Q without labels estimate it
    (:class:`~pushforward.detection.ClassifierRatio`), and the promise is approximate. If new normal rows of Q are at hand,
    ``guard.recalibrate`` is simpler and exact.

    Args:
        guard: a fitted guard, which is not changed. Its own calibration rows are not used: it keeps their scores, not the rows.
        X: normal rows of P that the guard has not seen.
        weights: the ratio w of each row of X, up to a constant factor: an array ``(rows,)``, or a function of rows.
        shifted: rows of Q, normal or nearly all of them, to estimate w from. Half of X is then used for the estimate and
            half to calibrate.
        ratio: the estimator, for ``shifted``.
        seed: of the split of X.

    Attributes:
        calibrator_: the weighted calibration scores; ``calibrator_.effective_rows`` says what the shift costs.
        exact: whether the weights were given, so that the promise is exact.
        promise: what the promise refers to, as a sentence.

    Raises:
        ConfigError: unless exactly one of ``weights`` and ``shifted`` is given.
        InputError: for weights that are negative, or not one for each row.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> rng = np.random.default_rng(0)
        >>> guard = pf.Guard(alpha=0.1, n_estimators=1, max_steps=50, random_state=0).fit(rng.normal(size=(500, 2)))
        >>> x = rng.normal(size=(500, 2))
        >>> shifted = pf.estimators.ShiftedGuard(guard, x, lambda x: np.exp(x[:, 0]))  # the mean of column 0 is now 1
        >>> shifted.predict(np.array([[1.0, 0.0], [1.0, 9.0]]))
        array([ 1, -1])
    """

    def __init__(
        self,
        guard: Guard,
        X: Any,
        weights: Weights | None = None,
        *,
        shifted: Any = None,
        ratio: ClassifierRatio | None = None,
        seed: int = 0,
    ) -> None:
        require_fitted(guard)
        if (weights is None) == (shifted is None):
            raise ConfigError("give either weights, the likelihood ratios, or shifted, rows to estimate them from.")
        self.guard, self.exact = guard, weights is not None
        self._weights: Callable[[Any], ArrayLike] | None = None
        if weights is None:
            matrix = _matrix(guard, X)
            fitted, kept = split_indices(len(matrix), (len(matrix) // 2, len(matrix) - len(matrix) // 2), seed=seed)
            self.ratio_ = (ratio or ClassifierRatio()).fit(matrix[fitted], _matrix(guard, shifted))
            self._weights = lambda rows: self.ratio_(_matrix(guard, rows))
            scores, found = guard.anomaly_score(X)[kept], self.ratio_(matrix[kept])
        else:
            self._weights = weights if callable(weights) else None
            scores, found = guard.anomaly_score(X), weights(X) if callable(weights) else weights
        self.calibrator_ = WeightedCalibrator(scores, found)

    def __repr__(self) -> str:
        return f"ShiftedGuard({self.calibrator_!r}, {'exact' if self.exact else 'estimated'} weights)"

    @property
    def promise(self) -> str:
        """What the promise refers to, as a sentence."""
        kind = (
            "with the given likelihood ratios"
            if self.exact
            else "with estimated likelihood ratios, so it is approximate"
        )
        return (
            f"at most {self.guard.alpha:.2%} false alarms on average, on normal rows of the shifted distribution, {kind}; "
            f"{self.calibrator_.n} calibration rows count as {self.calibrator_.effective_rows:.0f}."
        )

    def p_value(self, X: Any, weights: ArrayLike | None = None) -> NDArray[np.float64]:
        """Weighted conformal p-value of each row, ``(rows,)``: P(p <= a) <= a for normal rows of the shifted distribution.

        Args:
            X: rows, as for :class:`~pushforward.Guard`.
            weights: their likelihood ratios; needed if the calibration weights were an array.

        Raises:
            ConfigError: if the weights are needed and absent.
            InputError: as for :class:`~pushforward.Guard`.
        """
        if weights is None:
            if self._weights is None:
                raise ConfigError("the calibration weights were given as an array: give the weights of these rows too.")
            weights = self._weights(X)
        return self.calibrator_.p_value(self.guard.anomaly_score(X), weights)

    def predict(self, X: Any, weights: ArrayLike | None = None) -> NDArray[np.int64]:
        """+1 for normal rows and -1 for alarms, at the guard's ``alpha``; arguments and errors as :meth:`p_value`."""
        return np.where(self.p_value(X, weights) <= self.guard.alpha * (1 + 1e-12), -1, 1)


def _matrix(guard: Guard, rows: Any) -> NDArray[np.float64]:
    """The rows as numbers, for the classifier; a category is a code, and one that is new is missing."""
    if guard.reads_images:
        raise InputError(
            "weights of images cannot be estimated from pixels: give weights, such as a function of the images."
        )
    encoded = guard.schema_.encode(as_table(rows) if isinstance(rows, dict) else rows, warn=False)[0]
    return np.where(np.isinf(encoded), np.nan, encoded)
