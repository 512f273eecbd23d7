"""Scored events: written in batches with one audit entry a batch, read in pages, deleted after their retention time."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, case, delete, func, select

from pushforward.service.store import audit, tables
from pushforward.service.store.database import Store

__all__ = [
    "Event",
    "add_feedback",
    "append_events",
    "delete_old",
    "delete_old_counts",
    "event_ids",
    "find_event",
    "find_events",
    "note_times",
    "per_bucket",
    "search_end",
]

BLOCK = 4096
"""Numbers of events in a block, of which the earliest and the latest time are noted."""
SEARCHED = 100_000
"""Events that one search for a text reads at most, because no index finds a part of a text."""


class Event(NamedTuple):
    """One scored input.

    Attributes:
        id: of the event, 32 hexadecimal digits that begin with the time.
        time: of the answer, seconds since 1970.
        model: name of the model.
        version: of the model.
        digest: SHA-256 of the guard file.
        request: identifier that the client gave, if any.
        score: anomaly score, finite.
        p_value: conformal p-value.
        alarm: whether it is an alarm.
        reasons: JSON list of [column, nats], if they were computed.
        inputs: JSON of the input, if inputs are stored.
    """

    id: str
    time: float
    model: str
    version: str
    digest: str
    request: str | None
    score: float
    p_value: float
    alarm: bool
    reasons: str | None
    inputs: str | None


def event_ids(count: int) -> list[str]:
    """New identifiers: 48 bits of milliseconds, then 80 random bits."""
    prefix = f"{time.time_ns() // 1_000_000:012x}"
    digits = os.urandom(10 * count).hex()
    return [prefix + digits[20 * k : 20 * k + 20] for k in range(count)]


def append_events(store: Store, batch: Sequence[Event], *, again: bool = True) -> None:
    """Write events, their audit entry and the counts of their minutes in one transaction.

    Writing a batch a second time changes nothing, so that a writer that lost its connection while it committed may repeat.

    Args:
        store: to write to.
        batch: the events.
        again: whether the batch may have been written before; False saves the look for it.
    """
    if not batch:
        return
    with store.write() as connection:
        if (
            again
            and connection.execute(select(tables.events.c.id).where(tables.events.c.id == batch[0].id)).scalar()
            is not None
        ):
            return
        number = audit.append(store, connection, "events", audit.digest_of_events(batch), {"rows": len(batch)})
        rows = [{**event._asdict(), "batch": number} for event in batch]
        connection.execute(tables.events.insert(), rows)
        counts: Counter[tuple[str, str, int]] = Counter()
        alarms: Counter[tuple[str, str, int]] = Counter()
        for event in batch:
            key = (event.model, event.version, int(event.time // 60))
            counts[key] += 1
            alarms[key] += event.alarm
        for key, rows_of_minute in counts.items():
            insert = store.insert(tables.minutes).values(
                model=key[0], version=key[1], minute=key[2], rows=rows_of_minute, alarms=alarms[key]
            )
            column = tables.minutes.c
            connection.execute(
                insert.on_conflict_do_update(
                    index_elements=["model", "version", "minute"],
                    set_={"rows": column.rows + rows_of_minute, "alarms": column.alarms + alarms[key]},
                )
            )


def find_events(
    connection: Connection,
    *,
    model: str | None = None,
    version: str | None = None,
    alarm: bool | None = None,
    text: str | None = None,
    label: str | None = None,
    since: float | None = None,
    until: float | None = None,
    before: int | None = None,
    after: int | None = None,
    first: int | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Events that fit, the newest first (the oldest first with ``after``), as JSON objects.

    Args:
        connection: of the store.
        model: name.
        version: of the model.
        alarm: only alarms, or only others.
        text: part of the id, the request or the reasons.
        label: of the last feedback.
        since: earliest time.
        until: latest time.
        before: only events with a smaller ``seq``.
        after: only events with a larger ``seq``, the oldest first.
        first: smallest ``seq``, such as :func:`search_end`.
        limit: largest number of events.
    """
    column = tables.events.c
    conditions = []
    for value, name in ((model, "model"), (version, "version"), (alarm, "alarm")):
        if value is not None:
            conditions.append(column[name] == value)
    if text:
        conditions.append(
            column.id.contains(text, autoescape=True)
            | column.request.contains(text, autoescape=True)
            | column.reasons.contains(json.dumps(text)[1:-1], autoescape=True)  # as it is stored
        )
    if label:
        said = tables.feedback.c
        last = select(func.max(said.seq)).group_by(said.event)
        labeled = select(said.event).where(said.label == label, said.seq.in_(last))
        conditions.append(column.id.in_(labeled))
    for value, make in ((since, column.time.__ge__), (until, column.time.__le__), (before, column.seq.__lt__),
                        (after, column.seq.__gt__), (first, column.seq.__ge__)):  # fmt: skip
        if value is not None:
            conditions.append(make(value))
    order = column.seq.asc() if after is not None else column.seq.desc()
    query = select(tables.events).where(and_(True, *conditions)).order_by(order)
    found: list[dict[str, Any]] = []
    ranges = [column.seq >= 0] if since is None and until is None else _ranges(connection, since, until)
    for within in ranges if after is None else reversed(ranges):
        more = query.where(within).limit(limit - len(found))
        found += [_as_json(row) for row in connection.execute(more).mappings()]
        if len(found) == limit:
            break
    _add_labels(connection, found)
    return found


