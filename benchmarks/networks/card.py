"""The card: AUROC, false-alarm rates and costs of every score, ours and those of pytorch-ood, around one network."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pushforward as pf
from benchmarks.common.results import Results, markdown
from benchmarks.networks.peers import peer_scores
from benchmarks.networks.sets import LARGEST, test_sets
from benchmarks.networks.tasks import TASKS
from benchmarks.networks.training import load_network
from pushforward.detection import auroc, fpr_at_tpr, realized_interval
from pushforward.detection import network as scores

__all__ = ["OURS", "measure", "tables"]

MOST_TRAIN = 20_000
OURS: dict[str, Callable[[], Any]] = {
    "default": lambda: "default",
    **{name: (lambda name=name: name) for name in (
        "MaxSoftmax", "Temperature", "MaxLogit", "Energy", "Entropy", "GEN", "KLMatching", "OpenMax", "Mahalanobis", "RelativeMahalanobis",
        "LayerMahalanobis", "Mixture", "Neighbors", "Residual", "ViM", "SHE", "ReAct", "GradNorm", "DeepSVDD",
    )},
    "MaxLogit p=2": lambda: scores.MaxLogit(2.0),
    "GramMatrices": lambda: scores.GramMatrices(3),
    "FeatureFlow": lambda: scores.FeatureFlow(max_steps=600),
    "FeatureFlow marginal": lambda: scores.FeatureFlow(False, max_steps=600),
    "FeatureFlow path": lambda: scores.FeatureFlow(False, "path", max_steps=600),
    "default + FeatureFlow": lambda: [*scores.default_score(True, True, True).scores, scores.FeatureFlow(max_steps=600)],
}  # fmt: skip
"""Scores of this library by the name in the card."""


def measure(name: str, seed: int, folder: Path, results: Results, only: Sequence[str] = ()) -> None:
    """Measure every score that is missing in the results, and add one record for each score and set."""
    net, rows, accuracy = load_network(name, seed, folder)
    sets = test_sets(TASKS[name], rows)
    data = {"train": (rows.train[0][:MOST_TRAIN], rows.train[1][:MOST_TRAIN]), "calibration": rows.calibration[0]}
    makers = {**OURS, **peer_scores(net, rows)}
    for label, make in makers.items():
        if (only and label not in only) or results.where(network=name, seed=seed, score=label):
            continue
        start = time.process_time()
        guard = pf.NetworkGuard(net, score=make(), seed=seed).fit(**data)
        fit = time.process_time() - start
        test = guard.anomaly_score(rows.test[0][:LARGEST])
        calibrator = guard.calibrators_[None]
        p_test = calibrator.p_value(test)
        cost = _cost(net, guard, rows.test[0][:64]) if label in OURS else {}
        for other, (side, inputs) in sets.items():
            found = guard.anomaly_score(inputs)
            p = calibrator.p_value(found)
            results.add({
                "network": name, "seed": seed, "accuracy": accuracy, "score": label, "set": other, "side": side,
                "auroc": auroc(test, found), "normal flagged at 95% caught": fpr_at_tpr(test, found, 0.95),
                "caught 1%": float((p <= 0.01).mean()), "caught 5%": float((p <= 0.05).mean()),
                "alarms 1%": float((p_test <= 0.01).mean()), "alarms 5%": float((p_test <= 0.05).mean()),
                "n calibration": calibrator.n, "n test": len(test), "fit s": fit, **cost,
            })  # fmt: skip


def _cost(net: torch.nn.Module, guard: pf.NetworkGuard, x: torch.Tensor) -> dict[str, float]:
    """CPU milliseconds of the network and of the guard over it, batch of 64, and MiB of the guard's tensors."""

    def milliseconds(call: Callable[[], Any]) -> float:
        call()
        times = []
        for _ in range(15):
            start = time.thread_time()
            call()
            times.append(1e3 * (time.thread_time() - start))
        return float(np.median(times))

    with torch.no_grad():
        bare = milliseconds(lambda: net(x))
        whole = milliseconds(lambda: guard(x))
    size = sum(tensor.numel() * tensor.element_size() for tensor in guard.score_.buffers())
    return {"network ms": bare, "added ms": whole - bare, "MiB": size / 2**20}


def redraws(name: str, seed: int, folder: Path, results: Results, count: int = 20) -> None:
    """Realized false-alarm rates of the default over redrawn calibration rows, against the beta-binomial law."""
    net, rows, _ = load_network(name, seed, folder)
    fitted = pf.NetworkGuard(net, seed=seed).fit(
        (rows.train[0][:MOST_TRAIN], rows.train[1][:MOST_TRAIN]), calibration=rows.calibration[0]
    )
    held, test = fitted.anomaly_score(rows.calibration[0]), fitted.anomaly_score(rows.test[0][:5000])
    for alpha in (0.01, 0.05):
        inside, rates = 0, []
        for draw in range(count):
            order = np.random.default_rng(draw).permutation(len(held) + len(test))
            together = np.concatenate((held, test))[order]
            n = len(held) // 2
            calibrator = pf.detection.ConformalCalibrator(together[:n])
            rate = float((calibrator.p_value(together[n:]) <= calibrator.threshold(alpha)).mean())
            low, high = realized_interval(n, len(together) - n, alpha)
            inside += low <= rate <= high
            rates.append(rate)
        results.add(
            {
                "network": name,
                "seed": seed,
                "redraws": count,
                "alpha": alpha,
                "inside": inside,
                "mean rate": float(np.mean(rates)),
            }
        )


def tables(results: Results) -> str:
    """Near and far means of every score by network, and over all networks."""
    records = [record for record in results.records if "auroc" in record]
    networks = sorted({record["network"] for record in records})
    labels = list(dict.fromkeys(record["score"] for record in records))
    best: dict[str, float] = {}
    rows = []
    for label in labels:
        cells, sides = [], {"near": [], "far": []}
        for network in networks:
            for side in ("near", "far"):
                own = [r["auroc"] for r in records if (r["network"], r["score"], r["side"]) == (network, label, side)]
                mean = float(np.mean(own)) if own else float("nan")
                cells.append(f"{100 * mean:.1f}" if own else "–")
                if own:
                    sides[side].append(mean)
                    best[f"{network} {side}"] = max(best.get(f"{network} {side}", 0), mean)
        means = [f"{100 * float(np.mean(sides[side])):.1f}" if sides[side] else "–" for side in ("near", "far")]
        own = [r for r in records if r["score"] == label]
        rate = [
            f"{100 * float(np.mean([r[key] for r in own])):.1f}"
            for key in ("normal flagged at 95% caught", "caught 1%", "caught 5%", "alarms 1%", "alarms 5%")
        ]
        cost = [r["added ms"] for r in own if "added ms" in r]
        rows.append([label, *means, *cells, *rate, f"{float(np.median(cost)):.2f}" if cost else "–"])
    rows.sort(key=lambda row: -sum(float(cell) if cell != "–" else 0 for cell in row[1:3]))
    head = ["score", "near", "far", *(f"{n} {s}" for n in networks for s in ("near", "far")), "normal flagged at 95 % caught",
            "caught at 1 %", "at 5 %", "alarms at 1 %", "at 5 %", "added ms"]  # fmt: skip
    return markdown(head, rows, ["---", *["---:"] * (len(head) - 1)])
