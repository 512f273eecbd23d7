"""The small HTML tables by which notebooks show results; readable on light and on dark pages, and without scripts."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["card", "table"]

_CARD = (
    "display:inline-block;border:1px solid #8886;border-radius:6px;padding:8px 12px;color:inherit;background:none;"
    "font-size:90%;max-width:60em"
)
_NAME = "text-align:left;vertical-align:top;white-space:nowrap;padding:1px 14px 1px 0;font-weight:normal;opacity:.75"
_VALUE = "text-align:left;padding:1px 0"
_CELL = "text-align:left;padding:1px 10px 1px 0"


def card(title: str, facts: Iterable[tuple[str, Any]], more: str = "") -> str:
    """A title and a list of names and values, as HTML. Text is escaped; colors are those of the page.

    Args:
        title: first line.
        facts: names and values; None leaves a line out.
        more: HTML below them, such as that of :func:`table`.

    Example:
        >>> from pushforward.display import card
        >>> "&lt;b&gt;" in card("Guard", [("note", "<b>")])
        True
    """
    rows = "".join(
        f'<tr style="background:none"><th scope="row" style="{_NAME}">{html.escape(name)}</th>'
        f'<td style="{_VALUE}">{html.escape(str(value))}</td></tr>'
        for name, value in facts
        if value is not None
    )
    return (
        f'<div style="{_CARD}"><strong>{html.escape(title)}</strong>'
        f'<table style="border:none;margin:4px 0 0 0"><tbody>{rows}</tbody></table>{more}</div>'
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], summary: str = "") -> str:
    """A table, as HTML; with a summary it is closed, and a click opens it.

    Example:
        >>> from pushforward.display import table
        >>> table(["column", "nats"], [("x", "1.5")]).count("<td")
        2
    """
    head = "".join(f'<th style="{_CELL}">{html.escape(str(name))}</th>' for name in columns)
    body = "".join(
        '<tr style="background:none">'
        + "".join(f'<td style="{_CELL}">{html.escape(str(cell))}</td>' for cell in row)
        + "</tr>"
        for row in rows
    )
    found = f'<table style="border:none;color:inherit"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f"<details><summary>{html.escape(summary)}</summary>{found}</details>" if summary else found
