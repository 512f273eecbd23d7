"""What each family of statistics, and the weights, add to the score of tables.

    python -m benchmarks.quality.pool_ablation run --out ablation.jsonl
    python -m benchmarks.quality.pool_ablation tables ablation.jsonl

The rows are those of ``benchmarks.quality.adbench``; nine tenths of the training rows fit one pool a set and seed, and the weights
of its statistics are computed again for each variant.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.adbench import append, results, split, tables
from pushforward.data import Schema
from pushforward.detection import auroc
from pushforward.detection.table import pool_fit
from pushforward.detection.table.families import FAMILIES
from pushforward.detection.table.tail_scale import TailScale
from pushforward.detection.table.yardstick import separation, weights
from pushforward.detection.table_features import TableFeatures

Keys = list[tuple[str, str]]


def kept(keep: Callable[[str, str], bool]) -> Callable[[Keys, np.ndarray], np.ndarray]:
    """The usual weights among some of the statistics."""

    def rule(keys: Keys, areas: np.ndarray) -> np.ndarray:
        chosen = np.array([keep(family, name) for family, name in keys])
        weight = np.zeros(len(keys))
        weight[chosen] = weights(areas[chosen])
        return weight

    return rule


def without(family: str) -> Callable[[Keys, np.ndarray], np.ndarray]:
    return kept(lambda f, name: f != family)


def without_statistic(start: str) -> Callable[[Keys, np.ndarray], np.ndarray]:
    return kept(lambda f, name: not name.startswith(start))


VARIANTS: dict[str, Callable[[Keys, np.ndarray], np.ndarray]] = {
    "as it is": lambda keys, areas: weights(areas),
    **{f"without {family}": without(family) for family in FAMILIES},
    **{f"without {start}*": without_statistic(start) for start in ("knn1", "knn5", "lof", "local", "density")},
    "distances alone": kept(lambda f, name: name.startswith("knn")),
    "equal weights of all": lambda keys, areas: np.ones(len(keys)),
    "equal weights of the best twelve on mixes": lambda keys, areas: (weights(areas) > 0).astype(float),
    "the best on mixes alone": lambda keys, areas: np.eye(len(keys))[np.argmax(areas)],
}


class Captured:
    """Everything that :func:`~pushforward.detection.table.fit_pool` computes before it drops statistics without weight."""

    def __init__(self, train: np.ndarray, seed: int) -> None:
        schema, encoded = Schema.infer_encode(train)
        self.features = TableFeatures.fit(schema, encoded)
        original = pool_fit._assemble

        def capture(coordinates: Any, spaces: Any, parts: Any, values: Any, reasons: Any, *, yardstick: bool) -> Any:
            self.coordinates, self.spaces, self.parts, self.values = coordinates, spaces, parts, values
            return original(coordinates, spaces, parts, values, reasons, yardstick=yardstick)

        pool_fit._assemble = capture
        try:
            pool_fit.fit_pool(self.features, self.features.transform(encoded), seed=seed)
        finally:
            pool_fit._assemble = original
        self.keys = [(f, name) for f, value in self.values.items() for name in value.normal]
        pairs = [(self.values[f].normal[name], self.values[f].mixed[name]) for f, name in self.keys]
        self.areas = np.array([separation(*pair) if len(pair[1]) else 0.5 for pair in pairs])
        self.scales = [TailScale.fit(normal, logarithmic=FAMILIES[f].logarithmic(name))
                       for (f, name), (normal, _) in zip(self.keys, pairs, strict=True)]  # fmt: skip

    def tails(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """-log tail probability of each statistic, and the cost of news, of rows."""
        matrix, news = self.features.impute(x)
        rows = self.coordinates(np.ascontiguousarray(matrix))
        found = {}
        for family in self.values:
            space = FAMILIES[family].space
            placed = rows if space is None else self.spaces(space, rows)
            found[family] = self.parts[family].score(np.ascontiguousarray(placed), set(self.values[family].normal))
        columns = [scale(found[f][name]) for (f, name), scale in zip(self.keys, self.scales, strict=True)]
        return np.stack(columns, axis=1), np.log(self.features.rows + 2) * news.sum(1)


def run(data: Path, out: Path, seeds: int, rows: int) -> None:
    """AUROC of each variant on each set and seed."""
    done = {(r["set"], r["seed"]) for r in results(out)}
    for seed in range(seeds):
        for name, normal, anomalous in tables(data, 0):
            if (name, seed) in done:
                continue
            start = time.process_time()
            train, test, anomalies = split(normal, anomalous, seed, rows)
            pool = Captured(train[np.random.default_rng(seed).permutation(len(train))[len(train) // 10 :]], seed)
            (on_test, cost_test), (on_anomalies, cost_anomalies) = pool.tails(test), pool.tails(anomalies)
            record: dict[str, Any] = {"set": name, "seed": seed, "normal": len(normal)}
            for variant, rule in VARIANTS.items():
                weight = rule(pool.keys, pool.areas)
                weight = weight / weight.sum()
                record[variant] = auroc(on_test @ weight + cost_test, on_anomalies @ weight + cost_anomalies)
            single = [auroc(on_test[:, k], on_anomalies[:, k]) for k in range(len(pool.keys))]
            record["the best for each set, by its labels"] = max(single)
            append(out, record | {"cpu seconds": round(time.process_time() - start, 2)})


def print_tables(records: list[dict[str, Any]]) -> None:
    """Means over the sets, and over those with at least 1,000 normal rows."""
    sets = sorted({r["set"] for r in records}, key=str.lower)
    large = {r["set"] for r in records if r["normal"] >= 1000}
    seeds = min(sum(r["set"] == s for r in records) for s in sets)
    print(
        f"\n{len(sets)} sets, at least {seeds} seeds\n\n| variant | all | at least 1,000 normal rows | first half | second half |"
    )
    print("| --- | ---: | ---: | ---: | ---: |")
    for variant in (*VARIANTS, "the best for each set, by its labels"):
        value = {s: 100 * float(np.mean([r[variant] for r in records if r["set"] == s])) for s in sets}
        groups = (sets, [s for s in sets if s in large], sets[::2], sets[1::2])
        print(f"| {variant} | {' | '.join(f'{np.mean([value[s] for s in group]):.2f}' for group in groups)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sub = parser.add_subparsers(dest="what", required=True)
    made = sub.add_parser("run")
    made.add_argument("--data", type=Path, default=Path(os.environ.get("PUSHFORWARD_DATA", "data")))
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--repeats", type=int, default=2)
    made.add_argument("--rows", type=int, default=3000)
    sub.add_parser("tables").add_argument("file", type=Path)
    options = parser.parse_args()
    if options.what == "tables":
        print_tables(results(options.file))
    else:
        run(options.data, options.out, options.repeats, options.rows)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