def _ranges(connection: Connection, since: float | None, until: float | None) -> list[Any]:
    """Conditions on ``seq``, the newest events first: all events of a time fulfill one of them, and no event fulfills two.

    Numbers follow the order of writing, in which times are not sorted: several processes write, and a clock may be set back.
    So the blocks are asked in which the time can be. Events that are in no block yet are always searched.
    """
    block, seq = tables.blocks.c, tables.events.c.seq
    possible = and_(True, *([] if since is None else [block.latest >= since]),
                    *([] if until is None else [block.earliest <= until]))  # fmt: skip
    start = case((possible, block.start))
    query = select(func.max(block.start), func.min(start), func.max(start))  # one query, so that all are of one state
    last, low, high = connection.execute(query).one()
    if last is None:
        return [seq >= 0]
    found = [seq >= last + BLOCK]
    return found if low is None else [*found, and_(seq >= low, seq < high + BLOCK)]


def note_times(store: Store, most: int = 20) -> None:
    """Note the earliest and the latest time of blocks of events that are complete and not noted yet, some at a time.

    Numbers only grow (:func:`append_events` takes the lock of the chain before it gets them), so nothing is added to a block
    when an event after it was written. That events are deleted makes no time of a block wrong, only wider than it need be.

    Args:
        store: to read from and write to.
        most: number of blocks.
    """
    seq, block = tables.events.c.seq, tables.blocks.c
    with store.read() as connection:
        last = connection.execute(select(func.max(block.start))).scalar()
        begin = 0 if last is None else last + BLOCK
        newest = connection.execute(select(func.max(seq))).scalar() or 0
        if newest < begin + BLOCK:
            return
        # Blocks without events, as retention leaves them, are left out.
        begin = connection.execute(select(func.min(seq)).where(seq >= begin)).scalar() or newest
        begin -= begin % BLOCK
        end = min(newest - newest % BLOCK, begin + most * BLOCK)
        start, time_ = (seq - seq % BLOCK).label("start"), tables.events.c.time
        query = select(start, func.min(time_), func.max(time_)).where(seq >= begin, seq < end).group_by(start)
        found = connection.execute(query).all()
    if found:
        rows = [{"start": row[0], "earliest": row[1], "latest": row[2]} for row in found]
        with store.write() as connection:
            connection.execute(store.insert(tables.blocks).on_conflict_do_nothing(), rows)


def search_end(connection: Connection, model: str | None, before: int | None) -> int | None:
    """The ``seq`` of the oldest of the events that a search reads, from where the next one goes on; None if it reads all."""
    column = tables.events.c
    query = select(column.seq).order_by(column.seq.desc()).offset(SEARCHED - 1).limit(1)
    if model is not None:
        query = query.where(column.model == model)
    if before is not None:
        query = query.where(column.seq < before)
    return connection.execute(query).scalar()


def find_event(connection: Connection, identifier: str) -> dict[str, Any] | None:
    """One event with its feedback; None if there is none."""
    row = connection.execute(select(tables.events).where(tables.events.c.id == identifier)).mappings().first()
    if row is None:
        return None
    found = _as_json(row)
    query = select(tables.feedback).where(tables.feedback.c.event == identifier).order_by(tables.feedback.c.seq)
    found["feedback"] = [
        {"time": item["time"], "label": item["label"], "note": item["note"]}
        for item in connection.execute(query).mappings()
    ]
    _add_labels(connection, [found])
    return found


def add_feedback(store: Store, identifier: str, label: str, note: str | None) -> bool:
    """Label an event; False if there is no such event."""
    with store.write() as connection:
        store.lock(connection, "chain")  # so that labels and their entries have one order, and no event goes meanwhile
        if connection.execute(select(tables.events.c.id).where(tables.events.c.id == identifier)).scalar() is None:
            return False
        row = {"event": identifier, "time": time.time(), "label": label, "note": note}
        connection.execute(tables.feedback.insert().values(**row))
        audit.append(store, connection, "feedback", detail=audit.fact_of_label(**row))
        return True


