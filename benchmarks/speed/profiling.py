"""Where the time of one case goes: the top operations of pushforward, by torch's profiler."""

from __future__ import annotations

from benchmarks.speed.cases import Case
from benchmarks.speed.libraries import adapter

__all__ = ["profile"]

OPERATIONS, SECONDS = 20, 2.0


def profile(case: Case, library: str, threads: int, steps: int) -> str:
    """A table of the operations that take most time themselves, over about two seconds of calls.

    Args:
        case: what to run.
        library: any that runs in torch.
        threads: of torch.
        steps: training steps before.
    """
    import torch
    from benchmarks.speed.worker import Session, timed
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    if library == "flowjax":
        raise SystemExit("torch's profiler does not see into JAX: choose another library.")
    torch.set_num_threads(threads)
    session = Session(library)
    answer = session.prepare(case.plain(), steps)
    calls = min(max(3, round(SECONDS / answer["warm"])), 1000)
    assert session.call is not None
    with record(activities=[ProfilerActivity.CPU]) as recorded:
        took = [timed(session.call)[0] for _ in range(calls)]
    averages = recorded.key_averages()
    rows = sorted(averages, key=lambda row: -row.self_cpu_time_total)[:OPERATIONS]
    total = sum(row.self_cpu_time_total for row in averages)
    lines = [
        f"{case.name}, {adapter(library).DISTRIBUTION}, {threads} threads: {sum(took) / calls * 1e3:.3g} ms a call under the "
        f"profiler, {answer['warm'] * 1e3:.3g} without; {sum(row.count for row in averages) // calls} operations a call",
        "",
        f"{'operation':<55}{'self time':>10}{'ms a call':>12}{'calls':>8}",
    ]
    lines += [
        f"{row.key[:54]:<55}{row.self_cpu_time_total / total:>10.1%}{row.self_cpu_time_total / calls / 1e3:>12.4f}"
        f"{row.count / calls:>8.4g}"
        for row in rows
    ]
    return "\n".join(lines)
