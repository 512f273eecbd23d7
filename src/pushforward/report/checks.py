"""The checks of a report: what would be unlikely if the rows were like the training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pushforward.detection.column_drift import ColumnDrift
from pushforward.detection.conformal.score_counts import Uniformity
from pushforward.report.collected import Collected, Group
from pushforward.report.text import figure, percent, plural, visible

__all__ = ["CHECKS", "LEVEL", "Check", "alarm_tail", "run_checks"]

LEVEL = 0.99
"""Probability that rows like the training rows pass each check, but for new categories and the first missing cells, which are all named."""

CHECKS = {
    "promise": "The guard promises a rate",
    "alarm_rate": "Alarms are as few as promised",
    "uniform": "P-values are uniform",
    "drift": "No column has drifted",
    "categories": "No new categories",
    "missing": "No new missing cells",
    "range": "Numbers are in the training range",
    "classes": "Predicted classes are as frequent as before",
}
"""Every check by name, with its title."""


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: a key of :data:`CHECKS`.
        passed: whether the rows passed.
        detail: what was found, a sentence.

    Example:
        >>> from pushforward.report import Check
        >>> check = Check("drift", True, "No column has another distribution.")
        >>> check.title
        'No column has drifted'
    """

    name: str
    passed: bool
    detail: str

    @property
    def title(self) -> str:
        """The name in words."""
        return CHECKS[self.name]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"title": self.title, **asdict(self)}


def run_checks(
    collected: Collected,
    promise: tuple[bool, str],
    uniformity: Sequence[tuple[Group, Uniformity]],
    columns: Sequence[ColumnDrift],
    classes: tuple[bool, str] | None,
    nouns: tuple[str, str] = ("row", "rows"),
    reference: str = "the training rows",
    cells: bool = True,
) -> list[Check]:
    """The checks that these rows permit.

    Args:
        collected: of the rows.
        promise: whether the guard promises a rate, and the sentence for it.
        uniformity: of each group of rows.
        columns: the difference of each column.
        classes: whether predicted classes are as frequent as among the calibration rows, and the sentence for it; None
            without classes.
        nouns: what one row and many rows are called.
        reference: the rows that calibrated the guard.
        cells: whether the columns are of a table, whose cells can be missing.
    """
    checks = [Check("promise", *promise)]
    if any(group.level > 0 for group in collected.groups.values()):
        checks.append(Check("alarm_rate", *_alarm_rate(collected, nouns, reference)))
    checks.append(Check("uniform", *_uniform(uniformity)))
    checks += _column_checks(columns, nouns, cells)
    if classes is not None:
        checks.append(Check("classes", *classes))
    return checks


def alarm_tail(group: Group) -> float:
    """P(at least so many alarms) among rows like the calibration rows; with ties it is smaller.

    An alarm is a score above the k-th largest of n calibration scores. At least a of m new scores are above it if at most k - 1 of
    the a + k - 1 largest of all scores are calibration scores: a hypergeometric probability.
    """
    from scipy.stats import hypergeom

    n, m, alarms = group.counts.calibrator.n, group.counts.rows, group.alarms
    k = round(group.level * (n + 1))
    if not alarms or not k:
        return 1.0
    n, k = n + group.left_out, k + group.left_out
    return float(hypergeom.cdf(k - 1, n + m, n, alarms + k - 1))


