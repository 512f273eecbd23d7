"""The demo: fit, calibrate and score real data with real anomalies, and draw what happened."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from pushforward.cli.show import grid
from pushforward.data import load_sample
from pushforward.detection import auroc
from pushforward.estimators import Guard

__all__ = ["run"]

ALPHA = 0.05


def run(output: Path, seed: int = 0) -> dict[str, float]:
    """Half of the normal rows fit the guard; the other half and all anomalies are new to it."""
    start = time.perf_counter()
    sample = load_sample("thyroid")
    anomalous = sample.labels == 1
    table, labels = sample.table, anomalous
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(~labels))
    known, new = normal[: len(normal) // 2], normal[len(normal) // 2 :]
    print(
        f"{sample.title}: {len(known)} normal rows to learn from, {len(new)} new normal rows, {labels.sum()} anomalies."
    )
    guard = Guard(ALPHA, random_state=seed, max_steps=1000).fit(table.take(known))
    fitted = time.perf_counter()
    fine, odd = guard.assess(table.take(new)), guard.assess(table.take(np.flatnonzero(labels)))
    area = auroc(fine["anomaly_score"], odd["anomaly_score"])
    facts = {
        "AUROC": area,
        "false alarms": float(fine["alarm"].mean()),
        "caught": float(odd["alarm"].mean()),
        "seconds": time.perf_counter() - start,
    }
    grid(
        "What the guard does on rows that it never saw",
        ("", "value"),
        [
            ("AUROC, anomalies against new normal rows", f"{area:.3f}"),
            ("promised false-alarm rate (on average)", f"{ALPHA:.1%}"),
            ("realized false-alarm rate", f"{facts['false alarms']:.1%}"),
            ("anomalies caught at that rate", f"{facts['caught']:.1%}"),
            ("seconds to fit and calibrate", f"{fitted - start:.1f}"),
            ("seconds in all", f"{facts['seconds']:.1f}"),
        ],
    )
    worst = table.take(np.flatnonzero(labels)[[int(odd["anomaly_score"].argmax())]])
    reasons = ", ".join(f"{name} ({nats:.1f} nats)" for name, nats in guard.explain(worst).top(k=3))
    print(f"The most anomalous row is unlikely because of {reasons}.")
    draw(output, sample.title, guard, fine, odd)
    print(f"picture: {output}")
    return facts


def draw(output: Path, title: str, guard: Guard, fine: dict[str, Any], odd: dict[str, Any]) -> None:
    """Scores with the alarm threshold, and realized against promised rate at every level."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    low = min(fine["anomaly_score"].min(), odd["anomaly_score"].min())
    high = float(np.quantile(odd["anomaly_score"], 0.98))
    bins = np.linspace(low, max(high, fine["anomaly_score"].max()), 60)
    for result, color, name in ((fine, "#3b6ea5", "new normal rows"), (odd, "#c8553d", "anomalies")):
        left.hist(
            np.minimum(result["anomaly_score"], bins[-1]), bins, density=True, color=color, alpha=0.75, label=name
        )
    left.axvline(-guard.offset_, color="black", lw=1.4)
    left.annotate(
        f"alarm: {fine['alarm'].mean():.1%} of normal rows (promised {guard.alpha:.0%}),\n"
        f"{odd['alarm'].mean():.0%} of anomalies",
        (-guard.offset_, 0.92), (6, 0), xycoords=("data", "axes fraction"), textcoords="offset points", va="top",
    )  # fmt: skip
    left.set(xlabel="anomaly score: -log p(row), nats", yticks=[], title=title)
    left.legend(loc="center right", frameon=False)
    levels = np.linspace(0, 0.25, 200)
    right.plot(levels, levels, color="black", lw=1, ls="--", label="promised")
    for result, color, name in ((fine, "#3b6ea5", "new normal rows"), (odd, "#c8553d", "anomalies")):
        share = [(result["p_value"] <= level).mean() for level in levels]
        right.plot(levels, share, color=color, lw=2, label=name)
    right.axvline(guard.alpha, color="black", lw=0.8, alpha=0.5)
    right.set(
        xlabel="p-value level",
        ylabel="share alarmed",
        ylim=(0, 1.02),
        xlim=(0, 0.25),
        title="Realized against promised",
    )
    right.legend(frameon=False, loc="center right")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=130)
