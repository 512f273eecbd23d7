"""The demo on a table: fit, calibrate and score real data with real anomalies, and draw the result."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from pushforward import plot
from pushforward.cli.show import grid
from pushforward.data import load_sample
from pushforward.detection import auroc, realized_interval
from pushforward.estimators import Guard
from pushforward.numerics.checks import check_seed
from pushforward.plot.axes import new_figure

__all__ = ["run"]

ALPHA = 0.05


def run(output: Path, seed: int = 0) -> dict[str, float]:
    """Fit a guard to half of the normal rows, and score the other half and all anomalies."""
    start = time.perf_counter()
    sample = load_sample("thyroid")
    table, anomalous = sample.table, sample.labels == 1
    normal = np.random.default_rng(check_seed(seed)).permutation(np.flatnonzero(~anomalous))
    known, new = normal[: len(normal) // 2], normal[len(normal) // 2 :]
    print(
        f"{sample.title}: {len(known)} normal rows for training, {len(new)} new normal rows, {anomalous.sum()} anomalies."
    )
    guard = Guard(ALPHA, random_state=seed).fit(table.take(known))
    fitted = time.perf_counter()
    normal_result, anomaly_result = guard.assess(table.take(new)), guard.assess(table.take(np.flatnonzero(anomalous)))
    area = auroc(normal_result["anomaly_score"], anomaly_result["anomaly_score"])
    facts = {
        "AUROC": area,
        "false alarms": float(normal_result["alarm"].mean()),
        "detected": float(anomaly_result["alarm"].mean()),
        "seconds": time.perf_counter() - start,
    }
    low, high = realized_interval(guard.calibrator_.n, len(new), ALPHA)
    grid(
        "The guard on rows that were not used for training",
        ("", "value"),
        [
            ("AUROC, anomalies against new normal rows", f"{area:.3f}"),
            ("promised false-alarm rate (on average)", f"{ALPHA:.1%}"),
            ("realized false-alarm rate", f"{facts['false alarms']:.1%}"),
            ("95 % of such guards and data realize", f"{low:.1%} to {high:.1%}"),
            ("anomalies detected at that rate", f"{facts['detected']:.1%}"),
            ("seconds to fit and calibrate", f"{fitted - start:.1f}"),
            ("seconds in total", f"{facts['seconds']:.1f}"),
        ],
    )
    worst = table.take(np.flatnonzero(anomalous)[[int(anomaly_result["anomaly_score"].argmax())]])
    print("The most anomalous row:")
    for text in guard.explain(worst).sentences():
        print(f"  {text}")
    draw(output, sample.title, guard, normal_result, anomaly_result)
    print(f"picture: {output}")
    return facts


def draw(output: Path, title: str, guard: Guard, normal_result: dict[str, Any], anomaly_result: dict[str, Any]) -> None:
    """Draw the scores with the alarm threshold, and the realized rate against the promised one."""
    figure = new_figure((11, 4.4))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    groups = {"new normal rows": normal_result, "anomalies": anomaly_result}
    plot.scores({name: result["anomaly_score"] for name, result in groups.items()}, -guard.offset_, ax=left)
    left.set_title(title)
    p_values = {name: result["p_value"] for name, result in groups.items()}
    plot.p_values(p_values, ax=right, calibration=guard.calibrator_.n, log=True)
    right.axvline(guard.alpha, color="black", lw=0.8, alpha=0.5)
    right.set_title(f"Realized and promised rate; alarms at {guard.alpha:.0%}")
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=130)
