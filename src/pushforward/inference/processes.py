"""`Workers`: processes that run a function on one task after the other, with a clock for each task, and that can be killed."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import pickle
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NoReturn, Self

from pushforward.errors import ConfigError

__all__ = ["LATE", "Workers"]

LATE = "it did not end within"
"""How the text about a task that took too long begins."""
_NAME = "pushforward-worker"


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    ready: bool = False
    task: int | None = None
    began: float | None = None
    """When the function began the task."""


class Workers:
    """Processes that run a function; they end with the block of ``with``.

    A task's clock begins when the function begins, so the start of a process, which takes seconds, does not count. A process
    that is late or ends by itself costs its task only, and another takes its place.

    Args:
        function: of one task; it must be picklable, and so must what it returns.
        count: number of processes.
        timeout: seconds after which a task counts as failed; None waits.

    Raises:
        ConfigError: for a function that no other process can load.
    """

    def __init__(self, function: Callable[[Any], Any], count: int, timeout: float | None) -> None:
        try:
            self._function = pickle.dumps(function)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"a worker process cannot get this simulator ({_reason(error)}): define it at the top level of a module, not as a "
                "lambda or inside a function, or use workers=0."
            ) from None
        self._count, self._timeout = count, timeout
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in list(self._workers):
            self._kill(worker)

    def run(self, tasks: Sequence[Any]) -> list[Any]:
        """What the function returns for each task; a text that says why, where it did not end.

        Raises:
            ConfigError: if a process cannot load the function, or the script that is running.
        """
        results: dict[int, Any] = {}
        waiting = deque(range(len(tasks)))
        while len(results) < len(tasks):
            free = [worker for worker in self._workers if worker.task is None]
            for _ in range(min(self._count - len(self._workers), len(waiting) - len(free))):
                self._workers.append(_start(self._function, len(self._workers)))
            for worker in free:
                if worker.ready and waiting:
                    worker.task = waiting.popleft()
                    with contextlib.suppress(OSError):  # a process that ended is seen below
                        worker.connection.send(tasks[worker.task])
            self._listen(results)
            self._stop_late(results)
        return [results[index] for index in range(len(tasks))]

    def _listen(self, results: dict[int, Any]) -> None:
        """Wait for messages, not longer than until the next task is late."""
        clocks = [worker.began for worker in self._workers if worker.began is not None]
        longest = None
        if self._timeout is not None and clocks:
            longest = max(0.0, min(clocks) + self._timeout - time.monotonic())
        heard = wait([worker.connection for worker in self._workers], longest)
        for worker in [worker for worker in self._workers if worker.connection in heard]:
            kind, value = _receive(worker.connection)
            if kind == "gone":
                self._lose(worker, results)
            elif kind == "ready":
                worker.ready = True
            elif kind == "began":
                worker.began = time.monotonic()
            elif kind == "ended":
                assert worker.task is not None
                results[worker.task] = value
                worker.task = worker.began = None
            else:
                raise ConfigError(
                    f"a worker process cannot load the simulator ({value}): define it at the top level of a module, which "
                    "other processes can import, not in a notebook or under `if __name__`."
                )

    def _stop_late(self, results: dict[int, Any]) -> None:
        limit = math.inf if self._timeout is None else self._timeout
        for worker in list(self._workers):
            late = worker.began is not None and time.monotonic() - worker.began >= limit
            if late and worker.task is not None and not worker.connection.poll():
                results[worker.task] = f"{LATE} {limit:g} s"
                self._kill(worker)

    def _lose(self, worker: _Worker, results: dict[int, Any]) -> None:
        """A process ended by itself."""
        worker.process.join()
        code = worker.process.exitcode
        self._kill(worker)
        if not worker.ready:
            _refuse_script(f"a worker process ended with exit code {code} before its first run")
        if worker.task is not None:
            results[worker.task] = f"its process ended with exit code {code}"

    def _kill(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.process.kill()  # one that hangs cannot be asked to stop
        worker.process.join()
        worker.connection.close()


def _receive(connection: Connection) -> tuple[str, Any]:
    try:
        return connection.recv()
    except (EOFError, OSError):  # the process ended
        return "gone", None


def _start(function: bytes, number: int) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, function), name=f"{_NAME}-{number}", daemon=True)
    try:
        process.start()
    except RuntimeError as error:
        if "bootstrapping" not in str(error):
            raise
        if multiprocessing.current_process().name.startswith(_NAME):
            raise SystemExit(1) from None  # this script runs a second time, in a worker, and the first process says so
        _refuse_script("this process is still loading the script")
    there.close()  # so that the end of the process closes the pipe
    return _Worker(process, here)


def _refuse_script(what: str) -> NoReturn:
    raise ConfigError(
        f"{what}: each worker loads the script that is running, so put the call of simulate under "
        '`if __name__ == "__main__":`, or in a function that is called from there, and define the simulator at the top level of a module.'
    )


def _work(connection: Connection, function: bytes) -> None:
    """What a process does: load the function, then run it on each task."""
    try:
        call = pickle.loads(function)
    except Exception as error:
        connection.send(("unloadable", _reason(error)))
        return
    connection.send(("ready", None))
    with contextlib.suppress(EOFError):  # the process that gives the tasks ended
        while True:
            task = connection.recv()
            connection.send(("began", None))
            connection.send(("ended", call(task)))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}".rstrip(".")
