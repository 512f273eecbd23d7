"""Speed, memory and accuracy of pushforward beside the other flow libraries, and beside the bare matrix products.

    pip install -e '.[bench]'
    python -m benchmarks.speed                          # time, memory, accuracy and import; runs what is missing
    python -m benchmarks.speed time --cases 'nsfc-*' 'maf-d63-h512/sample@512' --rounds 5 --threads 1
    python -m benchmarks.speed growth                   # how cost grows with D, depth, batch and bins, with exponents
    python -m benchmarks.speed --profile nsfc-d63-h128/log_prob@512     # the operations that take the time
    python -m benchmarks.speed --table                  # runs nothing: the tables of what is there

Readings go to ``--out`` as JSON lines as they come, so a stopped run goes on where it was; the tables and the pictures are
written beside it (``.md``, ``.png``). A library that is not installed is left out with a line that says so. Use a machine
that does nothing else: on shared cores one busy neighbour makes a short call ten times slower.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.quality.results import Results
from benchmarks.speed import growth, startup
from benchmarks.speed.cases import CASES, ENSEMBLES, FLOWS, MEMORY, Case, named, selected
from benchmarks.speed.libraries import NAMES, VARIANTS, missing, version
from benchmarks.speed.pictures import draw
from benchmarks.speed.profiling import profile
from benchmarks.speed.report import ALONE, Record, report
from benchmarks.speed.runner import Contestant, Settings, Workers, interleave

PARTS = ("time", "memory", "accuracy", "import")


class Readings(Results):
    """The records of one file, each with the run that made it; a record is looked for by what it was made with."""

    def __init__(self, file: Path, settings: Settings, libraries: Sequence[str]) -> None:
        super().__init__(file)
        self.key = {"threads": settings.threads, "rounds": settings.rounds, "steps": settings.steps}
        self.libraries = libraries
        self.run: str | None = None

    def done(self, part: str, case: str, contestants: Sequence[str]) -> bool:
        found = self.where(part=part, case=case, **self.key)
        return any(set(contestants) <= record["readings"].keys() for record in found)

    def keep(self, part: str, case: str, readings: dict[str, Record]) -> None:
        """Write the readings of a case."""
        if self.run is None:
            self.run = time.strftime("%Y-%m-%d %H:%M:%S")
            versions = {name: version(name) for name in self.libraries if name not in VARIANTS}
            self._append({"part": "run", "id": self.run, **self.key, "versions": versions, "python": platform.python_version(),
                          "system": platform.system(), "load": load()})  # fmt: skip
        self._append({"part": part, "case": case, "run": self.run, **self.key, "readings": readings, "load": load()})

    def _append(self, record: Record) -> None:
        self.add(record)


def load() -> list[float]:
    """Processes that want to run, over 1, 5 and 15 minutes: should be about 0 at the start."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else []


def contestants(case: Case, libraries: Sequence[str]) -> dict[str, Contestant]:
    """Who is timed on a case: every library, but for variants where they cannot differ; beside an ensemble one of its flows."""
    found = {name: Contestant(name, case) for name in libraries if name not in VARIANTS or case.flow.spline}
    if case.flow.members > 1:
        found = {name: one for name, one in found.items() if name in ("pushforward", *VARIANTS, "floor")}
        found[ALONE] = Contestant("pushforward", Case(replace(case.flow, members=1), case.work, case.batch))
    return found
