"""Checks of input that the estimators share: scikit-learn's checks, with the errors of pushforward."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import NotFittedError as SklearnNotFittedError
from sklearn.utils.validation import check_array as sklearn_check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from pushforward.data import as_table, is_frame
from pushforward.data.tables import from_tensor, without_index
from pushforward.errors import ConfigError, InputError, PushforwardError

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
    X = without_index(X)
    if np.ma.is_masked(X):  # scikit-learn would read the values behind the mask
        X = X.astype(np.float64).filled(np.nan)
    if isinstance(X, torch.Tensor) and X.layout == torch.strided:  # scikit-learn reads no gradients and no bfloat16
        X = from_tensor(X)
    try:
        if not reset and not names:
            return sklearn_check_array(X, dtype=np.float64, ensure_all_finite=finite, estimator=estimator)  # pyright: ignore[reportArgumentType, reportReturnType]
        checked: Any = validate_data(estimator, X, reset=reset, dtype=np.float64, ensure_all_finite=finite)  # pyright: ignore[reportArgumentType]
        return checked
    except TypeError as error:
        raise InputTypeError(_one_sentence(error, X)) from error
    except ValueError as error:
        raise InputError(_one_sentence(error, X)) from error


def _one_sentence(error: Exception, X: Any) -> str:
    """What scikit-learn says of X, without its cells, and what to give instead where it does not say that."""
    if X is None:
        return "X is None: give a data frame, or an array of rows and columns."
    if isinstance(X, (str, os.PathLike)):
        return f"X must be a table, and {os.fspath(X)[:80]!r} is text: read the file first, with pushforward.io.read_table(path)."
    if isinstance(X, Sequence) and len(X) and isinstance(X[0], Mapping):
        return "X is a list of dictionaries, one a row: make it a data frame, pandas.DataFrame(X)."
    names: Any = getattr(X, "columns", ())
    if "could not convert string" in str(error) and len(names) and not isinstance(names[0], str):
        return (
            f"the names of the columns are not text, such as {names[0]!r}, so X is read as an array of numbers, and it has text: name the "
            "columns, X.columns = [str(name) for name in X.columns]."
        )
    if isinstance(X, (torch.utils.data.Dataset, torch.utils.data.DataLoader, Iterator)):
        return f"X is a {type(X).__name__}: give its rows as one array or tensor, such as torch.stack(list_of_rows)."
    if named := _columns_without_numbers(X):
        return (
            f"column {named[0]!r} has no numbers: turn it into numbers, or leave it out, X.drop(columns={named!r}). pf.Guard reads text, "
            "flags and times in a data frame."
        )
    if "Complex data not supported" in str(error):
        return "Complex data not supported: give the real and the imaginary parts as columns, numpy.column_stack([X.real, X.imag])."
    if re.search("contains (NaN|infinity)", str(error)) and (cell := _not_finite(X)):
        return f"X has {cell}: drop such rows, or fill the cells. pf.Guard reads missing cells."
    said = re.sub(r":?\s*array=.*?\.\s(?=Reshape your data)", ": ", str(error), flags=re.DOTALL)
    if said.startswith("could not convert string to float") and type(X).__name__ == "Series":
        return "X is one row or one column of a data frame: give a data frame, df.iloc[[0]] for one row, df[['a']] for one column."
    if said.startswith("could not convert string to float"):
        said += ": an array or a list of rows must be numbers, and pf.Guard reads text in a data frame, such as pandas.DataFrame(X)."
    return said


def _not_finite(X: Any) -> str:
    """The first cell that is not finite, as NaN in row 3, column 0; "" if X cannot be read again."""
    try:
        cells = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError):
        return ""
    if cells.ndim != 2 or np.isfinite(cells).all():
        return ""
    row, column = (int(k) for k in np.argwhere(~np.isfinite(cells))[0])
    name = repr(str(X.columns[column])) if hasattr(X, "columns") else str(column)
    return f"{'NaN' if np.isnan(cells[row, column]) else 'infinity (inf)'} in row {row}, column {name} (counted from 0)"


def _columns_without_numbers(X: Any) -> list[str]:
    """The names of the columns of a frame that are neither numbers nor flags."""
    import pyarrow as pa

    if isinstance(X, Mapping) or not is_frame(X):
        return []
    try:
        fields = as_table(X).schema
    except PushforwardError:  # which would say what is wrong with the frame, and not what scikit-learn refused
        return []
    plain = pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal, pa.types.is_null
    return [field.name for field in fields if not any(test(field.type) for test in plain)]


def seed_from(random_state: Any) -> int:
    """Convert scikit-learn's ``random_state`` (None, an integer, or a ``RandomState``) to a seed for torch.

    Raises:
        ConfigError: for anything else.
    """
    if isinstance(random_state, (int, np.integer)):
        return int(random_state) % 2**32
    from sklearn.utils import check_random_state

    try:
        return int(check_random_state(random_state).randint(2**31))
    except ValueError:
        raise ConfigError(
            f"random_state must be None, an integer or a numpy.random.RandomState; got {random_state!r:.80}: give an integer."
        ) from None
