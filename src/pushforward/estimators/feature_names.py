"""Names of columns as scikit-learn's methods of an estimator compare them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from pushforward.data import as_table, is_frame
from pushforward.data.schema import absent_columns
from pushforward.data.tables import without_index
from pushforward.errors import SchemaError

__all__ = ["check_names", "in_order", "names_of"]

_LISTED = 5


def check_names(estimator: Any, X: Any) -> None:
    """Refuse a data frame that lacks columns of ``fit``, or has them in another order, as scikit-learn's estimators do.

    ``predict``, ``decision_function`` and ``score_samples`` keep this contract, and its words; further columns are ignored. The
    other methods of a guard match columns by name.

    Args:
        estimator: with ``feature_names_in_`` if the training table had names.
        X: what the user gave; only data frames are looked at.

    Raises:
        SchemaError: naming columns.
    """
    fitted = getattr(estimator, "feature_names_in_", None)
    if fitted is None or isinstance(X, Mapping) or not is_frame(X):
        return
    fitted = [str(name) for name in fitted]
    names = _labels(X)
    names = as_table(X).column_names if names is None else [str(name) for name in names]
    known = set(fitted)
    given = [name for name in names if name in known]
    if given == fitted:
        return
    text = "The feature names should match those that were passed during fit.\n"
    if missing := sorted(known - set(given)):
        if unseen := sorted(set(names) - known):
            text += "Feature names unseen at fit time:\n" + _listed(unseen)
        text += "Feature names seen at fit time, yet now missing:\n" + _listed(missing) + absent_columns(missing, names)
    else:
        text += (
            "Feature names must be in the same order as they were in fit.\n"
            "anomaly_score, p_value and assess match columns by name in any order."
        )
    raise SchemaError(text)


def names_of(X: Any, keep: Collection[str] = ()) -> list[str] | None:
    """The names of the columns of a data frame; None for other data, and for names that are not text or not unique.

    Args:
        X: what the user gave.
        keep: columns of a pyarrow table that are named though they hold the index of a pandas frame.
    """
    X = without_index(X, keep)
    if isinstance(X, (Mapping, np.ndarray)) or not is_frame(X):
        return None
    names = _labels(X) or []
    return names if all(isinstance(name, str) for name in names) and len(set(names)) == len(names) else None


def in_order(fitted: Iterable[str] | None, X: Any) -> Any:
    """A data frame with the columns of ``fit`` alone, in their order, for what reads columns by position; other data as they are.

    Args:
        fitted: names of the columns of ``fit``; None if they had no names.
        X: a data frame of pandas, polars or pyarrow, or something else.

    Raises:
        SchemaError: if columns are missing.

    Example:
        >>> import pandas as pd
        >>> from pushforward.estimators.feature_names import in_order
        >>> in_order(["a", "b"], pd.DataFrame({"b": [1], "id": [7], "a": [2]}))
           a  b
        0  2  1
    """
    import narwhals as nw

    wanted = None if fitted is None else [str(name) for name in fitted]
    X = without_index(X, wanted or ())
    given = None if wanted is None else names_of(X, wanted)
    if wanted is None or given is None or given == wanted:
        return X
    present = set(given)
    if missing := [name for name in wanted if name not in present]:
        raise SchemaError(absent_columns(missing, given))
    return X.select(wanted) if hasattr(X, "select") and not nw.dependencies.is_pandas_dataframe(X) else X[wanted]


def _labels(X: Any) -> list[Any] | None:
    """The labels of the columns of a table of pyarrow, or of a data frame; None for a frame that has no list of them.

    A column of pandas is an attribute too, so a frame with a column called "column_names" has that.
    """
    import pyarrow as pa

    labels = X.schema.names if isinstance(X, (pa.Table, pa.RecordBatch)) else getattr(X, "columns", None)
    return None if labels is None else list(labels)


def _listed(names: Iterable[str]) -> str:
    chosen = list(names)
    return "".join(f"- {name}\n" for name in chosen[:_LISTED]) + ("- ...\n" if len(chosen) > _LISTED else "")
