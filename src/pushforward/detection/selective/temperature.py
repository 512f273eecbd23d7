"""Temperature scaling: probabilities of classes that agree with observed frequencies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from pushforward.detection.selective.inputs import class_labels, log_softmax, logit_matrix
from pushforward.errors import CalibrationError, InputError
from pushforward.numerics.checks import check_positive

__all__ = ["Temperature", "fit_temperature"]

_STEEPEST = 1e3
"""Largest factor of logits that differ by about 1; labels that want more are separated perfectly."""


@dataclass(frozen=True)
class Temperature:
    """The temperature T of ``softmax(logits / T)``; returned by :func:`fit_temperature`.

    Attributes:
        value: T; above 1 the network was too confident.
        standard_error: of T, by the Fisher information of the rows of the fit; NaN if T was given.

    Raises:
        ConfigError: unless T is positive and finite.

    Example:
        >>> Temperature(2.0).probabilities([[2.0, 0.0]]).round(3)
        array([[0.731, 0.269]])
    """

    value: float
    standard_error: float = math.nan

    def __post_init__(self) -> None:
        check_positive("temperature", self.value)

    def probabilities(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probabilities of the classes, ``(n, K)``.

        Raises:
            InputError: for logits that are not a matrix of numbers.
        """
        return np.exp(log_softmax(self.scale(logits)))

    def scale(self, logits: ArrayLike) -> NDArray[np.float64]:
        """``logits / T``, ``(n, K)``; of a row where this overflows, of the logits less their largest, which have the same probabilities.

        Raises:
            InputError: for logits that are not a matrix of numbers.
        """
        z = logit_matrix(logits)
        with np.errstate(over="ignore"):
            scaled = z / self.value
            wrong = (np.isinf(scaled) & np.isfinite(z)).any(1)
            scaled[wrong] = (z[wrong] - z[wrong].max(1, keepdims=True)) / self.value
        return scaled


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> Temperature:
    """Temperature scaling by maximum likelihood (Guo et al. 2017, "On calibration of modern neural networks", sec. 4.2).

    ``T = argmin_T -sum_i log softmax(z_i / T)[y_i]``. The sum is convex in 1/T, so its minimum is the root of the
    derivative ``sum_i (E_p[z_i] - z_i[y_i])``, which increases in 1/T. Classes and their order stay what they were.

    The rows must be unseen by the network. The temperature is estimated, not guaranteed: its error is about
    ``standard_error``, and log-likelihood and calibration error *on these rows* are too good by about 1/n nats and
    similar amounts, compared with new rows; report them on other rows. A conformal method that reads the scaled probabilities needs rows other
    than these too, because its promise is for scores fixed before its rows are seen
    (:class:`~pushforward.detection.selective.ClassifierCalibration` splits them).

    Args:
        logits: ``(n, K)``.
        labels: ``(n,)``, integers from 0 to K - 1.

    Raises:
        CalibrationError: if no finite positive temperature is best, for example since all rows are classified correctly, or
            the logits of each row are equal.
        InputError: for other shapes, NaN, labels out of range, or a label of probability 0.

    Example:
        >>> import numpy as np
        >>> logits = np.array([[4.0, 0.0]] * 4)            # says 98 %
        >>> temperature = fit_temperature(logits, [0, 0, 0, 1])    # and is right in 75 %
        >>> temperature.probabilities(logits)[0].round(6)
        array([0.75, 0.25])
    """
    z = logit_matrix(logits)
    y = class_labels(labels, *z.shape)
    if len(z) == 0:
        raise InputError("the temperature needs at least one row.")
    rows = np.arange(len(z))
    chosen = z[rows, y]
    if np.isneginf(chosen).any():
        raise InputError(
            f"row {int(np.isneginf(chosen).argmax())} has a label of probability 0, which no temperature makes likely."
        )
    size = float(np.abs(z[np.isfinite(z)]).max())
    unit = 1.0 if size == 0 or 1e-100 < size < 1e100 else size  # no square of a logit overflows, or becomes 0
    z, chosen = z / unit, chosen / unit
    finite = np.where(np.isneginf(z), 0.0, z)  # times a probability of 0

    def slope(log_factor: float) -> float:
        p = np.exp(log_softmax(z * math.exp(log_factor)))
        return float(((p * finite).sum(1) - chosen).mean())

    spread = float(np.ptp(np.where(np.isneginf(z), chosen[:, None], z), axis=1).max())
    if spread == 0:
        raise CalibrationError(
            "the labels have no best temperature: the logits of each row are equal, so every temperature gives the same probabilities. "
            "Check the logits."
        )
    low, high = -math.log(_STEEPEST), math.log(_STEEPEST)
    if slope(low) >= 0:  # logits in large units
        low -= math.log(max(spread, 1.0))
    if slope(high) <= 0:  # or in small ones
        high -= math.log(min(spread, 1.0))
    if slope(high) <= 0:
        raise CalibrationError(
            "the labels have no best temperature: the largest logit is right in every row, so a lower temperature always "
            "fits better. Use more rows, some of them classified wrongly, or no temperature."
        )
    if slope(low) >= 0:
        raise CalibrationError(
            "the labels have no best temperature: they fit the logits worse than chance. Check that labels and logits "
            "belong together and number the classes in the same way."
        )
    root: Any = brentq(slope, low, high, xtol=1e-12)
    factor = math.exp(root)
    p = np.exp(log_softmax(z * factor))
    mean = (p * finite).sum(1, keepdims=True)
    information = float((p * (finite - mean) ** 2).sum())  # of the factor 1/T; the delta method divides by its square
    return Temperature(unit / factor, unit / (factor**2 * math.sqrt(information)))
