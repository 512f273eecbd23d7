"""Size, time and memory of reports: tables, images and networks, up to a million rows.

``python -m benchmarks.reports run table 1000000`` measures one report in a process of its own, because memory is that of the process, and
``python -m benchmarks.reports show`` prints the table. Kinds: table, images, smoothed (images), network. Data: the cover set of ADBench and
Fashion-MNIST below ``$PUSHFORWARD_DATA``; rows beyond a set are drawn from it again.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.datasets import load_images, where
from benchmarks.common.results import Results, footer, markdown
from pushforward import Guard, NetworkGuard
from pushforward.estimators.network_reporting import network_report
from pushforward.estimators.reported_rows import ReportOptions
from pushforward.estimators.reporting import guard_report

KINDS = ("table", "images", "smoothed", "network")
FILE = Path(__file__).parent / "results" / "reports.jsonl"
_PART = 65_536
NAMES = {"table": "table, 10 columns", "images": "images, 28 x 28", "network": "network, 10 inputs"}


def parts(rows: Any, count: int, size: int, seed: int = 1) -> Iterator[Any]:
    """``count`` rows in parts: all of them once, or drawn with replacement where there are too few."""
    rng = np.random.default_rng(seed)
    for start in range(0, count, size):
        number = min(size, count - start)
        few = count > len(rows)
        yield rows[rng.integers(0, len(rows), number) if few else np.arange(start, start + number)]


def cover() -> np.ndarray:
    """The normal rows of the cover set in random order."""
    with np.load((where(None) or Path("data")) / "adbench" / "10_cover.npz") as file:
        x = file["X"][file["y"] == 0].astype(np.float64)
    return x[np.random.default_rng(0).permutation(len(x))]


def network() -> torch.nn.Module:
    """A classifier of the cover set's columns into four classes, with random weights."""
    torch.manual_seed(0)
    layers = (torch.nn.BatchNorm1d(10), torch.nn.Linear(10, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    net = torch.nn.Sequential(*layers)
    net(torch.from_numpy(cover()[:20_000]).float())  # the statistics of the first layer
    return net.eval()


def measure(kind: str, count: int) -> dict[str, Any]:
    """Fit a guard, report on ``count`` rows, and measure the report."""
    if kind in ("images", "smoothed"):
        images = load_images("fashion-mnist", train=True)
        options: dict[str, Any] = (
            {"smoothing": {"sigma": 0.25, "draws": 16}} if kind == "smoothed" else {"max_steps": 300}
        )
        guard: Any = Guard(0.01, random_state=0, **options).fit(images[:3000])
        source: Iterable[Any] = parts(images[3000:], count, 4096)
    else:
        x = cover()
        if kind == "table":
            guard, source = Guard(0.01, effort="fast", random_state=0).fit(x[:20_000]), parts(x[20_000:], count, _PART)
        else:
            inputs = torch.from_numpy(x).float()
            guard = NetworkGuard(network(), 0.01, task="classify").fit(
                inputs[:10_000], calibration=inputs[10_000:20_000]
            )
            source = ((part, None) for part in parts(inputs[20_000:], count, 1024))
    begin, cpu, before = time.perf_counter(), time.process_time(), _peak()
    make = network_report if kind == "network" else guard_report
    report = make(guard, source, ReportOptions(name=f"{count} rows"))
    page, text = report.to_html(), report.to_json()
    return {
        "kind": kind, "rows": count, "alarms": report.to_dict()["promise"]["alarms"],
        "failed": ", ".join(check.name for check in report.failures), "page_kB": len(page.encode()) / 1e3, "json_kB": len(text) / 1e3,
        "cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - begin, "peak_MB": _peak(), "more_MB": _peak() - before,
    }  # fmt: skip


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(arguments: list[str]) -> None:
    """Measure one report, or print all that were measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reports", description=__doc__)
    parser.add_argument("command", choices=("run", "show"))
    parser.add_argument("kind", nargs="?", choices=KINDS)
    parser.add_argument("rows", nargs="?", type=int, default=1000)
    given = parser.parse_args(arguments)
    results = Results(FILE)
    if given.command == "run":
        results.add(measure(given.kind, given.rows))
        return
    latest = {(record["kind"], record["rows"]): record for record in results.records}
    rows = [
        (NAMES[r["kind"]], f"{r['rows']:,}", f"{r['page_kB']:.0f}", f"{r['json_kB']:.0f}", f"{r['cpu_s']:.{int(r['cpu_s'] < 10)}f}",
         f"{r['alarms']:,}", r["failed"] or "none")
        for r in sorted(latest.values(), key=lambda r: (KINDS.index(r["kind"]), r["rows"]))
        if r["kind"] in NAMES
    ]  # fmt: skip
    head = ("guard of", "rows", "page, kB", "JSON, kB", "CPU, s", "alarms", "checks that failed")
    print(markdown(head, rows))
    print(footer("python -m benchmarks.reports", list(latest.values())))


if __name__ == "__main__":
    main(sys.argv[1:])
