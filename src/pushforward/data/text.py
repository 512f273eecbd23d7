"""Numbers and dates that are written as text."""

from __future__ import annotations

from typing import Any

import numpy as np

from pushforward.data.arrow import compute, to_numpy

__all__ = [
    "MISSING_WORDS",
    "WITH_SIGNS",
    "cleaned",
    "date_order",
    "decimal_commas",
    "number_form",
    "other_cell",
    "parse_numbers",
]

MISSING_WORDS = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "#N/A", "?")
"""Cells that mean a missing number or flag. In a column of text only the empty cell is missing."""

_NUMBER = r"(?i)^[+-]?([0-9]+\.?[0-9]*(e[+-]?[0-9]+)?|\.[0-9]+(e[+-]?[0-9]+)?|inf|infinity)$"

_DECIMAL_COMMA = r"^\s*[+-]?([0-9]{1,3}(\.[0-9]{3})+|[0-9]+),[0-9]+\s*$"
_THOUSANDS = r"^\s*[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+\s*$"

WITH_SIGNS = r"^\s*[<>≤≥~€$£¥]?\s*[+-]?([0-9]{1,3}([., '][0-9]{3})+|[0-9]+)([.,][0-9]+)?\s*[%‰€$£¥°]?\s*$"
"""A number, also one with a currency, a percent sign, groups of thousands or a decimal comma."""

_MOSTLY = 0.9  # part of the cells

_DATES = {
    "year": r"^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}.*)?\s*$",
    "day": r"^\s*[0-9]{1,2}[./-][0-9]{1,2}[./-]([0-9]{4}|[0-9]{2})\b",  # or month
}
_LOOKED_AT = 1000


def date_order(text: Any) -> str:
    """What the dates begin with that text cells seem to be: "year" (ISO 8601) or "day" (or month); "" for other text.

    Args:
        text: pyarrow array or chunked array of strings; the first thousand cells decide.
    """
    pc = compute()
    head = pc.drop_null(text.slice(0, _LOOKED_AT))
    if len(head):
        for begin, pattern in _DATES.items():
            if pc.all(pc.match_substring_regex(head, pattern)).as_py():
                return begin
        either = "|".join(f"({pattern})" for pattern in _DATES.values())
        if pc.all(pc.match_substring_regex(head, either)).as_py():  # dates of several forms
            return "day"
    return ""


def decimal_commas(text: Any) -> np.ndarray:
    """Which text cells are numbers with a decimal comma; none where all of them can be groups of thousands, such as 526,855.

    Args:
        text: pyarrow array or chunked array of strings, without nulls.
    """
    pc = compute()
    found = to_numpy(pc.match_substring_regex(text, _DECIMAL_COMMA)).astype(bool)
    thousands = to_numpy(pc.match_substring_regex(text, _THOUSANDS)).astype(bool)
    return found if (found & ~thousands).any() else np.zeros(len(found), dtype=bool)


def number_form(text: Any) -> tuple[str, str]:
    """How numbers are written which text cells seem to be: "comma" (decimal) or "signs", and an example; two empty texts for other text.

    Texts that are numbers alone are codes that the user wants to have as text.

    Args:
        text: pyarrow array or chunked array of strings.
    """
    pc = compute()
    present = pc.drop_null(text)
    if len(present) > _LOOKED_AT and not number_form(present.slice(0, _LOOKED_AT))[0]:
        return "", ""
    other = parse_numbers(present)[1]
    signs, comma = to_numpy(pc.match_substring_regex(present, WITH_SIGNS)).astype(bool), decimal_commas(present)
    found = other & signs
    if not found.any() or signs.sum() < _MOSTLY * len(signs) or found.sum() < (1 - _MOSTLY) * len(signs):
        return "", ""
    form = "comma" if (found & comma).sum() >= _MOSTLY * found.sum() else "signs"
    return form, present[int((found & comma if form == "comma" else found).argmax())].as_py()[:30]


def other_cell(text: Any) -> tuple[str, int, str] | None:
    """Whether at least half of the text cells are "numbers", or "dates", and others are not: which, how many are, and the first that is not.

    Args:
        text: pyarrow array or chunked array of strings.
    """
    pc = compute()
    present = pc.drop_null(text)
    dates = to_numpy(pc.match_substring_regex(present, _DATES["year"])).astype(bool)
    for what, fits in (("numbers", ~parse_numbers(present)[1]), ("dates", dates)):
        count = int(fits.sum())
        if len(fits) / 2 <= count < len(fits):
            return what, count, present[int((~fits).argmax())].as_py()
    return None


_NAN = r"(?i)^[+-]?nan(\([^)]*\))?$"
"""Forms of NaN that pyarrow reads as a number."""


def parse_numbers(text: Any) -> tuple[np.ndarray, np.ndarray]:
    """Read text cells as float64.

    Args:
        text: pyarrow array or chunked array of strings.

    Returns:
        The numbers, NaN where a cell is missing or is not a number, and a mask of the cells that are not numbers.
    """
    import pyarrow as pa

    pc = compute()
    try:
        return to_numpy(pc.cast(text, pa.float64())), np.zeros(len(text), dtype=bool)
    except pa.ArrowInvalid:
        pass
    text = cleaned(text)
    readable = pc.match_substring_regex(text, _NUMBER)
    numbers = pc.cast(pc.if_else(readable, text, pa.scalar(None, text.type)), pa.float64())
    return to_numpy(numbers), to_numpy(pc.fill_null(pc.invert(readable), False)).astype(bool)


def cleaned(text: Any) -> Any:
    """The cells without surrounding spaces, and null for the words that mean a missing one, of a column of numbers or flags."""
    import pyarrow as pa

    pc = compute()
    text = pc.utf8_trim_whitespace(text)
    missing = pc.or_(
        pc.is_in(text, value_set=pa.array(MISSING_WORDS, text.type)),
        pc.fill_null(pc.match_substring_regex(text, _NAN), False),
    )
    return pc.if_else(missing, pa.scalar(None, text.type), text)
