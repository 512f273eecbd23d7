"""From what was collected of the rows to the content of a report, in plain JSON types."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pushforward.detection.column_drift import DISTANCE, SIGNIFICANCE, ColumnDrift
from pushforward.errors import ConfigError
from pushforward.report.checks import LEVEL, alarm_tail, run_checks
from pushforward.report.collected import Collected, Group
from pushforward.report.document import Report
from pushforward.report.p_values import alarm_curve, alarms_along, p_value_histogram
from pushforward.report.reasons import usual
from pushforward.report.text import number_text

__all__ = ["FORMAT", "Subject", "assemble", "plain"]

FORMAT = 1
"""Version of the form of the content."""

_MOST_CLASSES = 1000


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Attributes:
        title: of the page.
        guard: facts about the guard in the form of a report, ``guard.report(x).to_dict()["guard"]``.
        data: facts about the rows, such as their source.
        alpha: promised rate.
        guarantee: "marginal" or "pac".
        delta: of "pac".
        promised: whether the guard promises a rate, and the sentence for it.
        promise_is_for: which rows the promise refers to.
        notes: sentences about the rows, such as the differences of their schema.
        nouns: what one row and many rows are called.
        reference: the rows that the promise is about, such as "the training rows".
        column_nouns: what one column and many are called.
        values: whether the smallest and the largest value of a column are shown.
        column_note: why there are no columns to compare; "" where a guard has none.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> rng = np.random.default_rng(0)
        >>> guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(rng.normal(size=(300, 2)))
        >>> report = guard.report(rng.normal(size=(100, 2)))  # Guard.report collects, and calls assemble
        >>> "guard" in report.to_dict()
        True
    """

    title: str
    guard: Mapping[str, Any]
    data: Mapping[str, Any]
    alpha: float
    guarantee: str
    delta: float
    promised: tuple[bool, str]
    promise_is_for: str
    notes: Sequence[str] = field(default_factory=tuple)
    nouns: tuple[str, str] = ("row", "rows")
    reference: str = "the training rows"
    column_nouns: tuple[str, str] = ("column", "columns")
    column_note: str = ""
    values: bool = True


def assemble(
    subject: Subject,
    collected: Collected,
    alarms: Sequence[Mapping[str, Any]],
    *,
    typical: Sequence[Mapping[str, Any]] = (),
    pictures: Mapping[str, bytes] | None = None,
    network: Mapping[str, Any] | None = None,
    classes: tuple[bool, str] | None = None,
    examples: Mapping[str, Sequence[str]] | None = None,
) -> Report:
    """Test what was collected, and make the report.

    Args:
        subject: what the report is about.
        collected: of the rows.
        alarms: the alarms that are shown.
        typical: rows with a p-value near 1/2 that are shown.
        pictures: PNG files by the names that ``alarms`` and ``typical`` give.
        network: what a guarded network said of the rows.
        classes: result of the check "classes".
        examples: values of columns that no training row had.

    Raises:
        ConfigError: if ``collected`` has no group of calibration rows.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> rng = np.random.default_rng(0)
        >>> guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(rng.normal(size=(300, 2)))
        >>> report = guard.report(rng.normal(size=(100, 2)))  # Guard.report collects, and calls assemble
        >>> report
        Report(100 rows, 0 of 6 checks failed)
    """
    groups = list(collected.groups.values())
    if not groups:
        raise ConfigError("a report needs at least one group: Collected({key: (name, calibrator, level)}).")
    uniformity = [(group, group.uniformity()) for group in groups]
    columns = [tally.compare(len(collected.tallies)) for tally in collected.tallies]
    checks = run_checks(
        collected,
        subject.promised,
        uniformity,
        columns,
        classes,
        subject.nouns,
        subject.reference,
        subject.column_nouns[0] == "column",
    )
    content = {
        "format": FORMAT,
        "title": subject.title,
        "noun": subject.nouns[0],
        "noun_many": subject.nouns[1],
        "column_noun": subject.column_nouns[0],
        "columns_noun": subject.column_nouns[1],
        "reference": subject.reference,
        "reason_noun": subject.column_nouns[0] if network is None else "statistic",
        "column_note": subject.column_note,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "guard": dict(subject.guard),
        "data": {**subject.data, "rows": collected.rows, "notes": list(subject.notes)},
        "checks": [check.to_dict() for check in checks],
        "promised": subject.promised[1],
        "promise": {
            "alpha": subject.alpha,
            "guarantee": subject.guarantee,
            "delta": subject.delta if subject.guarantee == "pac" else None,
            "is_for": subject.promise_is_for,
            "alarms": collected.alarms,
            "fraction": collected.alarms / max(1, collected.rows),
            "interval_level": LEVEL,
            "groups": [_group(group, found.distance, found.p_value) for group, found in uniformity[:_MOST_CLASSES]],
        },
        "along": alarms_along(collected.along, groups[0]) if len(groups) == 1 else [],
        "p_values": {"histogram": p_value_histogram(groups), "curve": alarm_curve(groups)},
        "reasons": {"alarms": collected.first_reasons.total(), "first": dict(collected.first_reasons.most_common())},
        "alarms": list(alarms),
        "typical": list(typical),
        "columns": [
            _column(found, (examples or {}).get(found.summary.column.name, ()), subject.values) for found in columns
        ],
        "drift": {"distance": DISTANCE, "significance": SIGNIFICANCE},
        "network": None if network is None else dict(network),
    }
    return Report(plain(content), pictures)


def _group(group: Group, distance: float, p_value: float) -> dict[str, Any]:
    n = group.counts.calibrator.n
    k = round(group.level * (n + 1))
    interval = list(group.alarm_interval(LEVEL)) if k else None
    # Of rows like the calibration rows; the larger number if the scores that were left out are of such rows too.
    expected = [group.counts.rows * (k + more) / (n + 1 + more) for more in (0, group.left_out)] if k else None
    return {
        "name": group.name, "rows": group.counts.rows, "alarms": group.alarms, "calibration_rows": n, "level": group.level,
        "interval": interval, "expected": expected, "p_value": alarm_tail(group), "uniform_distance": distance,
        "uniform_p_value": p_value,
    }  # fmt: skip


def _column(found: ColumnDrift, examples: Sequence[str], values: bool) -> dict[str, Any]:
    summary = found.summary
    column = summary.column
    labels = [
        number_text(summary, float(e)) for e in (summary.edges if summary.numeric else range(len(summary.counts)))
    ]
    return {
        "name": column.name,
        "kind": column.time.split("_")[0] or column.kind,
        "usual": usual(summary),
        "distance": found.distance,
        "p_value": found.p_value,
        "drifted": found.drifted,
        "rows": found.rows,
        "missing": found.missing,
        "training_missing": summary.missing / summary.rows,
        "missing_changed": found.missing_changed,
        "outside": found.outside if summary.numeric else None,
        "too_far": found.too_far,
        "unseen": found.unseen,
        "unseen_examples": list(examples),
        "training_range": [labels[0], labels[-1]] if summary.numeric else None,
        "range": [number_text(summary, found.low), number_text(summary, found.high)] if summary.numeric and values else None,
        "edges": summary.edges.tolist() if summary.numeric else None,
        "labels": None if summary.numeric else labels,
        "training_counts": summary.counts.astype(int).tolist(),
        "counts": found.counts.tolist(),
        "below": found.below,
        "above": found.above,
    }  # fmt: skip


def plain(value: Any) -> Any:
    """The same with plain types of JSON: NaN and infinite numbers are None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value if value is None else str(value)
