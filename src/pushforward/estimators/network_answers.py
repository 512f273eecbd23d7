"""`NetworkAnswers`: what a guarded network answers to many inputs, counted: classes, correct answers, abstentions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pushforward.data import Column
from pushforward.detection.column_drift import DISTANCE, SIGNIFICANCE, ColumnTally
from pushforward.detection.column_summary import ColumnSummary
from pushforward.detection.network.reading import class_labels
from pushforward.detection.network.streaming import check_labels
from pushforward.detection.selective import ClassifierCalibration
from pushforward.errors import InputError
from pushforward.report.text import confidence, decimals, figure, percent, promised_rate

if TYPE_CHECKING:
    from pushforward.detection.network.examples import GuardOutput
    from pushforward.estimators.network_guard import NetworkGuard

__all__ = ["NetworkAnswers"]

_PARTS = 5
"""Ranges of the p-value for which the accuracy is given."""


@dataclass
class NetworkAnswers:
    """Counts of what the network answers: classes, alarms, correct answers, accepted answers."""

    guard: NetworkGuard
    selective: ClassifierCalibration | None
    rows: int = 0
    labeled: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        k = max(1, self.guard.classes_)
        self.seen, self.alarms = np.zeros(k, dtype=np.int64), np.zeros(k, dtype=np.int64)
        self.parts = np.zeros((_PARTS, 2), dtype=np.int64)
        before = np.bincount(self.guard._calibration[1].numpy().clip(0), minlength=k)[:k]
        self.before = ColumnSummary(_classes(k), np.zeros(0), before.astype(float), 0, int(before.sum()))

    def add(self, out: GuardOutput, labels: Tensor | None) -> np.ndarray | None:
        """Count a batch, and return its predicted classes.

        Raises:
            InputError: for labels that are no classes of the network.
        """
        alarm, p = out.alarm.numpy(), out.p_value.numpy()
        first = self.rows
        self.rows += len(alarm)
        if self.guard.classes_ < 2:
            return None
        labels = class_labels(labels)
        if labels is not None:
            labels = labels.cpu()
            if len(labels) != len(alarm):
                raise InputError(
                    f"a batch has {len(alarm)} inputs and {len(labels)} labels: give one label for each input."
                )
            check_labels(labels, self.guard.classes_, first)
        predicted = out.prediction.detach().cpu().numpy()
        self.seen += np.bincount(predicted, minlength=len(self.seen))
        self.alarms += np.bincount(predicted[alarm], minlength=len(self.seen))
        correct = None
        if labels is not None:
            correct = predicted == labels.numpy()
            self.labeled += len(correct)
            self.counts["correct"] += int(correct.sum())
            self.counts["kept"] += int((~alarm).sum())
            self.counts["kept correct"] += int((correct & ~alarm).sum())
            part = np.minimum((p * _PARTS).astype(int), _PARTS - 1)
            np.add.at(self.parts, (part, correct.astype(int)), 1)
        if self.selective is not None:
            self._select(out, labels, alarm, correct)
        return predicted

    def _select(self, out: GuardOutput, labels: Tensor | None, alarm: np.ndarray, correct: np.ndarray | None) -> None:
        assert self.selective is not None
        assert out.logits is not None
        z = out.logits.double().numpy()  # those that calibrated the sets
        promised = np.asarray(np.isfinite(z).all(1))
        if self.selective.without_alarm:
            promised &= ~alarm
        sets = self.selective.sets(z[promised])
        self.sizes.update(sets.sum(1).tolist())
        if labels is not None:
            self.counts["covered"] += int(sets[np.arange(len(sets)), labels.numpy()[promised]].sum())
            self.counts["sets with label"] += len(sets)
        if self.selective.rule is not None:
            accepted = promised.copy()
            accepted[promised] = self.selective.accept(self.selective.uncertainty(z[promised]))
            self.counts["accepted"] += int(accepted.sum())
            self.counts["accepted without alarm"] += int((accepted & ~alarm).sum())
            if correct is not None:
                self.counts["accepted wrong"] += int((accepted & ~correct).sum())

    def check(self) -> tuple[bool, str] | None:
        """The check "classes": predicted classes are as frequent as among the calibration rows."""
        if self.guard.classes_ < 2:
            return None
        tally = ColumnTally(self.before)
        tally.counts += self.seen
        found = tally.compare()
        passed = not (found.distance >= DISTANCE and found.p_value <= SIGNIFICANCE)
        change = self.seen / max(1, self.rows) - self.before.counts / max(1.0, self.before.counts.sum())
        k = int(np.abs(change).argmax())
        text = f"The shares of the predicted classes differ by {figure(found.distance, 3)} (total variation), p = {figure(found.p_value, 2)}"
        shares = f"class {k} has {percent(self.seen[k] / max(1, self.rows))} and had {percent(self.before.fraction(k))}"
        return passed, f"{text}; {shares}." if not passed else f"{text}."

    def facts(self) -> dict[str, Any]:
        """What the report says of the answers, as plain JSON types."""
        order = np.argsort(-self.seen, kind="stable") if self.guard.classes_ > 1 else []
        classes = [
            {
                "class": int(k), "rows": int(self.seen[k]), "share": self.seen[k] / max(1, self.rows),
                "calibration_share": self.before.fraction(int(k)), "alarms": int(self.alarms[k]),
                "alarm_rate": self.alarms[k] / self.seen[k] if self.seen[k] else None,
            }
            for k in order
            if self.seen[k] or self.before.counts[k]
        ]  # fmt: skip
        return {"classes": classes, "labels": self._labels(), "selective": self._selective_facts()}

    def _labels(self) -> dict[str, Any] | None:
        if not self.labeled:
            return None
        n, c = self.labeled, self.counts
        edges = np.arange(_PARTS + 1) / _PARTS
        return {
            "rows": n,
            "accuracy": c["correct"] / n,
            "kept_accuracy": c["kept correct"] / c["kept"] if c["kept"] else None,
            "alarm_accuracy": (c["correct"] - c["kept correct"]) / (n - c["kept"]) if n > c["kept"] else None,
            "by_p_value": [
                {"low": edges[k], "high": edges[k + 1], "rows": int(part.sum()), "accuracy": part[1] / part.sum() if part.sum() else None}
                for k, part in enumerate(self.parts)
            ],
        }  # fmt: skip

    def _selective_facts(self) -> list[list[str]] | None:
        if self.selective is None or not self.rows:
            return None
        n, c, rule = self.rows, self.counts, self.selective.rule
        found = []
        if rule is not None:
            found.append(
                [
                    "Accepted",
                    f"{c['accepted']:,} of {n:,} inputs ({percent(c['accepted'] / n)}); {c['accepted without alarm']:,} of them raise no alarm",
                ]
            )
            promise = f"at most {promised_rate(rule.risk)} among accepted inputs, with a confidence of {confidence(rule.delta)}"
            found.append(["Promised error rate", promise])
            if self.labeled and c["accepted"]:
                found.append(["Error rate among accepted inputs", percent(c["accepted wrong"] / c["accepted"])])
        if self.sizes:
            mean = sum(size * count for size, count in self.sizes.items()) / sum(self.sizes.values())
            shares = (
                f"{size}: {percent(count / sum(self.sizes.values()), 1)}"
                for size, count in sorted(self.sizes.items())[:8]
            )
            found.append(["Prediction sets", f"{figure(mean, 3)} classes on average; {', '.join(shares)}"])
        without = " of inputs without an alarm" if self.selective.without_alarm else ""
        coverage = percent(self.selective.coverage, decimals(1 - self.selective.coverage))
        found.append([f"Promised coverage of the sets{without}", coverage])
        if c["sets with label"]:
            found.append(["Sets that contain the label", percent(c["covered"] / c["sets with label"])])
        return found


def _classes(k: int) -> Column:
    names = tuple(f"class {j}" for j in range(min(k, 1000)))
    return Column("predicted class", "categorical", names, lattice=(0.0, 1.0))
