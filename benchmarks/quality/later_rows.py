"""How many false alarms later rows raise where a column has instants, and up to which quantile of the training rows instants count.

    python -m benchmarks.quality.later_rows run --data DATA --out later_rows.jsonl
    python -m benchmarks.quality.later_rows tables later_rows.jsonl

A guard at 5 % (effort "fast") is fitted on the first half of each of the 58 series of the Numenta Anomaly Benchmark, without the rows in labeled windows and
at most 2,000 of them. A row has the instant, the value, the value before and their difference. The next quarter of the series is scored. Instants after the
quantile count as this quantile. Rows "independent" are made: an instant of one month and two normal numbers; those scored are of five months later.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common.datasets import where
from benchmarks.quality.adbench import append, results
from pushforward.detection import table_features
from pushforward.estimators import Guard

QUANTILES = (0.95, 0.75, 0.5)
_SEEDS = 10
_MOST = 2000


def series(data: Path) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame, np.ndarray]]:
    """Name, training rows, later rows, and whether each of these is in a labeled window."""
    for name, one in pd.read_parquet(data / "nab" / "nab.parquet").groupby("series"):
        value, labeled = one["value"], one["in_window"].to_numpy()[1:] == 1
        rows = pd.DataFrame(
            {"when": one["timestamp"], "value": value, "before": value.shift(1), "change": value.diff()}
        ).iloc[1:]
        half = len(rows) // 2
        train = rows.iloc[:half][~labeled[:half]]
        if len(train) > _MOST:
            train = train.sample(_MOST, random_state=0).sort_index()
        yield str(name), train, rows.iloc[half : half + half // 2], labeled[half : half + half // 2]


def independent(n: int, seed: int, first_day: str) -> pd.DataFrame:
    """Instants of four weeks, and two numbers that have nothing to do with them."""
    rng = np.random.default_rng(seed)
    when = pd.Timestamp(first_day) + pd.to_timedelta(rng.uniform(0, 28, n), unit="D")
    return pd.DataFrame({"when": when, "a": rng.normal(size=n), "b": rng.normal(size=n)})


def run(data: Path, out: Path) -> None:
    """Append the share of alarms of each series, or seed, for each quantile and choice of calibration rows."""
    done = {(r["name"], r["quantile"], r["calibration"]) for r in results(out)}
    everything = [*series(data)]
    for seed in range(_SEEDS):
        later = independent(2000, 1000 + seed, "2025-06-01")
        everything.append(
            (f"independent {seed}", independent(2000, seed, "2025-01-01"), later, np.zeros(len(later), bool))
        )
    for quantile in QUANTILES:
        table_features._COMPARED = (0.05, quantile)
        for calibration, options in (("random", {}), ("latest", {"time": "when"})):
            for name, train, later, labeled in everything:
                if (name, quantile, calibration) in done:
                    continue
                guard = Guard(0.05, effort="fast", calibration=0.3, random_state=0).fit(train, **options)
                alarms = guard.predict(later) == -1
                record: dict[str, Any] = {"name": name, "quantile": quantile, "calibration": calibration}
                record |= {"normal": int((~labeled).sum()), "false": int(alarms[~labeled].sum())}
                append(out, record | {"labeled": int(labeled.sum()), "found": int(alarms[labeled].sum())})


def print_tables(records: list[dict[str, Any]]) -> None:
    """Alarms in percent: mean and median over series of later rows outside labeled windows, mean in the windows, and of independent rows."""
    print(
        "\n| instants count up to | calibration rows | later rows: mean | median | in windows: mean | independent rows: mean |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for quantile in QUANTILES:
        for calibration in ("random", "latest"):
            chosen = [r for r in records if (r["quantile"], r["calibration"]) == (quantile, calibration)]
            made = [r for r in chosen if r["name"].startswith("independent")]
            real = [r for r in chosen if r not in made]
            false = [100 * r["false"] / r["normal"] for r in real if r["normal"]]
            found = [100 * r["found"] / r["labeled"] for r in real if r["labeled"]]
            alone = [100 * r["false"] / r["normal"] for r in made]
            spread = f"{np.mean(alone):.1f} ± {np.std(alone, ddof=1):.1f}"
            print(
                f"| {100 * quantile:.0f} % | {calibration} | {np.mean(false):.1f} | {np.median(false):.1f} | {np.mean(found):.1f} | {spread} |"
            )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("run")
    measure.add_argument("--data", type=Path, default=None)
    measure.add_argument("--out", type=Path, required=True)
    show = commands.add_parser("tables")
    show.add_argument("results", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.command == "run":
        data = where(arguments.data)
        if data is None:
            parser.error("name the folder of the data, which has nab/nab.parquet, with --data or PUSHFORWARD_DATA.")
        run(data, arguments.out)
    else:
        print_tables(results(arguments.results))


if __name__ == "__main__":
    main()
