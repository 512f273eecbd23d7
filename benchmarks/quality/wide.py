"""Wide correlated tables: anomalies that break the correlations and leave each column as it is.

    python -m benchmarks.quality.wide run --out wide.jsonl
    python -m benchmarks.quality.wide show wide.jsonl

A normal row is z A + e: ten factors z (normal), loadings A (10 x 500, normal, other ones for each seed) and noise e of standard
deviation 0.5, so every column is normal and is known well from the others. Anomalies change a normal row in one of three ways:

- one column: a column takes the value of another normal row;
- five columns: five columns take the values of another normal row, all of the same one;
- half: one factor is that of another row, in about half of the columns.

Each column by itself has the distribution of normal rows, so what can be seen is that it does not fit the others. 2,000 rows train,
1,000 normal rows and 1,000 anomalies of each kind are scored. Mahalanobis distance is taken with the empirical covariance, and
with that of Ledoit and Wolf. "guard, mixes alone" is the guard without crosses (:func:`~pushforward.detection.table.fit_pool`).
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

from benchmarks.quality.adbench import LEVELS, append, results
from benchmarks.quality.table_detectors import DETECTORS, Score, standardizer
from pushforward.detection import auroc
from pushforward.detection.table import pool_fit
from pushforward.estimators import Guard

KINDS = ("one column", "five columns", "half")
_FACTORS, _NOISE = 10, 0.5


def mahalanobis(train: np.ndarray, seed: int) -> Score:
    """Squared Mahalanobis distance with the empirical covariance."""
    center, inverse = train.mean(0), np.linalg.pinv(np.cov(train.T))
    return lambda x: np.einsum("ni,ij,nj->n", x - center, inverse, x - center, optimize=True)


def ledoit_wolf(train: np.ndarray, seed: int) -> Score:
    """The same with the covariance of Ledoit and Wolf (2004), on standardized columns."""
    from sklearn.covariance import LedoitWolf

    scale = standardizer(train)
    fitted = LedoitWolf().fit(scale(train))
    return lambda x: fitted.mahalanobis(scale(x))


def mixes_alone(train: np.ndarray, seed: int) -> Score:
    """The guard with weights from mixes of two rows, also where all statistics find these more usual than the rows."""
    before, pool_fit._CONVEX = pool_fit._CONVEX, 0.0
    try:
        return DETECTORS["guard"](train, seed)
    finally:
        pool_fit._CONVEX = before


METHODS: dict[str, Callable[[np.ndarray, int], Score]] = {
    "guard": DETECTORS["guard"], "guard, mixes alone": mixes_alone, "mahalanobis": mahalanobis, "ledoit-wolf": ledoit_wolf,
    **{name: DETECTORS[name] for name in ("knn5", "knn1", "lof", "iforest", "ocsvm", "gmm5", "ecod", "dte-np")},
}  # fmt: skip


def draw(columns: int, train: int, scored: int, seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Training rows, new normal rows, and anomalies of each kind."""
    generator = np.random.default_rng(seed)
    loadings = generator.normal(size=(_FACTORS, columns))
    total = train + 3 * scored
    factors = generator.normal(size=(total, _FACTORS))
    noise = _NOISE * generator.normal(size=(total, columns))
    rows = factors @ loadings + noise
    base, other = slice(train + scored, train + 2 * scored), slice(train + 2 * scored, total)
    changed: dict[str, np.ndarray] = {}
    for kind, count in (("one column", 1), ("five columns", 5)):
        chosen = np.argsort(generator.random((scored, columns)), axis=1)[:, :count]
        made = rows[base].copy()
        np.put_along_axis(made, chosen, np.take_along_axis(rows[other], chosen, axis=1), axis=1)
        changed[kind] = made
    k = generator.integers(0, _FACTORS, scored)
    shift = factors[other][np.arange(scored), k] - factors[base][np.arange(scored), k]
    half = generator.random((scored, columns)) < 0.5
    changed["half"] = rows[base] + half * shift[:, None] * loadings[k]
    return rows[:train], rows[train : train + scored], changed


def run(out: Path, seeds: int, columns: int, train: int, methods: list[str]) -> None:
    """One line for each method and seed."""
    done = {(r["method"], r["seed"], r["columns"], r["train"]) for r in results(out)}
    for seed in range(seeds):
        left = [m for m in methods if (m, seed, columns, train) not in done]
        if not left:
            continue
        rows, new, anomalies = draw(columns, train, 1000, seed)
        for method in left:
            start = time.process_time()
            score = METHODS[method](rows, seed)
            on_normal = score(new)
            record: dict[str, Any] = {"method": method, "seed": seed, "columns": columns, "train": train}
            calibrator = score.__self__.calibrator_ if isinstance(getattr(score, "__self__", None), Guard) else None
            for kind, x in anomalies.items():
                found = score(x)
                record[f"{kind} auroc"] = auroc(on_normal, found)
                for level in LEVELS:
                    record[f"{kind} caught at {level}"] = float((found > np.quantile(on_normal, 1 - level)).mean())
                    if calibrator is not None:
                        record[f"{kind} alarms promised {level}"] = float((calibrator.p_value(found) <= level).mean())
            if calibrator is not None:
                record |= {
                    f"false alarms promised {a}": float((calibrator.p_value(on_normal) <= a).mean()) for a in LEVELS
                }
            record |= {"cpu seconds": round(time.process_time() - start, 3), "load": round(os.getloadavg()[0], 1)}
            append(out, record)


def show(records: list[dict[str, Any]]) -> None:
    """One table for each number of columns and of training rows."""
    settings = sorted({(r["columns"], r["train"]) for r in records})
    for columns, train in settings:
        if len(settings) > 1:
            print(f"\n{columns:,} columns, {train:,} training rows\n")
        _show([r for r in records if (r["columns"], r["train"]) == (columns, train)])


def _show(records: list[dict[str, Any]]) -> None:
    """Print AUROC and the share caught at 1 % false alarms, by kind, as mean ± standard deviation over the seeds."""
    names = [m for m in METHODS if any(r["method"] == m for r in records)]
    print("| method | " + " | ".join(f"{k}: AUROC | caught at 1%" for k in KINDS) + " | CPU seconds |")
    print("| --- |" + " ---: |" * (2 * len(KINDS) + 1))
    for name in names:
        mine = [r for r in records if r["method"] == name]
        cells = []
        for kind in KINDS:
            for what in ("auroc", f"caught at {LEVELS[0]}"):
                values = 100 * np.array([r[f"{kind} {what}"] for r in mine])
                cells.append(f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""))
        print(f"| {name} | {' | '.join(cells)} | {np.mean([r['cpu seconds'] for r in mine]):.1f} |")
    mine = [r for r in records if r["method"] == "guard"]
    for level in LEVELS if mine else ():
        rates = np.array([r[f"false alarms promised {level}"] for r in mine])
        found = ", ".join(f"{k} {np.mean([r[f'{k} alarms promised {level}'] for r in mine]):.1%}" for k in KINDS)
        print(f"\npromised {level:.0%}: false alarms {rates.mean():.2%} ({len(rates)} seeds); found {found}")


def main() -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="what", required=True)
    made = sub.add_parser("run")
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--columns", type=int, default=500)
    made.add_argument("--train", type=int, default=2000)
    made.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    sub.add_parser("show").add_argument("file", type=Path)
    options = parser.parse_args()
    if options.what == "run":
        run(options.out, options.repeats, options.columns, options.train, options.methods)
    else:
        show(results(options.file))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
