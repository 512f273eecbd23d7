"""Skewed tables: a number far below all others of its column, as of a sensor that collapsed.

    python -m benchmarks.quality.ends run --out ends.jsonl
    python -m benchmarks.quality.ends show ends.jsonl

In a positive, skewed column a number that is a thousandth of what it should be is near to all rows by any distance. 1,200 rows
of six columns train, 500 normal rows and 500 anomalies are scored. An anomaly is a normal row with one number divided by 10 or by
1,000, or 0, or times 10, in a column drawn for each row. Tables: log-normal columns with standard deviation 1 or 2 of the logarithm;
the same subtracted from 100; correlated log-normal columns of two factors; Weibull columns of shape 0.7; negative binomial counts;
three log-normal and three normal columns. "guard, without ends" is the same guard without its term for such numbers.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.adbench import LEVELS, append, results
from benchmarks.quality.table_detectors import DETECTORS, Score
from pushforward.detection import auroc
from pushforward.estimators import Guard

_WIDTH, _TRAIN, _SCORED = 6, 1200, 500
Draw = Callable[[np.random.Generator, int], np.ndarray]


def factors(rng: np.random.Generator, n: int) -> np.ndarray:
    """Two factors with loadings that are the same for all seeds."""
    loadings = np.random.default_rng(7).normal(size=(2, _WIDTH))
    return np.exp(0.5 * rng.normal(size=(n, 2)) @ loadings + 0.3 * rng.normal(size=(n, _WIDTH)))


TABLES: dict[str, Draw] = {
    "log-normal": lambda rng, n: np.exp(rng.normal(size=(n, _WIDTH))),
    "log-normal, 2": lambda rng, n: np.exp(2 * rng.normal(size=(n, _WIDTH))),
    "100 - log-normal": lambda rng, n: 100 - np.exp(rng.normal(size=(n, _WIDTH))),
    "log-normal of two factors": factors,
    "Weibull": lambda rng, n: rng.weibull(0.7, size=(n, _WIDTH)),
    "counts": lambda rng, n: rng.negative_binomial(2, 0.02, size=(n, _WIDTH)).astype(float),
    "half normal": lambda rng, n: np.concatenate((np.exp(rng.normal(size=(n, 3))), rng.normal(size=(n, 3))), 1),
}
CHANGES = {"/ 10": 0.1, "/ 1,000": 1e-3, "to 0": 0.0, "x 10": 10.0}


def without_ends(train: np.ndarray, seed: int) -> Score:
    """The guard without the term, for ranks alone."""
    guard = Guard(0.05, random_state=seed).fit(train)
    guard.score_.pool.ends = None
    return lambda x: guard.score_.score(x)


METHODS: dict[str, Callable[[np.ndarray, int], Score]] = {
    "guard": DETECTORS["guard"], "guard, without ends": without_ends,
    **{name: DETECTORS[name] for name in ("knn5", "lof", "iforest", "ocsvm", "gmm5", "ecod")},
}  # fmt: skip


def draw(table: str, seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Training rows, new normal rows, and anomalies by change."""
    rng = np.random.default_rng(seed)
    rows = TABLES[table](rng, _TRAIN + 2 * _SCORED)
    base, column = rows[_TRAIN + _SCORED :], rng.integers(0, _WIDTH, _SCORED)
    changed = {}
    for change, factor in CHANGES.items():
        made, i = base.copy(), np.arange(_SCORED)
        # The short end of the mirrored table is at 100.
        made[i, column] = (
            100 - factor * (100 - made[i, column]) if table.startswith("100") else factor * made[i, column]
        )
        changed[change] = made
    return rows[:_TRAIN], rows[_TRAIN : _TRAIN + _SCORED], changed


def run(out: Path, seeds: int, methods: list[str]) -> None:
    """One line for each table, method and seed."""
    done = {(r["table"], r["method"], r["seed"]) for r in results(out)}
    for seed in range(seeds):
        for table in TABLES:
            train, new, anomalies = draw(table, seed)
            for method in methods:
                if (table, method, seed) in done:
                    continue
                start = time.process_time()
                score = METHODS[method](train, seed)
                on_normal = score(new)
                record: dict[str, Any] = {"table": table, "method": method, "seed": seed}
                guard = getattr(score, "__self__", None)
                for change, x in anomalies.items():
                    found = score(x)
                    record[f"{change} auroc"] = auroc(on_normal, found)
                    if isinstance(guard, Guard):
                        record |= {f"{change} found at {a}": alarms(guard, found, a) for a in LEVELS}
                if isinstance(guard, Guard):
                    record |= {f"false alarms at {a}": alarms(guard, on_normal, a) for a in LEVELS}
                append(out, record | {"cpu seconds": round(time.process_time() - start, 3)})


def alarms(guard: Guard, scores: np.ndarray, level: float) -> float:
    """Share of p-values up to the level."""
    return float((guard.calibrator_.p_value(scores) <= level).mean())


def show(records: list[dict[str, Any]]) -> None:
    """Print AUROC by change as a mean over the tables, then of each table for the guard, with and without the term."""
    seeds = len({r["seed"] for r in records})

    def cell(method: str, change: str, tables: list[str]) -> str:
        by_seed = [
            np.mean([r[f"{change} auroc"] for r in records if r["method"] == method and r["table"] in tables and r["seed"] == s])
            for s in sorted({r["seed"] for r in records})
        ]  # fmt: skip
        return f"{100 * np.mean(by_seed):.1f}" + (f" ± {100 * np.std(by_seed, ddof=1):.1f}" if len(by_seed) > 1 else "")

    print(f"AUROC in percent, mean over {len(TABLES)} tables ± standard deviation over {seeds} seeds:\n")
    print("| method | " + " | ".join(CHANGES) + " |\n| --- |" + " ---: |" * len(CHANGES))
    measured = [method for method in METHODS if any(r["method"] == method for r in records)]
    for method in measured:
        print(f"| {method} | " + " | ".join(cell(method, change, list(TABLES)) for change in CHANGES) + " |")
    if not {"guard", "guard, without ends"} <= set(measured):
        return
    print("\nThe guard on each table, with the term and without it:\n")
    print(
        "| table | "
        + " | ".join(f"{c} | {c}, without" for c in CHANGES)
        + " |\n| --- |"
        + " ---: |" * (2 * len(CHANGES))
    )
    for table in TABLES:
        cells = [cell(m, c, [table]) for c in CHANGES for m in ("guard", "guard, without ends")]
        print(f"| {table} | " + " | ".join(cells) + " |")
    mine = [r for r in records if r["method"] == "guard"]
    for level in LEVELS:
        rates = [r[f"false alarms at {level}"] for r in mine]
        found = ", ".join(f"{c} {np.mean([r[f'{c} found at {level}'] for r in mine]):.1%}" for c in CHANGES)
        print(f"\npromised {level:.0%}: false alarms {np.mean(rates):.2%} ({len(rates)} guards); found {found}")


def main() -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="what", required=True)
    made = sub.add_parser("run")
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    sub.add_parser("show").add_argument("file", type=Path)
    options = parser.parse_args()
    if options.what == "run":
        run(options.out, options.repeats, options.methods)
    else:
        show(results(options.file))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
