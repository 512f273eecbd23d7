"""Processes that score parts of an input side by side; the scores come back in the order of the parts."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import multiprocessing
import pickle
import queue
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn, Self

from pushforward.cli.parts import Part, scored_here, scores_of
from pushforward.data.schema import counted_from
from pushforward.errors import PushforwardError, PushforwardWarning, StorageError

__all__ = [
    "GuardSource",
    "WorkerError",
    "caught_warnings",
    "one_thread_only",
    "packed",
    "scored_by_workers",
    "sendable",
]

_WAITING = 2
"""Parts that a worker has at a time: the one that it scores, and the next one."""

_SMALL = 2
"""Parts up to which no process starts: a worker needs two to three seconds before its first part."""


class WorkerError(PushforwardError, RuntimeError):
    """A worker process ended before its work."""


@dataclass(frozen=True)
class GuardSource:
    """Where a process finds a guard.

    Attributes:
        path: its file.
        network: ``package.module:function`` of the guard of a network.
        public_key: with which the file must be signed.
        digest: SHA-256 of the file, which must not change meanwhile.
    """

    path: Path
    network: str | None
    public_key: Path | None
    digest: str

    @classmethod
    def of(cls, path: Path, network: str | None, public_key: Path | None) -> Self:
        """The source of a guard in a file, as it is now."""
        return cls(path, network, public_key, _digest(path))

    def load(self) -> Any:
        """Read the guard.

        Raises:
            StorageError: if the file has changed, or cannot be read.
        """
        from pushforward.cli.network import load_guard

        if _digest(self.path) != self.digest:
            raise StorageError(f"{self.path} changed while it was used: start again when nothing writes to it.")
        return load_guard(self.path, self.network, self.public_key)


def scored_by_workers(
    guard: Any, parts: Iterator[Part], source: GuardSource, workers: int
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The tables of the parts, in their order, each with its new columns.

    Inputs of one or two parts are scored by this process. Warnings and errors of a part come when its turn comes, so what
    was yielded before, and what a user reads, are as with one process.

    Args:
        guard: the guard.
        parts: the parts, which this process reads.
        source: where the workers find the guard.
        workers: number of processes.

    Raises:
        WorkerError: if a worker ends before its work.
    """
    read = _read(parts)
    start = list(itertools.islice(read, _SMALL + 1))
    if len(start) <= _SMALL or isinstance(start[-1], Exception):
        yield from scored_here(guard, _or_raise(start))
        return
    read = itertools.chain(start, read)
    del start
    with _Workers(source, workers) as pool:
        yield from pool.scored(read)


class _Workers:
    """Processes that score parts. Inside the ``with`` block they run; at its end they are ended, whatever they do."""

    def __init__(self, source: GuardSource, count: int) -> None:
        self.source, self.count = source, count
        self.processes: list[Any] = []
        self.connections: list[Connection] = []
        self.waiting: list[int] = [0] * count

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        with (
            _without_interrupts()
        ):  # the workers inherit this, so Ctrl-C reaches only the process that reads and writes
            for number in range(1, self.count + 1):
                own, other = context.Pipe()
                process = context.Process(
                    target=_work, args=(other, self.source), name=f"pushforward worker {number}", daemon=True
                )
                process.start()
                other.close()
                self.processes.append(process)
                self.connections.append(own)
        return self

    def __exit__(self, *error: object) -> None:
        for process, connection in zip(self.processes, self.connections, strict=True):
            connection.close()
            process.kill()
        for process in self.processes:
            process.join()
            process.close()

    def scored(self, parts: Iterator[Part | Exception]) -> Iterator[tuple[Any, dict[str, Any]]]:
        """The tables of the parts with their new columns, in order."""
        tables: dict[int, Any] = {}
        results: dict[int, dict[str, Any]] = {}
        numbered = enumerate(parts)
        last: Exception | None = None
        first = 0
        for turn in itertools.count():
            for number, part in itertools.islice(numbered, _WAITING * self.count - len(tables)):
                if isinstance(part, Exception):
                    last = part
                    break
                tables[number] = part[0]
                self._send(number, part)
            if not tables:
                break
            while turn not in results:
                self._receive(results)
            table = tables.pop(turn)
            with counted_from(first):
                scores = self._opened(results.pop(turn))
            yield table, scores
            first += len(table)
        if last is not None:
            raise last

    def _send(self, number: int, part: Part) -> None:
        """Give a part to the worker with the fewest of them."""
        worker = min(range(self.count), key=self.waiting.__getitem__)
        try:
            self.connections[worker].send((number, packed(part)))
        except OSError:
            self._fail(worker)
        self.waiting[worker] += 1

    def _receive(self, results: dict[int, dict[str, Any]]) -> None:
        """Wait for results."""
        for ready in wait(self.connections):
            worker = self.connections.index(ready)  # pyright: ignore[reportArgumentType]
            try:
                number, result = self.connections[worker].recv()
            except (EOFError, OSError):
                self._fail(worker)
            if number is None:
                raise result
            results[number] = result
            self.waiting[worker] -= 1

    def _fail(self, worker: int) -> NoReturn:
        said: tuple[Any, Any] = 0, None
        with contextlib.suppress(EOFError, OSError):
            if self.connections[worker].poll():
                said = self.connections[worker].recv()
        if said[0] is None:  # why it could not begin
            raise said[1]
        process = self.processes[worker]
        process.join(10)
        code = process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        raise WorkerError(
            f"a worker process ended before its work ({how}): if memory ran out, give fewer --workers or fewer --rows."
        )

    @staticmethod
    def _opened(result: dict[str, Any]) -> dict[str, Any]:
        for warning in result["warnings"]:
            warnings.warn(warning, stacklevel=2)
        if "error" in result:
            raise result["error"]
        return result["scores"]


