"""Columns of a table that a guard sets aside: those that the user names, and on request identifiers and free text."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import Any

import numpy as np

from pushforward.data import Column
from pushforward.data.arrow import is_text, value_type
from pushforward.errors import ConfigError, SchemaError, warn_caller

__all__ = ["check_ignore", "columns_to_ignore", "without"]

_FEW = 20  # rows; in fewer, numbers count rows by chance
_COUNTS = "counts the rows"


def check_ignore(ignore: Any) -> None:
    """Raise ConfigError unless ``ignore`` is None, "auto" or names of columns."""
    names = isinstance(ignore, Sequence) and not isinstance(ignore, str) and all(isinstance(n, str) for n in ignore)
    if ignore is not None and ignore != "auto" and not names:
        raise ConfigError(f'ignore must be None, "auto" or a list of names of columns; got {ignore!r}.')


def columns_to_ignore(table: Any, ignore: Sequence[str] | str | None) -> tuple[str, ...]:
    """The columns of a training table to set aside.

    Args:
        table: a pyarrow table.
        ignore: names, or "auto" for identifiers and free text (columns that no guard can model), with a warning that names
            them, or None for none. A column of integers that counts the rows, or grows from row to row, is said to be one, and is
            set aside with "auto".

    Raises:
        SchemaError: for a name that the table does not have.
        ConfigError: if nothing is left.
    """
    if ignore is not None and ignore != "auto":
        for name in ignore:
            if name not in table.column_names:
                raise SchemaError(
                    f"ignore names the column {name!r}, which the table lacks; it has {table.column_names}."
                )
        found = dict.fromkeys(ignore, "")
    else:
        found = {
            name: why for name in table.column_names if (why := _unusable(name, table.column(name), ignore == "auto"))
        }
    kept = table.num_columns - (len(found) if ignore is not None else 0)  # None only names the columns that it found
    if not kept:
        raise ConfigError("every column of the table is set aside, so there is nothing to learn: keep at least one.")
    if ignore == "auto" and found:
        listed = "; ".join(f"{name!r} {why}" for name, why in found.items())
        warn_caller(f"columns that say nothing about a new row are set aside: {listed}.")
    if ignore is None and found:
        for name, why in found.items():
            beyond = "so a new row is always beyond it" if why == _COUNTS else "so new rows may all be beyond it"
            time = (
                ""
                if why == _COUNTS
                else f" If it is a time, fit(X, time={name!r}) (--time {quote(name)}) calibrates on the latest rows."
            )
            warn_caller(
                f"column {name!r} {why}, {beyond}: leave it out with ignore=[{name!r}], on the command "
                f"line --drop {quote(name)}.{time}"
            )
        return ()
    return tuple(found)


def without(table: Any, names: Sequence[str]) -> Any:
    """The table without the columns of these names that it has."""
    return table.drop_columns([name for name in names if name in table.column_names]) if names else table


def _unusable(name: str, column: Any, texts: bool) -> str:
    """Why a column cannot say anything about a new row; "" if it can.

    Args:
        name: of the column.
        column: its cells.
        texts: whether to look for identifiers and free text, which are refused otherwise.
    """
    import pyarrow as pa

    kind = value_type(column.type)
    if pa.types.is_integer(kind) and not pa.types.is_dictionary(column.type) and len(column) >= _FEW:
        values = column.to_numpy()
        if not column.null_count and np.all(np.diff(np.sort(values.astype(np.float64))) == 1):
            return _COUNTS
        if not column.null_count and np.all(values[1:] > values[:-1]):
            return "grows from row to row"
    if texts and is_text(kind):
        try:
            Column.infer(name, column)
        except SchemaError as error:
            return "has identifiers or free text" if "like identifiers" in str(error) else ""
    return ""
