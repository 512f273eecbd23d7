"""Weights of the score of tables from mixes of two rows, and from crosses: where each tells something, and what it detects.

    python -m benchmarks.quality.crosses run --data DIR --out crosses.jsonl
    python -m benchmarks.quality.crosses show crosses.jsonl

Two scores of effort "fast" are fitted to at most 800 rows of a table: one with weights from mixes, one from crosses. "best on mixes" is
the largest AUROC of a statistic for mixes against training rows, "best on crosses" the same for crosses. The sets of ADBench
have the rows of ``benchmarks.quality.adbench``, seed 0, at most 1,000 new normal rows and 1,000 anomalies (InternetAds, which is
very wide, is left out). Five made tables have rows of normal or t distributions with correlated columns, and three kinds of anomalies:
one column of another row, a shift by one standard deviation of each column in a random direction, and 1.7 times the row.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.adbench import append, results, split, tables
from pushforward.detection import auroc
from pushforward.detection.table import pool_fit
from pushforward.detection.table_score import TableScore, fit_table_score

_ROWS, _NEW = 800, 1000
_LEFT_OUT = ("InternetAds",)


def made_tables() -> dict[str, Callable[[int], np.ndarray]]:
    """Functions that draw rows."""
    rng = np.random.default_rng(0)
    two, four, ten = rng.normal(size=(2, 5)), rng.normal(size=(4, 20)), rng.normal(size=(10, 10))

    def pipe(n: int) -> np.ndarray:
        flow = rng.normal(size=n)
        return np.stack((flow, 2 * flow + 0.1 * rng.normal(size=n), rng.normal(size=n)), axis=1)

    return {
        "pipe, 3 columns": pipe,
        "2 factors, 5 columns": lambda n: rng.normal(size=(n, 2)) @ two + 0.3 * rng.normal(size=(n, 5)),
        "correlated, 10 columns": lambda n: rng.normal(size=(n, 10)) @ ten,
        "4 factors, 20 columns": lambda n: rng.normal(size=(n, 4)) @ four + 0.5 * rng.normal(size=(n, 20)),
        "4 factors, 20 columns, t(3)": lambda n: (
            rng.standard_t(3, size=(n, 4)) @ four + 0.5 * rng.standard_t(3, size=(n, 20))
        ),
    }


def changed(draw: Callable[[int], np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """500 anomalies of each kind."""
    base, other = draw(500), draw(500)
    one, column = base.copy(), rng.integers(0, base.shape[1], 500)
    one[np.arange(500), column] = other[np.arange(500), column]
    return {"one column": one, "shift": base + base.std(0) * rng.normal(size=base.shape), "scale": 1.7 * base}


def fitted(train: np.ndarray, convex: float, told: float) -> tuple[TableScore, list[float]]:
    """A score with other limits for crosses, and the best AUROC on mixes and on crosses, if these were drawn."""
    found: list[float] = []
    before = pool_fit._CONVEX, pool_fit._TOLD, pool_fit._best

    def best(values: Any) -> float:
        found.append(before[2](values))
        return found[-1]

    pool_fit._CONVEX, pool_fit._TOLD, pool_fit._best = convex, told, best
    try:
        return fit_table_score(train, effort="fast"), found
    finally:
        pool_fit._CONVEX, pool_fit._TOLD, pool_fit._best = before


def measure(train: np.ndarray, new: np.ndarray, anomalies: dict[str, np.ndarray]) -> dict[str, Any]:
    """Both scores on the same rows."""
    crosses, (on_mixes, on_crosses) = fitted(train, 1.0, 0.0)
    mixes, _ = fitted(train, 0.0, 0.0)
    record: dict[str, Any] = {
        "rows": len(train),
        "columns": train.shape[1],
        "best on mixes": on_mixes,
        "best on crosses": on_crosses,
    }
    for name, score in (("mixes", mixes), ("crosses", crosses)):
        usual = score.score(new)
        record[name] = {kind: auroc(usual, score.score(rows)) for kind, rows in anomalies.items()}
    return record


def run(data: Path, out: Path) -> None:
    """One line for each table."""
    done = {r["table"] for r in results(out)}
    rng = np.random.default_rng(1)
    for name, draw in made_tables().items():
        train, new, anomalies = draw(_ROWS), draw(500), changed(draw, rng)
        if name not in done:
            append(out, {"table": name} | measure(train, new, anomalies))
    for name, normal, anomalous in tables(data, 0):
        if name not in done and name not in _LEFT_OUT:
            train, new, odd = split(normal, anomalous, 0, 3000)
            append(out, {"table": name} | measure(train[:_ROWS], new[:_NEW], {"": odd[:_NEW]}))


def show(records: list[dict[str, Any]]) -> None:
    """Print the tables on which mixes look most usual first, with both AUROCs."""
    print(
        "| table | rows | columns | best on mixes | best on crosses | crosses are used | AUROC with mixes | with crosses |"
    )
    print("| --- |" + " ---: |" * 7)
    for r in sorted(records, key=lambda r: r["best on mixes"]):
        used = r["best on mixes"] <= pool_fit._CONVEX and r["best on crosses"] >= pool_fit._TOLD
        area = [
            ", ".join(f"{kind} {100 * v:.1f}".strip() for kind, v in r[name].items()) for name in ("mixes", "crosses")
        ]
        cells = [
            f"{r['rows']}",
            f"{r['columns']}",
            f"{r['best on mixes']:.2f}",
            f"{r['best on crosses']:.2f}",
            "yes" if used else "no",
        ]
        print(f"| {r['table']} | {' | '.join(cells + area)} |")


def main() -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="what", required=True)
    made = sub.add_parser("run")
    made.add_argument("--data", type=Path, default=Path(os.environ.get("PUSHFORWARD_DATA", "data")))
    made.add_argument("--out", type=Path, required=True)
    sub.add_parser("show").add_argument("file", type=Path)
    options = parser.parse_args()
    if options.what == "run":
        run(options.data, options.out)
    else:
        show(results(options.file))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
