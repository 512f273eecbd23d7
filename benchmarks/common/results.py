"""Results as JSON lines, written immediately so that a stopped benchmark can be resumed, and printed as Markdown tables."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

__all__ = ["Record", "Results", "append", "footer", "machine", "markdown", "mean_and_spread", "spread"]

Record = dict[str, Any]
PIPE = "\\|"  # a pipe inside a cell


class Results:
    """The records of one file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self.records: list[Record] = [json.loads(line) for line in lines]

    def where(self, **key: Any) -> list[Record]:
        """The records that have all values of ``key``."""
        return [record for record in self.records if all(record.get(name) == value for name, value in key.items())]

    def add(self, record: Record) -> None:
        """Append a record to the file, and print it."""
        record = {name: round(value, 6) if isinstance(value, float) else value for name, value in record.items()}
        print(*(f"{name}={value}" for name, value in record.items()), flush=True)
        record["machine"] = machine()
        self.records.append(record)
        append(self.file, record)


def append(file: Path, record: Record) -> None:
    """Append a record to a file of JSON lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as out:
        out.write(json.dumps(record) + "\n")


def machine() -> str:
    """The processor and the versions of this machine."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} cores, torch {torch.__version__}"


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard deviation over seeds; the mean alone for one seed."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.fmean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def mean_and_spread(values: Sequence[float]) -> str:
    """As :func:`spread` with two digits, followed by the number of seeds if it is not three; "–" for no values."""
    if not values:
        return "–"
    seeds = "" if len(values) == 3 else f" ({len(values)})"
    return f"{spread(values, 2)}{seeds}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], align: Sequence[str] | None = None) -> str:
    """A Markdown table; ``align`` has the cells of the second line, by default "---" for each column."""
    lines = [head, align or ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', PIPE) for cell in line)} |" for line in lines)


def footer(command: str, records: Sequence[Record]) -> str:
    """A line with the command that made a table and the machines that it ran on."""
    machines = sorted({record["machine"] for record in records})
    return f"\nMade by `{command}` on {'; '.join(machines) or 'nothing yet'}."
