"""Checks of input that the estimators share: scikit-learn's checks, with the errors of pushforward."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError as SklearnNotFittedError
from sklearn.utils.validation import check_array as sklearn_check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from pushforward.errors import InputError, PushforwardError

__all__ = ["InputTypeError", "NotFittedError", "check_array", "require_fitted", "seed_from"]


class NotFittedError(PushforwardError, SklearnNotFittedError):
    """An estimator was used before ``fit``."""


class InputTypeError(InputError, TypeError):
    """Data have a type that cannot be read at all, such as sparse matrices."""


def require_fitted(estimator: Any) -> None:
    """Check that an estimator was fitted.

    Raises:
        NotFittedError: if not; it names the call to make.
    """
    try:
        check_is_fitted(estimator)
    except SklearnNotFittedError:
        name = type(estimator).__name__
        raise NotFittedError(f"this {name} is not fitted yet: call fit(X) first, or {name}.load(path).") from None


def check_array(estimator: Any, X: Any, *, reset: bool, finite: bool | str, names: bool = True) -> np.ndarray:
    """Convert X to a float64 array of shape (rows, columns), with scikit-learn's checks.

    Args:
        estimator: its ``n_features_in_`` and ``feature_names_in_`` are set (``reset``) or compared with X.
        X: array-like of numbers.
        reset: whether this is ``fit``.
        finite: scikit-learn's ``ensure_all_finite``.
        names: whether to compare width and feature names; False for a caller that does it.

    Raises:
        InputError: for anything but a non-empty table of numbers.
    """
    if np.ma.is_masked(X):  # scikit-learn would read the values behind the mask
        X = X.astype(np.float64).filled(np.nan)
    try:
        if not reset and not names:
            return sklearn_check_array(X, dtype=np.float64, ensure_all_finite=finite, estimator=estimator)  # pyright: ignore[reportArgumentType, reportReturnType]
        checked: Any = validate_data(estimator, X, reset=reset, dtype=np.float64, ensure_all_finite=finite)  # pyright: ignore[reportArgumentType]
        return checked
    except TypeError as error:
        raise InputTypeError(str(error)) from error
    except ValueError as error:
        raise InputError(str(error)) from error


def seed_from(random_state: Any) -> int:
    """Convert scikit-learn's ``random_state`` (None, an integer, or a ``RandomState``) to a seed for torch."""
    if isinstance(random_state, (int, np.integer)):
        return int(random_state) % 2**32
    from sklearn.utils import check_random_state

    return int(check_random_state(random_state).randint(2**31))
