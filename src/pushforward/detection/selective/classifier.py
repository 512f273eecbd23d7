"""Temperature, prediction sets and abstention of a classifier, all from one set of held-out rows."""

from __future__ import annotations

import inspect
import math
from dataclasses import asdict
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pushforward.data import split_indices
from pushforward.detection.selective.inputs import class_labels, logit_matrix
from pushforward.detection.selective.prediction_sets import PredictionSets
from pushforward.detection.selective.risk_control import AbstentionRule, control_risk, sequence_thresholds
from pushforward.detection.selective.temperature import Temperature, fit_temperature
from pushforward.detection.validation import score_array
from pushforward.errors import CalibrationError, ConfigError, InputError, StorageError, warn_caller
from pushforward.numerics.checks import check_number, check_seed

__all__ = ["ClassifierCalibration"]


class ClassifierCalibration:
    """What held-out labeled rows say about a classifier: calibrated probabilities, prediction sets, and when to abstain.

    ``fit`` divides the rows at random. The first part fits the temperature, and its scores (not its labels) choose the
    thresholds of abstention to test. The second part calibrates everything that
    comes with a promise, and nothing about it has been used before:

    - sets contain the label with probability at least ``coverage`` (:class:`PredictionSets`);
    - among the accepted rows the risk is at most ``risk``, with confidence ``1 - delta`` (:func:`control_risk`).

    Which promises survive shared rows:

    - Each of these promises, and that of a guard's alarm calibrated on the same second part, is correct by itself: each
      procedure was fixed before the rows were seen and does not read the result of another.
    - Two of them *together* are not: that the risk bound fails and a guard's PAC bound fails are two events over the same rows,
      so both hold with probability at least 1 minus the sum of the deltas.
    - A promise *after* another decision is not kept: the coverage among accepted rows may be as low as
      ``1 - (1 - coverage) / P(accepted)``, and the risk among rows that are accepted *and* raise no alarm may be as high as
      ``risk / P(no alarm | accepted)``. For such a promise fix the first decision, then calibrate on other rows that it lets
      through; :meth:`NetworkGuard.selective <pushforward.NetworkGuard.selective>` does so for the rows without an alarm.
    - The temperature does not share: scores that read it would depend on their own calibration rows, and the rows would no
      longer be exchangeable with a new one. So it has rows of its own. It carries no promise.

    Args:
        temperature: of the probabilities.
        sets: prediction sets of ``logits / temperature``.
        rule: when to accept a row; None without a promised risk.
        without_alarm: whether the promises are for rows that raise no alarm of a guard, which alone calibrated it.

    Attributes:
        by_scores: whether ``rule`` compares the ``scores`` that ``fit`` was given, and not :meth:`uncertainty`; None where it is not known.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> labels = rng.integers(3, size=2000)
        >>> logits = 6 * np.eye(3)[labels] + 3 * rng.normal(size=(2000, 3))
        >>> calibration = ClassifierCalibration.fit(logits, labels, coverage=0.9, risk=0.05)
        >>> calibration.sets(logits[:1]).shape, bool(calibration.rule.bound <= 0.05)
        ((1, 3), True)
    """

    def __init__(
        self,
        temperature: Temperature,
        sets: PredictionSets,
        rule: AbstentionRule | None = None,
        without_alarm: bool = False,
    ) -> None:
        self.temperature, self._sets, self.rule, self.without_alarm = temperature, sets, rule, without_alarm
        self.by_scores: bool | None = None

    def __repr__(self) -> str:
        return f"ClassifierCalibration({self.temperature!r}, {self._sets!r}, {self.rule!r})"

    @classmethod
    def fit(
        cls,
        logits: ArrayLike,
        labels: ArrayLike,
        scores: ArrayLike | None = None,
        *,
        coverage: float = 0.9,
        method: str = "raps",
        risk: float | None = None,
        delta: float = 0.05,
        temperature_part: float = 0.2,
        seed: int = 0,
        **options: Any,
    ) -> Self:
        """Fit all parts.

        Args:
            logits: of held-out rows that the network has not seen, ``(n, K)``.
            labels: of these rows, ``(n,)``, integers from 0 to K - 1.
            scores: of these rows, ``(n,)``: what abstention ranks them by, higher is rejected first, from a score that has
                not seen them; None is 1 - the largest calibrated probability.
            coverage: promised coverage of the sets.
            method: of the sets, "lac", "aps" or "raps".
            risk: promised error rate among the accepted rows; None for no abstention.
            delta: probability that the promised risk fails.
            temperature_part: fraction of the rows in the first part; 0 is temperature 1, and abstention by ranks.
            seed: of the split and of the number u of the sets.
            **options: of :class:`PredictionSets`, such as ``per_class=True``.

        Raises:
            CalibrationError: if the rows are too few for a promise; it says how many are needed.
            InputError: for other shapes, NaN, or labels out of range.
            ConfigError: for impossible options.
        """
        known = [
            name for name in inspect.signature(PredictionSets).parameters if name not in ("method", "coverage", "seed")
        ]
        if unknown := [name for name in options if name not in known]:
            raise ConfigError(f"unknown option {unknown[0]}: the other options of the sets are {', '.join(known)}.")
        z = logit_matrix(logits)
        y = class_labels(labels, *z.shape)
        part = check_number("temperature_part", temperature_part, 0, 1, closed="left")
        first, rest = np.empty(0, dtype=np.int64), np.arange(len(y))
        if part and len(y) > 1:
            count = max(1, round(part * len(y)))
            first, rest = split_indices(len(y), (count, len(y) - count), seed=check_seed(seed))
        temperature = _temperature(z[first], y[first]) if len(first) else Temperature(1.0)
        sets = PredictionSets(method, coverage=coverage, seed=seed, **options)
        fitted = cls(temperature, sets.fit(temperature.scale(z[rest]), y[rest]))
        fitted.by_scores = scores is not None
        if risk is not None:
            s = fitted.uncertainty(z) if scores is None else score_array(scores, "the scores")
            if len(s) != len(y):
                raise InputError(f"the scores must be one for each of the {len(y)} rows; got {len(s)}.")
            errors = z[rest].argmax(1) != y[rest]
            if len(first):  # these rows do not calibrate, so they may choose the thresholds to test
                thresholds = sequence_thresholds(s[first], len(rest), risk, delta)
                fitted.rule = control_risk(s[rest], errors, risk, delta, method="sequence", thresholds=thresholds)
            else:
                fitted.rule = control_risk(s[rest], errors, risk, delta)
            if math.isinf(fitted.rule.threshold) and fitted.rule.threshold < 0:
                warn_caller(
                    f"with {len(rest)} rows a risk of {risk:g} cannot be shown for any threshold (delta={delta:g}), so every input is "
                    "rejected: give more labeled rows, or a larger risk or delta."
                )
        return fitted

    @property
    def coverage(self) -> float:
        """Promised coverage of the sets."""
        return float(self._sets.options["coverage"])

    def probabilities(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probabilities of the classes, ``(n, K)``.

        Raises:
            InputError: for logits of another number of classes, or NaN.
        """
        return self.temperature.probabilities(logit_matrix(logits, getattr(self._sets, "n_classes", None)))

    def uncertainty(self, logits: ArrayLike) -> NDArray[np.float64]:
        """1 - the largest calibrated probability, ``(n,)``; raises as :meth:`probabilities`."""
        return 1 - self.probabilities(logits).max(1)

    def sets(self, logits: ArrayLike) -> NDArray[np.bool_]:
        """Which labels are in the set of each row, ``(n, K)``."""
        return self._sets(self.temperature.scale(logits))

    def p_values(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Conformal p-value of each label, ``(n, K)``."""
        return self._sets.p_values(self.temperature.scale(logits))

    def accept(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Whether each row is accepted, ``(n,)``, by the scores that ``fit`` was given, or by :meth:`uncertainty`.

        Raises:
            ConfigError: if no risk was promised.
        """
        if self.rule is None:
            raise ConfigError("this ClassifierCalibration promises no risk: fit it with risk=..., such as 0.05.")
        return self.rule.accept(scores)

    def pack(self, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Description (plain JSON types) and tensors for a file; the tensors' names begin with ``prefix``."""
        sets, tensors = self._sets.pack(prefix)
        rule = None if self.rule is None else {name: repr(float(value)) for name, value in asdict(self.rule).items()}
        error = self.temperature.standard_error
        temperature = [self.temperature.value, None if math.isnan(error) else error]
        description = {"temperature": temperature, "sets": sets, "rule": rule, "without_alarm": self.without_alarm}
        return description | {"by_scores": self.by_scores}, tensors

    @classmethod
    def unpack(cls, description: Any, tensors: dict[str, Tensor], prefix: str) -> Self:
        """Rebuild from what :meth:`pack` returned; both may come from an untrusted file.

        Raises:
            StorageError: for parts that do not fit each other.
        """
        try:
            value, error = description["temperature"]
            temperature = Temperature(float(value), math.nan if error is None else float(error))
            rule = description["rule"]
            if rule is not None:  # strings, because JSON has no infinity
                rule = AbstentionRule(**{name: float(text) for name, text in rule.items()})
                if math.isnan(rule.threshold):
                    raise InputError("the threshold is NaN")
        except (TypeError, KeyError, ValueError, AttributeError) as wrong:
            raise StorageError(f"its calibration is not one that pushforward writes: {wrong!r}") from wrong
        sets = PredictionSets.unpack(description["sets"], tensors, prefix)
        found = cls(temperature, sets, rule, bool(description.get("without_alarm")))
        by_scores = description.get("by_scores")  # files of before lack it
        found.by_scores = None if by_scores is None else bool(by_scores)
        return found


def _temperature(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> Temperature:
    try:
        return fit_temperature(logits, labels)
    except CalibrationError as error:
        warn_caller(f"the temperature stays 1: {error}")
        return Temperature(1.0)
