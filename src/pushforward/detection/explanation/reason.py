"""`Reason`: why one cell is unusual, with a sentence for a person."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from typing import Any

from pushforward.data import Column

__all__ = ["CELL_KINDS", "USUAL", "Reason", "plain", "sentence", "sentence_of_instant", "sentence_of_time", "text"]

CELL_KINDS = (
    "number",
    "category",
    "missing",
    "new category",
    "new missing",
    "changed constant",
    "infinite",
    "fraction",
)
"""What a cell is: a number, a category or flag, a missing cell in a column that has some; then what no training row has."""

USUAL = 0.95
"""Fraction of the normal rows with such other columns whose value is in the usual range."""

_OTHERS = "given the other columns"
_LARGE, _NARROW = 1e7, 1e-3
"""Numbers from the first on have four digits, unless their range is narrower than this part of them."""


@dataclass(frozen=True)
class Reason:
    """Why one cell of a row is unusual.

    Attributes:
        row: position of the row in the table that was explained.
        column: its name.
        kind: one of :data:`CELL_KINDS`.
        excess: how far it is beyond what is usual for this column, nats; high is unusual, +inf for an infinite number.
        value: the cell in the table's units; None if it is missing.
        usual: of a number, the range of 95 % of the normal rows with such other columns, ``(low, high)``; of a category, the
            most likely one given the other columns; of a constant column, its value. Empty if it is unknown, or if the other
            columns of the row are unlike those of any training row.
        p_value: P(a cell of this column is at least as unusual given the other columns) among training rows; NaN if unknown.
        sentence: all this for a person.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> rng = np.random.default_rng(0)
        >>> flow = rng.normal(size=500)
        >>> rows = {"flow": flow, "pressure": 2 * flow + 0.1 * rng.normal(size=500)}
        >>> guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(rows)
        >>> explanation = guard.explain({"flow": [0.5], "pressure": [9.0]})
        >>> reason = explanation.reasons()[0]
        >>> reason.column, reason.value, reason.p_value < 0.01
        ('pressure', 9.0, True)
    """

    row: int
    column: str
    kind: str
    excess: float
    value: Any
    usual: tuple[Any, ...]
    p_value: float
    sentence: str

    def __str__(self) -> str:
        return self.sentence

    @property
    def is_seen(self) -> bool:
        """Whether training rows have cells of this kind."""
        return self.kind in CELL_KINDS[:3]

    @property
    def label(self) -> str:
        """The cell and its usual values in a few words, for a picture."""
        if len(self.usual) == 2:
            width = _telling(self.value, self.usual)
            low, high = (text(each, width, True) for each in self.usual)
            return f"{text(self.value, width, _is_close(self.value, self.usual))}   (usual {low} to {high})"
        width = _apart(self.value, self.usual[0]) if self.usual else 0.0
        return text(self.value, width, width > 0) + (
            f"   (usual {text(self.usual[0], width, width > 0)})" if self.usual else ""
        )

    def to_record(self) -> dict[str, Any]:
        """Plain JSON types; instants are ISO 8601 text, and numbers that are not finite are None."""
        number = self.kind not in ("category", "new category") and len(self.usual) == 2
        usual = [plain(each) for each in self.usual]
        return {
            "row": self.row,
            "column": self.column,
            "kind": self.kind,
            "excess": plain(self.excess),
            "value": plain(self.value),
            "usual_low": usual[0] if number else None,
            "usual_high": usual[1] if number else None,
            "usual_value": usual[0] if usual and not number else None,
            "p_value": plain(self.p_value),
            "sentence": self.sentence,
        }


def plain(value: Any) -> Any:
    """A value as a plain JSON type."""
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text(value: Any, width: float = 0.0, close: bool = False) -> str:
    """A cell as text; numbers with the decimals that a range of this width needs.

    Args:
        value: the cell.
        width: of the usual range, 0 if unknown.
        close: whether the value is in or near that range, so that a large number keeps the digits that tell it from others there.
    """
    if value is None:
        return "missing"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return "infinite"
    size = max(abs(value), width)
    if close and size >= _LARGE and 0 < width < _NARROW * size:  # four digits would not tell these numbers apart
        digits = 2 - math.floor(math.log10(width))
        if size >= 1e15:
            return f"{value:.{min(17, math.floor(math.log10(size)) + digits + 1)}g}"
        return f"{value:.{min(max(0, digits), 8)}f}"
    if size >= _LARGE or 0 < max(abs(value), width / 10) < 1e-4:
        return f"{value:.4g}"
    digits = max(0, 2 - math.floor(math.log10(width))) if width > 0 else 6
    if value != 0 and round(value, min(digits, 8)) == 0:
        return f"{value:.2g}"  # a sensor that collapsed does not read 0
    return f"{value:.{min(digits, 8)}f}".rstrip("0").rstrip(".") if digits else f"{value:.0f}"


def sentence(
    column: Column,
    kind: str,
    value: Any,
    usual: tuple[Any, ...],
    alone: tuple[Any, ...],
    share: float,
    rare: float = math.nan,
) -> str:
    """One plain sentence about a cell.

    Args:
        column: of the fitted table.
        kind: of the cell.
        value: of the cell; for a new category its text.
        usual: see :class:`Reason`.
        alone: of a number, the range of 95 % of all training rows.
        share: of the most likely category, or of the rows that miss a value here, given the other columns; NaN if unknown.
        rare: of a category, P(one that is at most as likely) given the other columns, of a new one P(a new one); NaN if unknown.
    """
    name = column.name
    if kind == "infinite":
        return f"{name} is infinite, and no training row is."
    if kind == "fraction":
        return f"{name} is {text(value)}, and every training row has a whole number."
    if kind == "changed constant":
        width = _apart(value, usual[0])
        return f"{name} is {text(value, width, width > 0)}; in every training row it is {text(usual[0], width, width > 0)}."
    if kind == "new category":
        known = ", ".join(text(each) for each in column.categories[:3]) or "true and false"
        count = len(column.categories) - 3
        more = f" and {count} other{'s' if count > 1 else ''}" if count > 0 else ""
        often = f"; about {_percent(rare)} of normal rows have a new one" if rare > 1 - USUAL else ""
        return f"{name} is {text(value)}, which no training row has; they have {known}{more}{often}."
    if kind == "new missing":
        return f"{name} is missing, and no training row misses it{_expected(usual)}."
    if kind == "missing":
        often = f" (given the other columns, {_percent(share)} of normal rows miss it)" if share == share else ""
        return f"{name} is missing{often}."
    if kind == "category":
        if not usual or usual[0] == value:
            return f"{name} is {text(value)}, the most likely value {_OTHERS}."
        own = "" if math.isnan(rare) else f", and {_percent(rare)} one at least as rare as {text(value)}"
        return f"{name} is {text(value)}; {_OTHERS}, {_percent(share)} of normal rows have {text(usual[0])}{own}."
    if len(usual) != 2 and alone:
        width = _telling(value, alone)
        return f"{name} is {text(value, width, _is_close(value, alone))}; {_percent(USUAL)} of all normal rows {_between(alone, width)}."
    if len(usual) != 2:
        return f"{name} is {text(value)}."
    width = _telling(value, usual)
    begin = f"{name} is {text(value, width, _is_close(value, usual))}"
    if not within(value, usual):
        return f"{begin}; {_OTHERS}, {_percent(USUAL)} of normal rows {_between(usual, width)}."
    if alone and not within(value, alone):
        return f"{begin}, which fits the other columns of this row; {_percent(USUAL)} of all normal rows {_between(alone)}."
    return f"{begin}, which is usual {_OTHERS}: {_percent(USUAL)} of normal rows {_between(usual)}."


def sentence_of_instant(column: Column, value: datetime.date) -> str:
    """The sentence of an instant that is unusual by its place in the day, the week or the year."""
    return f"{column.name} is {text(value)}, a {value:%A}; {_OTHERS}, its date or its time of day, week or year is unusual."


def sentence_of_usual_instant(column: Column, value: datetime.date) -> str:
    """The sentence of an instant whose place in the day, the week and the year is usual."""
    return f"{column.name} is {text(value)}, a {value:%A}, which is usual {_OTHERS}."


def sentence_of_time(column: Column, value: datetime.time) -> str:
    """The sentence of a time of day that is unusual although times before and after it are not."""
    return f"{column.name} is {text(value)}; {_OTHERS}, this time of day is unusual."


def _between(usual: tuple[Any, ...], width: float | None = None) -> str:
    width = _width(usual) if width is None else width
    low, high = (text(each, width, True) for each in usual)
    return f"have {low}" if low == high else f"are between {low} and {high}"


def _expected(usual: tuple[Any, ...]) -> str:
    if len(usual) == 2:
        return f"; {_OTHERS}, {_percent(USUAL)} of normal rows {_between(usual)}"
    return f"; {_OTHERS}, {text(usual[0])} is most likely" if usual else ""


def _width(usual: tuple[Any, ...]) -> float:
    low, high = usual
    return float(high - low) if isinstance(low, (int, float)) and isinstance(high, (int, float)) else 0.0


def _telling(value: Any, usual: tuple[Any, ...]) -> float:
    """The width of a range, or less where a number outside of it would read like one of its ends."""
    width = _width(usual)
    if not isinstance(value, float) or within(value, usual) or width == 0:
        return width
    low, high = usual
    alike = text(value, width, _is_close(value, usual)) in {text(each, width, True) for each in usual}
    return min(width, 100 * max(low - value, value - high)) if alike else width


def _is_close(value: Any, usual: tuple[Any, ...]) -> bool:
    """Whether a number is so near to a range that four digits may not tell it from the ends."""
    if not all(isinstance(each, (int, float)) for each in (value, *usual)):
        return False
    low, high = usual
    return max(low - value, value - high, 0) < _NARROW * max(abs(value), abs(low), abs(high))


def _apart(value: Any, other: Any) -> float:
    """The distance of two large numbers that are close to each other; 0 for others, which are written with the usual digits."""
    if not all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in (value, other)):
        return 0.0
    width, size = abs(float(value) - float(other)), max(abs(value), abs(other))
    return width if size >= _LARGE and width < _NARROW * size else 0.0


def within(value: Any, usual: tuple[Any, ...]) -> bool:
    """Whether a value is in a range; an instant that Python cannot represent, which is a number of seconds, is in none."""
    try:
        return bool(usual[0] <= value <= usual[1])
    except TypeError:
        return False


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{min(100 * share, 99.9):.3g} %"
