"""`Recorder`: scored events on their way to the store, from all requests of a process, many in one transaction."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

from pushforward.errors import StorageError
from pushforward.service.refusal import Refusal
from pushforward.service.store import Store
from pushforward.service.store.eventlog import Event, append_events

__all__ = ["LONGEST_DELAY", "Recorder"]

LONGEST_DELAY = 0.5
"""Seconds after which the "fast" recorder writes what it has."""
_MOST_WAITING = 100_000  # events in memory while the store does not answer
_MOST_TOGETHER = 5000
_EVENT_BYTES = 600  # of an event with its entries in the indexes, without its reasons and inputs
_BATCH_BYTES = 64 * 2**10  # of the pages that every batch writes, however small it is
_MOST_TRIED = 4 * 2**20
_LAST_SECONDS = 20.0  # in which "fast" tries to write what waits when the service stops
_log = logging.getLogger("pushforward.service")


class Recorder:
    """Writes events in one thread.

    "strict": :meth:`add` returns when the events are on disk; all that waits is written in one transaction. "fast": it
    returns at once, and the events are written within half a second; while the store does not answer, up to 100,000 events
    wait in memory, and then requests are refused. "none": nothing is written.
    """

    def __init__(self, store: Store, durability: str) -> None:
        self.store, self.durability = store, durability
        self.waiting = 0
        """Events that are not yet written."""
        self._counting = threading.Lock()  # three threads change the count, and += is not one step
        self.error: str | None = None
        """Why the last write failed; None after one that worked."""
        self._failures = 0
        self._failed_bytes = 0  # about what the last batch that failed takes in the store
        self._queue: queue.SimpleQueue[tuple[Sequence[Event], Future[None] | None] | None] = queue.SimpleQueue()
        self._end = math.inf  # after it, nothing is tried again
        self._writing = threading.Lock()  # a writer that waits for SQLite's own lock sleeps too long
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        if durability != "none":
            self._thread.start()

    def _add_waiting(self, more: int) -> None:
        with self._counting:
            self.waiting += more

    def add_now(self, events: Sequence[Event]) -> bool:
        """Record events in the calling thread, which saves two changes of threads; False if :meth:`add` must do it.

        Raises:
            Refusal: 503 if they cannot be written.
        """
        if self.durability != "strict" or not events or self.waiting:
            return False
        self._add_waiting(len(events))
        try:
            with self._writing:
                append_events(self.store, events, again=False)
        except Exception as error:  # whatever the driver raises
            self._note(error, events)
            raise Refusal(503, f"the answer could not be stored: {error}", retry_after=5) from None
        else:
            self.error = None
        finally:
            self._add_waiting(-len(events))
        return True

    async def add(self, events: Sequence[Event]) -> None:
        """Record events.

        Raises:
            Refusal: 503 if they cannot be written ("strict"), or too many already wait ("fast").
        """
        if self.durability == "none" or not events:
            return
        if self.waiting + len(events) > _MOST_WAITING:
            raise Refusal(503, f"the store does not answer: {self.error or 'it is too slow'}", retry_after=5)
        self._add_waiting(len(events))
        if self.durability == "fast":
            self._queue.put((events, None))
            return
        done: Future[None] = Future()
        self._queue.put((events, done))
        try:
            await asyncio.wrap_future(done)
        except StorageError as error:
            raise Refusal(503, f"the answer could not be stored: {error}", retry_after=5) from None

    def try_again(self) -> None:
        """After a failed "strict" write, try whether the store takes as much again; :attr:`error` is None where it does.

        Without it the error would stay until the next request is scored, and a service that is not ready gets none. As many
        bytes as the batch that failed took (4 MiB at most) are committed and removed, because a small write can still fit into a
        full disk. A larger batch may fail all the same: its request is then refused, and the error is back. "fast" repeats its
        own writes, so it needs no try.
        """
        if self.durability != "strict" or self.error is None or self.waiting:
            return
        failures, content = self._failures, base64.b64encode(os.urandom(self._failed_bytes * 3 // 4)).decode()
        try:
            with self.store.write() as connection:
                self.store.put(connection, "try", content)
            with self.store.write() as connection:
                self.store.put(connection, "try", "")
        except Exception:  # as before; the reason is known
            return
        if self._failures == failures:  # no request failed meanwhile
            _log.info("events can be stored again.")
            self.error = None

    def stop(self) -> None:
        """Write what waits, then stop."""
        if self.durability != "none":
            self._end = time.monotonic() + _LAST_SECONDS
            self._queue.put(None)
            self._thread.join(timeout=30)

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                return
            batch = [item]
            size = len(item[0])
            if self.durability == "fast" and self._end == math.inf:
                time.sleep(LONGEST_DELAY / 2)
            while size < _MOST_TOGETHER:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    self._queue.put(None)
                    break
                batch.append(item)
                size += len(item[0])
            self._write(batch, [event for events, _ in batch for event in events])

    def _note(self, error: Exception, events: Sequence[Event]) -> None:
        """Remember why a write failed and how large it was, and log the first failure."""
        if self.error is None:
            _log.error("events cannot be stored: %s", error)
        self._failures += 1
        self._failed_bytes = min(_MOST_TRIED, _BATCH_BYTES + sum(map(_size, events)))
        self.error = str(error)

    def _write(self, batch: list[tuple[Sequence[Event], Future[None] | None]], events: list[Event]) -> None:
        pause, again = 0.1, False
        while True:
            try:
                with self._writing:
                    append_events(self.store, events, again=again)
            except Exception as error:  # whatever the driver raises, the thread goes on
                self._note(error, events)
                again = True
                # "fast" tries until it works; at the end of the process, for 20 seconds.
                if self.durability == "fast":
                    if time.monotonic() <= self._end:
                        time.sleep(pause)
                        pause = min(5.0, 2 * pause)
                        continue
                    _log.error("%d events are lost: %s", len(events), error)
                failure = error if isinstance(error, StorageError) else StorageError(str(error))
            else:
                self.error = failure = None
            self._add_waiting(-len(events))  # before the callers go on
            for _, done in batch:
                if done is not None:
                    with contextlib.suppress(Exception):  # the client may be gone
                        done.set_result(None) if failure is None else done.set_exception(failure)
            return


def _size(event: Event) -> int:
    """About the bytes of an event in the store."""
    return _EVENT_BYTES + len(event.reasons or "") + len(event.inputs or "")
