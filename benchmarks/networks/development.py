"""How the default score was chosen: every score and every small combination on the development networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.common.results import markdown
from pushforward.detection import auroc
from pushforward.detection.network import Combined, Energy

__all__ = ["COMBINATIONS", "compare"]

N, R, L, E = "Neighbors k=3 of 1000", "RelativeMahalanobis", "LayerMahalanobis", "Energy"
COMBINATIONS: dict[str, list[str]] = {
    "neighbors + energy": [N, E],
    "neighbors + layers": [N, L],
    "neighbors + energy + layers": [N, E, L],
    "neighbors + energy + relative + layers": [N, E, R, L],
    "neighbors + energy + relative + layers / 2": [N, N, E, E, R, R, L],
    "neighbors + GEN + layers": [N, "GEN", L],
    "neighbors + relative + layers": [N, R, L],
    "neighbors + GEN + relative + layers": [N, "GEN", R, L],
    "neighbors + softmax + relative + layers": [N, "MaxSoftmax", R, L],
    "neighbors + energy + ViM + layers": [N, E, "ViM", L],
    "neighbors + energy + relative + ViM + layers": [N, E, R, "ViM", L],
    "neighbors + energy + layers + mixture": [N, E, L, "Mixture"],
    "neighbors + energy + relative + mixture + layers": [N, E, R, L, "Mixture"],
    "neighbors + energy + layers + flow": [N, E, L, "FeatureFlow"],
    "neighbors + energy + relative + layers + flow": [N, E, R, L, "FeatureFlow"],
    "neighbors + energy + relative + layers + Grams": [N, E, R, L, "GramMatrices"],
}
"""Combinations by name."""
RULES = {
    "mean": lambda u: u.mean(1),
    "root mean square": lambda u: np.sqrt((u**2).mean(1)),
    "maximum": lambda u: u.max(1),
}
"""How surprises become one score."""


def compare(networks: list[dict[str, Any]]) -> str:
    """A table of mean AUROC over near and far sets, and how far each entry is behind the best single score of a network at most."""
    found: dict[str, list[tuple[float, float]]] = {}
    for columns in networks:
        names = [str(name) for name in columns["names"]]
        sides = {key: key.split(":")[0] for key in columns if key.startswith(("near", "far"))}
        score = Combined([Energy()] * len(names))
        score.set_scale(torch.from_numpy(columns["calibration"][:900]))
        surprise = {key: score.surprise(torch.from_numpy(columns[key])).numpy() for key in ("test", *sides)}

        def add(label: str, values: dict[str, np.ndarray], sides: dict[str, str] = sides) -> None:
            each = {key: auroc(values["test"], values[key]) for key in sides}
            means = [float(np.mean([each[key] for key in sides if sides[key] == side])) for side in ("near", "far")]
            found.setdefault(label, []).append((means[0], means[1]))

        for index, name in enumerate(names):
            add(name, {key: columns[key][:, index] for key in ("test", *sides)})
        for label, parts in COMBINATIONS.items():
            index = [names.index(part) for part in parts]
            for rule, combine in RULES.items():
                add(f"{label}, {rule}", {key: combine(surprise[key][:, index]) for key in ("test", *sides)})
    single = np.max([np.array(values) for label, values in found.items() if "," not in label], axis=0)
    order = sorted(found.items(), key=lambda item: -float(np.mean(item[1])))
    rows = []
    for label, values in order:
        near, far = 100 * np.mean(values, axis=0)
        rows.append([label, f"{near:.1f}", f"{far:.1f}", f"{100 * float((single - np.array(values)).max()):.1f}"])
    return markdown(
        ["score", "near", "far", "most behind the best single score"], rows, ["---", "---:", "---:", "---:"]
    )
