"""How much categories should count: made tables whose categories tell nothing of the other columns, or much.

    python -m benchmarks.quality.categories run --seeds 10 11 12 13 14 --out categories.jsonl
    python -m benchmarks.quality.categories tables categories.jsonl

A guard at 5 % (effort "fast") trains on 1,500 rows, and 1,000 others calibrate it; 300 other rows are changed in one column, and 1,000 are normal. Of each setting
the alarms among the changed rows are counted:

- sum: rows of two categories differ by 1/2 in squared distance (two numbers: 2), and the cost of a new category is added to the score;
- all 0.5, 0.1 or 0.02: the same distance for every column, and a row is as strange as its values or such news;
- from 0.02 or from 0.005: the distance grows with the agreement of the nearest rows, up to 0.5; the last one is the guard's;
- without: the guard's, and the columns that tell nothing are left out.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.quality.adbench import append, results
from pushforward.detection import table_score
from pushforward.detection.table import coordinates
from pushforward.detection.table_score import TableScore, either
from pushforward.estimators import Guard

Change = Callable[[pd.DataFrame], pd.DataFrame]
SETTINGS = {
    "sum": (0.5, 0.5), "all 0.5": (0.5, 0.5), "all 0.1": (0.1, 0.1), "all 0.02": (0.02, 0.02), "from 0.02": (0.02, 0.5),
    "from 0.005": (0.005, 0.5), "without": (0.005, 0.5),
}  # fmt: skip
_CENTERS = 1.5 * np.random.default_rng(77).normal(size=(8, 3))
_FACTORS = np.random.default_rng(3).normal(size=(6, 3))


def loans(n: int, seed: int) -> pd.DataFrame:
    """A rate that follows from income and loan, and a merchant with many rare values that has nothing to do with them."""
    rng = np.random.default_rng(seed)
    income, part = rng.lognormal(10, 0.5, n), rng.uniform(0.1, 0.5, n)
    merchant = np.minimum(rng.zipf(1.4, n), 20_000)
    rate = 3 + 10 * part + rng.normal(0, 0.3, n)
    return pd.DataFrame({"income": income.round(), "loan": (income * part).round(), "rate": rate.round(2), "merchant": names(merchant)})  # fmt: skip


def parcels(n: int, seed: int) -> pd.DataFrame:
    """A price that follows from weight and distance, a depot with many rare values and a note that have nothing to do with them."""
    rng = np.random.default_rng(seed)
    weight, distance = rng.lognormal(2.5, 0.8, n).round(1), rng.gamma(2, 180, n).round()
    price = (4 + 0.35 * weight + 0.02 * distance) * np.exp(rng.normal(0, 0.08, n))
    late = np.where(rng.random(n) < 0.85, 0.0, rng.gamma(1.5, 30, n)).round()
    return pd.DataFrame({
        "weight": weight, "distance": distance, "zone": np.minimum(distance // 200, 5).astype(int), "price": price.round(2),
        "late": late, "depot": names(np.minimum(rng.zipf(1.3, n), 3000)), "note": names(rng.choice(3, n, p=[0.5, 0.25, 0.25])),
    })  # fmt: skip


def factors(n: int, seed: int) -> pd.DataFrame:
    """Six numbers on three factors, and three columns of 4, 10 and 60 categories that have nothing to do with them."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n, 3)) @ _FACTORS.T + 0.2 * rng.normal(size=(n, 6)), columns=list("abcdef"))
    return frame.assign(**{f"kind{m}": names(rng.integers(0, m, n)) for m in (4, 10, 60)})


def groups(n: int, seed: int) -> pd.DataFrame:
    """Eight groups of unequal size in space, and their names."""
    rng = np.random.default_rng(seed)
    kind = np.minimum(rng.zipf(1.6, n) - 1, 7)
    return pd.DataFrame(_CENTERS[kind] + 0.4 * rng.normal(size=(n, 3)), columns=list("xyz")).assign(kind=names(kind))


