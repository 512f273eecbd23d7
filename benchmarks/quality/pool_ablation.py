"""What each family of statistics, and the weights, add to the score of tables.

    python -m benchmarks.quality.pool_ablation run --out ablation.jsonl
    python -m benchmarks.quality.pool_ablation tables ablation.jsonl
    python -m benchmarks.quality.pool_ablation efforts --out efforts.jsonl
    python -m benchmarks.quality.pool_ablation show efforts.jsonl

The rows are those of ``benchmarks.quality.adbench``; nine tenths of the training rows fit one pool a set and seed, and the weights
of its statistics are computed again for each variant. ``efforts`` fits a guard with each amount of work on the sets with at least 1,000
normal rows, and on some of them a guard with flows too, to see whether they change a score; the effort "thorough" is without them here.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.adbench import append, results, split, tables
from pushforward.data import Schema
from pushforward.detection import ConformalCalibrator, auroc
from pushforward.detection.table import EFFORTS, pool_fit
from pushforward.detection.table.ends import Ends, either
from pushforward.detection.table.families import FAMILIES, Family
from pushforward.detection.table.pool_fit import weigh
from pushforward.detection.table.tail_scale import TailScale
from pushforward.detection.table.yardstick import separation, weights
from pushforward.detection.table_features import TableFeatures
from pushforward.detection.table_score import TABLE_TRAINING, TableScore, fit_table_score
from pushforward.estimators import Guard
from pushforward.estimators.calibration_rows import split_rows

_WITH_FLOWS = 6  # sets on which flows are trained too

Keys = list[tuple[str, str]]


def kept(keep: Callable[[str, str], bool]) -> Callable[[Keys, np.ndarray], np.ndarray]:
    """The usual weights among some of the statistics."""

    def rule(keys: Keys, areas: np.ndarray) -> np.ndarray:
        chosen = np.array([keep(family, name) for family, name in keys])
        weight = np.zeros(len(keys))
        weight[chosen] = weigh([key for key, keep in zip(keys, chosen, strict=True) if keep], areas[chosen])
        return weight

    return rule


def without(family: str) -> Callable[[Keys, np.ndarray], np.ndarray]:
    """The usual weights without one family."""
    return kept(lambda f, name: f != family)


def without_statistic(start: str) -> Callable[[Keys, np.ndarray], np.ndarray]:
    """The usual weights without the statistics whose name begins so."""
    return kept(lambda f, name: not name.startswith(start))


def half(names: Callable[[Family], tuple[str, ...]]) -> Callable[[Keys, np.ndarray], np.ndarray]:
    """The twelve best of one half of the statistics."""

    def rule(keys: Keys, areas: np.ndarray) -> np.ndarray:
        chosen = np.array([name in names(FAMILIES[family]) for family, name in keys])
        weight = np.zeros(len(keys))
        weight[chosen] = weights(areas[chosen], 12)
        return weight

    return rule


VARIANTS: dict[str, Callable[[Keys, np.ndarray], np.ndarray]] = {
    "as it is": weigh,
    **{f"without {family}": without(family) for family in FAMILIES},
    **{
        f"without {start}*": without_statistic(start)
        for start in ("knn1", "knn5", "knn20", "knn50", "lof", "local", "density")
    },
    "distances alone": kept(lambda f, name: name.startswith("knn")),
    "equal weights of all": lambda keys, areas: np.ones(len(keys)),
    "equal weights of those that have one": lambda keys, areas: (weigh(keys, areas) > 0).astype(float),
    "all weight to the usual half": half(lambda family: family.statistics),
    "all weight to the robust half": half(lambda family: family.robust or family.statistics),
    "the best on mixes alone": lambda keys, areas: np.eye(len(keys))[np.argmax(areas)],
}
WITHOUT_ENDS = "without numbers beyond short ends"


class Captured:
    """Everything that :func:`~pushforward.detection.table.fit_pool` computes before it drops statistics without weight."""

    def __init__(self, train: np.ndarray, seed: int) -> None:
        schema, encoded = Schema.infer_encode(train)
        self.features = TableFeatures.fit(schema, encoded)
        original = pool_fit._assemble

        def capture(coordinates: Any, spaces: Any, parts: Any, values: Any, reasons: Any, **options: Any) -> Any:
            self.coordinates, self.spaces, self.parts, self.values = coordinates, spaces, parts, values
            self.ends: Ends | None = options["ends"]
            return original(coordinates, spaces, parts, values, reasons, **options)

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

    def tails(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """-log tail probability of each statistic, the score of numbers beyond short ends, and the cost of news, of rows."""
        matrix, news = self.features.impute(x)
        rows = self.coordinates(np.ascontiguousarray(matrix))
        found = {}
        for family in self.values:
            space = FAMILIES[family].space
            placed = rows if space is None else self.spaces(space, rows)
            found[family] = self.parts[family].score(np.ascontiguousarray(placed), set(self.values[family].normal))
        columns = [scale(found[f][name]) for (f, name), scale in zip(self.keys, self.scales, strict=True)]
        beyond = np.zeros(len(rows)) if self.ends is None else self.ends.score(rows)
        return np.stack(columns, axis=1), beyond, np.log(self.features.rows + 2) * news.sum(1)


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
            both = [pool.tails(x) for x in (test, anomalies)]
            record: dict[str, Any] = {"set": name, "seed": seed, "normal": len(normal)}
            weight = {variant: rule(pool.keys, pool.areas) for variant, rule in VARIANTS.items()}
            weight = {variant: each / each.sum() for variant, each in weight.items()}
            for variant, w in weight.items():
                record[variant] = auroc(*(either(tails @ w, beyond) + cost for tails, beyond, cost in both))
            record[WITHOUT_ENDS] = auroc(*(tails @ weight["as it is"] + cost for tails, _, cost in both))
            single = [auroc(*(tails[:, k] for tails, _, _ in both)) for k in range(len(pool.keys))]
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
    for variant in (*VARIANTS, WITHOUT_ENDS, "the best for each set, by its labels"):
        value = {s: 100 * float(np.mean([r[variant] for r in records if r["set"] == s])) for s in sets}
        groups = (sets, [s for s in sets if s in large], sets[::2], sets[1::2])
        print(f"| {variant} | {' | '.join(f'{np.mean([value[s] for s in group]):.2f}' for group in groups)} |")


def efforts(data: Path, out: Path, seeds: int, rows: int) -> None:
    """A guard of each effort on each set and seed, and on the first sets one with flows, which are hardly trained."""
    done = {(r["set"], r["seed"], r["effort"]) for r in results(out)}
    for seed in range(seeds):
        for k, (name, normal, anomalous) in enumerate(tables(data, 1000)):
            train, test, anomalies = split(normal, anomalous, seed, rows)
            for effort in EFFORTS:
                if (name, seed, effort) in done:
                    continue
                start = time.process_time()
                calibrator, score = fit_without_flows(train, effort, seed)
                fitted = time.process_time()
                on_test, on_anomalies = score.score(test), score.score(anomalies)
                record: dict[str, Any] = {
                    "set": name, "seed": seed, "effort": effort, "train": len(train), "columns": train.shape[1],
                    "auroc": auroc(on_test, on_anomalies), "fit cpu seconds": round(fitted - start, 3),
                    "score cpu seconds": round(time.process_time() - fitted, 3), "reference": len(score.pool), "scored": len(test) + len(anomalies),
                    "false alarms": float((calibrator.p_value(on_test) <= 0.05).mean()),
                    "alarms": float((calibrator.p_value(on_anomalies) <= 0.05).mean()),
                }  # fmt: skip
                if effort == "default" and seed == 0 and k < _WITH_FLOWS:
                    flows = Guard(0.05, density=True, n_estimators=1, max_steps=20, random_state=seed).fit(train)
                    found = (flows.anomaly_score(test), flows.anomaly_score(anomalies))
                    same = [np.array_equal(a, b) for a, b in zip(found, (on_test, on_anomalies), strict=True)]
                    record["scores with flows are equal"] = all(same)
                append(out, record)


def fit_without_flows(train: np.ndarray, effort: str, seed: int) -> tuple[ConformalCalibrator, TableScore]:
    """The calibrator and the score of a guard; the effort "thorough" would train flows, which have no part in the score."""
    if effort != "thorough":
        guard = Guard(0.05, effort=effort, random_state=seed).fit(train)
        assert isinstance(guard.score_, TableScore)
        return guard.calibrator_, guard.score_
    fitted, kept, _ = split_rows(len(train), None, 0.05, "marginal", 0.05, seed)
    score = fit_table_score(train[fitted], effort=effort, config=replace(TABLE_TRAINING, seed=seed))
    return ConformalCalibrator(score.score(train[kept])), score


def show_efforts(records: list[dict[str, Any]]) -> None:
    """Means of each effort over sets and seeds, and its paired difference to the default."""
    seeds = sorted({r["seed"] for r in records})
    value = {(r["set"], r["seed"], r["effort"]): r for r in records}
    pairs = [
        (s, k)
        for s in dict.fromkeys(r["set"] for r in records)
        for k in seeds
        if all((s, k, e) in value for e in EFFORTS)
    ]
    sets = list(dict.fromkeys(s for s, _ in pairs))
    print(f"{len(sets)} sets, seeds {', '.join(map(str, seeds))}\n")
    print(
        "| effort | AUROC | difference to the default | sets ahead, behind | largest loss | caught at the promised 5% | false alarms | CPU seconds to fit | to score 1,000 rows |"
    )
    print("| --- |" + " ---: |" * 8)
    for effort in EFFORTS:
        mine = [value[s, k, effort] for s, k in pairs]
        gains = {
            s: np.mean(
                [100 * (value[s, k, effort]["auroc"] - value[s, k, "default"]["auroc"]) for t, k in pairs if t == s]
            )
            for s in sets
        }
        gain, worst = np.array(list(gains.values())), min(gains, key=lambda s: gains[s])
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        ahead = f"{(gain > 0).sum()}, {(gain < 0).sum()}"
        lost = f"{gains[worst]:+.2f} ({worst})"
        cells = ["-"] * 3 if effort == "default" else [f"{gain.mean():+.2f} ± {error:.2f}", ahead, lost]
        cells = [f"{100 * np.mean([r['auroc'] for r in mine]):.2f}", *cells]
        cells += [f"{np.mean([r['alarms'] for r in mine]):.1%}", f"{np.mean([r['false alarms'] for r in mine]):.2%}"]
        cells += [f"{np.mean([r['fit cpu seconds'] for r in mine]):.2f}"]
        cells += [f"{np.mean([1000 * r['score cpu seconds'] / (r['scored']) for r in mine]):.3f}"]
        print(f"| {effort} | {' | '.join(cells)} |")
    same = [r["scores with flows are equal"] for r in records if "scores with flows are equal" in r]
    print(f"\nWith flows too every score was the same in {sum(same)} of {len(same)} sets.")


def main() -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sub = parser.add_subparsers(dest="what", required=True)
    made = sub.add_parser("run")
    levels = sub.add_parser("efforts")
    for each, repeats in ((made, 2), (levels, 1)):
        each.add_argument("--data", type=Path, default=Path(os.environ.get("PUSHFORWARD_DATA", "data")))
        each.add_argument("--out", type=Path, required=True)
        each.add_argument("--repeats", type=int, default=repeats)
        each.add_argument("--rows", type=int, default=3000)
    sub.add_parser("tables").add_argument("file", type=Path)
    sub.add_parser("show").add_argument("file", type=Path)
    options = parser.parse_args()
    if options.what == "tables":
        print_tables(results(options.file))
    elif options.what == "show":
        show_efforts(results(options.file))
    else:
        {"run": run, "efforts": efforts}[options.what](options.data, options.out, options.repeats, options.rows)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
