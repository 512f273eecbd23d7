"""The demo on a table: fit, calibrate and score real data with real anomalies, and draw the result."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from pushforward.cli.show import grid
from pushforward.data import load_sample
from pushforward.detection import auroc, realized_interval
from pushforward.estimators import Guard

__all__ = ["run"]

ALPHA = 0.05


def run(output: Path, seed: int = 0) -> dict[str, float]:
    """Fit a guard to half of the normal rows, and score the other half and all anomalies."""
    start = time.perf_counter()
    sample = load_sample("thyroid")
    table, anomalous = sample.table, sample.labels == 1
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(~anomalous))
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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    low = min(normal_result["anomaly_score"].min(), anomaly_result["anomaly_score"].min())
    high = float(np.quantile(anomaly_result["anomaly_score"], 0.98))
    bins = np.linspace(low, max(high, normal_result["anomaly_score"].max()), 60)
    for result, color, name in (
        (normal_result, "#3b6ea5", "new normal rows"),
        (anomaly_result, "#c8553d", "anomalies"),
    ):
        left.hist(
            np.minimum(result["anomaly_score"], bins[-1]), bins, density=True, color=color, alpha=0.75, label=name
        )
    left.axvline(-guard.offset_, color="black", lw=1.4)
    left.annotate(
        f"alarm: {normal_result['alarm'].mean():.1%} of normal rows (promised {guard.alpha:.0%}),\n"
        f"{anomaly_result['alarm'].mean():.0%} of anomalies",
        (-guard.offset_, 0.92), (6, 0), xycoords=("data", "axes fraction"), textcoords="offset points", va="top",
    )  # fmt: skip
    left.set(xlabel="anomaly score, nats", yticks=[], title=title)
    left.legend(loc="center right", frameon=False)
    levels = np.linspace(0, 0.25, 200)
    right.plot(levels, levels, color="black", lw=1, ls="--", label="promised")
    for result, color, name in (
        (normal_result, "#3b6ea5", "new normal rows"),
        (anomaly_result, "#c8553d", "anomalies"),
    ):
        fractions = [(result["p_value"] <= level).mean() for level in levels]
        right.plot(levels, fractions, color=color, lw=2, label=name)
    right.axvline(guard.alpha, color="black", lw=0.8, alpha=0.5)
    right.set(
        xlabel="p-value level",
        ylabel="fraction with an alarm",
        ylim=(0, 1.02),
        xlim=(0, 0.25),
        title="Realized and promised rate",
    )
    right.legend(frameon=False, loc="center right")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=130)
