"""`Drift`: a test martingale for each model over its events in the store, in the order in which they were stored.

A :class:`~pushforward.detection.Monitor` ranks each score among all before it, so its memory grows with the stream. Here a
stream is cut into segments of 50,000 scores. The monitor of segment k (from 1) starts from the calibration scores with
``alpha_k = alpha * 6 / (pi^2 k^2)``. These add up to alpha, so by the union bound the probability that any segment of a stream
like the calibration rows ever raises an alarm is at most alpha, however long the stream is.
"""

from __future__ import annotations

import logging
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from pushforward.detection import Monitor
from pushforward.errors import StorageError
from pushforward.estimators import Guard
from pushforward.service.served import LARGEST
from pushforward.service.store import Store, tables
from pushforward.service.store.modelbook import entries, read_content

__all__ = ["ALPHA", "SEGMENT", "Drift"]

ALPHA = 0.01
"""Probability that a drift alarm is ever raised for a model whose stream is like its calibration rows."""
SEGMENT = 50_000
"""Scores in a segment."""
_CHUNK = 2000
_SNAPSHOT_EVERY = 5000
_POINT_SECONDS = 10.0
_log = logging.getLogger("pushforward.service")


def bound(segment: int) -> float:
    """log(1/alpha_k): an alarm is raised where the log of the martingale of segment k reaches it.

    >>> round(bound(1), 2), round(bound(100), 2)
    (5.1, 14.31)
    """
    return -math.log(ALPHA * 6 / (math.pi**2 * segment**2))


@dataclass
class _Stream:
    """The state of one model: up to which event it was read, and the monitor of the segment.

    Up to ``looked`` no further event is of this model, so that one without rows does not search the events of all others again.
    """

    monitor: Monitor
    cursor: int
    segment: int
    snapshot_cursor: int
    looked: int = 0


