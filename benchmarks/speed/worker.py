"""A process that measures one library: it reads one request per line from stdin and writes one reply per line to stdout.

    python -m benchmarks.speed.worker LIBRARY THREADS [wall | cpu [DEVICE]]

Requests are JSON objects with a ``do``:

- ``prepare``: build the case's flow (kept for the next case of the same flow), train it for ``steps``, and warm up the call;
  replies with the seconds of the first call, which may compile, and of a later one, and the number of parameters;
- ``time``: ``calls`` calls; replies with the seconds of each;
- ``memory``: one more call; replies with the growth of memory in it and the peak, MiB: of the process, or of the device;
- ``accuracy``: see :func:`benchmarks.speed.accuracy.errors`.

A reply is ``{"note": ...}`` if the library has no such flow or the call failed.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from benchmarks.speed.devices import CPU, Device, device

__all__ = ["Session", "main"]

WARM_SECONDS, WARM_CALLS = 0.3, 3


class Session:
    """The state of a worker between two requests.

    Args:
        library: name of the library.
        device: device of its calls.
    """

    def __init__(self, library: str, device: Device = CPU) -> None:
        from benchmarks.speed.libraries import adapter

        self.adapter, self.device = adapter(library), device
        self.refused = device.refused.get(library)
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
        first, result = self.device.timed(self.call)
        check(wanted, result)
        spent, calls, last = 0.0, 0, first
        while calls < WARM_CALLS and spent < WARM_SECONDS:
            last = self.device.timed(self.call)[0]
            spent, calls = spent + last, calls + 1
        return {"first": first, "warm": last, "parameters": self.built.parameters}

    def build(self, flow: Any, steps: int) -> None:
        """Build a flow and train it for a number of steps, because sampling and accuracy depend on the weights."""
        from benchmarks.speed.libraries import NotOffered

        if self.refused is not None:
            raise NotOffered(self.refused)
        if flow == self.flow:
            return
        self.call = self.built = self.flow = None
        gc.collect()
        self.built = self.adapter.build(flow, self.device)
        self.built.train(steps)
        self.flow = flow

    def time(self, calls: int) -> dict[str, Any]:
        assert self.call is not None
        return {"seconds": self.device.seconds(self.call, calls)}

    def memory(self) -> dict[str, Any]:
        assert self.call is not None
        return self.device.memory(self.call)

    def accuracy(self, case: dict[str, Any], steps: int) -> dict[str, Any]:
        from benchmarks.speed.accuracy import errors
        from benchmarks.speed.cases import Case

        flow = Case.from_plain(case).flow
        self.build(flow, steps)
        return errors(self.built, flow)


def check(case: Any, result: Any) -> None:
    """Check the shape of the result of a call."""
    shape = {"log_prob": (case.batch,), "sample": (case.batch, case.flow.features), "train_step": ()}[case.work]
    if tuple(result.shape) != shape:
        raise ValueError(f"{case.name} returned an array of shape {tuple(result.shape)} instead of {shape}")


def main(library: str, threads: int, clock: str = "wall", name: str = "cpu") -> None:
    where = device(name, clock, library)
    # Libraries may print, so their stdout is redirected to stderr, and replies go to the original stdout.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        if Path("/proc/self/oom_score_adj").exists():
            Path("/proc/self/oom_score_adj").write_text(
                "1000"
            )  # if memory runs out, the system ends this process first
        if library != "flowjax":
            import torch

            torch.set_num_threads(threads)
        where.begin()
        serve(Session(library, where), sys.stdin, answers)


def serve(session: Session, requests: TextIO, answers: TextIO) -> None:
    for line in requests:
        answers.write(json.dumps(session.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:5])
