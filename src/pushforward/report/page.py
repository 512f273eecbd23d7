"""The page of a report: one HTML file with its styles, charts and pictures inside, no script, and no request to anywhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pushforward.report import charts
from pushforward.report.column_charts import column_chart
from pushforward.report.text import figure, percent, plural, promised_rate, visible

__all__ = ["LARGEST", "render"]

LARGEST = 2_000_000
"""Bytes that a page does not exceed."""

_ORDERED = 100
"""Rows from which alarms are drawn along the rows."""

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class _Limits:
    """How much a page shows."""

    charts: int = 40
    columns: int = 300
    alarms: int = 1000
    cells: int = 60
    pictures: int = 1000
    notes: int = 1000


def render(content: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The page.

    Args:
        content: of a report.
        pictures: PNG files by name.

    Returns:
        HTML of at most 2 MB in UTF-8: where everything would be more, the page shows fewer columns and rows and says so.
    """
    limits = _Limits()
    while True:
        text = _render(content, pictures, limits)
        if len(text.encode()) <= LARGEST or limits.columns <= 1:
            return text
        limits = replace(limits, **{name: max(1, value // 2) for name, value in vars(limits).items()})


def _render(content: Mapping[str, Any], pictures: Mapping[str, bytes], limits: _Limits) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    pages.filters.update(
        figure=figure, percent=percent, promised=promised_rate, visible=visible, short=lambda text: visible(text, 60)
    )
    pages.globals["plural"] = plural
    columns = sorted(content["columns"], key=lambda c: -_prominence(c))
    data_urls = {name: "data:image/png;base64," + base64.b64encode(png).decode() for name, png in pictures.items()}
    return pages.get_template("report.html").render(
        content,
        too_many=_too_many(content["promise"]),
        style=(_HERE / "static" / "report.css").read_text(),
        columns=columns[: limits.columns],
        column_charts={c["name"]: column_chart(c) for c in columns[: limits.charts]},
        drifted=sum(bool(column["drifted"]) for column in columns),
        hidden_columns=max(0, len(columns) - limits.columns),
        alarms=content["alarms"][: limits.alarms],
        limits=limits,
        picture=data_urls,
        drawn=_drawn(content),
        expected=_expected(content["promise"]["groups"][0]["expected"]),
        failures=[check for check in content["checks"] if not check["passed"]],
        described=content["guard"].get("columns", [])[: limits.columns],
    )


def _drawn(content: Mapping[str, Any]) -> dict[str, Any]:
    """The charts of the whole."""
    promise, p_values, rows = content["promise"], content["p_values"], content["data"]["rows"]
    along = content["along"]
    first: Sequence[tuple[str, int]] = list(content["reasons"]["first"].items())
    groups = promise["groups"]
    single = groups[0] if len(groups) == 1 and groups[0]["interval"] else None
    return {
        "rate": charts.rate_chart(promise, single, _too_many(promise)) if single else None,
        "along": charts.along_chart(along, promise["alpha"], content["noun"]) if rows >= _ORDERED and along else None,
        "histogram": charts.histogram_chart(p_values["histogram"], rows),
        "curve": charts.alarm_curve_chart(p_values["curve"], _alarm_level(promise)),
        "reasons": charts.bars_chart(first, content["reasons"]["alarms"], "First reasons of the alarms")
        if first
        else None,
    }


def _too_many(promise: Mapping[str, Any]) -> bool:
    """Whether the rows of the only group raise more alarms than chance explains, as the check "alarm_rate" decides it."""
    return promise["groups"][0]["p_value"] <= 0.5 * (1 - promise["interval_level"])


def _alarm_level(promise: Mapping[str, Any]) -> float | None:
    """The p-value at or below which there is an alarm: alpha, or a smaller one of each class that keeps "pac"; None for no alarm."""
    if not any(group["level"] for group in promise["groups"]):
        return None
    if promise["guarantee"] != "pac":
        return promise["alpha"]
    return promise["groups"][0]["level"] if len(promise["groups"]) == 1 else None


def _expected(ends: Sequence[float] | None) -> str:
    """A number of alarms, or two numbers between which it is."""
    return " to ".join(dict.fromkeys(figure(round(end)) for end in ends or ()))


def _prominence(column: Mapping[str, Any]) -> float:
    """The order of the columns: what failed a check comes first, then the largest distance."""
    failed = column["drifted"] + column["too_far"] + column["missing_changed"] + (column["unseen"] > 0)
    return 10.0 * failed + column["distance"]
