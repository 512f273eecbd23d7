"""Anomalies among the training rows: AUROC of the score with and without a bound on their fraction, beside kNN.

    python -m benchmarks.quality.contamination run --data DIR --out contamination.jsonl [--names letter cover]
    python -m benchmarks.quality.contamination tables contamination.jsonl
    python -m benchmarks.quality.contamination promise --data DIR --out bound.jsonl --names letter cover
    python -m benchmarks.quality.contamination bounds bound.jsonl

Of each ADBench set at most 800 normal rows train, and at most half of the anomalies are mixed in, 0 to 10 % of the rows.
Other normal rows and the other anomalies (1,500 each) are scored. kNN is the distance to the fifth neighbor of standardized
rows, fitted on the same rows. The bound is 10 % at every level, as a user would give it who knows no better.

``promise`` fits guards (alpha = 5 %, a quarter of the rows calibrates) with that bound to the same rows, and counts the alarms on new
normal rows. If t of n calibration scores were left out and all were of normal rows, the rate is at most alpha + t / (n - t + 1).
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from pushforward.detection import realized_interval
from pushforward.detection.conformal.trimming import trimmed_bound
from pushforward.detection.table_score import fit_table_score
from pushforward.estimators import Guard

LEVELS = (0.0, 0.02, 0.05, 0.1)
BOUND = 0.1
CHOSE = (
    "Pima", "Stamps", "WDBC", "annthyroid", "breastw", "cover", "landsat", "letter", "pendigits", "satellite", "thyroid", "vowels",
)  # fmt: skip
"""The sets that were looked at while it was chosen what a guard does with a bound, and how many neighbors it looks at."""


def run(data: Path, out: Path, names: list[str], seeds: int, effort: str) -> None:
    """AUROC of each score on each set, seed and fraction of anomalies, as far as it is missing."""
    done = {(r["set"], r["seed"], r["level"]) for r in results(out)}
    for path in sorted((data / "adbench").glob("*.npz")):
        name = path.stem.split("_", 1)[1]
        if names and name not in names:
            continue
        with np.load(path, allow_pickle=False) as archive:
            x, y = archive["X"].astype(float), archive["y"]
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            normal, odd = rng.permutation(np.flatnonzero(y == 0)), rng.permutation(np.flatnonzero(y == 1))
            count = min(len(normal) // 2, 800)
            new = np.concatenate((normal[count : count + 1500], odd[len(odd) // 2 :][:1500]))
            for level in LEVELS:
                if (name, seed, level) in done:
                    continue
                mixed = min(round(level * count / (1 - level)), len(odd) // 2)
                train = x[np.concatenate((normal[:count], odd[:mixed]))]
                scaler = StandardScaler().fit(train)
                neighbors = NearestNeighbors(n_neighbors=5).fit(scaler.transform(train))
                scores = {
                    "kNN": neighbors.kneighbors(scaler.transform(x[new]))[0][:, -1],
                    "score": fit_table_score(train, effort=effort).score(x[new]),
                    "score, bound 10 %": fit_table_score(train, effort=effort, contamination=BOUND).score(x[new]),
                }
                if level == 0:
                    scores["without rows"] = fit_table_score(train, effort=effort, store_rows=False).score(x[new])
                line = {"set": name, "seed": seed, "level": level, "anomalies": mixed, "rows": len(train)}
                line |= {key: float(roc_auc_score(y[new], np.nan_to_num(s))) for key, s in scores.items()}
                with out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(json.dumps(line), flush=True)


def promise(data: Path, out: Path, names: list[str], seeds: int) -> None:
    """Alarms on new normal rows of guards with a bound, beside the rate that they state."""
    done = {(r["set"], r["seed"], r["level"]) for r in results(out)}
    for path in sorted((data / "adbench").glob("*.npz")):
        name = path.stem.split("_", 1)[1]
        if names and name not in names:
            continue
        with np.load(path, allow_pickle=False) as archive:
            x, y = archive["X"].astype(float), archive["y"]
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            normal, odd = rng.permutation(np.flatnonzero(y == 0)), rng.permutation(np.flatnonzero(y == 1))
            count = min(len(normal) // 2, 800)
            new = x[normal[count : count + 1500]]
            for level in LEVELS:
                if (name, seed, level) in done:
                    continue
                mixed = min(round(level * count / (1 - level)), len(odd) // 2)
                train = x[np.concatenate((normal[:count], odd[:mixed]))]
                guard = Guard(0.05, effort="fast", calibration=0.25, max_contamination=BOUND, random_state=seed).fit(
                    train
                )
                trimmed = guard.calibration_.trimmed
                n = guard.calibrator_.n + trimmed
                line = {
                    "set": name,
                    "seed": seed,
                    "level": level,
                    "calibration": n,
                    "trimmed": trimmed,
                    "new": len(new),
                }
                line |= {"bound": trimmed_bound(0.05, n, trimmed), "alarms": float((guard.predict(new) == -1).mean())}
                with out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(json.dumps(line), flush=True)


def bounds(path: Path) -> None:
    """Print the realized rates beside the stated bounds, for each fraction of anomalies."""
    lines = [r for r in results(path) if r["calibration"] - r["trimmed"] >= 19]  # fewer raise no alarm at 5 %
    print(
        "| anomalies in training | guards | calibration scores left out | bound for those left out | false alarms | above the interval of alpha = 5% | above that of the bound |"
    )
    print("| --- |" + " ---: |" * 6)
    for level in LEVELS:
        mine = [r for r in lines if r["level"] == level]
        if not mine:
            continue
        over = [
            sum(r["alarms"] > realized_interval(r["calibration"] - r["trimmed"], r["new"], a(r))[1] for r in mine)
            for a in (lambda r: 0.05, lambda r: r["bound"])
        ]
        trimmed = np.mean([r["trimmed"] / r["calibration"] for r in mine])
        rates, stated = (np.array([r[what] for r in mine]) for what in ("alarms", "bound"))
        print(f"| {level:.0%} | {len(mine)} | {trimmed:.1%} | {stated.mean():.1%} | {rates.mean():.2%} ± {rates.std(ddof=1):.2%} | "
              f"{over[0]} of {len(mine)} | {over[1]} of {len(mine)} |")  # fmt: skip


def results(path: Path) -> list[dict[str, Any]]:
    """The records of a file, if there is one."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(lines: list[dict[str, Any]]) -> list[str]:
    """The means over the sets by fraction of anomalies, the differences to kNN with their standard error, and how often they are above 0."""
    methods = ("kNN", "score", "score, bound 10 %")
    rows = [
        "| anomalies among the training rows | kNN (5) | guard | with a bound of 10 % | guard − kNN | sets ahead | with a bound − kNN | sets ahead |",
        "| --- " * 8 + "|",
    ]
    for level in LEVELS:
        mine = [line for line in lines if line["level"] == level]
        names = sorted({line["set"] for line in mine})
        means = {m: np.array([100 * np.mean([r[m] for r in mine if r["set"] == n]) for n in names]) for m in methods}
        cells = [f"{means[m].mean():.1f}" for m in methods]
        for m in methods[1:]:
            gain = np.round(means[m] - means["kNN"], 9)  # equal areas may differ by rounding
            cells += [
                f"{gain.mean():+.1f} ± {gain.std(ddof=1) / np.sqrt(len(gain)):.1f}",
                f"{(gain > 0).sum()} of {len(gain)}",
            ]
        rows.append(f"| {100 * level:.0f} % | {' | '.join(cells)} |")
    return rows


def tables(path: Path) -> None:
    """Print the means of all sets, and of those that chose nothing."""
    lines = results(path)
    print("\n".join(table(lines)))
    others = [line for line in lines if line["set"] not in CHOSE]
    print("\n" + "\n".join(table(others)))
    clean = [line for line in lines if "without rows" in line]
    if clean:
        print(f"\nstore_rows=False, no anomalies in training: {100 * np.mean([r['without rows'] for r in clean]):.1f}, "
              f"with rows {100 * np.mean([r['score'] for r in clean]):.1f} ({len(clean)} fits)")  # fmt: skip


def main() -> None:
    """Run an experiment, or print the tables of its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "tables", "promise", "bounds"))
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("contamination.jsonl"))
    parser.add_argument("--names", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--effort", default="fast")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.what == "run":
        run(given.data, given.out, given.names, given.seeds, given.effort)
    elif given.what == "promise":
        promise(given.data, given.out, given.names, given.seeds)
    elif given.what == "bounds":
        bounds(given.files[0])
    else:
        tables(given.files[0])


if __name__ == "__main__":
    main()
