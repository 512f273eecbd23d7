"""`network_report`: from the guard of a network and batches of inputs to a report."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pushforward.detection.network.reading import first_tensor, rebuilt
from pushforward.detection.selective import ClassifierCalibration
from pushforward.errors import InputError
from pushforward.estimators.guard_facts import network_facts, network_promise
from pushforward.estimators.network_answers import NetworkAnswers
from pushforward.estimators.reported_rows import ReportOptions, picture
from pushforward.report import Collected, Report, Subject, assemble
from pushforward.report.collected import Shown
from pushforward.report.text import figure, percent

if TYPE_CHECKING:
    from pushforward.detection.network.examples import GuardOutput
    from pushforward.estimators.network_guard import NetworkGuard

__all__ = ["network_report", "one_input", "shown_input"]

_REASONS, _TYPICAL = 3, 8


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
    answers = NetworkAnswers(guard, selective)
    for inputs, labels in stream:
        out = guard(inputs)
        if len(out.score) == 0:
            continue
        score, p, alarm = (value.numpy() for value in (out.score, out.p_value, out.alarm))
        group = answers.add(out, labels)

        def content(k: int, inputs: Any = inputs, out: GuardOutput = out) -> Any:
            return one_input(guard, inputs, out, k)

        typical = _TYPICAL if options.values and _is_picture(inputs) else 0
        collected.add(score, p, alarm, content, group=group if guard.per_class else None, typical=typical)
        chosen = collected.alarms_to_explain(alarm)
        if len(chosen):
            found = guard.explain(input_rows(inputs, chosen, len(score)), neighbors=1)
            collected.add_reasons([found.names[k] for k in found.surprise.argmax(1)])
    if not collected.rows:
        raise InputError("there are no inputs to report on.")
    pictures: dict[str, bytes] = {}
    alarms = [shown_input(guard, shown, options, "alarm", pictures) for shown in collected.worst]
    typical = [shown_input(guard, shown, options, "typical", pictures) for shown in collected.typical]
    n = sum(calibrator.n for calibrator in guard.calibrators_.values())
    options_of = {name: getattr(guard, name) for name in ("alpha", "guarantee", "delta", "per_class")}
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
        promised=network_promise(options_of, n, guard.promised_),
        promise_is_for=f"inputs like the held-out ones ({n:,} of them calibrated the alarm)",
        nouns=("input", "inputs"),
        reference="the held-out inputs",
    )
    return assemble(
        subject, collected, alarms, typical=typical, pictures=pictures, network=answers.facts(), classes=answers.check()
    )


def one_input(guard: NetworkGuard, inputs: Any, out: GuardOutput, k: int) -> tuple[Any, int | None]:
    """One row of a batch as a batch, and its predicted class."""
    prediction = int(out.prediction[k]) if guard.classes_ > 1 else None
    return input_rows(inputs, k, len(out.score)), prediction


def input_rows(inputs: Any, k: Any, rows: int) -> Any:
    """One row, or some rows, of a batch as a batch; what has no rows stays."""
    index = torch.as_tensor(np.atleast_1d(k))
    if isinstance(inputs, Tensor):
        return inputs[index.to(inputs.device)] if inputs.dim() and len(inputs) == rows else inputs
    if isinstance(inputs, Mapping):
        return {name: input_rows(value, k, rows) for name, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return rebuilt(inputs, [input_rows(value, k, rows) for value in inputs])
    return inputs


def _is_picture(inputs: Any) -> bool:
    tensor = first_tensor(inputs)
    return tensor is not None and tensor.dim() == 4 and tensor.shape[1] in (1, 3, 4)


def shown_input(
    guard: NetworkGuard, shown: Shown, options: ReportOptions, name: str, pictures: dict[str, bytes]
) -> dict[str, Any]:
    """What a report says of an input, as plain JSON types; its picture is added to ``pictures``."""
    inputs, prediction = shown.content
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
        entry["sentence"], entry["reasons"] = _why(guard, inputs)
    if options.show_rows and name == "alarm":
        tensor = first_tensor(inputs)
        if tensor is not None and tensor.dim() == 2:
            entry["cells"] = [[f"x{j}", figure(float(v))] for j, v in enumerate(tensor[0, :200])]
    return entry


def _why(guard: NetworkGuard, inputs: Any) -> tuple[str, list[dict[str, Any]]]:
    """The nearest training inputs of one input, and the statistics of the score that are most surprising."""
    found = guard.explain(inputs, neighbors=3)
    if found.nearest[0, 0] < 0:
        return "The network's features are NaN or infinite.", []
    rows = ", ".join(f"{k:,}" for k in found.nearest[0])
    of = f" (classes {', '.join(map(str, found.labels[0]))})" if guard.classes_ > 1 else ""
    reasons = []
    for name, nats in found.top(0, _REASONS):
        share = float(np.exp(-nats))
        if reasons and share > 0.05:
            break
        rare = "less than 1 in a million" if share < 1e-6 else percent(share, 3 if share < 0.001 else 2)
        reasons.append({"column": name, "nats": nats, "value": None, "usual": "", "sentence": "", "finding": f"as high for {rare} of normal inputs"})  # fmt: skip
    return f"The nearest training inputs are {rows}{of}.", reasons
