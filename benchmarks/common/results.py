"""Results as JSON lines, written as they come so that a stopped benchmark resumes, and read back as Markdown tables."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

__all__ = ["Record", "Results", "footer", "markdown", "mean_and_spread"]

Record = dict[str, Any]


class Results:
    """The records of one file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self.records: list[Record] = [json.loads(line) for line in lines]

    def where(self, **key: Any) -> list[Record]:
        """Records that agree with ``key``."""
        return [record for record in self.records if all(record.get(name) == value for name, value in key.items())]

    def add(self, record: Record) -> None:
        """Append a record to the file, and print it."""
        record = {name: round(value, 6) if isinstance(value, float) else value for name, value in record.items()}
        print(*(f"{name}={value}" for name, value in record.items()), flush=True)
        record["machine"] = machine()
        self.records.append(record)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as out:
            out.write(json.dumps(record) + "\n")


def machine() -> str:
    """The processor and the versions that a number depends on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} cores, torch {torch.__version__}"


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds; the number of seeds where it is not three."""
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    seeds = "" if len(values) == 3 else f" ({len(values)})"
    return f"{statistics.fmean(values):.2f}{spread}{seeds}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def footer(command: str, records: Sequence[Record]) -> str:
    """What made a table, and where."""
    machines = sorted({record["machine"] for record in records})
    return f"\nMade by `{command}` on {'; '.join(machines) or 'nothing yet'}."
