"""Names that users give: letters of matplotlib unless they are formulas, and cut where they are too long."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["fitted", "has_formula", "label_of", "plain", "width_of"]

_FORMULA = re.compile(r"\$[^$]*[\\^_][^$]*\$")
_DOLLAR = re.compile(r"(?<!\\)\$")  # not where a user wrote \$ for matplotlib
_LEAST = 26
_TAIL = 18
"""Letters at the end that are never cut: of scores, the share of alarms."""


def plain(name: Any) -> str:
    r"""A name as matplotlib is to show it: ``$`` is a letter unless it encloses a formula, with a command, an index or a power.

    Example:
        >>> plain("from $5 to $10"), plain(r"$\mu_1$")
        ('from \\$5 to \\$10', '$\\mu_1$')
    """
    text = str(name)
    return text if _FORMULA.search(text) and _is_readable(text) else _DOLLAR.sub(r"\\$", text)


def _is_readable(text: str) -> bool:
    """Whether matplotlib can read the formulas of a text."""
    from matplotlib.mathtext import MathTextParser

    try:
        MathTextParser("path").parse(text)
    except ValueError:
        return False
    return True


def has_formula(text: str) -> bool:
    """Whether a text that :func:`plain` returned contains a formula."""
    return "$" in text.replace(r"\$", "")


def label_of(name: Any) -> str | None:
    """A name as the label of a curve, None for an empty one; a space is before ``_``, with which matplotlib hides labels.

    Example:
        >>> label_of("_normal"), label_of("")
        (' _normal', None)
    """
    text = plain(name)
    return f" {text}" if text.startswith("_") else text or None


def width_of(text: str, size: float = 10.0) -> float:
    """Width of a text in inches, for letters of a size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size)
    lines = text.replace(r"\$", "$").split("\n")
    return max(text_to_path.get_text_width_height_descent(line, font, False)[0] for line in lines) / 72


def fitted(name: str, inches: float, size: float = 10.0) -> str:
    """A name without its middle where it is wider than some inches, for letters of a size in points; 26 letters and formulas stay.

    Example:
        >>> fitted("temperature", 1.0)
        'temperature'
        >>> fitted("temperature of the water behind the first pump", 1.0)
        'tempera…ind the first pump'
    """
    if has_formula(name):
        return name
    letters = re.findall(r"\\\$|.", name, re.DOTALL)  # an escaped dollar is one letter
    kept = min(len(letters), 120)
    text = _cut(letters, kept)
    while kept > _LEAST and width_of(text, size) > inches:
        kept -= 1
        text = _cut(letters, kept)
    return text


def _cut(letters: list[str], kept: int) -> str:
    if kept >= len(letters):
        return "".join(letters)
    tail = max(_TAIL, kept // 2)
    return "".join([*letters[: kept - 1 - tail], "…", *letters[-tail:]])
