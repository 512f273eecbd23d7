"""`network_report`: from the guard of a network and batches of inputs to a report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pushforward.data import Column
from pushforward.detection.column_drift import DISTANCE, SIGNIFICANCE, ColumnTally
from pushforward.detection.column_summary import ColumnSummary
from pushforward.detection.network.reading import find_logits, first_tensor
from pushforward.detection.selective import ClassifierCalibration
from pushforward.errors import InputError
from pushforward.estimators.guard_facts import network_facts, promise_sentence
from pushforward.estimators.reporting import ReportOptions, picture
from pushforward.report import Collected, Report, Subject, assemble
from pushforward.report.collected import Shown
from pushforward.report.text import figure, percent

if TYPE_CHECKING:
    from pushforward.detection.network.examples import GuardOutput
    from pushforward.estimators.network_guard import NetworkGuard

__all__ = ["network_report"]

_REASONS, _TYPICAL, _MOST_EXPLAINED = 3, 8, 256
_PARTS = 5


def network_report(
    guard: NetworkGuard,
    stream: Iterable[tuple[Any, Tensor | None]],
    options: ReportOptions,
    selective: ClassifierCalibration | None = None,
) -> Report:
    """Run the network and its guard over batches in one pass, in constant memory, and report on them.

    Args:
        guard: fitted.
        stream: batches of inputs, each with its labels or None.
        options: what to show.
        selective: abstention and prediction sets of the network's logits.

    Raises:
        InputError: for inputs that do not fit the network, or none.
    """
    start = time.perf_counter()
    calibrations = {
        key: ("all inputs" if key is None else f"class {key}", calibrator, guard.levels_[key])
        for key, calibrator in guard.calibrators_.items()
    }
    collected = Collected(calibrations, (), options.alarms)
    answers = _Answers(guard, selective)
    for inputs, labels in stream:
        out = guard(inputs)
        if len(out.score) == 0:
            continue
        score, p, alarm = (value.numpy() for value in (out.score, out.p_value, out.alarm))
        group = answers.add(out, labels)

        def content(k: int, inputs: Any = inputs, out: GuardOutput = out) -> Any:
            prediction = int(out.prediction[k]) if guard.classes_ > 1 else None
            return _row(inputs, k, len(out.score)), prediction, out.reason[k]

        typical = _TYPICAL if options.values and _is_picture(inputs) else 0
        collected.add(score, p, alarm, content, group=group if guard.per_class else None, typical=typical)
        chosen = np.flatnonzero(alarm)[:_MOST_EXPLAINED]
        if len(chosen):
            found = guard.explain(_row(inputs, chosen, len(score)), neighbors=1)
            collected.add_reasons([found.names[k] for k in found.surprise.argmax(1)])
    if not collected.rows:
        raise InputError("there are no inputs to report on.")
    pictures: dict[str, bytes] = {}
    alarms = [_shown(guard, shown, options, "alarm", pictures) for shown in collected.worst]
    typical = [_shown(guard, shown, options, "typical", pictures) for shown in collected.typical]
    n = sum(calibrator.n for calibrator in guard.calibrators_.values())
    promised = promise_sentence(guard.alpha, guard.guarantee, guard.delta, n, max(guard.levels_.values()), "inputs")
    if guard.per_class:
        promised = (
            True,
            f"For each predicted class by itself, at most {percent(guard.alpha)} of normal inputs raise a false alarm ({guard.guarantee}).",
        )
    if not guard.promised_:
        promised = (
            False,
            "No rate is promised, because the guard was calibrated on rows that the network was trained on.",
        )
    subject = Subject(
        title=options.heading(),
        guard=network_facts(guard, options.file, options.guard),
        data={
            "source": options.name,
            "seconds": round(time.perf_counter() - start, 3),
            "facts": [[name, value] for name, value in options.data.items()],
        },
        alpha=guard.alpha,
        guarantee=guard.guarantee,
        delta=guard.delta,
        promised=promised,
        promise_is_for=f"inputs like the held-out ones ({n:,} of them calibrated the alarm)",
        nouns=("input", "inputs"),
        reference="the held-out inputs",
    )
    return assemble(
        subject, collected, alarms, typical=typical, pictures=pictures, network=answers.facts(), classes=answers.check()
    )


@dataclass
class _Answers:
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
        """Count a batch, and return its predicted classes."""
        alarm, p = out.alarm.numpy(), out.p_value.numpy()
        self.rows += len(alarm)
        if self.guard.classes_ < 2:
            return None
        predicted = out.prediction.detach().cpu().numpy()
        self.seen += np.bincount(predicted, minlength=len(self.seen))
        self.alarms += np.bincount(predicted[alarm], minlength=len(self.seen))
        correct = None
        if labels is not None:
            correct = predicted == labels.detach().cpu().numpy()
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
        logits = find_logits(out.output, self.guard.logits)
        assert logits is not None
        z = logits.detach().cpu().double().numpy()
        sets = self.selective.sets(z)
        self.sizes.update(sets.sum(1).tolist())
        if labels is not None:
            self.counts["covered"] += int(sets[np.arange(len(z)), labels.cpu().numpy()].sum())
        if self.selective.rule is not None:
            accepted = self.selective.accept(self.selective.uncertainty(z))
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
            promise = (
                f"at most {percent(rule.risk)} among accepted inputs, with a confidence of {percent(1 - rule.delta, 0)}"
            )
            found.append(["Promised error rate", promise])
            if self.labeled and c["accepted"]:
                found.append(["Error rate among accepted inputs", percent(c["accepted wrong"] / c["accepted"])])
        mean = sum(size * count for size, count in self.sizes.items()) / n
        found.append(["Prediction sets", f"{figure(mean, 3)} classes on average; " + ", ".join(
            f"{size}: {percent(count / n, 1)}" for size, count in sorted(self.sizes.items())[:8])])  # fmt: skip
        found.append(["Promised coverage of the sets", percent(self.selective.coverage)])
        if self.labeled:
            found.append(["Sets that contain the label", percent(c["covered"] / self.labeled)])
        return found


def _classes(k: int) -> Column:
    names = tuple(f"class {j}" for j in range(min(k, 1000)))
    return Column("predicted class", "categorical", names, lattice=(0.0, 1.0))


def _row(inputs: Any, k: Any, rows: int) -> Any:
    """One row, or some rows, of a batch as a batch; what has no rows stays."""
    index = torch.as_tensor(np.atleast_1d(k))
    if isinstance(inputs, Tensor):
        return inputs[index.to(inputs.device)] if inputs.dim() and len(inputs) == rows else inputs
    if isinstance(inputs, dict):
        return {name: _row(value, k, rows) for name, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return type(inputs)(_row(value, k, rows) for value in inputs)
    return inputs


def _is_picture(inputs: Any) -> bool:
    tensor = first_tensor(inputs)
    return tensor is not None and tensor.dim() == 4 and tensor.shape[1] in (1, 3, 4)


def _shown(
    guard: NetworkGuard, shown: Shown, options: ReportOptions, name: str, pictures: dict[str, bytes]
) -> dict[str, Any]:
    inputs, prediction, sentence = shown.content
    entry: dict[str, Any] = {
        "row": shown.row, "score": shown.score, "p_value": shown.p_value, "picture": None, "prediction": None, "sentence": "",
        "reasons": [], "cells": None,
    }  # fmt: skip
    if prediction is not None:
        entry["prediction"] = f"class {prediction}"
    if options.values and _is_picture(inputs):
        entry["picture"] = f"{name}-{shown.row}.png"
        tensor = first_tensor(inputs)
        assert tensor is not None
        pictures[entry["picture"]] = picture(tensor[0])
    if name == "alarm":
        entry["sentence"], entry["reasons"] = _why(guard, inputs, sentence)
    if options.show_rows and name == "alarm":
        tensor = first_tensor(inputs)
        if tensor is not None and tensor.dim() == 2:
            entry["cells"] = [[f"x{j}", figure(float(v))] for j, v in enumerate(tensor[0, :200])]
    return entry


def _why(guard: NetworkGuard, inputs: Any, sentence: str) -> tuple[str, list[dict[str, Any]]]:
    """The nearest training inputs of one input, and the statistics of the score that are most surprising."""
    found = guard.explain(inputs, neighbors=3)
    if found.nearest[0, 0] < 0:  # the features are not finite, which is what the sentence says
        return sentence[:1].upper() + sentence[1:] + ".", []
    rows = ", ".join(f"{k:,}" for k in found.nearest[0])
    of = f" (classes {', '.join(map(str, found.labels[0]))})" if guard.classes_ > 1 else ""
    reasons = []
    for name, nats in found.top(0, _REASONS):
        share = float(np.exp(-nats))
        if reasons and share > 0.05:
            break
        rare = "less than 1 in a million" if share < 1e-6 else percent(share, 3 if share < 0.001 else 2)
        reasons.append({"column": name, "nats": nats, "value": None, "usual": "", "finding": f"as high for {rare} of normal inputs"})  # fmt: skip
    return f"The nearest training inputs are {rows}{of}.", reasons
