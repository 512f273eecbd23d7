"""Rows a second and peak memory of ``pushforward score``, from 10^5 rows on, with one and more workers.

``python -m benchmarks.scale run 1000000 2`` scores a million rows with two workers, ``... ray 1000000 2`` the same with a cluster of Ray on this machine, ``python -m benchmarks.scale copy 1000000`` reads, packs and writes
them as the process does that has workers, and ``python -m benchmarks.scale show`` prints the table and the model of the cost. The rows are normal rows of the cover set of ADBench below ``$PUSHFORWARD_DATA``, drawn with replacement into one Parquet file
of 10^5 or 10^6 rows; more rows are a folder of links to that file. The guard has effort "fast". What is measured is a process of the command line:
seconds of the clock and of the CPU, and the sum of the peaks of memory of all its processes. The load of the machine (mean number of waiting
processes in the last minute, at the start) is in each record, because other work makes the clock run faster than the CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common.results import Results, footer, markdown
from benchmarks.reports import cover
from pushforward import Guard
from pushforward.cli.parts import with_scores
from pushforward.cli.workers import packed
from pushforward.io import TableWriter, stream_table

FILE = Path(__file__).parent / "results" / "scale.jsonl"
_FILE_ROWS = 1_000_000


def prepared(folder: Path, rows: int) -> tuple[Path, Path]:
    """The guard and the table, made where they are absent."""
    guard, table = folder / "guard.safetensors", folder / f"{rows}"
    normal = cover()
    if not guard.exists():
        Guard(0.01, effort="fast", random_state=0).fit(named(normal[:20_000])).save(guard)
    size = min(rows, _FILE_ROWS)
    one = folder / f"{size}.parquet"
    if not one.exists():
        drawn = np.random.default_rng(1).integers(20_000, len(normal), size)
        pq.write_table(named(normal[drawn]), one, row_group_size=65_536)
    table.mkdir(exist_ok=True)
    for part in range(-(-rows // size)):
        link = table / f"{part:04}.parquet"
        if not link.exists():
            os.link(one, link)
    return guard, table


def copy(folder: Path, rows: int, kind: str) -> dict[str, Any]:
    """CPU seconds of the work that is not divided: to read rows, pack them for a worker, and write them with three more columns."""
    _, table = prepared(folder, rows)
    output, start = folder / f"copy.{kind}", time.process_time()
    with TableWriter(output) as writer:
        for chunk in stream_table(table):
            packed((chunk, None))
            scores = np.linspace(0.1, 0.9, chunk.num_rows)
            found = {"anomaly_score": scores, "p_value": scores, "alarm": scores > 0.5}
            writer.write(with_scores(chunk, found, "", "the table"))
    output.unlink()
    return {"rows": rows, "workers": 0, "format": kind, "cpu_s": time.process_time() - start}


def named(x: np.ndarray) -> pa.Table:
    """The columns of a matrix as a table with the names x0, x1, ..."""
    return pa.table({f"x{k}": x[:, k] for k in range(x.shape[1])})


def measure(folder: Path, rows: int, workers: int, ray: bool = False) -> dict[str, Any]:
    """Score the rows in a process of their own, or in those of a cluster of Ray."""
    guard, table = prepared(folder, rows)
    output = folder / (f"scores-ray-{workers}" if ray else f"scores-{workers}.parquet")
    words = [sys.executable, "-m", "pushforward", "score", str(guard), str(table), "-o", str(output), "--workers", str(workers), "-q"]  # fmt: skip
    words += ["--ray", "local"] if ray else []
    load, start = os.getloadavg()[0], time.perf_counter()
    running = subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"})
    peaks: dict[int, int] = {}
    while running.poll() is None:
        for pid in family(running.pid):
            if not ray or scores(pid):
                peaks[pid] = max(peaks.get(pid, 0), peak(pid))
        time.sleep(0.2)
    if running.returncode:
        raise SystemExit(f"score ended with code {running.returncode}")
    used = os.times()
    files = sorted(output.glob("*.parquet")) if ray else [output]
    size = sum(path.stat().st_size for path in files)
    found = sum(pq.ParquetFile(path).metadata.num_rows for path in files)
    shutil.rmtree(output) if ray else output.unlink()
    if found != rows:
        raise SystemExit(f"{found} of {rows} rows were written")
    return {
        "rows": rows, **({"ray": workers} if ray else {"workers": workers}), "wall_s": time.perf_counter() - start, "cpu_s": used.children_user + used.children_system,
        "peak_MB": sum(peaks.values()) / 1024, "largest_MB": max(peaks.values()) / 1024, "output_MB": size / 1e6, "load": load,
    }  # fmt: skip


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    children: list[str] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += task.read_text().split()
    return [pid, *(other for child in children for other in family(int(child)))]


def scores(pid: int) -> bool:
    """Whether a process is the program or a worker of Ray that scores; Ray gives the name of their method to such workers."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return False
    return "pushforward" in words or words.startswith("ray::MapWorker")


