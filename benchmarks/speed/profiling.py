"""The operations of one case that take the most time, by torch's profiler."""

from __future__ import annotations

import os

from benchmarks.speed.cases import Case
from benchmarks.speed.devices import CPU, Device
from benchmarks.speed.libraries import VARIANTS, adapter

__all__ = ["profile"]

OPERATIONS, SECONDS = 20, 2.0


def profile(case: Case, library: str, threads: int, steps: int, where: Device = CPU) -> str:
    """A table of the operations with the most self time, over about two seconds of calls.

    Args:
        case: the case to run.
        library: a library that runs in torch.
        threads: threads of torch.
        steps: training steps before.
        where: the device; on a GPU its own time counts.
    """
    import torch
    from torch.profiler import profile as record

    from benchmarks.speed.worker import Session

    if library == "flowjax":
        raise SystemExit("torch's profiler cannot profile JAX: use --libraries with a torch library.")
    if library in where.refused:
        raise SystemExit(f"{library}: {where.refused[library]}.")
    os.environ.update(VARIANTS.get(library, ("", {}))[1])
    torch.set_num_threads(threads)
    where.begin()
    session = Session(library, where)
    answer = session.prepare(case.plain(), steps)
    calls = min(max(3, round(SECONDS / answer["warm"])), 1000)
    assert session.call is not None
    with record(activities=where.activities()) as recorded:
        took = [where.timed(session.call)[0] for _ in range(calls)]
    averages = recorded.key_averages()
    rows = sorted(averages, key=lambda row: -where.profiled(row))[:OPERATIONS]
    total = sum(map(where.profiled, averages)) or 1.0
    lines = [
        f"{case.name}, {adapter(library).DISTRIBUTION}, {where.title}, {threads} threads: {sum(took) / calls * 1e3:.3g} ms per call under the "
        f"profiler, {answer['warm'] * 1e3:.3g} without; {sum(row.count for row in averages) // calls} operations per call",
        "",
        f"{'operation':<55}{'self time':>10}{'ms per call':>12}{'calls':>8}",
    ]
    lines += [
        f"{row.key[:54]:<55}{where.profiled(row) / total:>10.1%}{where.profiled(row) / calls / 1e3:>12.4f}"
        f"{row.count / calls:>8.4g}"
        for row in rows
    ]
    return "\n".join(lines)