class Drift:
    """Follows the events of every model and stores what it finds, with the position up to which it read.

    What it stores is a function of the stored events, so it is the same after a crash: the monitor is saved from time to time,
    and what came after is read again.

    Args:
        store: of the service.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.evidence: dict[tuple[str, str], float] = {}
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._calibration: dict[str, np.ndarray] = {}
        self._unreadable: set[tuple[str, str]] = set()

    def forget(self) -> None:
        """Drop what is in memory, because another process goes on with it."""
        self._streams.clear()
        self.evidence.clear()

    def update(self) -> None:
        """Read the events that are new since the last call."""
        column = tables.monitors.c
        with self.store.read() as connection:
            known = [entry for entry in entries(connection) if entry.loaded]
            stored = connection.execute(select(column.model, column.version, column.segment)).all()
        segments = {(model, version): segment for model, version, segment in stored}
        for entry in known:
            key = (entry.name, entry.version)
            stream = self._streams.get(key)
            if stream is None or stream.segment != segments.get(key):  # another process restarted the monitor
                stream = self._try_restore(key, entry.digest)
                if stream is None:
                    continue
                self._streams[key] = stream
            try:
                for _ in range(20):  # at most so much at a time, so that other models have their turn
                    if not self._advance(key, entry.digest, stream):
                        break
            except Exception:
                self._streams.pop(key, None)  # it may be ahead of the store
                raise
        for key in set(self._streams) - {(entry.name, entry.version) for entry in known}:
            del self._streams[key]
            self.evidence[key] = 0.0  # a gauge that stayed would be an alarm that nobody can end

    def save_before(self, time: float) -> None:
        """Save the monitors that would repeat events from before a time, so that these can be deleted.

        A monitor of few rows is saved by :meth:`update` after a long time, and one of a version that is not loaded never.
        """
        column, event = tables.monitors.c, tables.events.c
        query = select(column.model, column.version, column.snapshot_cursor, column.cursor)
        with self.store.read() as connection:
            digests = {(entry.name, entry.version): entry.digest for entry in entries(connection)}
            late = []
            for *key, begin, end in connection.execute(query.where(column.snapshot_cursor < column.cursor)).all():
                mine = (event.model == key[0]) & (event.version == key[1]) & (event.seq > begin) & (event.seq <= end)
                oldest = connection.execute(select(func.min(event.time)).where(mine)).scalar()
                if oldest is not None and oldest < time:
                    late.append((key[0], key[1]))
        for key in late:
            followed = self._streams.get(key)
            stream = followed or self._try_restore(key, digests[key])
            mine = (column.model == key[0]) & (column.version == key[1])
            if stream is None:  # nothing can repeat its events, which must not stay for ever
                with self.store.write() as connection:
                    connection.execute(tables.monitors.update().where(mine).values(snapshot_cursor=column.cursor))
                continue
            if followed is None:
                del self.evidence[key]
            new = {"snapshot": _pack(stream.monitor), "snapshot_cursor": stream.cursor}
            with self.store.write() as connection:
                same = mine & (column.cursor == stream.cursor)
                if connection.execute(tables.monitors.update().where(same).values(new)).rowcount:
                    stream.snapshot_cursor = stream.cursor

    def restart(self, model: str, version: str) -> bool:
        """Begin a new segment at the present end of the stream, after an alarm was dealt with; False without a monitor."""
        with self.store.write() as connection:
            column, event = tables.monitors.c, tables.events.c
            chosen = (column.model == model) & (column.version == version)
            row = connection.execute(select(tables.monitors).where(chosen).with_for_update()).mappings().first()
            if row is None:
                return False
            newest = select(func.max(event.seq)).where(event.model == model, event.version == version)
            end = connection.execute(newest).scalar() or row["cursor"]
            new = _row((model, version), end, row["segment"] + 1)
            self.store.upsert(connection, tables.monitors, new, ("model", "version"))
        self._streams.pop((model, version), None)
        return True

    def _advance(self, key: tuple[str, str], digest: str, stream: _Stream) -> bool:
        """Read one chunk; False if there was nothing new."""
        event = tables.events.c
        query = (
            select(event.seq, event.score, event.time)
            .where(event.model == key[0], event.version == key[1], event.seq > max(stream.cursor, stream.looked))
            .order_by(event.seq)
            .limit(min(_CHUNK, SEGMENT - stream.monitor.count))
        )
        with self.store.read() as connection:
            newest = connection.execute(select(func.max(event.seq))).scalar() or 0
            rows = connection.execute(query).all()
        if not rows:
            stream.looked = newest
            return False
        before, old_cursor, old_count = stream.monitor.alarm, stream.cursor, stream.monitor.count
        evidence = stream.monitor.update(np.array([row[1] for row in rows]))
        stream.cursor = rows[-1][0]
        new: dict[str, Any] = {
            "cursor": stream.cursor,
            "count": stream.monitor.count,
            "log_evidence": float(evidence[-1]),
        }
        column = tables.monitors.c
        with self.store.write() as connection:
            chosen = (column.model == key[0]) & (column.version == key[1])
            # PostgreSQL has no lock of all writers, so a restart could come between this look and the change below.
            present = select(column.cursor, column.segment, column.alarm_at).where(chosen).with_for_update()
            row = connection.execute(present).first()
            # A monitor that was restarted at the end of the stream has the same position and another segment.
            if row is None or tuple(row[:2]) != (old_cursor, stream.segment):
                self._streams.pop(key, None)  # another process was faster, or the monitor was restarted
                return False
            if stream.monitor.alarm and not before and row[2] is None:
                new["alarm_at"] = rows[(stream.monitor.alarm_at or 1) - old_count - 1][2]
            ends = stream.monitor.count >= SEGMENT
            if ends or stream.cursor - stream.snapshot_cursor >= _SNAPSHOT_EVERY:
                new["snapshot_cursor"] = stream.snapshot_cursor = stream.cursor
                new["snapshot"] = None if ends else _pack(stream.monitor)
            if ends:
                new |= {
                    "segment": stream.segment + 1,
                    "count": 0,
                    "log_evidence": 0.0,
                    "bound": bound(stream.segment + 1),
                }
            point = {"model": key[0], "version": key[1], "seq": stream.cursor, "time": rows[-1][2]}
            point |= {"log_evidence": float(evidence[-1]), "bound": bound(stream.segment)}
            place = tables.drift.c
            recent = (place.model == key[0]) & (place.version == key[1]) & (place.time > rows[-1][2] - _POINT_SECONDS)
            if not ends and not (stream.monitor.alarm and not before):
                # One point in some seconds is enough for a picture; the last one moves on.
                newest = connection.execute(select(func.max(place.seq)).where(recent)).scalar()
                first = connection.execute(select(func.min(place.seq)).where(recent)).scalar()
                if newest is not None and first != newest:
                    connection.execute(tables.drift.delete().where(recent, place.seq == newest))
            self.store.upsert(connection, tables.drift, point, ("model", "version", "seq"))
            connection.execute(tables.monitors.update().where(chosen).values(new))
        self.evidence[key] = float(evidence[-1])
        if ends:
            self._streams[key] = stream = self._restore(key, digest)
            return False
        return True

    def _try_restore(self, key: tuple[str, str], digest: str) -> _Stream | None:
        """The monitor as of the stored position; None where its guard or its snapshot cannot be read, which is logged once."""
        if key in self._unreadable:
            return None
        try:
            return self._restore(key, digest)
        except StorageError as error:
            if isinstance(error.__cause__, SQLAlchemyError):  # of the database, so of every model
                raise
            self._unreadable.add(key)
            _log.error("model %s, version %s: its drift is not followed: %s", *key, error)
            return None

    def _restore(self, key: tuple[str, str], digest: str) -> _Stream:
        """The monitor as of the stored position: the last snapshot, then the events after it."""
        column, event = tables.monitors.c, tables.events.c
        chosen = (column.model == key[0]) & (column.version == key[1])
        with self.store.write() as connection:
            row = connection.execute(select(tables.monitors).where(chosen)).mappings().first()
            if row is None:
                connection.execute(tables.monitors.insert().values(_row(key, 0, 1)))
                row = connection.execute(select(tables.monitors).where(chosen)).mappings().one()
            first = _unpack(row["snapshot"]) if row["snapshot"] else None
            if digest not in self._calibration:
                self._calibration[digest] = _calibration_scores(read_content(connection, digest))
            query = (
                select(event.score)
                .where(event.model == key[0], event.version == key[1])
                .where(event.seq > row["snapshot_cursor"], event.seq <= row["cursor"])
                .order_by(event.seq)
            )
            scores = connection.execute(query).scalars().all()
        segment = row["segment"]
        monitor = first or Monitor(self._calibration[digest], math.exp(-bound(segment)), seed=segment)
        monitor.update(np.array(scores, np.float64))
        self.evidence[key] = monitor.log_evidence
        return _Stream(monitor, row["cursor"], segment, row["snapshot_cursor"])


def _row(key: tuple[str, str], cursor: int, segment: int) -> dict[str, Any]:
    """A monitor that begins after an event."""
    row: dict[str, Any] = {"model": key[0], "version": key[1], "cursor": cursor, "segment": segment, "count": 0}
    return row | {
        "log_evidence": 0.0,
        "bound": bound(segment),
        "alarm_at": None,
        "snapshot": None,
        "snapshot_cursor": cursor,
    }


def _calibration_scores(content: bytes) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "guard.safetensors")
        path.write_bytes(content)
        # As the scores of the store, in which no number is infinite, so that infinite ones are equal.
        return np.clip(Guard.load(path).monitor().p_values.seen, -LARGEST, LARGEST)


def _pack(monitor: Monitor) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "monitor.safetensors")
        monitor.save(path)
        return path.read_bytes()


def _unpack(content: bytes) -> Monitor:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "monitor.safetensors")
        path.write_bytes(content)
        return Monitor.load(path)
