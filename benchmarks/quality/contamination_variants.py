"""What the score of tables may do with a bound on the fraction of anomalies among its rows: ways that were compared.

    python -m benchmarks.quality.contamination_variants run --data DIR --out variants.jsonl --names pendigits Stamps cover
    python -m benchmarks.quality.contamination_variants show variants.jsonl

The rows are those of ``benchmarks.quality.contamination``, seed 0, of which at most 600 normal rows and 600 anomalies are scored. The bound
is 10 %. These sets chose the way, so the figures are of development.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from benchmarks.quality.adbench import append, results
from benchmarks.quality.table_detectors import standardizer
from pushforward.data import Schema
from pushforward.detection import auroc
from pushforward.detection.table import EFFORTS, fit_pool, robust
from pushforward.detection.table_features import TableFeatures

BOUND, SCORED = 0.1, 600
LIMITS = {"r4": 4.0, "r6": 6.0, "r8": 8.0}
WAYS = {
    "knn5": "kNN (5)",
    "none": "nothing",
    "bound": "10 % of the rows left out (as before)",
    "r6": "of these, those given back that the rest finds usual (below 6 nats)",
    "mean": "mean of the scores with and without these rows",
    "wide": "20 and 50 neighbors, all rows",
    "bound wide": "20 and 50 neighbors, 10 % left out",
}

Score = Callable[[np.ndarray], np.ndarray]


def fitted(schema: Schema, encoded: np.ndarray, many: bool = False) -> Score:
    """The score of encoded rows, with statistics of one and five neighbors, or of 20 and 50."""
    features = TableFeatures.fit(schema, encoded)
    pool = fit_pool(features, features.impute(encoded)[0], sizes=EFFORTS["fast"], robust=many)

    def score(x: np.ndarray) -> np.ndarray:
        matrix, news = features.impute(x)
        return pool.score(np.ascontiguousarray(matrix), batch=None) + np.log(features.rows + 2) * news.sum(1)

    return score


def all_scores(train: np.ndarray) -> tuple[dict[str, Score], np.ndarray]:
    """Each way, and which rows the removal of a tenth keeps."""
    schema, encoded = Schema.infer_encode(train)
    features = TableFeatures.fit(schema, encoded)
    share, robust._SHARE = robust._SHARE, 1.0
    keep = robust.rows_to_keep(features, features.impute(encoded)[0], BOUND)
    robust._SHARE = share
    scale = standardizer(train)
    near = NearestNeighbors(n_neighbors=5).fit(scale(train))
    full, part = fitted(schema, encoded), fitted(schema, encoded[keep])
    found: dict[str, Score] = {
        "knn5": lambda x: near.kneighbors(scale(x))[0][:, -1],
        "none": full,
        "bound": part,
        "mean": lambda x: full(x) + part(x),
        "wide": fitted(schema, encoded, many=True),
        "bound wide": fitted(schema, encoded[keep], many=True),
    }
    own = part(train[~keep])
    for name, limit in LIMITS.items():
        back = keep.copy()
        back[np.flatnonzero(~keep)[own <= limit]] = True
        found[name] = fitted(schema, encoded[back])
    return found, keep


def run(data: Path, out: Path, names: list[str], levels: list[float]) -> None:
    """One line for each set and fraction of anomalies."""
    done = {(r["set"], r["level"]) for r in results(out)}
    for name in names:
        with np.load(next((data / "adbench").glob(f"*_{name}.npz")), allow_pickle=False) as archive:
            x, y = archive["X"].astype(float), archive["y"]
        rng = np.random.default_rng(0)
        normal, odd = rng.permutation(np.flatnonzero(y == 0)), rng.permutation(np.flatnonzero(y == 1))
        count = min(len(normal) // 2, 800)
        usual, anomalies = x[normal[count : count + SCORED]], x[odd[len(odd) // 2 :][:SCORED]]
        for level in levels:
            if (name, level) in done:
                continue
            mixed = min(round(level * count / (1 - level)), len(odd) // 2)
            ways, keep = all_scores(x[np.concatenate((normal[:count], odd[:mixed]))])
            record: dict[str, Any] = {
                "set": name,
                "level": level,
                "n": len(keep),
                "odd": mixed,
                "removed odd": int((~keep[count:]).sum()),
            }
            append(out, record | {way: auroc(score(usual), score(anomalies)) for way, score in ways.items()})


def show(records: list[dict[str, Any]]) -> None:
    """Print AUROC in percent, one column for each set and fraction."""
    head = [f"{r['set']}, {r['level']:.0%}" for r in records]
    print(f"| what is done with a bound of 10 % | {' | '.join(head)} |\n| --- |" + " ---: |" * len(head))
    for way, words in WAYS.items():
        print(f"| {words} | {' | '.join(f'{100 * r[way]:.1f}' for r in records)} |")


def main() -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="what", required=True)
    made = sub.add_parser("run")
    made.add_argument("--data", type=Path, required=True)
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--names", nargs="+", default=["pendigits", "Stamps", "cover"])
    made.add_argument("--levels", type=float, nargs="+", default=[0.0, 0.02])
    sub.add_parser("show").add_argument("file", type=Path)
    options = parser.parse_args()
    if options.what == "run":
        run(options.data, options.out, options.names, options.levels)
    else:
        show(results(options.file))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
