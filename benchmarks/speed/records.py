"""Readings as JSON lines, written immediately, so that a stopped run can be resumed."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.results import append, machine
from benchmarks.speed.devices import CPU, device
from benchmarks.speed.libraries import VARIANTS, version
from benchmarks.speed.runner import Settings

__all__ = ["Readings", "device_of", "load", "read"]


class Readings:
    """The records of one file: one line for each case, and one for each run that added cases.

    Args:
        file: file to read and to append to.
        settings: settings of this run; a record counts as done if it was made on the same kind of device with the same threads, rounds and training steps.
        libraries: libraries of this run.
    """

    def __init__(self, file: Path, settings: Settings, libraries: Sequence[str]) -> None:
        self.file, self.libraries = file, libraries
        self.key = {
            "threads": settings.threads,
            "rounds": settings.rounds,
            "steps": settings.steps,
            "clock": settings.clock,
            "device": device(settings.device).title,
        }
        self.conditions = device(settings.device).circumstances()
        self.records: list[dict[str, Any]] = list(read(file)) if file.exists() else []
        self.run: str | None = None

    def done(self, part: str, case: str, names: Iterable[str]) -> bool:
        """Whether there is a record with a reading for each of the names."""
        key = {"part": part, "case": case, **self.key}
        kept = ({**record, "device": device_of(record)} for record in self.records)
        found = (record for record in kept if all(record.get(name) == value for name, value in key.items()))
        return any(set(names) <= record["readings"].keys() for record in found)

    def keep(self, part: str, case: str, readings: dict[str, dict[str, Any]]) -> None:
        """Write the readings of a case."""
        if self.run is None:
            self.run = time.strftime("%Y-%m-%d %H:%M:%S")
            self._append({"part": "run", "id": self.run, **self.key, **self.circumstances()})
        self._append({"part": part, "case": case, "run": self.run, **self.key, "load": load(), "readings": readings})

    def circumstances(self) -> dict[str, Any]:
        """The machine, the versions and the load that the numbers depend on."""
        torch.set_num_threads(self.key["threads"])
        return {
            "machine": machine(),
            "system": platform.platform(terse=True),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in self.libraries if name not in (*VARIANTS, "floor")},
            "load": load(),
            **self.conditions,
        }

    def _append(self, record: dict[str, Any]) -> None:
        self.records.append(record)
        append(self.file, record)


def device_of(record: dict[str, Any]) -> str:
    """The device of a record; the earliest records, all of CPUs, have none."""
    return record.get("device", CPU.title)


def read(file: Path) -> Iterable[dict[str, Any]]:
    """The records of a file; an incomplete line of a stopped run is removed."""
    text = file.read_text()
    complete, _, rest = text.rpartition("\n")
    if rest:  # a run was stopped while it wrote
        file.write_text(complete + "\n" if complete else "")
    return (json.loads(line) for line in complete.splitlines())


def load() -> list[float]:
    """Load averages over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else []
