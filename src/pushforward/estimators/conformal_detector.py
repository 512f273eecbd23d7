"""`ConformalDetector`: p-values and alarms of an estimator from its anomaly scores and its calibration scores."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin

from pushforward.detection import ConformalCalibrator, Guarantee, Monitor, benjamini_hochberg, rows_needed
from pushforward.display import card
from pushforward.errors import ConfigError, warn_caller
from pushforward.estimators.evaluating import evaluate_guard
from pushforward.estimators.feature_names import check_names
from pushforward.estimators.guard_inputs import listed
from pushforward.estimators.validation import require_fitted
from pushforward.report.evaluation import Evaluation

__all__ = ["PROMISE", "ConformalDetector"]

PROMISE = ("alpha", "guarantee", "delta")
"""The options from which the threshold follows."""


class ConformalDetector(OutlierMixin, BaseEstimator, ABC):
    """A scikit-learn outlier detector whose alarms come from conformal p-values of its anomaly scores.

    A subclass has the parameters ``alpha``, ``guarantee`` and ``delta``, defines :meth:`anomaly_score`, and calls
    ``_calibrate`` at the end of ``fit``.

    Attributes:
        calibrator_: the calibration scores.
        level_: p-value at or below which ``predict`` raises an alarm; 0 where the calibration scores are too few.
        offset_: ``decision_function(x) = score_samples(x) - offset_``.
    """

    alpha: float
    guarantee: Guarantee
    delta: float
    calibrator_: ConformalCalibrator
    level_: float
    offset_: float

    def set_params(self, **params: Any) -> Self:
        """Set options, as in scikit-learn. On a fitted guard ``alpha``, ``guarantee`` and ``delta`` count at once, others at the next ``fit``.

        Raises:
            ValueError: for an unknown option.
            ConfigError: for a promise that cannot be. The options are then as before.

        Warns:
            PushforwardWarning: if the calibration rows are too few for the new promise, so that no row raises an alarm.
        """
        before = self.get_params(deep=False)
        super().set_params(**params)
        if "calibrator_" in vars(self) and any(getattr(self, name) != before[name] for name in PROMISE):
            try:
                self._calibrate(self.calibrator_.scores)
            except ConfigError:
                super().set_params(**before)
                raise
            self._promise_changed()
            needed = self._rows_needed()
            if self.calibrator_.n < needed:
                warn_caller(
                    f"alpha={self.alpha:g} with the {self.guarantee!r} guarantee needs {needed} calibration rows, and this guard has "
                    f"{self.calibrator_.n}: until it is fitted or calibrated with more, predict raises no alarm, which keeps the promise."
                )
        return self

    def _promise_changed(self) -> None:
        """Bring other facts in line with a new ``alpha``, ``guarantee`` or ``delta``."""

    @abstractmethod
    def anomaly_score(self, X: Any) -> np.ndarray:
        """Anomaly score of each row, ``(rows,)``: higher is more anomalous."""

    def score_samples(self, X: Any) -> np.ndarray:
        """The negative anomaly score of each row, ``(rows,)``: higher is more normal (scikit-learn's sign).

        This method, ``decision_function`` and ``predict`` keep scikit-learn's contract on data frames: a missing column, and
        columns in another order than in ``fit``, raise an error that names them. The other methods match columns by name.
        """
        require_fitted(self)
        check_names(self, X)
        return -self.anomaly_score(X)

    def p_value(self, X: Any) -> np.ndarray:
        """Conformal p-value of each row, ``(rows,)``: P(p <= a) <= a for rows like the training rows."""
        scores = self.anomaly_score(X)  # first, since it says what to do if nothing is fitted
        return self.calibrator_.p_value(scores)

    def decision_function(self, X: Any) -> np.ndarray:
        """``score_samples(X) - offset_``: negative is an alarm."""
        return self._decide(self.score_samples(X))

    def predict(self, X: Any) -> np.ndarray:
        """+1 for normal rows and -1 for alarms, at the promised false-alarm rate."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def select(self, X: Any, fdr: float = 0.1) -> np.ndarray:
        """Select anomalies in a batch with a bound on the fraction of normal rows among them: boolean ``(rows,)``.

        Benjamini-Hochberg on the conformal p-values: the expected fraction of normal rows among the selected ones is at
        most ``fdr`` (Bates et al. 2023, thm. 2).
        """
        return benjamini_hochberg(self.p_value(X), fdr)

    def evaluate(self, X: Any, y: Any, *, anomaly: Any = None) -> Evaluation:
        """How well scores and alarms fit the anomalies that a user knows, with the uncertainty of few rows.

        AUROC and AUPR have bootstrap intervals; the share of anomalies that is caught and the realized rate of false alarms have
        exact intervals (Clopper and Pearson 1934); all at 95 %. Beside the latter stands the interval that theory gives for
        normal rows like those that calibrated. A notebook shows a table; ``print`` and ``to_json`` give the same. Labels change
        nothing in the guard.

        Args:
            X: rows that the guard was not fitted on, as for ``predict``.
            y: one label for each row, or the name of a column of X. Rows without a label (None, NaN) are left out.
            anomaly: the label of anomalies. None for True, for 1 among 0 and 1, and for -1 among -1 and 1.

        Raises:
            InputError: for rows that do not fit the guard, labels that do not fit the rows, or labels that do not tell which rows
                are anomalies.

        Example:
            >>> import numpy as np, pushforward as pf
            >>> rng = np.random.default_rng(0)
            >>> guard = pf.Guard(alpha=0.05, random_state=0).fit(rng.normal(size=(500, 2)))
            >>> x = np.concatenate([rng.normal(size=(300, 2)), rng.normal(5, 1, size=(12, 2))])
            >>> found = guard.evaluate(x, [0] * 300 + [1] * 12)
            >>> found.detected.count, found.detected.of, round(found.detected.interval[0], 3)
            (12, 12, 0.735)
        """
        return evaluate_guard(self, listed(self, X), y, anomaly)

    def monitor(self, alpha: float = 0.01, *, betting: str = "mixture", seed: int = 0) -> Monitor:
        """A monitor of a stream of inputs, which detects drift and a growing fraction of anomalies.

        Give it scores in the order of time, ``monitor.update(guard.anomaly_score(rows))``. On a stream like the training
        rows, the probability that ``monitor.alarm`` is ever raised is at most ``alpha``, however long the stream is. The
        monitor starts from the calibration scores and can be saved to a file of its own, to continue later.

        Args:
            alpha: bound on the probability of a false alarm at any time.
            betting: see :class:`~pushforward.detection.Monitor`.
            seed: of the random tie-breaking.
        """
        require_fitted(self)
        return Monitor(self._stream_reference(), alpha, betting=betting, seed=seed)

    def _stream_reference(self) -> np.ndarray:
        """The scores among which a stream is ranked."""
        return self.calibrator_.scores

    def _repr_html_(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]
        """What is promised for which rows, for a notebook."""
        name = type(self).__name__
        if "calibrator_" not in vars(self):
            return card(f"{name}, not fitted", [("options", repr(self))])
        return card(name, [*self._facts(), ("options", repr(self))], self._details())

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        """Text and HTML, for a notebook; scikit-learn's would show the parameters alone."""
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    def _facts(self) -> list[tuple[str, Any]]:
        promise = f"at most {self.alpha:.3g} of normal rows raise an alarm"
        if self.guarantee == "pac":
            promise += f", with probability {1 - self.delta:.12g}"
        quiet = f"no row: {self.calibrator_.n} calibration rows are too few for this promise"
        infinite = int(np.isposinf(self.calibrator_.scores).sum())
        if infinite and self.calibrator_.n >= self._rows_needed():
            quiet = f"no row: {infinite} of {self.calibrator_.n} calibration scores are infinite, which is too many for this promise"
        return [
            ("promise", promise),
            ("alarm", f"p-value of at most {self.level_:.4g}" if self.level_ > 0 else quiet),
        ]

    def _details(self) -> str:
        """More HTML below the facts."""
        return ""

    def _rows_needed(self) -> int:
        """Calibration rows without which there can be no alarm."""
        return rows_needed(self.alpha, self.guarantee, self.delta)

    def _calibrate(self, scores: np.ndarray) -> Self:
        """Set the calibration scores and the threshold that follows from them."""
        calibrator = ConformalCalibrator(scores)
        if calibrator.n < self._rows_needed() or self._infinitely_many(calibrator):
            self.calibrator_, self.level_, self.offset_ = calibrator, 0.0, -math.inf
            return self
        level = calibrator.threshold(self.alpha, self.guarantee, self.delta)
        # Here a score at the threshold is an alarm; scikit-learn's alarm is a decision below 0, so move by one ulp.
        alarm_at = calibrator.score_threshold(self.alpha, self.guarantee, self.delta)
        self.calibrator_, self.level_ = calibrator, level  # after the errors, which leave the estimator as it was
        self.offset_ = float(np.nextafter(-alarm_at, np.inf))
        return self

    def _infinitely_many(self, calibrator: ConformalCalibrator) -> bool:
        """Whether so many calibration scores are +inf that no score could raise an alarm at the promised rate.

        Warns:
            PushforwardWarning: if so, with what to do.
        """
        infinite = int(np.isposinf(calibrator.scores).sum())
        level = calibrator.threshold(self.alpha, self.guarantee, self.delta)
        if infinite < round(level * (calibrator.n + 1)):
            return False
        warn_caller(
            f"{infinite} of {calibrator.n} calibration scores are +inf (with strict=True, those of cells that no row had which fitted the "
            f"guard), so at alpha={self.alpha:g} predict raises no alarm, which keeps the promise: fit without strict=True, leave such "
            "columns out with ignore=, or give more rows or a larger alpha."
        )
        return True

    def _decide(self, samples: np.ndarray) -> np.ndarray:
        """Decision function of the values of ``score_samples``; +inf everywhere if there can be no alarm."""
        return samples - self.offset_ if self.offset_ > -math.inf else np.full(samples.shape, math.inf)
