"""The tables of the page on speed, from the records of some runs.

    python -m benchmarks.speed.page times benchmarks/results/speed-amd.jsonl --runs '2026-11-26 02:06:47' ...
    python -m benchmarks.speed.page ensembles benchmarks/results/speed-amd.jsonl --runs ...
    python -m benchmarks.speed.page errors benchmarks/results/speed.jsonl benchmarks/results/speed-amd.jsonl
    python -m benchmarks.speed.page growth benchmarks/results/growth.jsonl

Of a case that was measured more than once, the last of the named runs counts (all runs, if none is named).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.results import Record, markdown
from benchmarks.speed.accuracy import ERRORS
from benchmarks.speed.cases import WORKS
from benchmarks.speed.growth import exponents
from benchmarks.speed.libraries import NAMES
from benchmarks.speed.report import ALONE, fastest_peer, milliseconds, ratio

FLOWS = {"maf": "MAF", "rnvp": "RealNVP", "nsfc": "NSF (C)", "nsfar": "NSF (AR)"}
SHORT = {"log_prob": "score", "sample": "sample", "train_step": "train"}


def times(records: Sequence[Record]) -> str:
    """Milliseconds, and how many times longer the others take."""
    rows = []
    for record in records:
        readings = record["readings"]
        if ALONE in readings or "-d1-" in record["case"]:
            continue
        peer = fastest_peer(readings) or ""
        floor, plain, compiled = "floor", "pushforward-plain", "pushforward-compiled"
        shown = [milliseconds(readings.get(name)) for name in ("pushforward", plain, compiled)]
        pairs = (
            (peer, "pushforward"),
            ("flowjax", "pushforward"),
            ("pushforward", floor),
            (peer, plain),
            ("flowjax", plain),
            (peer, compiled),
        )
        factors = [factor(ratio(readings.get(a, {}), readings.get(b, {}))) for a, b in pairs]
        rows.append([record["case"], *shown, f"{milliseconds(readings[peer])} ({peer})", *(milliseconds(readings.get(n)) for n in ("flowjax", floor)), *factors])  # fmt: skip
    head = ["case", "ours", "plain", "`pf.compile_scorer`", "fastest torch peer", "flowjax", "floor", "peer / ours", "flowjax / ours",
            "ours / floor", "peer / plain", "flowjax / plain", "peer / `pf.compile_scorer`"]  # fmt: skip
    return markdown(head, rows, ["---", *["---:"] * 12])


def factor(value: float | None) -> str:
    """A ratio: two decimals below ten, none above."""
    return "–" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def ensembles(records: Sequence[Record]) -> str:
    """A training step of one flow and of five, of the last of two measurements, and both ratios."""
    rows = []
    for case in dict.fromkeys(r["case"] for r in records if ALONE in r["readings"]):
        found = [r["readings"] for r in records if r["case"] == case]
        both = ", ".join(f"{ratio(r['pushforward'], r[ALONE]) or math.nan:.2f}" for r in found)
        last = [milliseconds(found[-1][name]) for name in (ALONE, "pushforward", "floor")]
        rows.append([FLOWS[case.split("-")[0]], *last[:2], both, last[2]])
    head = ["training step of five flows of width 64, D = 20, 512 rows each", "one flow", "five, stacked", "five / one, two measurements",
            "five, layers alone"]  # fmt: skip
    return markdown(head, rows, ["---", *["---:"] * 4])


def errors(records: Sequence[Record]) -> str:
    """The largest errors of pushforward, and the range over the libraries that have the flow."""
    rows = []
    for record in records:
        if "-d1-" in record["case"]:
            continue
        cells = []
        for key in ERRORS:
            found = {n: r["errors"][key] for n, r in record["readings"].items() if n in NAMES and r.get("errors")}
            peers = [
                value
                for name, value in found.items()
                if not name.startswith(("pushforward", "floor")) and value is not None
            ]
            worst = max(peers, key=lambda v: math.inf if math.isnan(v) else v, default=None)
            ours = found.get("pushforward")
            least = min((v for v in peers if not math.isnan(v)), default=None)
            cells += [error(ours), f"{error(least)} to {error(worst)}" if least is not None else "–"]
        rows.append([record["case"], *cells])
    head = ["flow"]
    for name in ("round trip", "data times 5", "two log-determinants", "against autodiff"):
        head += [f"{name}: ours", "peers"]
    return markdown(head, rows)


def error(value: float | None) -> str:
    """One digit."""
    if value is None or math.isnan(value):
        return "–" if value is None else "NaN"
    return f"{value:.1f}" if value >= 0.1 else f"{value:.0e}".replace("e-0", "e-")


def growth(records: Sequence[Record]) -> str:
    """Exponents of time and of memory."""
    found = {}
    for record in records:
        readings = {int(size): reading for size, reading in record["readings"].items() if reading.get("seconds")}
        sizes = sorted(readings)
        costs = (
            [statistics.median(readings[s]["seconds"]) for s in sizes],
            [readings[s].get("above") or 0.0 for s in sizes],
        )
        found[record["case"]] = [exponents(sizes, cost) or (math.nan, math.nan) for cost in costs]

    def cell(case: str, which: int) -> str:
        return " / ".join(f"{pair[which]:.2f}" for pair in found[case]) if case in found else ""

    rows = []
    for kind, name in FLOWS.items():
        for work in WORKS:
            case = f"{kind}/{work}/"
            cells = [
                cell(case + "features", 0),
                cell(case + "layers", 0),
                cell(case + "batch", 0),
                cell(case + "batch", 1),
                cell(case + "bins", 0),
            ]
            rows.append([f"{name} {SHORT[work]}", *cells])
    return markdown(["flow, work", "D", "depth", "rows", "rows, last step", "bins"], rows)


TABLES = {
    "times": ("time", times),
    "ensembles": ("time", ensembles),
    "errors": ("accuracy", errors),
    "growth": ("growth", growth),
}


def main(arguments: list[str]) -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--runs", nargs="+", default=[], help="only these runs")
    options = parser.parse_args(arguments)
    part, make = TABLES[options.table]
    records = [json.loads(line) for file in options.files for line in file.read_text().splitlines()]
    records = [r for r in records if r["part"] == part and (not options.runs or r["run"] in options.runs)]
    if options.table != "ensembles":
        newest = {r["case"]: r for r in records}
        records = list(newest.values())
    print(make(records))


if __name__ == "__main__":
    main(sys.argv[1:])
