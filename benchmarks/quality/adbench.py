"""Guard on the ADBench tables: realized false alarms, and detection compared with scikit-learn.

    python -m benchmarks.quality.adbench alarms --data DIR --out alarms.jsonl
    python -m benchmarks.quality.adbench detection --data DIR --out detection.jsonl
    python -m benchmarks.quality.adbench tables alarms.jsonl detection.jsonl

DIR contains ``adbench/*.npz`` (arrays X and y, 1 = anomaly). Both runs append one JSON line per result and skip existing ones.

Detection follows the clean protocol: half of the normal rows, shuffled, train every method; the other half and all
anomalies are scored; no duplication of rows. At most ``--rows`` rows are used to train and to score normal ones.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pushforward.detection import auroc, mean_rank, realized_interval, wins
from pushforward.estimators import Guard

LEVELS = (0.01, 0.05)


def tables(data: Path, least_normal: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, normal rows and anomalies of each set with enough normal rows, narrow sets first."""
    files = list((data / "adbench").glob("*.npz"))
    if not files:
        raise SystemExit(
            f"{data} has no adbench/*.npz: get the tables from github.com/Minqi824/ADBench, and give their folder by --data."
        )
    sizes = {}
    for path in files:
        with np.load(path, allow_pickle=False) as archive:
            if (archive["y"] == 0).sum() >= least_normal:
                sizes[path] = archive["X"].shape[::-1]
    for path in sorted(sizes, key=sizes.__getitem__):
        with np.load(path, allow_pickle=False) as archive:
            x, y = archive["X"].astype(np.float64), archive["y"]
        yield path.stem.split("_", 1)[1], x[y == 0], x[y == 1]


def alarms(data: Path, out: Path, splits: int, steps: int, rows: int) -> None:
    """Measure false-alarm rates on normal rows: one half fits the guard (a quarter of it calibrates), the other half is new."""
    done = {(r["set"], r["split"]) for r in results(out)}
    for name, normal, _ in tables(data, 1000):
        for split in range(splits):
            if (name, split) in done:
                continue
            order = np.random.default_rng(split).permutation(len(normal))[: 2 * rows]
            fit_rows, new_rows = np.array_split(normal[order], 2)
            start = time.perf_counter()
            # The PAC guarantee at 1% needs 299 calibration rows.
            guard = Guard(
                0.05, model="realnvp", n_estimators=1, max_steps=steps, random_state=split,
                calibration=max(299, len(fit_rows) // 4) if len(fit_rows) >= 600 else len(fit_rows) // 2,
            ).fit(fit_rows)  # fmt: skip
            scores = guard.anomaly_score(new_rows)
            calibrator = guard.calibrator_
            record = {"set": name, "split": split, "calibration": calibrator.n, "new": len(new_rows)}
            for alpha in LEVELS:
                for kind in ("marginal", "pac"):
                    try:
                        level = calibrator.threshold(alpha, kind, 0.05)
                    except ValueError:
                        continue
                    record[f"{kind}@{alpha}"] = float((calibrator.p_value(scores) <= level).mean())
            append(out, record | {"seconds": time.perf_counter() - start})


def detection(data: Path, out: Path, seeds: int, rows: int) -> None:
    """AUROC of each method on each set and seed."""
    done = {(r["set"], r["seed"]) for r in results(out)}
    for seed in range(seeds):
        for name, normal, anomalous in tables(data, 1000):
            if (name, seed) in done:
                continue
            order = np.random.default_rng(seed).permutation(len(normal))
            half = len(normal) // 2
            train, test = normal[order[:half][:rows]], normal[order[half:][:rows]]
            anomalies = anomalous[np.random.default_rng(seed).permutation(len(anomalous))[:rows]]
            record: dict = {"set": name, "seed": seed, "train": len(train), "columns": train.shape[1]}
            for method, fit in METHODS.items():
                start = time.perf_counter()
                score = fit(train, seed)
                record[method] = auroc(score(test), score(anomalies))
                record[f"{method} seconds"] = round(time.perf_counter() - start, 2)
            append(out, record)


Score = Callable[[np.ndarray], np.ndarray]


def guard_score(train: np.ndarray, seed: int) -> Score:
    # Five times the fewest calibration rows for 5%; the baselines are not calibrated and train on all rows.
    guard = Guard(0.05, calibration=95, random_state=seed).fit(train)
    return guard.anomaly_score


def forest_score(train: np.ndarray, seed: int) -> Score:
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(random_state=seed).fit(train)
    return lambda x: -forest.score_samples(x)


def lof_score(train: np.ndarray, seed: int) -> Score:
    from sklearn.neighbors import LocalOutlierFactor
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train)
    lof = LocalOutlierFactor(n_neighbors=20, novelty=True).fit(scaler.transform(train))
    return lambda x: -lof.score_samples(scaler.transform(x))


