"""CPU time of measurements, so that a page can say what a claim costs although a later run only reads its measurements."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.common.results import machine

__all__ = ["Cost", "Costs"]


@dataclass
class Cost:
    """CPU time of one measurement.

    Attributes:
        cpu: seconds, without those of the measurements inside it; None if it is not known.
        parts: names of the measurements inside it.
        complete: False if ``cpu`` is only a part of the time, as after an interruption.
        machine: on which it was made; "" if it is not known.
    """

    cpu: float | None = None
    parts: list[str] = field(default_factory=list)
    complete: bool = True
    machine: str = ""

    @classmethod
    def read(cls, entry: dict[str, Any]) -> Cost:
        """The cost of a line of measurements; lines of earlier versions have none."""
        where = entry.get("machine", "")
        if "cpu" not in entry:
            return cls(complete=False, machine=where)
        return cls(entry["cpu"], entry.get("parts", []), entry.get("complete", True), where)

    def entry(self) -> dict[str, Any]:
        """What :meth:`read` reads."""
        more = ({"parts": self.parts} if self.parts else {}) | ({} if self.complete else {"complete": False})
        return {"cpu": self.cpu} | more | ({"machine": self.machine} if self.machine else {})


class Costs:
    """The costs of a run: each measurement counts once, for the first finding that uses it.

    Attributes:
        known: costs by the names of the measurements.
        machines: on which the measurements were made that the run uses.
    """

    def __init__(self) -> None:
        self.known: dict[str, Cost] = {}
        self.machines: set[str] = set()
        self._running: list[tuple[Cost, list[float]]] = []
        self._counted: set[str] = set()
        self._new: list[Cost] = []
        self._blocks: list[tuple[float, bool]] = []

    @contextmanager
    def measuring(self, name: str) -> Iterator[Cost]:
        """Measure the CPU time of this block, less that of the measurements inside it."""
        cost, before = Cost(0.0, machine=machine()), time.process_time()
        self._running.append((cost, inside := [0.0]))
        try:
            yield cost
        finally:
            self._running.pop()
        whole = time.process_time() - before
        if self._running:
            self._running[-1][1][0] += whole
        cost.cpu = round(whole - inside[0], 2)
        self.known[name] = cost

    def use(self, name: str) -> None:
        """Count a measurement and those inside it for the next finding."""
        if name in self.known and (where := self.known[name].machine):
            self.machines.add(where)
        if self._running:
            self._running[-1][0].parts.append(name)
            return
        if name in self._counted:
            return
        self._counted.add(name)
        cost = self.known.get(name, Cost(complete=False))
        self._new.append(cost)
        for part in cost.parts:
            self.use(part)

    def block(self) -> tuple[int, float, bool]:
        """For a finding: the number of its block, and CPU seconds and completeness of the block.

        Findings with no new measurement between them are of one block.
        """
        if self._new or not self._blocks:
            seconds = sum(cost.cpu or 0.0 for cost in self._new)
            self._blocks.append((round(seconds, 1), all(cost.complete and cost.cpu is not None for cost in self._new)))
            self._new = []
        return len(self._blocks), *self._blocks[-1]
