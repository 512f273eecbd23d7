"""The card: AUROC and false-alarm rates of every score, ours and those of pytorch-ood, and what the default costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pushforward as pf
from benchmarks.common.results import Results, markdown
from benchmarks.networks.columns import collect
from benchmarks.networks.training import load_network
from pushforward.detection import ConformalCalibrator, auroc, fpr_at_tpr, realized_interval
from pushforward.detection.network import Combined, Energy

__all__ = ["ABLATIONS", "costs", "measure", "redraws", "tables"]

_N, _R, _L, _E = "Neighbors k=3 of 1000", "RelativeMahalanobis", "LayerMahalanobis", "Energy"
ABLATIONS: dict[str, list[str]] = {
    "default": [_N, _E, _R, _L],
    "default without neighbors": [_E, _R, _L],
    "default without energy": [_N, _R, _L],
    "default without relative Mahalanobis": [_N, _E, _L],
    "default without layers": [_N, _E, _R],
    "default with FeatureFlow": [_N, _E, _R, _L, "FeatureFlow"],
}
"""Statistics of the default (:func:`pushforward.detection.network.default_score`), and of versions of it."""
_REFERENCE = 0.3


def combined(columns: dict[str, Any], parts: list[str], seed: int) -> dict[str, np.ndarray]:
    """The scores of all sets by a combination; "calibration" without the rows that set the scale, as in the guard."""
    names = [str(name) for name in columns["names"]]
    index = [names.index(part) for part in parts]
    score = Combined([Energy()] * len(parts), [0.5 if part == _L else 1.0 for part in parts])
    held = torch.from_numpy(columns["calibration"][:, index])
    order = torch.randperm(len(held), generator=torch.Generator().manual_seed(seed))
    count = round(_REFERENCE * len(held))
    score.set_scale(held[order[:count]])
    found = {
        key: score.combine(torch.from_numpy(columns[key][:, index])).numpy()
        for key in columns
        if key == "test" or key.startswith(("near", "far"))
    }
    return found | {"calibration": score.combine(held[order[count:]]).numpy()}


def measure(name: str, seed: int, folder: Path, results: Results) -> None:
    """Add one record for each score and set of a network."""
    if results.where(network=name, seed=seed, score="default"):
        return
    columns = collect(name, seed, folder)
    every = {label: combined(columns, parts, seed) for label, parts in ABLATIONS.items()}
    for index, label in enumerate(map(str, columns["names"])):
        every[label] = {
            key: columns[key][:, index]
            for key in ("test", "calibration", *columns)
            if getattr(columns[key], "ndim", 0) == 2
        }
    for label, values in every.items():
        calibrator = ConformalCalibrator(values["calibration"])
        p_test = calibrator.p_value(values["test"])
        for key, found in values.items():
            if not key.startswith(("near", "far")):
                continue
            side, _, other = key.partition(": ")
            p = calibrator.p_value(found)
            results.add({
                "network": name, "seed": seed, "accuracy": float(columns["accuracy"]), "score": label, "set": other, "side": side,
                "auroc": auroc(values["test"], found), "normal flagged at 95% caught": fpr_at_tpr(values["test"], found, 0.95),
                "caught 1%": float((p <= 0.01).mean()), "caught 5%": float((p <= 0.05).mean()),
                "alarms 1%": float((p_test <= 0.01).mean()), "alarms 5%": float((p_test <= 0.05).mean()),
                "n calibration": calibrator.n, "n test": len(p_test),
            })  # fmt: skip


def costs(name: str, seed: int, folder: Path, results: Results) -> None:
    """CPU milliseconds of the network and of the guard over it, for a batch of 64, and MiB of what the guard stores."""
    net, rows, _ = load_network(name, seed, folder)
    x, y = rows.train[0][:3000], rows.train[1][:3000]
    guard = pf.NetworkGuard(net, 0.05).fit((x, y), calibration=rows.calibration[0][:300])
    batch = rows.test[0][:64]

    def times(call: Callable[[], Any]) -> float:
        call()
        found = []
        for _ in range(40):
            start = time.thread_time()
            call()
            found.append(1e3 * (time.thread_time() - start))
        return float(np.median(found))

    with torch.no_grad():
        bare, whole = times(lambda: net(batch)), times(lambda: guard(batch))
    size = sum(tensor.numel() * tensor.element_size() for tensor in guard.score_.buffers()) / 2**20
    results.add({"network": name, "seed": seed, "network ms": bare, "added ms": whole - bare, "MiB": size})


def redraws(name: str, seed: int, folder: Path, results: Results, count: int = 20) -> None:
    """Realized false-alarm rates of the default over redrawn calibration rows, against the beta-binomial distribution."""
    values = combined(collect(name, seed, folder), ABLATIONS["default"], seed)
    pool = np.concatenate((values["calibration"], values["test"]))
    for alpha in (0.01, 0.05):
        inside, rates, n = 0, [], len(pool) // 2
        for draw in range(count):
            order = np.random.default_rng(draw).permutation(len(pool))
            calibrator = ConformalCalibrator(pool[order[:n]])
            rate = float((calibrator.p_value(pool[order[n:]]) <= calibrator.threshold(alpha)).mean())
            low, high = realized_interval(n, len(pool) - n, alpha)
            inside += low <= rate <= high
            rates.append(rate)
        results.add({
            "network": name, "seed": seed, "redraws": count, "alpha": alpha, "inside": inside, "mean rate": float(np.mean(rates)),
            "n calibration": n, "n test": len(pool) - n,
        })  # fmt: skip


SHOWN = {
    "default": "default", "default with FeatureFlow": "default with a feature flow", "default without neighbors": "default without neighbors",
    "default without energy": "default without energy", "default without relative Mahalanobis": "default without relative Mahalanobis",
    "default without layers": "default without layers", "ViM": "ViM (equal to pytorch-ood's)", "pytorch-ood RMD": "RMD of pytorch-ood",
    "pytorch-ood GEN": "GEN of pytorch-ood", "pytorch-ood EnergyBased": "EnergyBased of pytorch-ood",
    "FeatureFlow": "feature flow, given the predicted class", "pytorch-ood Entropy": "Entropy of pytorch-ood",
    "pytorch-ood MaxSoftmax": "MaxSoftmax of pytorch-ood", "pytorch-ood GMM": "GMM of pytorch-ood", "pytorch-ood KNN": "KNN of pytorch-ood",
    "Mahalanobis": "Mahalanobis (equal to pytorch-ood's)",
}  # fmt: skip
NETWORKS = {"digits-mlp": "digits", "fashion-cnn": "Fashion-MNIST", "gtsrb-cnn": "traffic signs", "mnist-cnn": "MNIST"}


def short_table(results: Results) -> str:
    """The default, its parts and the best known scores: mean AUROC of near and far sets."""
    records = [record for record in results.records if "auroc" in record]

    def area(label: str, network: str, side: str) -> float:
        own = [r["auroc"] for r in records if (r["network"], r["score"], r["side"]) == (network, label, side)]
        return 100 * float(np.mean(own))

    if not all(any(r["score"] == label and r["network"] == n for r in records) for label in SHOWN for n in NETWORKS):
        return ""  # another selection of networks or scores
    rows = []
    for label, name in SHOWN.items():
        found = {side: [area(label, network, side) for network in NETWORKS] for side in ("near", "far")}
        each = [f"{near:.1f} / {far:.1f}" for near, far in zip(found["near"], found["far"], strict=True)]
        rows.append([name, *(f"{np.mean(found[side]):.1f}" for side in ("near", "far")), *each])
    return markdown(["score", "near", "far", *NETWORKS.values()], rows, ["---", *["---:"] * 6]) + "\n\n"


def tables(results: Results) -> str:
    """Near and far means of every score by network, and over all networks."""
    records = [record for record in results.records if "auroc" in record]
    networks = sorted({record["network"] for record in records})
    rows = []
    for label in dict.fromkeys(record["score"] for record in records):
        cells, sides = [], {"near": [], "far": []}
        for network in networks:
            for side in ("near", "far"):
                own = [r["auroc"] for r in records if (r["network"], r["score"], r["side"]) == (network, label, side)]
                cells.append(f"{100 * float(np.mean(own)):.1f}" if own else "–")
                sides[side] += [float(np.mean(own))] if own else []
        means = [f"{100 * float(np.mean(sides[side])):.1f}" if sides[side] else "–" for side in ("near", "far")]
        own = [r for r in records if r["score"] == label]
        keys = ("normal flagged at 95% caught", "caught 1%", "caught 5%", "alarms 1%", "alarms 5%")
        rates = [f"{100 * float(np.mean([r[key] for r in own])):.1f}" for key in keys]
        rows.append([label, *means, *cells, *rates])
    rows.sort(key=lambda row: -sum(float(cell) if cell != "–" else 0 for cell in row[1:3]))
    head = ["score", "near", "far", *(f"{n} {s}" for n in networks for s in ("near", "far")), "normal flagged at 95 % caught",
            "caught at 1 %", "at 5 %", "alarms at 1 %", "at 5 %"]  # fmt: skip
    return short_table(results) + markdown(head, rows, ["---", *["---:"] * (len(head) - 1)])
