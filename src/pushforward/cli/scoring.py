"""The work of the command `score`: rows in, rows with scores out."""

from __future__ import annotations

import time
from collections.abc import Iterable
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
    from pushforward.io import TableWriter, read_images, stream_table

    start, total, alarms = time.perf_counter(), 0, 0
    if guard.reads_images:
        images = read_images(table)
        parts = ((k, images[k : k + rows]) for k in range(0, len(images), rows))
        chunks: Iterable[tuple[Any, Any]] = ((pa.table({"image": range(k, k + len(x))}), x) for k, x in parts)
    else:
        stream = stream_table(table, rows=rows, types=guard.schema_.pyarrow_types(), **options)
        chunks = ((chunk, chunk) for chunk in stream)
    with TableWriter(output, format) as writer:
        for chunk, inputs in chunks:
            result = guard.assess(inputs)
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
