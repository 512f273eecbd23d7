"""Texts of a report: numbers, cells and names of any content, for HTML and for Markdown."""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from pushforward.detection.column_summary import ColumnSummary

__all__ = [
    "cell_text",
    "confidence",
    "decimals",
    "figure",
    "markdown",
    "number_text",
    "percent",
    "plural",
    "promised_rate",
    "visible",
]

_LONGEST = 120
_MARKDOWN = "\\`*_{}[]<>#|&~$@"


def figure(value: float | None, digits: int = 4) -> str:
    """A number with so many digits, and an integer with all of them; "–" for None and NaN.

    Example:
        >>> figure(1234567), figure(0.000123456), figure(12345.678), figure(float("inf"))
        ('1,234,567', '0.0001235', '12,345.7', '∞')
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", "−")
    size = abs(value)
    text = f"{value:,.1f}" if 1e4 <= size < 1e9 else f"{value:.{digits}g}"
    return re.sub(r"e([+-])0?", r"e\1", text).replace("e+", "e").replace("-", "−")


def percent(fraction: float | None, digits: int = 2) -> str:
    """A fraction as a percentage; below the last of the digits it has two significant ones, so that what is not 0 never reads 0.

    Example:
        >>> percent(0.0123), percent(1e-5), percent(1.26e-6), percent(0.0)
        ('1.23%', '0.001%', '0.00013%', '0.00%')
    """
    if fraction is None or math.isnan(fraction):
        return "–"
    last = 10.0 ** -(digits + 2)
    if not 0 < fraction < last:
        return f"{100 * fraction:.{digits}f}%"
    if fraction < 1e-12:
        return "<0.0000000001%"
    rounded = f"{100 * float(f'{fraction:.1e}'):.12f}"
    return rounded.rstrip("0").rstrip(".") + "%"


def decimals(fraction: float, least: int = 2) -> int:
    """The decimals of a percentage that show a promised fraction to a thousandth of itself, at least so many.

    Example:
        >>> decimals(0.05), decimals(0.00125), decimals(1e-5)
        (2, 3, 3)
    """
    exact = 100 * fraction
    return next((d for d in range(least, 12) if abs(round(exact, d) - exact) <= 1e-3 * exact), 12)


def promised_rate(rate: float) -> str:
    """A promised rate as a percentage that is not rounded to another rate.

    Example:
        >>> promised_rate(0.05), promised_rate(0.00125), promised_rate(5e-5)
        ('5.00%', '0.125%', '0.005%')
    """
    return percent(rate, decimals(rate))


def confidence(delta: float) -> str:
    """1 - delta as a percentage, which is not rounded to certainty.

    Example:
        >>> confidence(0.05), confidence(0.001)
        ('95%', '99.9%')
    """
    return percent(1 - delta, decimals(delta, 0))


def plural(count: int, noun: str, many: str | None = None) -> str:
    """A count with its noun: "1 row", "1,000 rows"."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def visible(text: Any, longest: int = _LONGEST) -> str:
    r"""Text with nothing invisible: controls, marks of direction and unpaired surrogates are written as escapes, and its end is cut.

    Example:
        >>> visible("a\nb\u202e")
        'a\\nb\\u202e'
    """
    cut = str(text)
    cut = cut if len(cut) <= longest else cut[: longest - 1] + "…"
    parts = []
    for letter in cut:
        hidden = unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        parts.append(letter.encode("unicode_escape").decode("ascii") if hidden else letter)
    return "".join(parts)


def markdown(text: Any, longest: int = 600) -> str:
    r"""Text of any content inside a line or a table of Markdown, where it stays text.

    Example:
        >>> markdown("a|b <i>")
        'a\\|b \\<i\\>'
    """
    escaped = "".join("\\" + letter if letter in _MARKDOWN else letter for letter in visible(text, longest))
    return escaped.replace("://", ":\\//").replace("www.", "www\\.")  # no links


def number_text(summary: ColumnSummary, value: float) -> str:
    """A number of a column in the units of the data: a date where the column has dates."""
    column = summary.column
    if column.kind == "categorical":
        known = math.isfinite(value) and 0 <= value < len(column.categories)
        return visible(column.categories[int(value)]) if known else "a new category"
    if column.kind == "boolean":
        return {0.0: "false", 1.0: "true"}.get(value, "neither true nor false")
    if column.time and math.isfinite(value):
        try:
            found = column.decode(np.array([value]))[0].as_py()
            if isinstance(found, timedelta) and found < timedelta(0):
                return f"−{-found}"  # Python writes -1 day, 23:59:55 for -5 s
            return found.isoformat(" ") if isinstance(found, datetime) else str(found)
        except (ValueError, OverflowError):  # outside the years that Python has
            return figure(value) + " s"
    return _in_range(value, float(summary.edges[-1]) - float(summary.edges[0]))


def _in_range(value: float, width: float) -> str:
    """A number with at least the decimals that tell values of a range of this width apart."""
    if not (0 < width < math.inf and math.isfinite(value)) or abs(value) < 1e3 * width:
        return figure(value)
    if value == int(value) and abs(value) < 2**63:  # larger ones are no counts, and most of their digits mean nothing
        return f"{int(value):,}".replace("-", "−")
    places = 2 - math.floor(math.log10(width))
    if abs(value) >= 1e15 or (places > 12 and abs(value) < 1):
        return figure(value, min(15, places + 1 + math.floor(math.log10(abs(value)))))
    return f"{value:,.{min(12, max(0, places))}f}".replace("-", "−")


def cell_text(summary: ColumnSummary, cell: Any, value: float) -> str:
    """A cell as a report shows it.

    Args:
        summary: of its column.
        cell: as the table has it.
        value: as float64; infinite for a flag or a category that no training row had.
    """
    if math.isnan(value):
        return "missing"
    if summary.numeric or math.isfinite(value):
        return number_text(summary, value)
    return visible(cell)
