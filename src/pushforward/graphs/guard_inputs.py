"""How the cells of a table enter a graph: codes of categories, units of instants, and what a file says of each column."""

from __future__ import annotations

from typing import Any

from pushforward.data.cells import spellings
from pushforward.data.column import CODED, Column

__all__ = ["MISSING", "UNSEEN", "about", "codes_of_texts"]

MISSING, UNSEEN = -1, -2
"""Codes of a cell without text, and of text that is no category; every other number that is no code is unseen too."""
_SINCE = "seconds since 1970-01-01"
_UNITS = {
    "timestamp": _SINCE,
    "timestamp_utc": f"{_SINCE} UTC",
    "date": _SINCE,
    "time": "seconds since midnight",
    "duration": "seconds",
}


def codes_of_texts(categories: tuple[str, ...]) -> dict[str, int]:
    """The code of each text: of each category, of other spellings of numbers and flags among them, and of no text."""
    codes = {"": MISSING} | {text: code for code, text in enumerate(categories)}
    for code, text in enumerate(categories):
        for other in spellings(text):
            codes.setdefault(other, code)
    return codes


def about(column: Column, name: str, index: int | None = None) -> dict[str, Any]:
    """What a user of the file needs to know of a column.

    Args:
        column: of the fitted table.
        name: of the input.
        index: of the column in a matrix, or None.
    """
    found: dict[str, Any] = {"name": column.name, "input": name}
    if index is not None:
        found["index"] = index
    found["kind"] = column.time or column.kind
    found["missing at fit"] = column.missing
    if column.time:
        found["unit"] = _UNITS[column.time]
    if column.kind in CODED:
        found["categories"] = list(column.categories) or ["false", "true"]
    return found