def _alarm_rate(collected: Collected, nouns: tuple[str, str], reference: str) -> tuple[bool, str]:
    groups = [group for group in collected.groups.values() if group.level > 0 and group.counts.rows]
    high = [
        group for group in groups if alarm_tail(group) <= 0.5 * (1 - LEVEL) / len(groups)
    ]  # as the interval, which has two ends
    rate = f"{plural(collected.alarms, 'alarm')} in {plural(collected.rows, *nouns)} ({percent(collected.alarms / max(1, collected.rows))})"
    if len(collected.groups) > 1:
        names = ", ".join(group.name for group in high[:5])
        return not high, f"{rate}; " + (f"too many in {names}." if high else "no class has more than it is promised.")
    if not groups:
        return True, f"{rate}."
    group = groups[0]
    low, most = group.alarm_interval(LEVEL)
    fraction = group.alarms / group.counts.rows
    band = f"{nouns[1]} like {reference} have {percent(low)} to {percent(most)}"
    where = (
        "more than chance explains"
        if high
        else "fewer than that, which keeps the promise"
        if fraction < low
        else "inside"
    )
    return not high, f"{rate}; {band}: {where}."


def _uniform(found: Sequence[tuple[Group, Uniformity]]) -> tuple[bool, str]:
    found = [(group, result) for group, result in found if group.counts.rows]
    if not found:
        return True, "No rows."
    bad = [(group, result) for group, result in found if result.p_value <= (1 - LEVEL) / len(found)]
    group, worst = min(bad or found, key=lambda pair: pair[1].p_value)
    where = f"{group.name}: " if len(found) > 1 else ""
    side = (
        "too many are small: scores are higher than before"
        if worst.excess > 0
        else "too many are large: scores are lower than before"
    )
    numbers = f"Kolmogorov-Smirnov distance {figure(worst.distance, 3)}, p = {figure(worst.p_value, 2)}"
    return not bad, f"{where}{numbers}" + (f"; {side}." if bad else ".")


def _column_checks(columns: Sequence[ColumnDrift], nouns: tuple[str, str], cells: bool) -> list[Check]:
    """The checks of columns, those that their kinds permit."""
    if not columns:
        return []
    tested = [column for column in columns if column.tested]
    checks = [Check("drift", *_drift(tested))] if tested else []
    if any(not column.summary.numeric for column in columns):
        bad = [(c, plural(c.unseen, *nouns)) for c in columns if c.unseen]
        good = "Every flag and category was in the training rows."
        checks.append(Check("categories", *_named(bad, "have values that no training row had", good)))
    if cells:
        bad = [
            (c, f"{percent(c.summary.missing / c.summary.rows)} to {percent(c.missing / max(1, c.rows))}")
            for c in columns
            if c.missing_changed
        ]
        good = "Missing cells are as frequent as in the training rows."
        checks.append(Check("missing", *_named(bad, "have more or fewer missing cells than before", good)))
    numbers = [column for column in tested if column.summary.numeric]
    if numbers:
        outside, present = sum(c.outside for c in numbers), sum(c.rows - c.missing for c in numbers)
        good = (
            f"{percent(outside / max(1, present))} of the numbers are outside the training range, as chance explains."
        )
        bad = [(c, f"{percent(c.outside / max(1, c.rows))} of the {nouns[1]}") for c in numbers if c.too_far]
        checks.append(
            Check("range", *_named(bad, "have more numbers outside the training range than chance explains", good))
        )
    return checks


def _drift(columns: Sequence[ColumnDrift]) -> tuple[bool, str]:
    most = max(columns, key=lambda c: c.distance)
    good = f"The largest distance is {figure(most.distance, 3)}, of {visible(most.summary.column.name, 40)}."
    drifted = sorted((c for c in columns if c.drifted), key=lambda c: -c.distance)
    bad = [(c, f"distance {figure(c.distance, 3)}") for c in drifted]
    return _named(bad, f"of {len(columns)} have another distribution than in the training rows", good)


def _named(bad: Sequence[tuple[ColumnDrift, str]], what: str, good: str) -> tuple[bool, str]:
    """Whether no column is bad, and a sentence that names the first three that are."""
    if not bad:
        return True, good
    names = ", ".join(f"{visible(column.summary.column.name, 40)} ({text})" for column, text in bad[:3])
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    verb = what.replace("have ", "has ", 1) if len(bad) == 1 else what
    return False, f"{plural(len(bad), 'column')} {verb}: {names}{more}."
