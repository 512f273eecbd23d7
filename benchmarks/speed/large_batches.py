"""Time and memory of `fit` with large batches, with and without keeping freed memory and splitting batches.

    python -m benchmarks.speed.large_batches               # a few minutes

Four processes (with and without parts, with and without kept memory) train one flow by ``pf.fit``, in turn in each round, with one
thread. The table has the CPU time of a step as a ratio to that of neither (median and range over rounds), page faults per step, and
the peak memory of the process.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import statistics
import subprocess
import sys
import time

import torch

import pushforward as pf
from benchmarks.common.results import machine, markdown
from benchmarks.speed.cases import batches, named
from benchmarks.speed.libraries.pushforward import build

FLOWS = ("maf-d63-h512", "rnvp-d63-h512", "maf-d6-h128", "rnvp-d6-h128")
METHODS = {"neither": (0, 0), "keep": (0, 1), "parts": (1, 0), "both": (1, 1)}


def worker(name: str, rows: int, steps: int, split: bool) -> None:
    """Train some steps for each input line, and print seconds and page faults per step, and the peak in MiB."""
    torch.set_num_threads(1)
    flow = named(f"{name}/train_step@8192").flow
    model = build(flow).module
    data = torch.from_numpy(next(batches(flow.features, 8 * rows, "float32")))
    for _ in sys.stdin:
        faults, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time()
        pf.fit(
            model,
            data,
            validation=data[:64],
            batch_size=rows,
            max_steps=steps,
            microbatches=None if split else 1,
            progress="silent",
        )
        spent, used = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF)
        print(spent / steps, (used.ru_minflt - faults) / steps, used.ru_maxrss / 1024, flush=True)


def compare(name: str, rows: int, steps: int, rounds: int) -> list[list[str]]:
    """One row for each method; the first round is not counted."""
    own = [
        sys.executable,
        "-m",
        "benchmarks.speed.large_batches",
        "--worker",
        name,
        "--rows",
        str(rows),
        "--steps",
        str(steps),
    ]
    running = {
        method: subprocess.Popen(
            [*own, "--split"] if split else own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PUSHFORWARD_KEEP_MEMORY": str(keep), "OMP_NUM_THREADS": "1"},
        )
        for method, (split, keep) in METHODS.items()
    }  # fmt: skip
    found: dict[str, list[tuple[float, ...]]] = {method: [] for method in METHODS}
    for k in range(rounds + 1):
        for method in itertools.islice(itertools.cycle(METHODS), k % len(METHODS), k % len(METHODS) + len(METHODS)):
            process = running[method]
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            found[method].append(tuple(map(float, process.stdout.readline().split())))
    for process in running.values():
        process.communicate()
    table = []
    for method, readings in found.items():
        ratios = [mine[0] / plain[0] for mine, plain in zip(readings[1:], found["neither"][1:], strict=True)]
        milliseconds = 1e3 * statistics.median(reading[0] for reading in readings[1:])
        table.append([
            name, method, f"{milliseconds:.0f}", f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            f"{readings[-1][1]:,.0f}", f"{readings[-1][2]:,.0f}",
        ])  # fmt: skip
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Large batches with and without parts and kept memory.")
    parser.add_argument("--flows", nargs="+", default=list(FLOWS), metavar="FLOW")
    parser.add_argument("--rows", type=int, default=8192, help="rows of a batch")
    parser.add_argument("--steps", type=int, default=8, help="of each round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--worker", metavar="FLOW", help=argparse.SUPPRESS)
    parser.add_argument("--split", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.rows, options.steps, options.split)
        return
    rows = [row for name in options.flows for row in compare(name, options.rows, options.steps, options.rounds)]
    print(markdown(["flow", "method", "ms per step", "ratio (range)", "page faults per step", "peak MiB"], rows))
    print(f"\nBatches of {options.rows:,}; made by `python -m benchmarks.speed.large_batches` on {machine()}.")


if __name__ == "__main__":
    main()
