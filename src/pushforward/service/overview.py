"""What the page shows of one model, as one JSON object: rates with their band, drift, p-values, alarms, alerts, versions."""

from __future__ import annotations

import functools
import json
import time
from typing import Any

import numpy as np
from sqlalchemy import Connection, Integer, cast, func, select

from pushforward.detection import FalseAlarmDistribution, realized_interval
from pushforward.estimators.guard_facts import trimmed_scores
from pushforward.service.core import Service
from pushforward.service.served import ServedModel
from pushforward.service.store import tables
from pushforward.service.store.eventlog import find_events, per_bucket
from pushforward.service.store.modelbook import entries

__all__ = ["WINDOWS", "overview"]

WINDOWS = {1: 1, 24: 30, 168: 180, 720: 720}
"""Minutes of a bar by the hours of the window."""
LEVEL = 0.99
_BINS, _RECENT, _POINTS = 20, 5000, 400


def overview(service: Service, model: ServedModel, hours: int) -> dict[str, Any]:
    """The state of one version of a model in the last hours."""
    now = time.time()
    since = now - 3600 * hours
    with service.store.read() as connection:
        buckets = per_bucket(connection, model.name, model.version, since, now, WINDOWS[hours])
        found = {
            "time": now,
            "since": since,
            "bar_seconds": 60 * WINDOWS[hours],
            "model": model.facts() | {"active": service.models.is_active(model)},
            "versions": _versions(service, connection),
            "level": LEVEL,
            "bars": [_bar(model, *bucket) for bucket in buckets],
            "drift": _drift(connection, model, since, now),
            "p_values": _p_values(connection, model),
            "alarms": find_events(connection, model=model.name, version=model.version, alarm=True, limit=10),
            "alerts": _alerts(connection),
            "store": service.store_problem,
            "durability": service.settings.durability,
            "waiting": service.batcher.rows,
        }
    found["rows"] = sum(bar["rows"] for bar in found["bars"])
    found["alarm_count"] = sum(bar["alarms"] for bar in found["bars"])
    low, high = _band(model, found["rows"]) if found["rows"] else (0.0, 0.0)
    found["band"] = [low, high]
    return found


def _versions(service: Service, connection: Connection) -> list[dict[str, Any]]:
    loaded = {model.key: model for model in service.models.all()}
    return [
        {
            "name": entry.name,
            "version": entry.version,
            "digest": entry.digest[:12],
            "time": entry.time,
            "loaded": (entry.name, entry.version) in loaded,
            "active": entry.active,
        }
        for entry in entries(connection)
    ]


def _bar(model: ServedModel, start: float, rows: int, alarms: int) -> dict[str, Any]:
    low, high = _band(model, rows)
    return {"start": start, "rows": rows, "alarms": alarms, "low": low, "high": high}


def _band(model: ServedModel, rows: int) -> tuple[float, float]:
    """The interval of the fraction of alarms among so many normal rows, by theory; 0 and 0 for a guard that raises none."""
    guard = model.guard
    if guard.level_ == 0:
        return 0.0, 0.0
    n, trimmed = len(guard.calibrator_.scores), trimmed_scores(guard)
    return _interval(n, min(rows, 20_000), guard.alpha, guard.guarantee, guard.delta, trimmed)


@functools.lru_cache(4096)
def _interval(
    calibration: int, rows: int, alpha: float, guarantee: Any, delta: float, trimmed: int
) -> tuple[float, float]:
    return realized_interval(calibration, rows, alpha, LEVEL, guarantee, delta, trimmed)


def _drift(connection: Connection, model: ServedModel, since: float, now: float) -> dict[str, Any] | None:
    column, point = tables.monitors.c, tables.drift.c
    chosen = (column.model == model.name) & (column.version == model.version)
    row = connection.execute(select(tables.monitors).where(chosen)).mappings().first()
    if row is None:
        return None
    columns = (point.time, point.log_evidence, point.bound)
    shown = (point.model == model.name) & (point.version == model.version) & (point.time >= since)
    # Of each part of the window the highest point stays, because that is where the bound may be reached. The database finds it,
    # since a window may have a point for every ten seconds of a month.
    part = cast((point.time - since) * (_POINTS / max(1.0, now - since)), Integer)
    place = func.row_number().over(partition_by=part, order_by=(point.log_evidence - point.bound).desc())
    ranked = select(*columns, place.label("place")).where(shown).subquery().c
    highest = select(ranked.time, ranked.log_evidence, ranked.bound).where(ranked.place == 1).order_by(ranked.time)
    points = [list(found) for found in connection.execute(highest)]
    newest = connection.execute(select(*columns).where(shown).order_by(point.time.desc()).limit(1)).first()
    if newest is not None and points[-1] != list(newest):
        points.append(list(newest))
    return {"points": points, "log_evidence": row["log_evidence"], "bound": row["bound"], "alarm_at": row["alarm_at"],
            "count": row["count"], "segment": row["segment"]}  # fmt: skip


def _p_values(connection: Connection, model: ServedModel) -> dict[str, Any]:
    """Counts of the last p-values in equal bins, and the interval of a count for normal rows, by theory."""
    event = tables.events.c
    query = select(event.p_value).where(event.model == model.name, event.version == model.version)
    values = np.array(connection.execute(query.order_by(event.seq.desc()).limit(_RECENT)).scalars().all())
    counts = np.histogram(values, _BINS, (0.0, 1.0))[0] if values.size else np.zeros(_BINS, int)
    rows = int(values.size)
    low, high = _bar_of_bins(len(model.guard.calibrator_.scores), max(1, rows), trimmed_scores(model.guard))
    return {"counts": counts.tolist(), "rows": rows, "low": low, "high": high}


@functools.lru_cache(4096)
def _bar_of_bins(calibration: int, rows: int, trimmed: int) -> tuple[int, int]:
    """The interval of the number of p-values in a bin: beta-binomial, because all are ranks among the same calibration scores."""
    ranks = np.histogram(np.arange(1, calibration + 2) / (calibration + 1), _BINS, (0.0, 1.0))[0]
    ends = [
        FalseAlarmDistribution(k, calibration + 1 - k, trimmed).realized_interval(rows, LEVEL) if k else (0.0, 0.0)
        for k in (int(ranks.min()), int(ranks.max()))
    ]
    return round(ends[0][0] * rows), round(ends[1][1] * rows)


def _alerts(connection: Connection) -> list[dict[str, Any]]:
    column = tables.alerts.c
    rows = connection.execute(select(tables.alerts).where(column.status == "firing").order_by(column.starts)).mappings()
    waiting = (
        select(tables.deliveries.c.id)
        .where(tables.deliveries.c.done.is_(None), tables.deliveries.c.tries > 0)
        .limit(100)
    )
    late = len(connection.execute(waiting).all())
    found = [
        {"labels": json.loads(r["labels"]), "annotations": json.loads(r["annotations"]), "starts": r["starts"]}
        for r in rows
    ]
    return found if not late else [*found, {"labels": {"alertname": "deliveries"}, "starts": None,
                                            "annotations": {"summary": f"{late} alert {'message waits' if late == 1 else 'messages wait'} for the receiver."}}]  # fmt: skip
