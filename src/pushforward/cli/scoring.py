"""The work of the command `score`: rows in, rows with scores out."""

from __future__ import annotations

import time
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
    with one_warning_of_all_parts(), TableWriter(output, format) as writer:
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
