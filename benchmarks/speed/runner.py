"""Run each library in its own process, and time the processes in turn, so that conditions are the same for all."""

from __future__ import annotations

import json
import os
import selectors
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed.cases import Case
from benchmarks.speed.devices import CPU, Device, device
from benchmarks.speed.libraries import VARIANTS

__all__ = ["ROOT", "Entry", "Settings", "Worker", "Workers", "environment", "interleave"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Settings:
    """How long to measure, and under which conditions.

    Attributes:
        threads: threads of every library.
        rounds: number of rounds of timing.
        visit: seconds of an entry in each round.
        most: most seconds for one entry; it is skipped in later rounds.
        limit: most seconds to wait for one reply.
        steps: training steps before measuring; a fifth for wide flows.
        log: file for the output of the libraries.
        clock: "wall", or "cpu": the CPU time of all threads of the library's process, on which other work has
            much less effect.
        device: "cpu", "cuda" or "cuda:1".
    """

    threads: int
    rounds: int = 9
    visit: float = 0.3
    most: float = 30.0
    limit: float = 600.0
    steps: int = 100
    log: Path = Path(os.devnull)
    clock: str = "wall"
    device: str = "cpu"

    def training(self, case: Case) -> int:
        return self.steps // 5 if case.flow.features > 100 else self.steps


@dataclass(frozen=True)
class Entry:
    """A library and the case that it runs."""

    library: str
    case: Case


class Worker:
    """A process that runs one library."""

    def __init__(self, library: str, settings: Settings) -> None:
        self.settings = settings
        self.log = settings.log.open("a")
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.speed.worker",
                library,
                *map(str, (settings.threads, settings.clock, settings.device)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment(settings.threads, device(settings.device)) | VARIANTS.get(library, ("", {}))[1],
            bufsize=0,
        )
        self.pending = b""

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and return the reply; without a reply in time, a note, and the process is ended."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write((json.dumps({"do": do, **arguments}) + "\n").encode())
            line = self._line()
        except (BrokenPipeError, EOFError):
            code = self.process.wait()
            return {"note": f"the process ended with code {code} during {do}"}
        except TimeoutError:
            self.close()
            return {"note": f"no reply to {do} within {self.settings.limit:g} s"}
        return json.loads(line)

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.pending:
                if not ready.select(self.settings.limit):
                    raise TimeoutError
                part = self.process.stdout.read(1 << 16)
                if not part:
                    raise EOFError
                self.pending += part
        line, _, self.pending = self.pending.partition(b"\n")
        return line

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            if stream is not None:
                stream.close()


class Workers:
    """The processes by name. A process is started when it is first needed, and again after it has ended."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.running: dict[str, Worker] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.keep(())

    def get(self, name: str, library: str) -> Worker:
        worker = self.running.get(name)
        if worker is None or not worker.alive:
            if worker is not None:
                worker.close()
            worker = self.running[name] = Worker(library, self.settings)
        return worker

    def keep(self, names: Iterable[str]) -> None:
        """Close all processes except these."""
        for name in self.running.keys() - set(names):
            self.running.pop(name).close()


def environment(threads: int, where: Device = CPU) -> dict[str, str]:
    """Environment of a worker: the checkout on its path, and the variables of every library for threads and device."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")  # the last one is read by JAX
    path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **where.environment(dict(os.environ)),
        **dict.fromkeys(names, str(threads)),
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
    }


def interleave(workers: Workers, entries: Mapping[str, Entry]) -> dict[str, dict[str, Any]]:
    """Time the entries in rounds, in an order that rotates with each round.

    Returns:
        For each name either ``{"note": reason}``, or the median seconds of a call in each round (``seconds``), the calls
        in each round, the seconds of the first call of all (which may compile) and the number of parameters.
    """
    settings = workers.settings
    found: dict[str, dict[str, Any]] = {}
    running_entries: dict[str, Worker] = {}
    for name, entry in entries.items():
        worker = workers.get(name, entry.library)
        case = entry.case
        found[name] = worker.ask("prepare", case=case.plain(), steps=settings.training(case))
        if "note" not in found[name]:
            calls = round(settings.visit / max(found[name].pop("warm"), 1e-7))
            found[name] |= {"calls": min(max(calls, 1), 1000), "seconds": []}
            running_entries[name] = worker
    spent = dict.fromkeys(running_entries, 0.0)
    for turn in range(settings.rounds):
        names = list(running_entries)
        for name in names[turn % max(len(names), 1) :] + names[: turn % max(len(names), 1)]:
            if spent[name] > settings.most:
                continue
            answer = running_entries[name].ask("time", calls=found[name]["calls"])
            if "note" in answer:
                found[name] = answer
                del running_entries[name]
                continue
            spent[name] += sum(answer["seconds"])
            found[name]["seconds"].append(statistics.median(answer["seconds"]))
    return found