def shifts(n: int, seed: int) -> pd.DataFrame:
    """A number that five categories shift by about its noise, one that follows it, and one of noise."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 5, n)
    x = 0.6 * _CENTERS[kind, 0] + 0.6 * rng.normal(size=n)
    return pd.DataFrame({"x": x, "y": x + 0.3 * rng.normal(size=n), "z": rng.normal(size=n), "kind": names(kind)})


def slopes(n: int, seed: int) -> pd.DataFrame:
    """A line whose slope has the sign of a category."""
    rng = np.random.default_rng(seed)
    kind, x = rng.integers(0, 2, n), rng.normal(size=n)
    y = np.where(kind == 1, x, -x) + 0.15 * rng.normal(size=n)
    return pd.DataFrame({"x": x, "y": y, "z": rng.normal(size=n), "kind": names(kind)})


def hierarchy(n: int, seed: int) -> pd.DataFrame:
    """Two categories, of which one decides the other, and three numbers of noise."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 8, n)
    return pd.DataFrame(rng.normal(size=(n, 3)), columns=list("xyz")).assign(kind=names(kind), parent=names(kind // 2))


def chain(n: int, seed: int) -> pd.DataFrame:
    """Three categories that mostly follow from each other, and one that has nothing to do with them; no numbers."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 5, n)
    b = np.where(rng.random(n) < 0.95, a, rng.integers(0, 5, n))
    c = np.where(rng.random(n) < 0.95, (b + 1) % 5, rng.integers(0, 5, n))
    return pd.DataFrame({"a": names(a), "b": names(b), "c": names(c), "d": names(rng.integers(0, 7, n))})


def names(codes: np.ndarray) -> list[str]:
    """Categories of integers."""
    return [f"k{code}" for code in codes]


def moved(column: str, by: float) -> Change:
    """Add a number."""
    return lambda frame: frame.assign(**{column: frame[column] + by})


def times(column: str, factor: float) -> Change:
    """Multiply by a number."""
    return lambda frame: frame.assign(**{column: frame[column] * factor})


def next_of(column: str, count: int) -> Change:
    """Take the next of ``count`` categories."""
    return lambda frame: frame.assign(**{column: [f"k{(int(v[1:]) + 1) % count}" for v in frame[column]]})


def mixed(column: str) -> Change:
    """Take the cell of another row."""
    return lambda frame: frame.assign(**{column: np.random.default_rng(1).permutation(frame[column])})


TABLES: dict[str, tuple[Callable[[int, int], pd.DataFrame], list[str], dict[str, Change]]] = {
    "loans": (loans, ["merchant"], {"rate + 4": moved("rate", 4), "rate + 2": moved("rate", 2)}),
    "parcels": (
        parcels, ["depot", "note"],
        {"price doubled": times("price", 2), "weight negative": times("weight", -1), "zone": lambda f: f.assign(zone=(f.zone + 3) % 6)},
    ),
    "factors": (factors, ["kind4", "kind10", "kind60"], {"a + 1.5": moved("a", 1.5), "a of another": mixed("a")}),
    "groups": (groups, [], {"next kind": next_of("kind", 8), "x + 2": moved("x", 2), "x of another": mixed("x")}),
    "shifts": (shifts, [], {"y + 1.5": moved("y", 1.5), "x of another": mixed("x"), "kind of another": mixed("kind")}),
    "slopes": (slopes, [], {"kind of another": mixed("kind"), "y + 1": moved("y", 1)}),
    "hierarchy": (hierarchy, [], {"next parent": next_of("parent", 4), "x + 4": moved("x", 4)}),
    "chain": (chain, [], {"next b": next_of("b", 5)}),
}  # fmt: skip


def run(out: Path, seeds: list[int]) -> None:
    """Fractions of alarms of each setting for each table and seed."""
    done = {(r["table"], r["seed"], r["setting"]) for r in results(out)}
    for seed in seeds:
        for name, (make, unrelated, changes) in TABLES.items():
            for setting, (least, most) in SETTINGS.items():
                if (name, seed, setting) in done or (setting == "without" and not unrelated):
                    continue
                left = unrelated if setting == "without" else []
                coordinates._LEAST, coordinates._MOST = least, most
                guard = Guard(0.05, effort="fast", random_state=0).fit(make(1500, seed).drop(columns=left))
                assert isinstance(guard.score_, TableScore)
                table_score.either = np.add if setting == "sum" else either
                guard.recalibrate(make(1000, seed + 3000).drop(columns=left))
                record: dict[str, Any] = {"table": name, "seed": seed, "setting": setting}
                normal = make(1000, seed + 1000).drop(columns=left)
                record["false alarms"] = float((guard.predict(normal) == -1).mean())
                for change, changed in changes.items():
                    rows = changed(make(300, seed + 2000)).drop(columns=left)
                    record[change] = float((guard.predict(rows) == -1).mean())
                append(out, record)


def print_tables(records: list[dict[str, Any]]) -> None:
    """Alarms in percent, mean over the seeds, of each kind of change and each setting."""
    print(f"\n| table | change | {' | '.join(SETTINGS)} |\n| --- | --- |" + " ---: |" * len(SETTINGS))
    for name, (_, _, changes) in TABLES.items():
        for change in (*changes, "false alarms"):
            cells = []
            for setting in SETTINGS:
                values = [r[change] for r in records if (r["table"], r["setting"]) == (name, setting)]
                cells.append(f"{100 * float(np.mean(values)):.1f}" if values else "-")
            print(f"| {name} | {change} | {' | '.join(cells)} |")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("run")
    measure.add_argument("--out", type=Path, required=True)
    measure.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14])
    show = commands.add_parser("tables")
    show.add_argument("results", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.command == "run":
        run(arguments.out, arguments.seeds)
    else:
        print_tables(results(arguments.results))


if __name__ == "__main__":
    main()
