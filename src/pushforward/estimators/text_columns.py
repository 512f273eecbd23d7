"""Warnings about columns of text that are read as categories and are better read in another way, or left out."""

from __future__ import annotations

from shlex import quote

import numpy as np

from pushforward.data import Column, Schema
from pushforward.data.arrow import compute, to_numpy
from pushforward.data.text import WITH_SIGNS, date_order, decimal_commas, parse_numbers
from pushforward.errors import warn_caller

__all__ = ["warn_of_texts"]

_DATES = 3  # categories; fewer dates may be names of events
_NUMBERS, _INTEGERS = 10, 25  # categories; fewer numbers, or whole numbers, may be codes
_MOSTLY = 0.9  # part of the cells
_RARE, _FEW = 0.05, 5  # values of one row: as a part of the rows, and number


def warn_of_texts(schema: Schema, encoded: np.ndarray) -> None:
    """Warn of columns of categories that seem to be dates or numbers, or that have a new value in many new rows.

    Args:
        schema: of the training rows.
        encoded: rows, ``(n, columns)``, of which the frequencies of the categories are counted.

    Warns:
        PushforwardWarning: for each such column, with what to do.
    """
    for i, column in enumerate(schema.columns):
        if column.kind != "categorical":
            continue
        codes = encoded[np.isfinite(encoded[:, i]), i].astype(np.int64)
        counts = np.bincount(codes, minlength=len(column.categories))
        if sentence := _dates(column) or _numbers(column, counts) or _rare(column, counts, len(encoded)):
            warn_caller(f"column {column.name!r} has {sentence}")


def _leave_out(column: Column) -> str:
    return f"leave it out with ignore=[{column.name!r}], on the command line --drop {quote(column.name)}."


def _dates(column: Column) -> str:
    """What to say of dates as text; "" if these are none. Each date is a category, and tomorrow's is a new one."""
    import pyarrow as pa

    if len(column.categories) < _DATES or not date_order(pa.array(column.categories)):
        return ""
    return (
        f"dates as text, such as {column.categories[0][:30]!r}, which are read as categories, so every other date raises the anomaly score: "
        f"convert the column, as pandas.to_datetime does, or {_leave_out(column)}"
    )


def _numbers(column: Column, counts: np.ndarray) -> str:
    """What to say of numbers with other cells or signs among them; "" if most cells are none.

    Texts that are numbers alone are codes that the user wants to have as text.
    """
    import pyarrow as pa

    texts = pa.array(column.categories, pa.large_string())
    values, unreadable = parse_numbers(texts)
    if not unreadable.any():
        return ""
    total, numbers = int(counts.sum()), int(counts[~unreadable].sum())
    least = _INTEGERS if np.all(values[~unreadable] % 1 == 0) else _NUMBERS
    if numbers >= _MOSTLY * total and (~unreadable).sum() >= least:
        other = column.categories[int(unreadable.argmax())]
        return (
            f"{numbers} numbers and {total - numbers} {'other text' if total - numbers == 1 else 'other texts'}, such as {other[:30]!r}, so it "
            "is read as categories, and how large a number is does not count: make the other cells missing to have numbers."
        )
    comma = unreadable & decimal_commas(texts)
    signs = unreadable & _matches(texts, WITH_SIGNS)
    if counts[signs].sum() < _MOSTLY * total or signs.sum() < _NUMBERS:
        return ""
    if counts[comma].sum() >= _MOSTLY * counts[signs].sum():
        return (
            f"numbers with a decimal comma, such as {column.categories[int(comma.argmax())][:30]!r}, which are read as categories: read the "
            "file with decimal=',', on the command line --decimal ','."
        )
    return (
        f"numbers with other signs, such as {column.categories[int(signs.argmax())][:30]!r}, which are read as categories, and how large a "
        "number is does not count: write them as plain numbers, such as 1234.5."
    )


def _rare(column: Column, counts: np.ndarray, rows: int) -> str:
    """What to say of a column of which many new rows will have a new value; "" if few will (Good 1953)."""
    single = int((counts == 1).sum())
    if single < max(_FEW, _RARE * rows):
        return ""
    return (
        f"{single} values that one of {rows} rows has, so about {100 * single / rows:.0f}% of new rows will have a new value, which "
        f"counts little there, and anomalies in other columns can show a little less: join rare values into one, or {_leave_out(column)}"
    )


def _matches(texts: object, pattern: str) -> np.ndarray:
    return to_numpy(compute().match_substring_regex(texts, pattern)).astype(bool)