def per_bucket(
    connection: Connection, model: str, version: str | None, since: float, until: float, minutes: int
) -> list[tuple[float, int, int]]:
    """Start, rows and alarms of each bucket of so many minutes that has rows."""
    column = tables.minutes.c
    bucket = column.minute - column.minute % minutes
    query = (
        select(bucket, func.sum(column.rows), func.sum(column.alarms))
        .where(column.model == model, column.minute >= int(since // 60), column.minute <= int(until // 60))
        .group_by(bucket)
        .order_by(bucket)
    )
    if version is not None:
        query = query.where(column.version == version)
    return [(60.0 * int(start), int(rows), int(alarms)) for start, rows, alarms in connection.execute(query)]


def delete_old(store: Store, before: float, most: int | None = None) -> int:
    """Delete the events of all batches that were written before a time, and say so in the audit chain.

    Args:
        store: to delete from.
        before: seconds since 1970.
        most: number of events of a call, the oldest first, so that no transaction takes long; batches are deleted whole. All by
            default.

    Returns:
        The number of deleted events.
    """
    with store.write() as connection:
        store.lock(connection, "chain")
        column = tables.audit.c
        # Entries may be dated too early or too late where the clock was wrong. All before a younger one stay, and a date in the
        # future says nothing.
        of_events = column.kind == "events"
        young = select(func.min(column.seq)).where(of_events, column.time >= before, column.time <= time.time() + 60)
        query = select(func.max(column.seq)).where(of_events, column.time < before)
        if (first_young := connection.execute(young).scalar()) is not None:
            query = query.where(column.seq < first_young)
        through = connection.execute(query).scalar()
        # A monitor repeats the events of its model that came after its last snapshot, so they stay until the next one.
        event, monitor = tables.events.c, tables.monitors.c
        query = select(monitor.model, monitor.version, monitor.snapshot_cursor, monitor.cursor)
        query = query.where(monitor.snapshot_cursor < monitor.cursor)
        for model, version, begin, end in connection.execute(query).all():
            repeated = (event.model == model) & (event.version == version) & (event.seq > begin) & (event.seq <= end)
            first = connection.execute(select(func.min(event.batch)).where(repeated)).scalar()
            through = through if first is None or through is None else min(through, first - 1)
        if not through:
            return 0
        if most is not None:
            column = tables.events.c.batch
            oldest = select(column).order_by(column)
            end = connection.execute(oldest.offset(most).limit(1)).scalar()
            if end is not None and end <= through:
                through = max(end - 1, connection.execute(oldest.limit(1)).scalar_one())
        old = select(tables.events.c.id).where(tables.events.c.batch <= through)
        connection.execute(delete(tables.feedback).where(tables.feedback.c.event.in_(old)))
        gone = connection.execute(delete(tables.events).where(tables.events.c.batch <= through)).rowcount
        if gone:
            oldest = connection.execute(select(func.min(tables.events.c.seq))).scalar()
            block = tables.blocks.c.start
            unused = delete(tables.blocks)
            connection.execute(unused if oldest is None else unused.where(block <= oldest - BLOCK))
            audit.append(store, connection, "retention", detail={"through": through, "rows": gone})
        return gone


def delete_old_counts(store: Store, before: float, most: int) -> int:
    """Delete the counts of minutes and the points of drift from before a time; they are not in the audit chain.

    Args:
        store: to delete from.
        before: seconds since 1970.
        most: number of rows of each table and version, the oldest first, so that no transaction takes long.

    Returns:
        The number of deleted rows.
    """
    with store.read() as connection:
        versions = connection.execute(select(tables.models.c.name, tables.models.c.version)).all()
    gone = 0
    for table, column, end in (
        (tables.minutes, tables.minutes.c.minute, int(before // 60)),
        (tables.drift, tables.drift.c.time, before),
    ):
        for name, version in versions:
            old = (table.c.model == name) & (table.c.version == version) & (column < end)
            with store.read() as connection:
                found = connection.execute(select(column).where(old).order_by(column).limit(most)).scalars().all()
            if found:
                with store.write() as connection:
                    gone += connection.execute(delete(table).where(old, column <= found[-1])).rowcount
    return gone


def _as_json(row: Any) -> dict[str, Any]:
    found: dict[str, Any] = {name: row[name] for name in ("seq", *Event._fields)}
    for name in ("reasons", "inputs"):
        found[name] = None if found[name] is None else json.loads(found[name])
    found["alarm"] = bool(found["alarm"])
    found["label"] = None
    return found


def _add_labels(connection: Connection, found: list[dict[str, Any]]) -> None:
    """Add the last label of each event."""
    if not found:
        return
    column = tables.feedback.c
    query = select(column.event, column.label).where(column.event.in_([event["id"] for event in found]))
    labels = {row[0]: row[1] for row in connection.execute(query.order_by(column.seq))}
    for event in found:
        event["label"] = labels.get(event["id"])