def peak(pid: int) -> int:
    """Peak of the resident memory of a process, kB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def cost(records: list[dict[str, Any]]) -> tuple[float, float]:
    """Seconds of the CPU at the start, and for a million rows: the line through all records with one worker, by least squares of relative errors."""
    one = [record for record in records if record["workers"] == 1]
    rows, seconds = (np.array([record[name] for record in one]) for name in ("rows", "cpu_s"))
    design = np.stack([np.ones(len(rows)), rows / 1e6], 1)
    start, million = np.linalg.lstsq(design / seconds[:, None], np.ones(len(rows)), rcond=None)[0]
    return float(start), float(million)


def clock(record: dict[str, Any]) -> tuple[str, str]:
    """Seconds of the clock and rows a second; in brackets and without a rate if the run waited for other work."""
    if record["load"] > 4:
        return f"({record['wall_s']:.0f})", ""
    return f"{record['wall_s']:.0f}", f"{round(record['rows'] / record['wall_s'], -3):,.0f}"


def main(arguments: list[str]) -> None:
    """Measure one run that has no record yet, or print all records."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("command", choices=("run", "ray", "copy", "show"))
    parser.add_argument("rows", nargs="?", type=int, default=100_000)
    parser.add_argument("workers", nargs="?", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "pushforward-scale"))
    given = parser.parse_args(arguments)
    results = Results(FILE)
    if given.command == "run":
        if not results.where(rows=given.rows, workers=given.workers):
            given.folder.mkdir(parents=True, exist_ok=True)
            results.add(measure(given.folder, given.rows, given.workers))
        return
    if given.command == "ray":
        if not results.where(rows=given.rows, ray=given.workers):
            given.folder.mkdir(parents=True, exist_ok=True)
            results.add(measure(given.folder, given.rows, given.workers, ray=True))
        return
    if given.command == "copy":
        given.folder.mkdir(parents=True, exist_ok=True)
        for kind in ("parquet", "csv"):
            results.add(copy(given.folder, given.rows, kind))
        return
    for record in results.where(workers=0):
        print(
            f"To read, pack and write {record['rows']:,} rows as {record['format']}: {record['cpu_s']:.2f} CPU seconds."
        )
    latest = {(record["rows"], record["workers"]): record for record in results.records if record.get("workers")}
    latest.pop((100_000, 2), None)  # two parts start no process, so this is the run with one worker again
    rows = [
        (f"{r['rows']:,}", str(r["workers"]), *clock(r), f"{r['cpu_s']:,.{int(r['cpu_s'] < 10)}f}", f"{r['peak_MB']:,.0f}", f"{r['load']:.1f}")
        for _, r in sorted(latest.items())
    ]  # fmt: skip
    head = (
        "rows",
        "workers",
        "seconds",
        "rows a second",
        "CPU seconds",
        "peak memory, all processes, MB",
        "load at the start",
    )
    print(markdown(head, rows))
    rays = [
        (
            f"{r['rows']:,}",
            str(r["ray"]),
            *clock(r),
            f"{r['peak_MB']:,.0f}",
            f"{r['largest_MB']:,.0f}",
            f"{r['load']:.1f}",
        )
        for r in results.records
        if r.get("ray")
    ]
    head = ("rows", "workers of Ray", "seconds", "rows a second", "peak memory of the program and its workers, MB", "the largest of them, MB", "load at the start")  # fmt: skip
    print("\n" + markdown(head, rays))
    print("\nCPU seconds of one worker: {:.1f} + {:.1f} for a million rows.".format(*cost(list(latest.values()))))
    print(footer("python -m benchmarks.scale", list(latest.values())))


if __name__ == "__main__":
    main(sys.argv[1:])
