"""Export of stored events to Parquet, in constant memory."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import select

from pushforward.io import atomic_write
from pushforward.service.store import tables
from pushforward.service.store.database import Store

__all__ = ["export_events"]

_CHUNK = 20_000


def export_events(store: Store, path: str | os.PathLike[str]) -> int:
    """Write all events with the last label of each to a Parquet file; the number of events.

    Raises:
        StorageError: if the store cannot be read or the file cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {
        "seq": pa.int64(),
        "time": pa.float64(),
        "score": pa.float64(),
        "p_value": pa.float64(),
        "alarm": pa.bool_(),
    }
    names = [column.name for column in tables.events.columns if column.name != "batch"]
    schema = pa.schema([(str(name), kinds.get(name, pa.string())) for name in [*names, "label"]])
    column, last, written = tables.events.c, 0, 0
    with atomic_write(Path(path)) as file, parquet.ParquetWriter(file, schema) as writer:
        while True:
            query = (
                select(*(column[name] for name in names)).where(column.seq > last).order_by(column.seq).limit(_CHUNK)
            )
            with store.read() as connection:
                rows = connection.execute(query).all()
                if not rows:
                    return written
                said = tables.feedback.c
                ids = (rows[0][0], rows[-1][0])
                labels = select(said.event, said.label).join(tables.events, column.id == said.event).order_by(said.seq)
                found = {r[0]: r[1] for r in connection.execute(labels.where(column.seq.between(*ids)))}
            table = {str(name): [row[k] for row in rows] for k, name in enumerate(names)}
            table["label"] = [found.get(identifier) for identifier in table["id"]]
            writer.write_table(pa.table(table, schema=schema))
            last, written = rows[-1][0], written + len(rows)
