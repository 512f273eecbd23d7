"""The parts of a run: each measures the missing cases and prints the results."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.speed import growth, startup
from benchmarks.speed.cases import CASES, ENSEMBLES, FLOWS, MEMORY, Case, selected
from benchmarks.speed.devices import CPU, Device, device
from benchmarks.speed.libraries import VARIANTS
from benchmarks.speed.records import Readings
from benchmarks.speed.report import ALONE, figure
from benchmarks.speed.runner import Entry, Settings, Worker, Workers, interleave

__all__ = ["Suite"]

CANDIDATES: dict[str, tuple[Case, ...]] = {
    "time": (*CASES, *ENSEMBLES),
    "memory": MEMORY,
    "accuracy": tuple(Case(flow, "log_prob", 512) for flow in FLOWS),
    "growth": tuple(dict.fromkeys(Case(sweep.base, sweep.work, growth.BATCH) for sweep in growth.SWEEPS)),
}


@dataclass
class Suite:
    """One run.

    Attributes:
        settings: how long to measure.
        readings: where results are written.
        libraries: names of the installed libraries.
        patterns: patterns that select cases.
    """

    settings: Settings
    readings: Readings
    libraries: Sequence[str]
    patterns: Sequence[str]

    def chosen(self, part: str) -> list[Case]:
        """The cases of a part that match the patterns; there are none of an import."""
        return selected(CANDIDATES.get(part, ()), self.patterns)

    @property
    def where(self) -> Device:
        """The device of this run."""
        return device(self.settings.device)

    def run(self, part: str) -> None:
        """Measure the missing cases of one part."""
        {
            "time": self.time, "memory": self.memory, "accuracy": self.accuracy, "import": self.imports,
            "growth": self.growth,
        }[part]()  # fmt: skip

    def time(self) -> None:
        with Workers(self.settings) as workers:
            for case in self.chosen("time"):
                entered = entries(case, self.libraries, self.where)
                if not self.readings.done("time", case.name, entered):
                    self.keep("time", case.name, interleave(workers, entered))

    def memory(self) -> None:
        for case in self.chosen("memory"):
            entered = entries(case, self.libraries, self.where)
            entered.pop("pushforward-graph", None)  # a graph allocates its memory at the start
            if self.readings.done("memory", case.name, entered):
                continue
            found: dict[str, dict[str, Any]] = {}
            for name in entered:  # a new process for each, because freed memory would hide a peak
                worker = Worker(name, self.settings)
                try:
                    found[name] = worker.ask("prepare", case=case.plain(), steps=0)
                    if "note" not in found[name]:
                        found[name] = worker.ask("memory")
                finally:
                    worker.close()
            self.keep("memory", case.name, found)

    def accuracy(self) -> None:
        with Workers(self.settings) as workers:
            for case in self.chosen("accuracy"):
                names = [name for name in entries(case, self.libraries, self.where) if name != "floor"]
                if self.readings.done("accuracy", case.flow.name, names):
                    continue
                steps = self.settings.training(case)
                found = {n: workers.get(n, n).ask("accuracy", case=case.plain(), steps=steps) for n in names}
                self.keep("accuracy", case.flow.name, found)

    def imports(self) -> None:
        names = [name for name in self.libraries if name not in VARIANTS]
        if not self.readings.done("import", "import", names):
            self.keep("import", "import", startup.measure(names, self.settings.threads, self.settings.rounds))

    def growth(self) -> None:
        with Workers(self.settings) as workers:
            chosen = self.chosen("growth")
            for sweep in growth.SWEEPS:
                if Case(sweep.base, sweep.work, growth.BATCH) not in chosen:
                    continue
                if not self.readings.done("growth", sweep.name, sweep.entries()):
                    self.keep("growth", sweep.name, growth.measure(workers, sweep))

    def keep(self, part: str, case: str, found: dict[str, dict[str, Any]]) -> None:
        self.readings.keep(part, case, found)
        print(
            f"{part} {case}: " + ", ".join(f"{name} {summary(reading)}" for name, reading in found.items()), flush=True
        )


def entries(case: Case, libraries: Sequence[str], where: Device = CPU) -> dict[str, Entry]:
    """The entries of a case: every library without variants that would be the same; for an ensemble also one of its flows."""
    if case.flow.members == 1:
        absent = set(where.refused)
        absent |= {"pushforward-plain"} if not (case.flow.spline or case.flow.kind == "glow") else set()
        absent |= {"pushforward-compiled"} if case.work != "log_prob" or case.flow.kind == "glow" else set()
        return {name: Entry(name, case) for name in libraries if name not in absent}
    one = replace(case, flow=replace(case.flow, members=1))
    found = {name: Entry(name, case) for name in libraries if name in ("pushforward", "floor")}
    return found | {ALONE: Entry("pushforward", one)}


def summary(reading: dict[str, Any]) -> str:
    """A short text for a reading."""
    if "note" in reading:
        return f"({reading['note']})"
    if "errors" in reading:
        return "/".join("–" if value is None else f"{value:.0e}" for value in reading["errors"].values())
    if "seconds" in reading:
        return f"{figure(statistics.median(reading['seconds']) * 1e3)} ms"
    return f"{figure(reading['above'])} MiB"
