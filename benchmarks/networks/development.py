"""How the default score was chosen: every score and every small combination on the development networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.common.results import Results, markdown
from benchmarks.networks.combinations import COMBINATIONS
from pushforward.detection import auroc
from pushforward.detection.network import Combined, Energy
from pushforward.detection.network.combined import SMALLEST_REFERENCE

__all__ = ["measure", "table"]

RULES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "mean": lambda u, weights: u @ weights,
    "root mean square": lambda u, weights: np.sqrt(u**2 @ weights),
    "maximum": lambda u, weights: (u * weights**0.5).max(1),
}
"""How surprises become one score, with weights of sum one."""


_SINGLES = 6
"""Number of single scores in the short table."""


def measure(name: str, seed: int, columns: dict[str, Any], results: Results) -> None:
    """Add the mean AUROC over near and far sets of every score and every combination on a development network."""
    if results.where(network=name, seed=seed):
        return
    names = [str(part) for part in columns["names"]]
    sides = {key: key.split(":")[0] for key in columns if key.startswith(("near", "far"))}
    score = Combined([Energy()] * len(names))
    held = torch.from_numpy(columns["calibration"])
    score.set_scale(held[: max(SMALLEST_REFERENCE, round(0.3 * len(held)))])
    surprise = {key: score.surprise(torch.from_numpy(columns[key])).numpy() for key in ("test", *sides)}

    def add(label: str, rule: str, values: dict[str, np.ndarray]) -> None:
        each = {key: auroc(values["test"], values[key]) for key in sides}
        means = {side: float(np.mean([each[key] for key in sides if sides[key] == side])) for side in ("near", "far")}
        left_out = each["near: left-out classes"]
        results.add({"network": name, "seed": seed, "score": label, "rule": rule, "left out": left_out, **means})

    for index, part in enumerate(names):
        add(part, "", {key: columns[key][:, index] for key in ("test", *sides)})
    for label, parts in COMBINATIONS.items():
        if not parts.keys() <= set(names):
            continue
        index = [names.index(part) for part in parts]
        weights = np.array(list(parts.values())) / sum(parts.values())
        for rule, combine in RULES.items():
            add(label, rule, {key: combine(surprise[key][:, index], weights) for key in ("test", *sides)})


def table(results: Results) -> str:
    """Mean AUROC of left-out classes, near and far sets, and how far each entry is behind the best single score of a network at most."""
    found: dict[tuple[str, str], dict[tuple[str, int], list[float]]] = {}
    for record in results.records:
        numbers = [100 * record[key] for key in ("left out", "near", "far")]
        found.setdefault((record["score"], record["rule"]), {})[record["network"], record["seed"]] = numbers
    networks = sorted({network for values in found.values() for network in values})
    if not networks:
        return "no development network was measured yet"
    arrays = {
        key: np.array([values[network] for network in networks])
        for key, values in found.items()
        if len(values) == len(networks)
    }
    single = np.max([values for (_, rule), values in arrays.items() if not rule], axis=0)
    order = sorted(arrays.items(), key=lambda item: -float(item[1][:, 1:].mean()))
    lines = []
    for (label, rule), values in order:
        most = (single - values)[:, 1:].max()
        name = f"{label}, {rule}" if rule else label
        lines.append((label, rule, [name, *(f"{value:.2f}" for value in values.mean(0)), f"{most:.1f}"]))
    singles = [label for label, rule, _ in lines if not rule][:_SINGLES]
    short = [row for label, rule, row in lines if rule == "root mean square" or label in singles]
    head = ["score", "left-out classes", "near", "far", "most behind the best single score"]
    align = ["---", *["---:"] * 4]
    parts = [
        f"{len(networks)} development networks",
        markdown(head, short, align),
        markdown(head, [row for *_, row in lines], align),
    ]
    return "\n\n".join(parts)
