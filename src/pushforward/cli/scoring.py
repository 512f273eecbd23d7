"""The work of the command `score`: rows in, rows with scores out."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from pushforward.cli.parts import one_warning_of_all_parts, parts_of_input, scored_here, with_scores

__all__ = ["score_file"]


def score_file(
    guard: Any,
    table: str,
    output: str,
    *,
    rows: int,
    prefix: str,
    format: str | None,
    options: dict[str, Any],
    workers: int = 1,
    source: Any = None,
) -> dict[str, Any]:
    """Score a table or images in parts, in constant memory.

    Args:
        guard: a fitted guard.
        table: what to read.
        output: where to write.
        rows: number of rows in memory at a time.
        prefix: text before the names of the new columns.
        format: of the output, where its name does not tell.
        options: of :func:`~pushforward.io.stream_table`.
        workers: number of processes that score; the output is the same for any number.
        source: the :class:`~pushforward.cli.workers.GuardSource` of the guard, for more than one worker.

    Returns:
        The number of rows and of alarms, the promised rate, and the seconds.

    Raises:
        SchemaError: if the table has a column with the name of a new one.
    """
    from pushforward.cli.workers import scored_by_workers
    from pushforward.io import TableWriter

    start, total, alarms = time.perf_counter(), 0, 0
    parts = parts_of_input(guard, table, rows, options)
    with _ended_by_sigterm(), one_warning_of_all_parts(), TableWriter(output, format) as writer:
        scored = scored_by_workers(guard, parts, source, workers) if workers > 1 else scored_here(guard, parts)
        for chunk, result in scored:
            writer.write(with_scores(chunk, result, prefix, table))
            total += chunk.num_rows
            alarms += int(result["alarm"].sum())
    return {
        "rows": total,
        "alarms": alarms,
        "alarm_fraction": alarms / total if total else 0.0,
        "promised": guard.alpha,
        "guarantee": guard.guarantee,
        "output": output,
        "seconds": round(time.perf_counter() - start, 3),
    }


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM leave the ``with`` block as an error does, so that the unfinished output is deleted."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # it is of a program that called this one
        yield
        return

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one must not stop the deletion
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
