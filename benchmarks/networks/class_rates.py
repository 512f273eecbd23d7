"""Realized false-alarm rates by predicted class, with one threshold for all classes and with one for each (``per_class=True``)."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.common.results import Results, markdown, spread
from benchmarks.networks.card import combined
from benchmarks.networks.columns import MOST_CALIBRATION, collect
from benchmarks.networks.combinations import DEFAULT
from benchmarks.networks.sets import LARGEST
from benchmarks.networks.training import load_network
from pushforward.detection import ConformalCalibrator, realized_interval

__all__ = ["class_rates", "class_table"]

ALPHA, _LEAST = 0.05, 40
"""Promised rate, and the fewest rows of a class: half of them calibrate, and 19 are needed."""


def class_rates(name: str, seed: int, folder: Path, results: Results, count: int = 20) -> None:
    """Add the rates of a network's predicted classes over redrawn calibration rows."""
    if results.where(network=name, seed=seed, class_redraws=count):
        return
    net, rows, _ = load_network(name, seed, folder)
    values = combined(collect(name, seed, folder), DEFAULT, seed)
    held = len(values["calibration"])
    order = torch.randperm(
        min(len(rows.calibration[0]), MOST_CALIBRATION), generator=torch.Generator().manual_seed(seed)
    )
    inputs = torch.cat((rows.calibration[0][:MOST_CALIBRATION][order[-held:]], rows.test[0][:LARGEST]))
    classes, scores = _predicted(net, inputs), np.concatenate((values["calibration"], values["test"]))
    own: dict[int, list[float]] = {}
    shared: dict[int, list[float]] = {}
    inside = total = 0
    for draw in range(count):
        order = np.random.default_rng(draw).permutation(len(scores))
        half = len(scores) // 2
        known, new = order[:half], order[half:]
        threshold = ConformalCalibrator(scores[known])
        for k in np.unique(classes):
            fitted, fresh = scores[known[classes[known] == k]], scores[new[classes[new] == k]]
            if min(len(fitted), len(fresh)) < _LEAST // 2 or (classes == k).sum() < _LEAST:
                continue
            calibrator = ConformalCalibrator(fitted)
            rate = float((calibrator.p_value(fresh) <= calibrator.threshold(ALPHA)).mean())
            low, high = realized_interval(len(fitted), len(fresh), ALPHA)
            inside, total = inside + (low <= rate <= high), total + 1
            own.setdefault(int(k), []).append(rate)
            shared.setdefault(int(k), []).append(float((threshold.p_value(fresh) <= threshold.threshold(ALPHA)).mean()))
    results.add({
        "network": name, "seed": seed, "class_redraws": count, "alpha": ALPHA, "inside": inside, "total": total, "classes": len(own),
        "own": {str(k): statistics.fmean(v) for k, v in own.items()}, "shared": {str(k): statistics.fmean(v) for k, v in shared.items()},
    })  # fmt: skip


@torch.no_grad()
def _predicted(net: nn.Module, inputs: Tensor) -> NDArray[np.int64]:
    return torch.cat([net(part).argmax(1) for part in inputs.split(250)]).numpy()


def class_table(results: Results, names: dict[str, str]) -> str:
    """Rates of the classes with one threshold and with one for each class; means over the seeds of the smallest and largest."""
    lines = []
    for name, shown in names.items():
        records = [record for record in results.records if record.get("network") == name and "class_redraws" in record]
        if not records:
            continue

        def ends(key: str, records: list = records) -> str:
            return " to ".join(
                f"{100 * statistics.fmean(end(r[key].values()) for r in records):.1f}" for end in (min, max)
            )

        rates = spread([100 * statistics.fmean(r["own"].values()) for r in records], 2)
        held = f"{sum(r['inside'] for r in records)} of {sum(r['total'] for r in records)}"
        lines.append([shown, f"{max(r['classes'] for r in records)}", ends("shared"), ends("own"), rates, held])
    head = ["network", "classes", "one threshold, %", "one for each class, %", "mean, %", "inside"]
    return markdown(head, lines, ["---", *["---:"] * 5])
