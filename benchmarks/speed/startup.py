"""Seconds and peak memory of an import in a fresh process: ``python -m benchmarks.speed.startup "import zuko"``."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["measure"]


def measure(libraries: Sequence[str], threads: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Import each library ``rounds`` times, in turn, each time in a new process."""
    from benchmarks.speed.libraries import adapter
    from benchmarks.speed.runner import environment

    found: dict[str, dict[str, Any]] = {name: {"seconds": [], "process": []} for name in libraries}
    for turn in range(rounds + 1):
        for k in range(len(libraries)):
            name = libraries[(turn + k) % len(libraries)]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.speed.startup", adapter(name).IMPORT],
                capture_output=True, text=True, env=environment(threads),
            )  # fmt: skip
            if done.returncode:
                found[name] = {"note": done.stderr.strip().splitlines()[-1]}
            elif turn and "note" not in found[name]:  # the first round loads the files into the disk cache
                seconds, peak = json.loads(done.stdout.splitlines()[-1])
                found[name]["seconds"].append(seconds)
                found[name]["process"].append(peak)
    return found


def main(statement: str) -> None:
    start = time.perf_counter()
    exec(statement, {})
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, peak_mebibytes()]))


def peak_mebibytes() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would include the parent's memory at the time of the fork
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    main(sys.argv[1])
