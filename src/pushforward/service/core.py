"""`Service`: the parts of one process together: models, queue, recorder, metrics, access."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pushforward.service.access import Access, new_secret
from pushforward.service.batching import Batcher, Part
from pushforward.service.inputs import Inputs
from pushforward.service.keeper import Keeper
from pushforward.service.metrics import Metrics
from pushforward.service.recorder import Recorder
from pushforward.service.served import Models, Scores, ServedModel
from pushforward.service.settings import ServiceSettings
from pushforward.service.spare_time import SpareTime
from pushforward.service.store import Store
from pushforward.service.store.eventlog import Event, event_ids
from pushforward.service.store.modelbook import forget_worker, generation, report_worker, slowest_worker

__all__ = ["Result", "Service"]

_log = logging.getLogger("pushforward.service")
_POLL = 0.5  # seconds between looks at the models in the store
_TRY = 2.0  # seconds between tries of a store that did not take events
_SHARE, _KEPT = 0.2, 2.0
"""Share of the time that may go to reasons that nobody asked for, and the seconds of it that a quiet service keeps."""


@dataclass(frozen=True)
class Result:
    """The answer for the rows of one part: their events' identifiers and scores."""

    ids: list[str]
    scores: Scores
    events: list[Event]


class Service:
    """One process of the service; :meth:`start` and :meth:`stop` run in its event loop.

    Args:
        settings: checked.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.id = uuid.uuid4().hex
        self.store = Store(settings.store, durable=settings.durability == "strict")
        self.metrics = Metrics()
        names = [name for name, _ in settings.models]
        self.models = Models(self.store, names, settings.max_rows, settings.public_key)
        self.recorder = Recorder(self.store, settings.durability)
        self.access = Access(settings.token_file, self._secret())
        self.draining = asyncio.Event()
        self.others: Callable[[], int] = lambda: 0
        self.batcher = Batcher(
            self._score,
            self._finish,
            max_batch=settings.max_batch,
            max_wait=settings.max_wait,
            capacity=settings.queue,
            others=lambda: self.others(),
            finish_now=self._finish_now,
        )
        self.keeper = Keeper(settings, self.store, self.id, self.models)
        self.store_error: str | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._refreshing = asyncio.Lock()
        self._frozen = False  # whether the store stood still when the service stopped
        self._spare = SpareTime(_SHARE, _KEPT)
        self._logged: dict[tuple[str, str, str], float] = {}

    def _secret(self) -> bytes:
        """The secret of the sessions, which all processes share."""
        with self.store.write() as connection:
            secret = self.store.lock(connection, "secret")
            if secret is None:
                self.store.put(connection, "secret", secret := new_secret())
        return bytes.fromhex(secret)

    async def start(self) -> None:
        """Load the models and start to work."""
        # The others wait for this process from now on, and it does not begin with models that were replaced meanwhile.
        await asyncio.to_thread(report_worker, self.store, self.id, self.models.generation)
        await self.refresh()
        while await asyncio.to_thread(self._changed):
            await self.refresh()
        self.batcher.start()
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self.keeper.run())]

    async def stop(self) -> None:
        """Answer and record what was accepted, then stop."""
        watch = asyncio.create_task(self._watch())
        await self.batcher.stop()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(self.recorder.stop)
        if self._frozen:
            _log.error("the audit chain was not sealed at the end: the store does not answer.")
        else:
            await asyncio.to_thread(self.keeper.close)
            with contextlib.suppress(Exception):  # the others stop to wait for it after ten seconds anyway
                await asyncio.to_thread(forget_worker, self.store, self.id)
        watch.cancel()
        self.store.close()

    async def _watch(self) -> None:
        """While the service stops, end what waits for a store that stands still."""
        while True:
            self._frozen = await asyncio.to_thread(self.store.end_if_frozen)
            await asyncio.sleep(_TRY)

    @property
    def store_problem(self) -> str | None:
        """Why the store cannot be used at present; None if it can."""
        return self.recorder.error or self.store_error

    @property
    def ready(self) -> bool:
        """Whether requests can be answered now; every route that says so asks this."""
        stores = self.settings.durability != "strict" or self.store_problem is None
        return self.models.generation >= 0 and not self.draining.is_set() and bool(self.models.active()) and stores

    async def refresh(self) -> None:
        """Take over the models of the store.

        Raises:
            StorageError: if the store or a guard file cannot be read; the models then stay as they are.
        """
        async with self._refreshing:
            if await asyncio.to_thread(self.models.refresh):
                self.metrics.loaded(self.models.all())
            await asyncio.to_thread(report_worker, self.store, self.id, self.models.generation)

    async def wait_for_workers(self, seconds: float = 10) -> bool:
        """Wait until every process serves what the store says; False if one did not within the time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if await asyncio.to_thread(self._all_follow):
                return True
            await asyncio.sleep(0.1)
        return False

    def _all_follow(self) -> bool:
        with self.store.read() as connection:
            slowest = slowest_worker(connection)
            return slowest is not None and slowest >= generation(self.store, connection)

    async def _follow(self) -> None:
        """Look for changes that other processes made."""
        beat = tried = 0.0
        while True:
            await asyncio.sleep(_POLL)
            try:
                self.metrics.queue_length.set(self.batcher.rows)
                self.metrics.waiting_events.set(self.recorder.waiting)
                for (name, version), value in self.keeper.evidence.items():
                    self.metrics.drift.labels(name, version).set(value)
                changed = await asyncio.to_thread(self._changed)
                if changed or time.monotonic() - beat > 3:
                    await self.refresh()
                    beat = time.monotonic()
                if time.monotonic() - tried > _TRY:
                    await asyncio.to_thread(self.recorder.try_again)
                    tried = time.monotonic()
                self.store_error = None
            except Exception as error:  # the models go on; the next look may work
                if self.store_error is None:
                    _log.error("the models stay as they are: %s", error)
                self.store_error = str(error)

    def _changed(self) -> bool:
        with self.store.read() as connection:
            return generation(self.store, connection) != self.models.generation

    # -- scoring, in the thread of the queue --------------------------------------------------------------------------

    def _score(self, model: ServedModel, parts: Sequence[Part]) -> list[Result]:
        inputs = Inputs.join([part.inputs for part in parts])
        found = model.score(inputs)
        self.metrics.scored(model, found)
        self._log_hourly(model, "times", found.other_times)
        self._log_hourly(model, "zones", found.other_zones)
        wanted, reasons = self._rows_to_explain(parts, found.alarm), {}
        if wanted:
            start = time.monotonic()
            reasons = model.reasons(inputs, wanted)
            asked = sum(len(part.inputs) for part in parts if part.job.reasons)
            self._spare.spend((time.monotonic() - start) * (1 - asked / len(wanted)))
        results, at = [], 0
        for part in parts:
            end = at + len(part.inputs)
            scores = Scores(
                found.score[at:end],
                found.p_value[at:end],
                found.alarm[at:end],
                {row - at: reasons[row] for row in range(at, end) if row in reasons},
            )
            results.append(self._result(model, part, scores))
            at = end
        return results

    def _log_hourly(self, model: ServedModel, what: str, sentences: Sequence[str]) -> None:
        """Once an hour, what does not raise the score of a row and so is seen nowhere else."""
        now, key = time.monotonic(), (*model.key, what)
        if sentences and now - self._logged.get(key, -math.inf) >= 3600:
            self._logged[key] = now
            for sentence in sentences:
                _log.warning("model %s, version %s: %s", *model.key, sentence)

    def _rows_to_explain(self, parts: Sequence[Part], alarm: np.ndarray) -> list[int]:
        """The rows whose reasons are asked for, and alarms as long as their reasons take little of the time."""
        spare = self._spare.available()
        rows, at = [], 0
        for part in parts:
            end = at + len(part.inputs)
            if part.job.reasons:
                rows += range(at, end)
            elif spare:
                rows += [at + int(k) for k in np.flatnonzero(alarm[at:end])[:16]]
            at = end
        return rows

    def _result(self, model: ServedModel, part: Part, scores: Scores) -> Result:
        ids, now = event_ids(len(part.inputs)), time.time()
        if self.settings.durability == "none":
            return Result(ids, scores, [])
        kept = _inputs_as_json(model, part.inputs) if self.settings.store_inputs else [None] * len(ids)
        score, p_value, alarm = scores.score.tolist(), scores.p_value.tolist(), scores.alarm.tolist()
        events = [
            Event(
                ids[k], now, model.name, model.version, model.digest, part.job.request, score[k], p_value[k], alarm[k],
                json.dumps(scores.reasons[k]) if k in scores.reasons else None, kept[k],
            )
            for k in range(len(ids))
        ]  # fmt: skip
        return Result(ids, scores, events)

    def _finish_now(self, results: list[Result]) -> bool:
        return self.recorder.add_now([event for result in results for event in result.events])

    async def _finish(self, results: list[Result]) -> None:
        await self.recorder.add([event for result in results for event in result.events])


def _inputs_as_json(model: ServedModel, inputs: Inputs) -> list[str]:
    """Each row as JSON: an object with the columns, or an image as nested lists."""
    if inputs.kind == "images":
        return [json.dumps(image.tolist()) for image in inputs.data]
    names = model.reader.names
    if inputs.kind == "matrix":
        rows = (_without_nan(dict(zip(names, row, strict=True))) for row in inputs.data.tolist())
    else:
        rows = (_without_nan(row) for row in inputs.data.to_pylist())
    return [json.dumps(row) for row in rows]


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """The row with null for NaN and infinities, which JSON does not have."""
    return {n: None if isinstance(v, float) and not abs(v) < np.inf else v for n, v in row.items()}