def knn_score(train: np.ndarray, seed: int) -> Score:
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train)
    near = NearestNeighbors(n_neighbors=5).fit(scaler.transform(train))
    return lambda x: near.kneighbors(scaler.transform(x))[0][:, -1]


METHODS: dict[str, Callable[[np.ndarray, int], Score]] = {
    "guard": guard_score, "knn": knn_score, "lof": lof_score, "iforest": forest_score,
}  # fmt: skip


def results(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: Path, record: dict) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(record, flush=True)


def print_alarms(records: list[dict]) -> None:
    """Print the mean realized rate and how many splits lie in the central 95% of the theoretical distribution."""
    sets = list(dict.fromkeys(r["set"] for r in records))
    print(
        "\n| set | calibration | new | "
        + " | ".join(f"marginal {a:.0%} | in central 95% | PAC {a:.0%} exceeded" for a in LEVELS)
        + " |"
    )
    print("| --- |" + " ---: |" * (2 + 3 * len(LEVELS)))
    total: dict[str, list[int]] = {}
    for name in sets:
        rows = [r for r in records if r["set"] == name]
        cells = [name, f"{rows[0]['calibration']}", f"{rows[0]['new']}"]
        for alpha in LEVELS:
            rates = [r[f"marginal@{alpha}"] for r in rows if f"marginal@{alpha}" in r]
            inside = [
                low <= r[f"marginal@{alpha}"] <= high
                for r in rows
                if f"marginal@{alpha}" in r
                for low, high in [realized_interval(r["calibration"], r["new"], alpha)]
            ]
            over = [pac_exceeded(r, alpha) for r in rows if f"pac@{alpha}" in r]
            total.setdefault(f"in {alpha}", []).extend(map(int, inside))
            total.setdefault(f"over {alpha}", []).extend(map(int, over))
            cells += [
                f"{np.mean(rates):.2%}" if rates else "-",
                f"{sum(inside)}/{len(inside)}",
                f"{sum(over)}/{len(over)}",
            ]
        print("| " + " | ".join(cells) + " |")
    for key, values in total.items():
        print(f"{key}: {sum(values)} of {len(values)} ({np.mean(values):.1%})")


def pac_exceeded(record: dict, alpha: float) -> bool:
    """Whether the realized rate on new rows is above alpha (the promise is on the true rate, of which this is a sample)."""
    return record[f"pac@{alpha}"] > alpha


def print_detection(records: list[dict]) -> None:
    """Print AUROC by set (mean over seeds), mean, mean rank and wins against each other method."""
    sets = sorted({r["set"] for r in records})
    table = {m: np.array([np.mean([r[m] for r in records if r["set"] == s]) for s in sets]) for m in METHODS}
    print("\n| set | columns | seeds | " + " | ".join(METHODS) + " |\n| --- | ---: | ---: |" + " ---: |" * len(METHODS))
    for i, name in enumerate(sets):
        mine = [r for r in records if r["set"] == name]
        print(
            f"| {name} | {mine[0]['columns']} | {len(mine)} | "
            + " | ".join(f"{table[m][i] * 100:.1f}" for m in METHODS)
            + " |"
        )
    ranks = mean_rank({m: list(v) for m, v in table.items()})
    best = int(np.argmax(table["guard"] - np.max([table[m] for m in METHODS if m != "guard"], 0)))
    rest = np.arange(len(sets)) != best
    print("| **mean** | | | " + " | ".join(f"{v.mean() * 100:.2f}" for v in table.values()) + " |")
    print(
        f"| mean without {sets[best]} | | | " + " | ".join(f"{v[rest].mean() * 100:.2f}" for v in table.values()) + " |"
    )
    print("| **mean rank** | | | " + " | ".join(f"{ranks[m]:.2f}" for m in METHODS) + " |")
    for m in METHODS:
        if m != "guard":
            pair = wins({"guard": list(table["guard"]), m: list(table[m])})
            print(f"guard against {m}: {pair['guard']:g} wins, {pair[m]:g} losses")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sub = parser.add_subparsers(dest="what", required=True)
    for what in ("alarms", "detection"):
        run = sub.add_parser(what)
        run.add_argument("--data", type=Path, default=Path(os.environ.get("PUSHFORWARD_DATA", "data")))
        run.add_argument("--out", type=Path, required=True)
        run.add_argument("--repeats", type=int, default=20 if what == "alarms" else 3)
        run.add_argument("--rows", type=int, default=4000 if what == "alarms" else 10_000)
        run.add_argument("--steps", type=int, default=300)
    sub.add_parser("tables").add_argument("files", nargs="+", type=Path)
    options = parser.parse_args()
    if options.what == "tables":
        for file in options.files:
            records = results(file)
            (print_alarms if "split" in records[0] else print_detection)(records)
    elif options.what == "alarms":
        alarms(options.data, options.out, options.repeats, options.steps, options.rows)
    else:
        detection(options.data, options.out, options.repeats, options.rows)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
