"""Every score of a network on its held-out rows, its test rows and other sets, kept as arrays so that they are computed once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.networks.peers import peer_scores
from benchmarks.networks.sets import LARGEST, development_sets, test_sets
from benchmarks.networks.tasks import TASKS
from benchmarks.networks.training import load_network
from pushforward.detection import network as scores
from pushforward.detection.network import Combined, NetworkReader
from pushforward.detection.network.fitting import gather, held_out_columns, read_for
from pushforward.detection.network.streaming import batches

__all__ = ["CANDIDATES", "collect"]

MOST_TRAIN = 10_000
"""Most training rows on which scores are fitted."""
MOST_CALIBRATION = 1500
"""Most held-out rows."""

CANDIDATES: dict[str, Callable[[], Any]] = {
    "MaxSoftmax": scores.MaxSoftmax,
    "Temperature": scores.Temperature,
    "MaxLogit": scores.MaxLogit,
    "MaxLogit p=2": lambda: scores.MaxLogit(2.0),
    "Energy": scores.Energy,
    "Entropy": scores.Entropy,
    "GEN": scores.GEN,
    "KLMatching": scores.KLMatching,
    "OpenMax": scores.OpenMax,
    "Mahalanobis": scores.Mahalanobis,
    "RelativeMahalanobis": scores.RelativeMahalanobis,
    "LayerMahalanobis": scores.LayerMahalanobis,
    "LayerRelativeMahalanobis": scores.LayerRelativeMahalanobis,
    "LayerNeighbors": lambda: scores.LayerNeighbors(1, 500),
    "LayerNeighbors k=1 of 250": lambda: scores.LayerNeighbors(1, 250, single=True),
    "LayerNeighbors k=1 of 100": lambda: scores.LayerNeighbors(1, 100),
    "LayerNeighbors k=3 of 1000": lambda: scores.LayerNeighbors(3, 1000),
    "Mixture": scores.Mixture,
    "Neighbors": scores.Neighbors,
    "Neighbors k=1 of 500": lambda: scores.Neighbors(1, 500, single=True),
    "Neighbors k=1 of 250": lambda: scores.Neighbors(1, 250),
    "Neighbors k=1 of 100": lambda: scores.Neighbors(1, 100),
    "Neighbors k=3 of 1000": lambda: scores.Neighbors(3, 1000),
    "Residual": scores.Residual,
    "ViM": scores.ViM,
    "SHE": scores.SHE,
    "ReAct": scores.ReAct,
    "GradNorm": scores.GradNorm,
    "GramMatrices": lambda: scores.GramMatrices(2),
    "DeepSVDD": scores.DeepSVDD,
    "FeatureFlow": lambda: scores.FeatureFlow(max_steps=400),
    "FeatureFlow marginal": lambda: scores.FeatureFlow(False, max_steps=400),
    "FeatureFlow path": lambda: scores.FeatureFlow(False, "path", max_steps=400),
}

_SLOW = ("FeatureFlow", "FeatureFlow marginal", "FeatureFlow path", "GramMatrices", "DeepSVDD")


def collect(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """The statistics of a network: arrays ``(rows, parts)`` by set, with "test" and "calibration".

    What a file holds is read; scores that it lacks are computed and added to it.
    """
    file = folder / f"columns-{name}-{seed}.npz"
    known: dict[str, Any] = {}
    if file.exists():
        with np.load(file, allow_pickle=False) as stored:
            known = dict(stored)
    task, start, have = TASKS[name], time.process_time(), set(map(str, known.get("names", ())))
    left_out = {*have, *(_SLOW if task.development else ())}
    parts = {label: make for label, make in CANDIDATES.items() if label not in left_out}
    if known and not parts:
        return known
    net, rows, accuracy = load_network(name, seed, folder)
    if not known and not task.development:
        parts |= peer_scores(net, rows)
    score = Combined([make() for make in parts.values()])
    reader = NetworkReader(net)
    x, y = rows.train
    stream = batches((x[:MOST_TRAIN], y[:MOST_TRAIN]), 250, "training")
    fitted = gather(reader, stream, lambda classifies: score, "classify", size=10_000, seed=0)
    score.fit(fitted.gathered)

    def values(inputs: Tensor) -> np.ndarray:
        readings = (read_for(reader, score, part, True) for part in inputs.split(250))
        return held_out_columns(score, readings)[0].numpy()

    found = {"calibration": values(rows.calibration[0][:MOST_CALIBRATION]), "test": values(rows.test[0][:LARGEST])}
    sets = development_sets(rows) if task.development else test_sets(task, rows)
    for key, (side, inputs) in sets.items():
        found[f"{side}: {key}"] = values(inputs)
    joined: dict[str, Any] = {key: np.concatenate([known[key], new], 1) if known else new for key, new in found.items()}
    joined |= {"names": np.array([*known.get("names", ()), *parts]), "accuracy": np.array(accuracy)}
    np.savez(file, **joined)
    print(
        f"{name} seed {seed}: {len(parts)} scores of {len(sets)} sets in {time.process_time() - start:.0f} s",
        flush=True,
    )
    return joined
