"""How much weight the statistics of many neighbors have in the score of tables: clean rows, and anomalies among the training rows.

    python -m benchmarks.quality.robust_weight run --data DIR --out robust-weight.jsonl
    python -m benchmarks.quality.robust_weight show robust-weight.jsonl

Clean rows are those of ``benchmarks.quality.adbench``, at most 1,500 normal rows and 1,500 anomalies scored, without InternetAds. With
anomalies they are those of ``benchmarks.quality.contamination`` on twelve sets. All variants weigh the same statistics. These figures
chose the share of the weight, so they are of development.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.adbench import append, results, split, tables
from benchmarks.quality.contamination import LEVELS
from benchmarks.quality.pool_ablation import Captured, Keys
from benchmarks.quality.table_detectors import DETECTORS
from pushforward.detection import auroc
from pushforward.detection.table.families import FAMILIES
from pushforward.detection.table.yardstick import weights

NAMES = ("pendigits", "cover", "annthyroid", "breastw", "vowels", "letter", "thyroid", "WDBC", "Stamps", "landsat", "satellite", "Pima")  # fmt: skip
MOST = 1500


def mixed(share: float, count: int) -> Callable[[Keys, np.ndarray], np.ndarray]:
    """``share`` of the weight for robust statistics, ``count`` of each half."""

    def rule(keys: Keys, areas: np.ndarray) -> np.ndarray:
        weight = np.zeros(len(keys))
        for part, robust in ((1 - share, False), (share, True)):
            names = [(FAMILIES[f].robust if robust else ()) or FAMILIES[f].statistics for f, _ in keys]
            half = np.array([name in of for (_, name), of in zip(keys, names, strict=True)])
            if part:
                weight[half] += part * weights(areas[half], count)
        return weight

    return rule


VARIANTS: dict[str, Callable[[Keys, np.ndarray], np.ndarray]] = {
    "none, twelve statistics (as before)": mixed(0.0, 12),
    "a quarter, twelve of each half": mixed(0.25, 12),
    "half, twelve of each half": mixed(0.5, 12),
    "half, eight of each half": mixed(0.5, 8),
    "half, six of each half (chosen)": mixed(0.5, 6),
    "half, four of each half": mixed(0.5, 4),
    "all, twelve statistics": mixed(1.0, 12),
}


def measure(train: np.ndarray, normal: np.ndarray, odd: np.ndarray, seed: int) -> dict[str, float]:
    """AUROC of each variant and of kNN."""
    pool = Captured(train, 0)
    (on_normal, _, cost_normal), (on_odd, _, cost_odd) = pool.tails(normal), pool.tails(odd)
    found = {}
    for name, rule in VARIANTS.items():
        weight = rule(pool.keys, pool.areas)
        found[name] = auroc(on_normal @ weight + cost_normal, on_odd @ weight + cost_odd)
    score = DETECTORS["knn5"](train, seed)
    return found | {"kNN (5)": auroc(score(normal), score(odd))}


def run(data: Path, out: Path, seeds: int) -> None:
    """What is missing."""
    done = {(r["set"], r["seed"], r["level"]) for r in results(out)}
    for seed in range(seeds):
        for name, normal, odd in tables(data, 0):
            if name != "InternetAds" and (name, seed, "clean") not in done:
                train, new, anomalies = split(normal, odd, seed, 3000)
                record = {"set": name, "seed": seed, "level": "clean", "normal": len(normal)}
                append(out, record | measure(train, new[:MOST], anomalies[:MOST], seed))
            if name not in NAMES:
                continue
            rng = np.random.default_rng(seed)
            a, b = rng.permutation(len(normal)), rng.permutation(len(odd))
            count = min(len(normal) // 2, 800)
            for level in LEVELS:
                if (name, seed, level) in done:
                    continue
                some = min(round(level * count / (1 - level)), len(odd) // 2)
                train = np.concatenate((normal[a[:count]], odd[b[:some]]))
                found = measure(train, normal[a[count : count + MOST]], odd[b[len(odd) // 2 :][:MOST]], seed)
                append(out, {"set": name, "seed": seed, "level": level, "normal": count} | found)


def show(records: list[dict[str, Any]]) -> None:
    """Means over sets and seeds."""
    print("| share of the robust statistics | clean | at least 1,000 normal rows | " + " | ".join(f"{level:.0%} anomalies" for level in LEVELS) + " |")  # fmt: skip
    print("| --- |" + " ---: |" * (2 + len(LEVELS)))
    clean = [r for r in records if r["level"] == "clean"]
    groups = [clean, [r for r in clean if r["normal"] >= 1000]] + [
        [r for r in records if r["level"] == level] for level in LEVELS
    ]
    for variant in (*VARIANTS, "kNN (5)"):
        print(f"| {variant} | " + " | ".join(f"{100 * np.mean([r[variant] for r in group]):.2f}" for group in groups) + " |")  # fmt: skip


def main() -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "show"))
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("robust-weight.jsonl"))
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.what == "run":
        run(given.data, given.out, given.seeds)
    else:
        show(results(given.file))


if __name__ == "__main__":
    main()
