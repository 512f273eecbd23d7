"""Time and memory of guards of tables.

    python -m benchmarks.quality.table_times fit --rows 1000 10000 100000 --out times.jsonl
    python -m benchmarks.quality.table_times fit --rows 3000000 --max-time 60s --out times.jsonl
    python -m benchmarks.quality.table_times score --rows 10000 --out times.jsonl
    python -m benchmarks.quality.table_times fit --rows 10000 --busy 2 --out times.jsonl    # beside two processes that never wait
    python -m benchmarks.quality.table_times search --out times.jsonl
    python -m benchmarks.quality.table_times real --data DATA --out times.jsonl
    python -m benchmarks.quality.table_times tables times.jsonl

Rows have ten correlated normal columns. Each guard is fitted in a process of its own, after the imports and a fit of 200 rows.
Seconds are those of the wall clock, and CPU seconds those of the process. ``search`` compares exact searches of neighbors, and
the graphs of faiss (``pip install faiss-cpu``) if it is installed, on one thread. ``real`` scores 50,000 rows of each set of ADBench
with 6 to 14 columns: its normal rows again and again, with a little noise, by a guard of the first 10,000.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.results import markdown
from benchmarks.quality.adbench import append, results, tables
from benchmarks.quality.data import add_data_option
from benchmarks.speed.devices import kibibytes
from pushforward.estimators import Guard

_COLUMNS, _SCORED = 10, 50_000


def draw(rows: int, seed: int) -> np.ndarray:
    """Rows with ten correlated columns."""
    factor = np.random.default_rng(0).normal(size=(_COLUMNS, _COLUMNS))
    return np.random.default_rng(seed).normal(size=(rows, _COLUMNS)) @ factor


def measure(what: str, rows: int, max_time: str | None, threads: int | None) -> dict[str, Any]:
    """Fit one guard; score many rows, and one row at a time."""
    if threads:
        torch.set_num_threads(threads)
    train = draw(rows, 1)
    Guard(0.05, random_state=0).fit(train[:200])
    before = kibibytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak, which making the rows has raised by a copy of them
    start, cpu = time.perf_counter(), time.process_time()
    guard = Guard(0.05, random_state=0, max_time=max_time).fit(train)
    record: dict[str, Any] = {
        "what": what, "rows": rows, "max_time": max_time, "threads": torch.get_num_threads(), "cpus": os.cpu_count(),
        "fit seconds": time.perf_counter() - start, "fit CPU seconds": time.process_time() - cpu,
        "MiB beyond the rows": (kibibytes("VmHWM") - before) / 1024,
        "calibration rows": guard.calibrator_.n, "reference rows": len(guard.score_.pool), "load": os.getloadavg()[0],
    }  # fmt: skip
    if what == "score":
        new = draw(_SCORED, 2)
        guard.anomaly_score(new[:1000])
        start, cpu = time.perf_counter(), time.process_time()
        guard.anomaly_score(new)
        record["rows a second"] = _SCORED / (time.perf_counter() - start)
        record["rows a CPU second"] = _SCORED / (time.process_time() - cpu)
        guard.compile()
        single = []
        for row in new[:300]:
            start = time.perf_counter()
            guard.p_value(row[None])
            single.append(time.perf_counter() - start)
        record["median ms of one row, compiled"] = 1000 * float(np.median(single))
    return record


def real(name: str, normal: np.ndarray, threads: int) -> dict[str, Any]:
    """Rows a second of a guard of a real table, the median of three calls."""
    torch.set_num_threads(threads)
    guard = Guard(0.05, random_state=0).fit(normal[:10_000])
    noise = np.random.default_rng(0).normal(size=(_SCORED, normal.shape[1]))
    new = np.resize(normal, noise.shape) + 1e-6 * noise * normal.std(0)
    guard.anomaly_score(new[:1000])
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        guard.anomaly_score(new)
        seconds.append(time.perf_counter() - start)
    return {
        "what": "real", "set": name, "columns": normal.shape[1], "rows": min(len(normal), 10_000), "threads": threads,
        "rows a second": _SCORED / float(np.median(seconds)), "load": os.getloadavg()[0],
    }  # fmt: skip


def search(rows: int, columns: int, k: int) -> dict[str, Any]:
    """CPU microseconds of one query for the k nearest of some rows."""
    from sklearn.neighbors import BallTree, KDTree

    from pushforward.kernels.neighbors import References, nearest

    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    factor = generator.normal(size=(columns, columns))
    reference, new = (generator.normal(size=(n, columns)) @ factor for n in (rows, 300))
    references, exact = References(reference), nearest(new, References(reference), k)[1]
    record: dict[str, Any] = {"what": "search", "rows": rows, "columns": columns, "k": k, "load": os.getloadavg()[0]}

    def clock(name: str, call: Callable[[], Any]) -> Any:
        start = time.process_time()
        found = call()
        record[f"{name} us"] = 1e6 * (time.process_time() - start) / len(new)
        return found

    clock("pushforward", lambda: nearest(new, references, k))
    for tree in (KDTree, BallTree):
        built = tree(reference)
        clock(tree.__name__, lambda built=built: built.query(new, k))
    try:
        import faiss
    except ImportError:
        return record
    faiss.omp_set_num_threads(1)
    flat, graph = faiss.IndexFlatL2(columns), faiss.IndexHNSWFlat(columns, 16)
    graph.hnsw.efSearch = max(64, 2 * k)
    for name, index in (("faiss flat", flat), ("faiss HNSW", graph)):
        index.add(reference.astype(np.float32))
        found = clock(name, lambda index=index: index.search(new.astype(np.float32), k))[1]
    record["HNSW recall"] = float(np.mean([len(set(a) & set(b)) / k for a, b in zip(found, exact, strict=True)]))
    return record


def print_tables(records: list[dict[str, Any]]) -> None:
    """Times of fitting, times of scoring, and times of a search."""
    found = {what: [r for r in records if r["what"] == what] for what in ("fit", "score", "search", "real")}
    fits = [
        [f"{r['rows']:,}", r["max_time"] or "", str(r.get("busy", 0)), f"{r['fit seconds']:.1f}", f"{r['fit CPU seconds']:.1f}", f"{r['MiB beyond the rows']:.0f}",
         f"{r['reference rows']:,}", f"{r['calibration rows']:,}", f"{r['load']:.0f}"]
        for r in found["fit"]
    ]  # fmt: skip
    head = [
        "rows",
        "`max_time`",
        "busy processes",
        "seconds",
        "CPU seconds",
        "MiB beyond the rows",
        "reference rows",
        "calibration rows",
        "load",
    ]
    print(markdown(head, fits, ["---:", "---", *["---:"] * 7]) + "\n")
    scores = [
        [str(r["threads"]), f"{r['rows a second']:,.0f}", f"{r['rows a CPU second']:,.0f}", f"{r['median ms of one row, compiled']:.1f}",
         f"{r['load']:.0f}"]
        for r in found["score"]
    ]  # fmt: skip
    print(
        markdown(["threads", "rows a second", "rows a CPU second", "ms of one row", "load"], scores, ["---:"] * 5)
        + "\n"
    )
    names = ("pushforward", "KDTree", "BallTree", "faiss flat", "faiss HNSW")
    searches = [
        [f"{r['rows']:,}", str(r["columns"]), str(r["k"]), *(f"{r[f'{n} us']:.1f}" for n in names)]
        for r in found["search"]
    ]
    print(markdown(["rows", "columns", "k", *names], searches, ["---:"] * 8) + "\n")
    by_set: dict[str, list[str]] = {}
    for r in sorted(found["real"], key=lambda r: -r["threads"]):
        cells = by_set.setdefault(r["set"], [r["set"], str(r["columns"]), f"{r['rows']:,}"])
        cells.append(f"{r['rows a second']:,.0f}")
    head = ["set", "columns", "training rows", "rows a second, two threads", "one thread"]
    print(markdown(head, list(by_set.values()), ["---", *["---:"] * 4]))


def main() -> None:
    """Measure, each guard in a process of its own, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sub = parser.add_subparsers(dest="what", required=True)
    for what in ("fit", "score"):
        run = sub.add_parser(what)
        run.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000] if what == "fit" else [10_000])
        run.add_argument("--max-time")
        run.add_argument("--threads", type=int)
        run.add_argument("--busy", type=int, default=0, help="processes that compute beside this one")
        run.add_argument("--out", type=Path, required=True)
        run.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    sub.add_parser("search").add_argument("--out", type=Path, required=True)
    run = sub.add_parser("real")
    add_data_option(run)
    run.add_argument("--out", type=Path, required=True)
    sub.add_parser("tables").add_argument("file", type=Path)
    options = parser.parse_args()
    if options.what == "search":
        for case in ((5000, 10, 51), (5000, 10, 2), (20_000, 10, 51), (5000, 3, 51)):
            append(options.out, search(*case))
        return
    if options.what == "real":
        for name, normal, _ in tables(options.data, 500):
            for threads in (2, 1) if 6 <= normal.shape[1] <= 14 else ():
                append(options.out, real(name, normal, threads))
        return
    if options.what == "tables":
        print_tables(results(options.file))
        return
    for rows in options.rows:
        if options.inside:
            print(json.dumps(measure(options.what, rows, options.max_time, options.threads)))
            continue
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.quality.table_times", options.what, "--inside"]
        command += ["--rows", str(rows), "--out", str(options.out)]
        command += ["--max-time", options.max_time] if options.max_time else []
        command += ["--threads", str(options.threads)] if options.threads else []
        beside = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.busy)]
        try:
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        finally:
            for process in beside:
                process.kill()
                process.wait()
        append(options.out, json.loads(found.splitlines()[-1]) | {"busy": options.busy})


if __name__ == "__main__":
    main()
