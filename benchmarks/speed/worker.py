"""A process that holds one library and does what it is told: one request a line on stdin, one answer a line on stdout.

    python -m benchmarks.speed.worker LIBRARY THREADS [wall | cpu]

Requests are JSON objects with a ``do``:

- ``prepare``: build the case's flow (kept while the flow stays the same), train it for ``steps``, and warm the call up;
  answers the seconds of the first call, which may compile, and of a later one, and the number of parameters;
- ``time``: ``calls`` calls; answers the seconds of each;
- ``memory``: one call more; answers how far the process grew in it and how large it was, in MiB;
- ``accuracy``: see :func:`benchmarks.speed.accuracy.errors`.

An answer is ``{"note": ...}`` where the library has no such flow or the call failed.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

__all__ = ["Session", "main"]

WARM_SECONDS, WARM_CALLS = 0.3, 3


class Session:
    """What a worker knows between two requests."""

    def __init__(self, library: str) -> None:
        from benchmarks.speed.libraries import adapter

        self.adapter = adapter(library)
        self.built: Any = None
        self.flow: Any = None
        self.call: Callable[[], Any] | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        from benchmarks.speed.libraries import NotOffered

        do = {"prepare": self.prepare, "time": self.time, "memory": self.memory, "accuracy": self.accuracy}
        try:
            return do[request.pop("do")](**request)
        except NotOffered as reason:
            return {"note": str(reason)}
        except Exception as error:
            if "--debug" in sys.argv:
                raise
            return {"note": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}

    def prepare(self, case: dict[str, Any], steps: int) -> dict[str, Any]:
        from benchmarks.speed.cases import Case

        wanted = Case.from_plain(case)
        self.build(wanted.flow, steps)
        self.call = self.built.work(wanted.work, wanted.batch)
        first, result = timed(self.call)
        check(wanted, result)
        spent, calls, last = 0.0, 0, first
        while calls < WARM_CALLS and spent < WARM_SECONDS:
            last = timed(self.call)[0]
            spent, calls = spent + last, calls + 1
        return {"first": first, "warm": last, "parameters": self.built.parameters}

    def build(self, flow: Any, steps: int) -> None:
        """A flow trained for a number of steps: sampling and accuracy depend on the weights."""
        if flow == self.flow:
            return
        self.call = self.built = self.flow = None
        gc.collect()
        self.built = self.adapter.build(flow)
        if steps:
            step = self.built.work("train_step", 512)
            for _ in range(steps):
                step()
        self.flow = flow

    def time(self, calls: int) -> dict[str, Any]:
        assert self.call is not None
        return {"seconds": [timed(self.call)[0] for _ in range(calls)]}

    def memory(self) -> dict[str, Any]:
        assert self.call is not None
        gc.collect()
        give_back()
        before = kibibytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        self.call()
        peak = kibibytes("VmHWM")
        return {"above": max(0, peak - before) / 1024, "process": peak / 1024}

    def accuracy(self, case: dict[str, Any], steps: int) -> dict[str, Any]:
        from benchmarks.speed.accuracy import errors
        from benchmarks.speed.cases import Case

        flow = Case.from_plain(case).flow
        self.build(flow, steps)
        return errors(self.built, flow)


clock: Callable[[], float] = time.perf_counter


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = clock()
    result = call()
    return clock() - start, result


def check(case: Any, result: Any) -> None:
    """The call did what the case says, as far as the shape of the result tells."""
    shape = {"log_prob": (case.batch,), "sample": (case.batch, case.flow.features), "train_step": ()}[case.work]
    if tuple(result.shape) != shape:
        raise ValueError(f"{case.name} gave an array of shape {tuple(result.shape)}, not {shape}")


def give_back() -> None:
    """Return freed memory to the system, or the peak of the next call would hide in it (glibc only)."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def kibibytes(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1])


def main(library: str, threads: int, measured: str = "wall") -> None:
    global clock
    clock = time.process_time if measured == "cpu" else time.perf_counter
    # Libraries may print: their stdout becomes stderr, and the answers go where stdout went.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        if Path("/proc/self/oom_score_adj").exists():
            Path("/proc/self/oom_score_adj").write_text("1000")  # when memory runs out, end this process and no other
        if library != "flowjax":
            import torch

            torch.set_num_threads(threads)
        serve(Session(library), sys.stdin, answers)


def serve(session: Session, requests: TextIO, answers: TextIO) -> None:
    for line in requests:
        answers.write(json.dumps(session.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:4])
