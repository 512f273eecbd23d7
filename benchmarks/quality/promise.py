"""False alarms of a guard on tables as people have them, over splits, and what subsampled reference rows cost.

    python -m benchmarks.quality.promise run --data DIR --out promise.jsonl
    python -m benchmarks.quality.promise tables promise.jsonl

DIR contains ``adbench/*.npz`` (arrays X and y, 1 = anomaly). Each split shuffles the normal rows: one half fits the guard, at most
``--rows`` rows, and as many others are new. A case changes the table before the split, or the guard:

- plain: as it is;
- missing: each cell is missing with probability 0.1, in both halves;
- categorical: every third column becomes one of six words, by equally filled intervals of all rows;
- max_time: ``max_time`` of ten seconds, which a busy computer makes short (a fit that it makes impossible is left out);
- subsampled: at most 20,000 rows fit a guard of effort "fast", which keeps 1,000 of them for distances;
- all rows: the same rows, and the default effort.

A false-alarm rate is compared with the interval in which 95 % of such guards and rows have it (a beta-binomial law). One JSON line is
appended for each result, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.adbench import append, results, tables
from pushforward.detection import auroc, realized_interval
from pushforward.errors import ConfigError, PushforwardError, PushforwardWarning
from pushforward.estimators import Guard

LEVELS = (0.01, 0.05)
CASES = ("plain", "missing", "categorical", "max_time", "subsampled", "all rows")
_LARGE = 20_000
_MISSING, _WORDS = 0.1, 6


def changed(case: str, x: np.ndarray, seed: int) -> Any:
    """The table of a case: a matrix, or a dictionary of columns."""
    if case == "missing":
        return np.where(np.random.default_rng(seed).random(x.shape) < _MISSING, np.nan, x)
    if case != "categorical":
        return x
    columns: dict[str, Any] = {}
    for j, column in enumerate(x.T):
        if j % 3 == 0:
            ends = np.quantile(column, np.arange(1, _WORDS) / _WORDS)
            columns[f"x{j}"] = np.array([f"word {k}" for k in range(_WORDS)])[np.searchsorted(ends, column)]
        else:
            columns[f"x{j}"] = column
    return columns


def rows_of(table: Any, index: np.ndarray) -> Any:
    """Some rows of a matrix or of a dictionary of columns."""
    return {name: column[index] for name, column in table.items()} if isinstance(table, dict) else table[index]


def measure(case: str, normal: np.ndarray, anomalous: np.ndarray, split: int, rows: int) -> dict[str, Any]:
    """Fit one guard and count its alarms on new normal rows."""
    most = _LARGE if case in ("subsampled", "all rows") else rows
    order = np.random.default_rng(split).permutation(len(normal))[: 2 * most]
    odd = np.random.default_rng(split).permutation(len(anomalous))[:most]
    table = changed(case, np.concatenate([normal[order], anomalous[odd]]), split)
    fitted, new = np.array_split(np.arange(len(order)), 2)
    odd = len(order) + np.arange(len(odd))
    options: dict[str, Any] = {"subsampled": {"effort": "fast"}, "max_time": {"max_time": 10.0}}.get(case, {})
    start = time.process_time()
    guard = Guard(0.05, random_state=split, **options).fit(rows_of(table, fitted))
    seconds = time.process_time() - start
    scores = guard.anomaly_score(rows_of(table, new))
    record: dict[str, Any] = {
        "case": case, "split": split, "fit": len(fitted), "new": len(new), "calibration": guard.calibrator_.n,
        "reference": len(guard.score_.pool), "cpu seconds": round(seconds, 3),
    }  # fmt: skip
    p = guard.calibrator_.p_value(scores)
    for alpha in LEVELS:
        try:
            level = guard.calibrator_.threshold(alpha)
            record[f"{alpha}"] = float((p <= level).mean())
            record[f"{alpha} interval"] = realized_interval(guard.calibrator_.n, len(new), alpha)
        except PushforwardError:
            record[f"{alpha}"] = None
    found = guard.anomaly_score(rows_of(table, odd))
    record["auroc"] = auroc(np.nan_to_num(scores, posinf=1e300), np.nan_to_num(found, posinf=1e300))
    return record


def wanted(
    data: Path, cases: list[str], least: int, sets: int, names: list[str]
) -> Iterator[tuple[str, np.ndarray, np.ndarray, list[str]]]:
    """The sets, narrow ones first, each with the cases that it has enough rows for."""
    found = (each for each in tables(data, least) if not names or each[0] in names)
    for k, (name, normal, anomalous) in enumerate(found):
        if k >= sets and not {"subsampled", "all rows"} & set(cases):
            return
        large = [
            c for c in cases if c in ("subsampled", "all rows") and len(normal) >= 12_000 and normal.shape[1] <= 50
        ]
        small = [c for c in cases if c not in ("subsampled", "all rows") and k < sets]
        if large or small:
            yield name, normal, anomalous, small + large


def run(data: Path, out: Path, cases: list[str], splits: int, rows: int, sets: int, names: list[str]) -> None:
    """All cases, sets and splits; a split of all sets before the next one."""
    done = {(r["set"], r["case"], r["split"]) for r in results(out)}
    chosen_sets = list(wanted(data, cases, 2000, sets, names))
    for split in range(splits):
        for name, normal, anomalous, chosen in chosen_sets:
            for case in chosen:
                if (name, case, split) in done:
                    continue
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", PushforwardWarning)
                    try:
                        record = measure(case, normal, anomalous, split, rows)
                    except ConfigError as error:  # too little time
                        print(f"{name}, {case}, split {split}: {error}")
                        continue
                    append(out, {"set": name} | record)


def print_tables(records: list[dict[str, Any]]) -> None:
    """Rates of false alarms by case, and the AUROC of subsampled reference rows beside all rows."""
    print("| case | sets | runs | promised | false alarms | above the interval | below it |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for case in CASES:
        chosen = [r for r in records if r["case"] == case]
        for alpha in LEVELS:
            kept = [r for r in chosen if r.get(f"{alpha}") is not None]
            if not kept:
                continue
            rates = np.array([r[f"{alpha}"] for r in kept])
            above = sum(r[f"{alpha}"] > r[f"{alpha} interval"][1] for r in kept)
            below = sum(r[f"{alpha}"] < r[f"{alpha} interval"][0] for r in kept)
            counts = f"{len({r['set'] for r in kept})} | {len(kept)}"
            outside = " | ".join(f"{count} of {len(kept)}" if count else "0" for count in (above, below))
            error = np.std([rates[[r["split"] == s for r in kept]].mean() for s in {r["split"] for r in kept}], ddof=1)
            print(f"| {case} | {counts} | {alpha:.0%} | {rates.mean():.2%} ± {error:.2%} | {outside} |")
    print("\n| set | rows | AUROC, 1,000 reference rows | AUROC, default | difference | CPU seconds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    differences = []
    for name in dict.fromkeys(r["set"] for r in records if r["case"] == "subsampled"):
        few, all_rows = (
            {r["split"]: r for r in records if (r["set"], r["case"]) == (name, case)}
            for case in ("subsampled", "all rows")
        )
        both = sorted(few.keys() & all_rows.keys())
        if not both:
            continue
        a, b = (np.array([100 * of[s]["auroc"] for s in both]) for of in (few, all_rows))
        seconds = [np.mean([of[s]["cpu seconds"] for s in both]) for of in (few, all_rows)]
        differences.append((a - b).mean())
        spread = f" ± {(a - b).std(ddof=1):.2f}" if len(both) > 1 else ""
        print(
            f"| {name} | {few[both[0]]['fit']:,} | {a.mean():.2f} | {b.mean():.2f} | {(a - b).mean():+.2f}{spread} | {seconds[0]:.1f}, {seconds[1]:.1f} |"
        )
    if differences:
        print(f"| **mean** | | | | {np.mean(differences):+.2f} | |")


def main() -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "tables"))
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("promise.jsonl"))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--sets", type=int, default=8, help="number of sets, narrow ones first")
    parser.add_argument("--names", nargs="*", default=[], help="only these sets")
    options = parser.parse_args()
    if options.what == "tables":
        print_tables([record for path in options.files for record in results(path)])
    else:
        run(options.data, options.out, options.cases, options.splits, options.rows, options.sets, options.names)


if __name__ == "__main__":
    main()
