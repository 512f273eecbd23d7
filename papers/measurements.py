"""The file of a run's measurements, from which a stopped run goes on, also on another machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common.results import append
from papers.costs import Cost
from pushforward.errors import StorageError

__all__ = ["SHARED", "Measurements", "add_lacking", "measurements_file"]

SHARED = "images-against-time"
"""The name under which papers keep the measurements that they have in common (`papers/flows/against_time.py`)."""


def measurements_file(name: str, budget: str) -> str:
    """The name of the file of measurements of a reproduction and a budget."""
    return f"{name}-{budget}.jsonl"


def add_lacking(file: Path, source: Path) -> None:
    """Add the lines of another file whose keys a file lacks, which may not exist; a line that is just being written is left out.

    Raises:
        StorageError: if a line is damaged.
    """
    known, new = Measurements(file, print), Measurements(source)
    for key, value in new.values.items():
        if key not in known.values:
            known.add(key, value, new.costs[key])


class Measurements:
    """Measurements by key, one JSON line each; of two lines with the same key the last one counts.

    Args:
        file: the file, which need not exist.
        say: function that is called with a line if the end of the file is not complete, which is then removed; None to leave the
            file as it is, because another process may be writing it.

    Raises:
        StorageError: if a line is damaged.
    """

    def __init__(self, file: Path, say: Callable[[str], object] | None = None) -> None:
        self.file = file
        self.values: dict[str, Any] = {}
        self.costs: dict[str, Cost] = {}
        for number, line in enumerate(self._whole_lines(say) if file.exists() else [], 1):
            try:
                entry = json.loads(line)
                self.values[entry["key"]] = entry["value"]
                self.costs[entry["key"]] = Cost.read(entry)
            except (
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
            ) as error:  # the first also for text that is not UTF-8
                raise StorageError(
                    f"line {number} of {file} is damaged ({type(error).__name__}: {error}): delete this line, and its measurement alone "
                    "is made again."
                ) from error

    def add(self, key: str, value: Any, cost: Cost) -> None:
        """Keep a measurement, and write it at once."""
        self.values[key], self.costs[key] = value, cost
        append(self.file, {"key": key, "value": value, **cost.entry()})

    def _whole_lines(self, say: Callable[[str], object] | None) -> list[bytes]:
        """The lines without the piece of a line that a killed process leaves at the end of the file."""
        text = self.file.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text) and say is not None:
            say(f"{self.file.name}: the last line is not complete, so its measurement is made again")
            os.truncate(self.file, len(whole))
        return whole.splitlines()
