"""What the main job costs: seconds and peak memory of imports, of the demo, and of scoring a large Parquet table.

    python -m benchmarks.quality.costs

Each line is a process of its own, timed from start to end; its memory is the largest resident set that the system saw (which
counts the process that starts it too, so this one stays small and imports nothing heavy before the end). The tables are ten columns of normal numbers, and the guard is the default one, fitted on 5,000 of such rows.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = (100_000, 1_000_000)
COLUMNS = 10


def measure(arguments: list[str], repeats: int = 1) -> tuple[float, float]:
    """Median seconds and largest MiB of a process of this Python."""
    seconds, memory = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        child = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(arguments)} failed.")
        seconds.append(time.perf_counter() - start)
        memory.append(usage.ru_maxrss / 1024)
    return statistics.median(seconds), max(memory)


WRITE = """
import sys
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

path, rows, columns, seed = sys.argv[1], *map(int, sys.argv[2:])
rng = np.random.default_rng(seed)
schema = pa.schema([(f"c{k}", pa.float64()) for k in range(columns)])
block = min(rows, 100_000)
with pq.ParquetWriter(path, schema) as writer:
    for _ in range(0, rows, block):
        writer.write_table(pa.table(list(rng.normal(size=(block, columns)).T), schema=schema))
"""


def table(path: Path, rows: int, seed: int) -> None:
    """Rows of normal numbers, written 100,000 at a time by another process."""
    subprocess.run([sys.executable, "-c", WRITE, str(path), str(rows), str(COLUMNS), str(seed)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds and memory of the main job.")
    parser.parse_args()
    rows: list[list[str]] = []

    def add(what: str, found: tuple[float, float]) -> tuple[float, float]:
        rows.append([what, f"{found[0]:.2f}", f"{found[1]:.0f}"])
        print(rows[-1], file=sys.stderr, flush=True)
        return found

    add("import torch", measure(["-c", "import torch"], 5))
    add("import pushforward", measure(["-c", "import pushforward"], 5))
    add("import pushforward, and the first model", measure(["-c", "import pushforward as pf; pf.models.NSF(2)"], 5))
    add("import pushforward, and Guard", measure(["-c", "import pushforward as pf; pf.Guard"], 5))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cli = ["-m", "pushforward"]
        add("pushforward demo", measure([*cli, "demo", "--data", "images", "-o", str(folder / "demo.png")]))
        table(folder / "train.parquet", 5000, 0)
        fit = ["fit", str(folder / "train.parquet"), "-o", str(folder / "guard.safetensors")]
        add("pushforward fit, 5,000 rows", measure([*cli, *fit, "--quiet"]))
        peaks = []
        for size in SIZES:
            table(folder / "new.parquet", size, 1)
            files = [str(folder / "guard.safetensors"), str(folder / "new.parquet")]
            score = [*cli, "score", *files, "-o", str(folder / "scores.parquet"), "--quiet"]
            peaks.append(add(f"pushforward score, {size:,} rows x {COLUMNS} columns", measure(score))[1])
    import torch

    from benchmarks.common.results import machine, markdown

    print(markdown(["what", "seconds", "peak MiB"], rows))
    print(f"\nPeak memory of the larger table over the smaller: {peaks[1] / peaks[0]:.2f}.")
    print(f"Made by `python -m benchmarks.quality.costs` on {machine()}, {torch.get_num_threads()} threads.")


if __name__ == "__main__":
    main()
