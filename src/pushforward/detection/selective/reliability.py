"""Metrics of predicted probabilities: calibration error, Brier score, log-likelihood."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.detection.selective.inputs import class_labels, probability_matrix
from pushforward.errors import InputError
from pushforward.numerics.checks import check_choice, check_integer

__all__ = ["brier_score", "calibration_error", "negative_log_likelihood", "reliability"]


def calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15, binning: str = "width", norm: int = 1
) -> float:
    """Calibration error of the predicted class: how far confidence and accuracy differ, on average over bins of confidence.

    ``(sum_b n_b/n |accuracy_b - confidence_b|^norm)^(1/norm)`` with the confidence max_k p_k. With bins of equal width
    this is the expected calibration error (ECE; Naeini et al. 2015; Guo et al. 2017), with bins of equal numbers of
    rows the adaptive one (Nguyen & O'Connor 2015). It is biased upwards: a perfectly calibrated network has about
    ``sqrt(bins / n)`` times a constant, so compare only with equal n and bins.

    Args:
        probabilities: ``(n, K)``, rows add up to 1.
        labels: ``(n,)``, integers from 0 to K - 1.
        bins: number of bins.
        binning: "width": (0, 1/bins], (1/bins, 2/bins], ...; "count": between quantiles of the confidence, with equal
            confidences in one bin.
        norm: 1, or 2 for the root of the mean square.

    Raises:
        InputError: for other shapes, no rows, labels out of range, or rows that are not probabilities.
        ConfigError: for an unknown binning, norm or number of bins.

    Example:
        >>> p = [[0.8, 0.2], [0.8, 0.2], [0.3, 0.7], [0.3, 0.7]]
        >>> round(calibration_error(p, [0, 0, 1, 0]), 12)     # |1 - 0.8| / 2 + |0.5 - 0.7| / 2
        0.2
    """
    check_integer("bins", bins)
    check_choice("binning", binning, ("width", "count"))
    check_choice("norm", norm, (1, 2))
    p, y = _checked(probabilities, labels)
    confidence, correct = p.max(1), (p.argmax(1) == y).astype(np.float64)
    if binning == "width":
        bin_of = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1).astype(np.int64)
    else:
        ordered = np.sort(confidence)
        edges = ordered[-(-np.arange(1, bins) * len(y) // bins) - 1]
        bin_of = np.searchsorted(edges, confidence, side="left")
    count, gap = np.bincount(bin_of, minlength=bins), np.bincount(bin_of, correct - confidence, minlength=bins)
    filled = count > 0
    return float((count[filled] / len(y) * np.abs(gap[filled] / count[filled]) ** norm).sum() ** (1 / norm))


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Brier score: the mean of ``sum_k (p_k - 1{y = k})^2``, from 0 (perfect) to 2 (Brier 1950).

    Args:
        probabilities: ``(n, K)``, rows add up to 1.
        labels: ``(n,)``, integers from 0 to K - 1.

    Raises:
        InputError: see :func:`calibration_error`.

    Example:
        >>> round(brier_score([[0.8, 0.2], [0.5, 0.5]], [0, 1]), 12)
        0.29
    """
    p, y = _checked(probabilities, labels)
    wrong = p.copy()
    wrong[np.arange(len(y)), y] -= 1
    return float((wrong**2).sum(1).mean())


def negative_log_likelihood(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean of -log p_y, nats; inf if a label has probability 0.

    Args:
        probabilities: ``(n, K)``, rows add up to 1.
        labels: ``(n,)``, integers from 0 to K - 1.

    Raises:
        InputError: see :func:`calibration_error`.

    Example:
        >>> round(negative_log_likelihood([[0.5, 0.5]], [0]), 4)
        0.6931
    """
    p, y = _checked(probabilities, labels)
    with np.errstate(divide="ignore"):
        return float(-np.log(p[np.arange(len(y)), y]).mean())


def reliability(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> dict[str, float]:
    """All usual metrics of probabilities: accuracy, mean confidence, calibration errors, Brier score and log-likelihood.

    Args:
        probabilities: ``(n, K)``, rows add up to 1.
        labels: ``(n,)``, integers from 0 to K - 1.
        bins: of the calibration errors.

    Raises:
        InputError: see :func:`calibration_error`.

    Example:
        >>> reliability([[0.8, 0.2], [0.5, 0.5]], [0, 1])["accuracy"]
        0.5
    """
    p, y = _checked(probabilities, labels)
    return {
        "accuracy": float((p.argmax(1) == y).mean()),
        "confidence": float(p.max(1).mean()),
        "calibration_error": calibration_error(p, y, bins=bins),
        "adaptive_calibration_error": calibration_error(p, y, bins=bins, binning="count"),
        "brier_score": brier_score(p, y),
        "negative_log_likelihood": negative_log_likelihood(p, y),
    }


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    p = probability_matrix(probabilities)
    if len(p) == 0:
        raise InputError("metrics of probabilities need at least one row.")
    return p, class_labels(labels, *p.shape)