def _read(parts: Iterator[Part]) -> Iterator[Part | Exception]:
    """The parts and, if reading fails, the error as the last of them, because the parts before it are written first."""
    try:
        yield from parts
    except Exception as error:
        yield error


def _or_raise(parts: list[Part | Exception]) -> Iterator[Part]:
    for part in parts:
        if isinstance(part, Exception):
            raise part
        yield part


def one_thread_only() -> None:
    """Limit this process to one thread for each of its libraries: the workers are as many as the cores that they may use."""
    import pyarrow as pa
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    threadpool_limits(1)


def _work(connection: Connection, source: GuardSource) -> None:
    """What a worker does: load the guard, then score the parts that come, until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # the other process has ended
        try:
            one_thread_only()
            guard = source.load()
        except Exception as error:
            connection.send((None, sendable(error)))
            return
        # A thread receives, so that the other process never waits to send while this one waits to send a result.
        parts: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(connection, parts), daemon=True).start()
        while (item := parts.get()) is not None:
            number, content = item
            connection.send((number, _scored(guard, _unpacked(content))))


def _listen(connection: Connection, parts: queue.SimpleQueue[tuple[int, Any] | None]) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            parts.put(connection.recv())
    parts.put(None)


def _scored(guard: Any, part: Part) -> dict[str, Any]:
    """The new columns of a part or its error, and its warnings."""
    result: dict[str, Any] = {}
    with caught_warnings() as warned:
        try:
            result["scores"] = scores_of(guard, part)
        except Exception as error:
            result["error"] = sendable(error)
    return result | {"warnings": warned()}


@contextlib.contextmanager
def caught_warnings() -> Iterator[Callable[[], list[PushforwardWarning]]]:
    """Catch the warnings of this package in the ``with`` block; the function gives them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PushforwardWarning)
        yield lambda: [w.message for w in caught if isinstance(w.message, PushforwardWarning)]


def packed(part: Part) -> tuple[bool, Any]:
    """A part as bytes of an Arrow stream or an array: a tensor would be sent as a file in shared memory."""
    chunk, inputs = part
    if inputs is not None:
        return False, inputs.numpy()
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, chunk.schema) as writer:
        writer.write_table(chunk)
    return True, sink.getvalue().to_pybytes()


def _unpacked(sent: tuple[bool, Any]) -> Part:
    is_table, content = sent
    if is_table:
        import pyarrow as pa

        with pa.ipc.open_stream(content) as reader:
            return reader.read_all(), None
    import torch

    return None, torch.from_numpy(content)


def sendable(error: Exception) -> Exception:
    """The error, or one with its words if it cannot be sent, with the traceback for ``--debug``."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Keep Ctrl-C waiting inside the ``with`` block, where the system can do so."""
    mask = getattr(signal, "pthread_sigmask", None)
    if mask is None:
        yield
        return
    resource_tracker.ensure_running()  # the first process would start it, and that lets Ctrl-C through again
    before = mask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        mask(signal.SIG_SETMASK, before)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""  # load_guard says what is wrong
