"""`model_card`: what a guard is, promises and cannot do, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pushforward.errors import InputError
from pushforward.report.text import figure, markdown, percent, promised_rate, visible

__all__ = ["model_card"]

_HEAD = """---
library_name: pushforward
tags:
- anomaly-detection
- out-of-distribution-detection
- conformal-prediction
---
"""


def model_card(
    guard: Mapping[str, Any], promised: str, is_for: str, alpha: float, measured: Sequence[tuple[str, str]],
    limits: Sequence[str], reports: Sequence[Mapping[str, Any]] = (),
) -> str:  # fmt: skip
    """A model card in Markdown, with the head that model hubs read. Names and values of any content stay text.

    Args:
        guard: facts about the guard.
        promised: the sentence of its promise.
        is_for: which rows the promise refers to.
        alpha: promised rate.
        measured: figures that the guard's file contains, name and value.
        limits: sentences.
        reports: contents of reports (``report.to_dict()``), whose figures are shown.

    Raises:
        InputError: for a report that is not one, or of another guard.
    """
    name = guard["file"] or "a guard"
    parts = [_HEAD, f"# {markdown(name)}", "", _what(guard, alpha), "", "## Data", ""]
    parts += _table(("Fact", "Value"), guard["facts"])
    if guard["columns"]:
        parts += ["", "Columns of the training table:", ""]
        rows = [(c["name"], c["kind"], c["usual"], c["missing"]) for c in guard["columns"]]
        parts += _table(("Column", "Kind", "Usual values", "Missing"), rows)
        parts += ["", "Usual values are those of 98% of the training rows, or the most frequent ones."]
    parts += ["", "## Promise", "", f"{markdown(promised)} It is for {markdown(is_for)}.", ""]
    parts += [
        "A p-value is the fraction of calibration inputs with at least as high a score. It is no probability that an input is an anomaly, "
        "and the promise is about false alarms: how many anomalies are detected depends on the anomalies.",
        "", "## Measured figures", "",
    ]  # fmt: skip
    parts += _table(("Figure", "Value"), measured)
    parts += ["", *_reports(reports, guard)]
    parts += ["## Limits", "", *(f"- {text}" for text in limits), ""]
    return "\n".join(parts)


def _what(guard: Mapping[str, Any], alpha: float) -> str:
    kind = {"table": "rows of a table", "images": "images", "network": "inputs of a network"}[guard["kind"]]
    return (
        f"A guard of {kind}: it raises an alarm for those that are unlike its training data, at a promised rate of at most "
        f"{promised_rate(alpha)} of normal ones. Written with pushforward {markdown(guard['versions']['pushforward'])}."
    )


def _reports(reports: Sequence[Mapping[str, Any]], guard: Mapping[str, Any]) -> list[str]:
    if not reports:
        return ["No report was given: `pushforward report GUARD ROWS --json FILE` measures the figures on rows, and `--report FILE` adds them here.", ""]  # fmt: skip
    rows = []
    for report in reports:
        try:
            promise, own = report["promise"], report["guard"]
            failed = [check["name"] for check in report["checks"] if not check["passed"]]
            group = promise["groups"][0]
            band = (
                f"{percent(group['interval'][0])} to {percent(group['interval'][1])}"
                if len(promise["groups"]) == 1 and group["interval"]
                else "–"
            )
            source = report["data"]["source"] or report["title"]
            made = str(report["created"])[:10]
            figures = (figure(report["data"]["rows"]), figure(promise["alarms"]), percent(promise["fraction"]))
            digests = [dict(map(tuple, facts["facts"])).get("Digest of the guard's file") for facts in (own, guard)]
        except (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"a report lacks {error}: give the JSON that `pushforward report --json` wrote.") from None
        if None not in digests and digests[0] != digests[1]:
            raise InputError(f"the report on {visible(source)} is of another guard file: its digest differs.")
        rows.append((source, made, *figures, band, figure(group["uniform_p_value"], 2), ", ".join(failed) or "none"))
    names = ("Rows of", "Date", "Rows", "Alarms", "Rate", "Rate by theory (99%)", "p, uniform", "Checks that failed")
    return ["Reports:", "", *_table(names, rows), ""]


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    return lines + ["| " + " | ".join(markdown(visible(cell, 400), 400) for cell in row) + " |" for row in rows]
