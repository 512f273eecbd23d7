"""The work of the command `score`: rows in, rows with scores out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

__all__ = ["score_file"]


def score_file(
    guard: Any, table: str, output: str, *, rows: int, prefix: str, format: str | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Score a table or images in chunks, in constant memory.

    Args:
        guard: a fitted guard.
        table: what to read.
        output: where to write.
        rows: number of rows in memory at a time.
        prefix: text before the names of the new columns.
        format: of the output, where its name does not tell.
        options: of :func:`~pushforward.io.stream_table`.

    Returns:
        The number of rows and of alarms, the promised rate, and the seconds.

    Raises:
        SchemaError: if the table has a column with the name of a new one.
    """
    import pyarrow as pa

    from pushforward.errors import SchemaError
    from pushforward.io import TableWriter

    start, total, alarms = time.perf_counter(), 0, 0
    with TableWriter(output, format) as writer:
        for chunk, result in _chunks(guard, table, rows, options):
            for name, values in result.items():
                if prefix + name in chunk.column_names:
                    raise SchemaError(
                        f"{table} already has a column {prefix + name!r}: choose other names, for example with --prefix guard_"
                    )
                chunk = chunk.append_column(prefix + name, pa.array(values))
            writer.write(chunk)
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


def _chunks(guard: Any, table: str, rows: int, options: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Parts of the table to write, each with its new columns."""
    import pyarrow as pa

    from pushforward.estimators import NetworkGuard
    from pushforward.io import read_images, stream_table

    if isinstance(guard, NetworkGuard):
        from pushforward.cli.network import scored_parts

        yield from scored_parts(guard, table, min(rows, 1024), options)
    elif guard.reads_images:
        images = read_images(table)
        for k in range(0, len(images), rows):
            part = images[k : k + rows]
            yield pa.table({"image": range(k, k + len(part))}), guard.assess(part)
    else:
        for chunk in stream_table(table, rows=rows, types=guard.schema_.pyarrow_types(), **options):
            yield chunk, guard.assess(chunk)
