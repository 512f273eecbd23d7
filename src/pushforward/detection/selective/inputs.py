"""Checks of logits, labels and losses, which the parts of selective prediction share."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.detection.validation import plain_array
from pushforward.errors import InputError

__all__ = ["class_labels", "log_softmax", "logit_matrix", "loss_array", "probability_matrix"]


def logit_matrix(logits: ArrayLike, classes: int | None = None) -> NDArray[np.float64]:
    """Logits as float64 ``(n, K)``, K >= 2; -inf is a class of probability 0.

    Args:
        logits: array, list or CPU tensor; log-probabilities are logits too.
        classes: the number K that is expected; None for any.

    Raises:
        InputError: for another shape, NaN, +inf, or a row without a finite logit.
    """
    array = _matrix(logits, "logits", classes)
    wrong = np.isnan(array).any(1) | np.isposinf(array).any(1) | np.isneginf(array).all(1)
    if wrong.any():
        raise InputError(
            f"logits must be numbers, at least one of each row finite; row {int(wrong.argmax())} has NaN, +inf or no "
            "finite logit."
        )
    return array


def probability_matrix(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Probabilities of classes as float64 ``(n, K)``, K >= 2.

    Raises:
        InputError: for another shape, values outside [0, 1], or rows that do not add up to 1 within 1e-3.
    """
    array = _matrix(probabilities, "probabilities", None)
    wrong = ~((array >= 0) & (array <= 1)).all(1) | ~(np.abs(array.sum(1) - 1) <= 1e-3)
    if wrong.any():
        raise InputError(
            f"probabilities must be in [0, 1] and add up to 1; row {int(wrong.argmax())} does not. Give softmax(logits)."
        )
    return array


def class_labels(labels: ArrayLike, rows: int, classes: int) -> NDArray[np.int64]:
    """Labels as int64 ``(rows,)``, each from 0 to ``classes`` - 1.

    Raises:
        InputError: for another shape, numbers that are not integers, or labels out of range.
    """
    array = plain_array(labels, "labels")
    if array.shape != (rows,):
        raise InputError(f"labels must be one integer for each of the {rows} rows; got shape {array.shape}.")
    if array.dtype.kind not in "iu":
        raise InputError(f"labels must be integers from 0 to {classes - 1}; got dtype {array.dtype}.")
    wrong = (array < 0) | (array >= classes)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f"labels must be from 0 to {classes - 1}, one for each logit; row {row} has {array[row]}.")
    return array.astype(np.int64)


def loss_array(losses: ArrayLike, rows: int | None = None) -> tuple[NDArray[np.float64], bool]:
    """Losses as float64 ``(rows,)`` in [0, 1], and whether they were booleans: errors of a classifier.

    Raises:
        InputError: for another shape, or values outside [0, 1].
    """
    array = plain_array(losses, "losses")
    if array.ndim != 1 or array.size == 0 or (rows is not None and array.size != rows):
        wanted = "at least one row" if rows is None else f"each of the {rows} rows"
        raise InputError(f"losses must be one value for {wanted}; got shape {array.shape}.")
    if array.dtype.kind not in "bfiu":
        raise InputError(f"losses must be booleans or numbers in [0, 1]; got dtype {array.dtype}.")
    wrong = ~((array >= 0) & (array <= 1))
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f"losses must be booleans or numbers in [0, 1]; row {row} has {array[row]}.")
    return array.astype(np.float64), array.dtype.kind == "b"


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of the probabilities of each row ``(n, K)``."""
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def _matrix(values: ArrayLike, name: str, classes: int | None) -> NDArray[np.float64]:
    array = plain_array(values, name)
    if array.ndim != 2 or array.shape[1] < 2 or (classes is not None and array.shape[1] != classes):
        wanted = f"(rows, {classes})" if classes is not None else "(rows, classes), with at least two classes"
        raise InputError(f"{name} must have shape {wanted}; got shape {array.shape}.")
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} must be real numbers; got dtype {array.dtype}.")
    return np.ascontiguousarray(array, dtype=np.float64)
