"""`Evaluation`: how well the scores and alarms of a guard fit known anomalies, with the uncertainty of small numbers."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pushforward.detection import auroc, average_precision, bootstrap_interval, realized_interval
from pushforward.detection.proportion import exact_interval
from pushforward.detection.validation import score_array
from pushforward.errors import InputError
from pushforward.numerics.checks import check_number
from pushforward.report.text import figure, percent, plural, promised_rate

__all__ = ["Estimate", "Evaluation", "Proportion", "evaluate_scores"]

LEVEL = 0.95
_FEW = 10
"""Anomalies below which the bootstrap interval of an area is too narrow."""

_RESAMPLES, _DRAWN = 2000, 40_000_000
"""Resamples of the bootstrap, and numbers that it draws at most, of which there are at least 200 resamples."""

_MOST = 200_000
"""Rows for which the interval of the fraction of alarms is computed; more make it hardly narrower."""


@dataclass(frozen=True)
class Estimate:
    """A number that is estimated from the rows, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} (95% interval {self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Proportion:
    """A count among rows, with the exact 95 % interval of the probability (Clopper and Pearson 1934)."""

    count: int
    of: int

    @property
    def fraction(self) -> float:
        """``count / of``; NaN without rows."""
        return self.count / self.of if self.of else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end; (0, 1) without rows."""
        return exact_interval(self.count, self.of, LEVEL)

    def __str__(self) -> str:
        if not self.of:
            return "no rows"
        low, high = self.interval
        return (
            f"{self.count:,} of {self.of:,} ({percent(self.fraction)}; 95% interval {percent(low)} to {percent(high)})"
        )


@dataclass(frozen=True)
class Evaluation:
    """Scores and alarms of a guard on rows of which some are known anomalies.

    Attributes:
        normal: number of normal rows.
        anomalous: number of anomalies.
        left_out: number of rows without a label.
        alpha: promised false-alarm rate.
        auroc: probability that an anomaly has a higher score than a normal row (ties count half), with a bootstrap interval;
            None without rows of both kinds.
        average_precision: area under the precision-recall curve, with its interval; by chance it is the fraction of anomalies.
        detected: anomalies that raised an alarm.
        false_alarms: normal rows that raised an alarm.
        expected: where 95 % of such guards and rows have the fraction of false alarms, if these rows are like those that
            calibrated; None where this is not known.
        notes: what small numbers, or the rows, make of these figures.
    """

    normal: int
    anomalous: int
    left_out: int
    alpha: float
    auroc: Estimate | None
    average_precision: Estimate | None
    detected: Proportion
    false_alarms: Proportion
    expected: tuple[float, float] | None
    notes: tuple[str, ...]

    def facts(self) -> dict[str, str]:
        """The figures in words, by name."""
        rows = f"{self.normal:,} normal, {plural(self.anomalous, 'anomaly', 'anomalies')}"
        found = {"rows": rows + (f", {self.left_out:,} without a label left out" if self.left_out else "")}
        if self.auroc is not None and self.average_precision is not None:
            chance = figure(self.anomalous / (self.normal + self.anomalous), 2)
            found["AUROC"] = str(self.auroc)
            found["AUPR"] = f"{self.average_precision}; by chance {chance}"
        found["anomalies caught"] = str(self.detected)
        found["false alarms"] = f"{self.false_alarms}; promised {promised_rate(self.alpha)}"
        if self.expected is not None:
            low, high = self.expected
            found["95% of such guards"] = f"{percent(low)} to {percent(high)} false alarms on so many normal rows"
        return found

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain JSON types; intervals are pairs, and what is not known is null."""

        def proportion(each: Proportion) -> dict[str, Any]:
            return {"count": each.count, "of": each.of, "fraction": each.fraction if each.of else None,
                    "interval": list(each.interval)}  # fmt: skip

        def estimate(each: Estimate | None) -> dict[str, Any] | None:
            return None if each is None else {"value": each.value, "interval": [each.low, each.high]}

        return {
            "normal": self.normal, "anomalous": self.anomalous, "left_out": self.left_out, "alpha": self.alpha,
            "interval_level": LEVEL, "auroc": estimate(self.auroc), "aupr": estimate(self.average_precision),
            "detected": proportion(self.detected), "false_alarms": proportion(self.false_alarms),
            "expected_false_alarms": None if self.expected is None else list(self.expected), "notes": list(self.notes),
        }  # fmt: skip

    def to_json(self, indent: int | None = None) -> str:
        """The same as JSON."""
        return json.dumps(self.to_dict(), allow_nan=False, indent=indent)

    def __str__(self) -> str:
        lines = [f"{name:20}{text}" for name, text in self.facts().items()]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th><td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in self.facts().items()
        )
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return f"<table><tbody>{cells}</tbody></table>" + (f"<ul>{notes}</ul>" if notes else "")


def evaluate_scores(
    scores: np.ndarray,
    alarm: np.ndarray,
    anomalous: np.ndarray,
    *,
    alpha: float,
    guarantee: str = "marginal",
    delta: float = 0.05,
    calibration: int | None = None,
    trimmed: int = 0,
    left_out: int = 0,
    notes: Sequence[str] = (),
) -> Evaluation:
    """Compare scores and alarms with labels.

    Args:
        scores: of all rows, ``(n,)``; higher is more anomalous.
        alarm: which rows raised an alarm, boolean ``(n,)``.
        anomalous: which rows are anomalies, boolean ``(n,)``.
        alpha: promised false-alarm rate.
        guarantee: "marginal" or "pac".
        delta: of "pac".
        calibration: number of calibration rows, for the interval that theory gives; None where there is none.
        trimmed: number of larger calibration scores that were left out as those of anomalies.
        left_out: number of rows that had no label.
        notes: what is known about the rows already.

    Raises:
        InputError: for no rows, NaN scores, or ``alarm`` and ``anomalous`` that are not boolean or not of this length.
        ConfigError: for a rate outside (0, 1).
    """
    scores = score_array(scores, "the scores", may_be_empty=True)
    check_number("alpha", alpha, 0, 1)
    if not len(scores):
        raise InputError("there are no rows with a label to evaluate.")
    alarm, anomalous = np.asarray(alarm), np.asarray(anomalous)
    for name, values in (("alarm", alarm), ("anomalous", anomalous)):
        if values.dtype != bool or values.shape != scores.shape:
            raise InputError(
                f"{name} must be boolean, one for each of the {len(scores)} scores; got {values.dtype} of shape {values.shape}."
            )
    normal, odd = scores[~anomalous], scores[anomalous]
    areas: list[Estimate | None] = [None, None]
    if len(normal) and len(odd):
        resamples = int(min(_RESAMPLES, max(200, _DRAWN // len(scores))))
        for k, metric in enumerate((auroc, average_precision)):
            low, high = bootstrap_interval(metric, normal, odd, level=LEVEL, n_resamples=resamples)
            value = metric(normal, odd)
            areas[k] = Estimate(
                value, min(low, value), max(high, value)
            )  # resamples have ties, which move some metrics
    detected = Proportion(int(alarm[anomalous].sum()), len(odd))
    false_alarms = Proportion(int(alarm[~anomalous].sum()), len(normal))
    expected = None
    if calibration is not None and len(normal):
        expected = realized_interval(calibration, min(len(normal), _MOST), alpha, LEVEL, guarantee, delta, trimmed)  # pyright: ignore[reportArgumentType]
    found = [*notes, *_small_numbers(areas[0], detected, false_alarms, alpha), *_broken(false_alarms, expected)]
    return Evaluation(
        len(normal), len(odd), left_out, alpha, areas[0], areas[1], detected, false_alarms, expected, tuple(found)
    )


def _small_numbers(area: Estimate | None, detected: Proportion, false_alarms: Proportion, alpha: float) -> list[str]:
    """What the numbers of rows do not tell."""
    notes = []
    if not detected.of:
        notes.append("There is no anomaly among these rows, so nothing is known about what the guard detects.")
    elif detected.of < _FEW:
        least = exact_interval(detected.of, detected.of, LEVEL)[0]
        notes.append(
            f"With {plural(detected.of, 'anomaly', 'anomalies')} little is known about others: had all been caught, the share "
            f"could still be {percent(least, 0)}. The intervals of AUROC and AUPR, by resampling so few, are too narrow."
        )
    if not false_alarms.of:
        notes.append("There is no normal row among these rows, so nothing is known about false alarms.")
    elif false_alarms.of * alpha < 5:
        notes.append(
            f"Of {plural(false_alarms.of, 'normal row')}, {figure(false_alarms.of * alpha, 2)} would raise a false alarm at "
            f"{promised_rate(alpha)}: so few rows hardly tell whether the promise is kept."
        )
    if area is not None and area.value == 1.0:
        notes.append(
            "The scores separate these rows completely, so the intervals of AUROC and AUPR are single points: errors that are "
            "too rare to occur here are not in them."
        )
    return notes


def _broken(false_alarms: Proportion, expected: tuple[float, float] | None) -> list[str]:
    if expected is None or false_alarms.fraction <= expected[1]:
        return []
    return [
        f"{percent(false_alarms.fraction)} false alarms are more than 97.5% of such guards have: these normal rows are not like "
        "those that calibrated the guard, or some of them are anomalies."
    ]
