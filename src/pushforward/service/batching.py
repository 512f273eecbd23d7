"""`Batcher`: requests wait in a bounded queue and are scored together; what does not fit is refused at once."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pushforward.errors import PushforwardError
from pushforward.service.inputs import Inputs
from pushforward.service.refusal import Refusal
from pushforward.service.served import ServedModel

__all__ = ["Batcher", "Job"]


@dataclass(eq=False)
class Job:
    """The rows of one request.

    Attributes:
        model: that scores them.
        inputs: the rows.
        reasons: whether the reasons of every row are wanted.
        request: identifier that the client gave.
        future: the results of all parts, in order.
        taken: number of rows that are scored or being scored.
        parts: results so far.
        left: number of rows whose results are missing.
    """

    model: ServedModel
    inputs: Inputs
    reasons: bool
    request: str | None
    future: asyncio.Future[list[Any]]
    taken: int = 0
    parts: list[Any] = field(default_factory=list)
    left: int = 0


@dataclass(frozen=True)
class Part:
    """Rows of a job that are scored in one batch."""

    job: Job
    inputs: Inputs


class Batcher:
    """A bounded queue in front of one thread that scores.

    Args:
        score: scores the parts of one batch, which have the same model, and returns one result for each; runs in a thread.
        finish: called with the results of a batch; the requests are answered when what it returns is done.
        finish_now: called first, in the thread of ``score``, where no other request waits; True if it did what ``finish`` does.
        max_batch: rows of a batch; longer requests are scored in parts, and other requests come in between.
        max_wait: seconds that a batch waits for other requests that were received already.
        capacity: rows that wait or are being scored.
        others: number of requests to score that were received and may still come to the queue, or wait in it.
    """

    def __init__(
        self,
        score: Callable[[ServedModel, Sequence[Part]], list[Any]],
        finish: Callable[[list[Any]], Any],
        *,
        max_batch: int,
        max_wait: float,
        capacity: int,
        others: Callable[[], int] = lambda: 0,
        finish_now: Callable[[list[Any]], bool] = lambda results: False,
    ) -> None:
        self._score, self._finish, self._finish_now, self._others = score, finish, finish_now, others
        self.max_batch, self.max_wait, self.capacity = max_batch, max_wait, capacity
        self.rows = 0
        """Rows that wait or are being scored."""
        self.speed = 1000.0
        """Rows a second, a moving average."""
        self._jobs: deque[Job] = deque()
        self._arrived = asyncio.Event()
        self._unfinished: set[asyncio.Task[None]] = set()
        self._in_flight = asyncio.Semaphore(4)  # batches that are scored and not yet stored
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to score, in the running event loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Finish what waits, then stop."""
        while self.rows:
            await asyncio.sleep(0.01)
        if self._task is not None:
            self._task.cancel()
        self._thread.shutdown()

    def retry_after(self) -> int:
        """Seconds in which the queue is probably empty, at least 1."""
        return max(1, min(60, math.ceil(self.rows / max(self.speed, 1.0))))

    def check_space(self, rows: int = 1) -> None:
        """Refuse if so many more rows do not fit.

        Raises:
            Refusal: 429 with the time after which to try again.
        """
        if self.rows + rows > self.capacity:
            raise Refusal(
                429, f"the queue is full ({self.capacity} rows): try again later.", retry_after=self.retry_after()
            )

    async def submit(
        self, model: ServedModel, inputs: Inputs, *, reasons: bool = False, request: str | None = None
    ) -> list[Any]:
        """Score rows and return the results of their parts.

        Raises:
            Refusal: 429 if the queue is full.
            PushforwardError: of the guard.
        """
        self.check_space(len(inputs))
        job = Job(model, inputs, reasons, request, asyncio.get_running_loop().create_future(), left=len(inputs))
        self.rows += len(inputs)
        model.in_use += 1
        self._jobs.append(job)
        self._arrived.set()
        try:
            return await job.future
        finally:
            model.in_use -= 1

    async def _run(self) -> None:
        while True:
            await self._in_flight.acquire()
            while not self._jobs:
                self._arrived.clear()
                await self._arrived.wait()
            await self._wait_for_others()
            parts = self._take()
            if not parts:
                self._in_flight.release()
                continue
            start = time.monotonic()
            results, end = await asyncio.get_running_loop().run_in_executor(self._thread, self._work, parts)
            rows = sum(len(part.inputs) for part in parts)
            self.speed += 0.1 * (rows / max(time.monotonic() - start, 1e-6) - self.speed)
            task = asyncio.create_task(self._answer(parts, results, end))
            self._unfinished.add(task)
            task.add_done_callback(self._unfinished.discard)

    async def _wait_for_others(self) -> None:
        """Wait until the batch is full, nobody else is on the way to the queue, or the longest wait is over."""
        end = time.monotonic() + self.max_wait
        while (
            sum(len(job.inputs) - job.taken for job in self._jobs) < self.max_batch
            and self._others() > len(self._jobs)
            and (left := end - time.monotonic()) > 0
        ):
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return

    def _take(self) -> list[Part]:
        """The parts of the next batch; the rest of a long request goes to the end of the queue."""
        parts: list[Part] = []
        rest: list[Job] = []
        other: list[Job] = []
        space = self.max_batch
        while self._jobs and space:
            job = self._jobs.popleft()
            if job.future.done():  # the client is gone, or another part failed
                self.rows -= len(job.inputs) - job.taken
                continue
            if parts and not (job.model is parts[0].job.model and job.inputs.like(parts[0].inputs)):
                other.append(job)
                if len(other) >= 64:
                    break
                continue
            count = min(space, len(job.inputs) - job.taken)
            parts.append(Part(job, job.inputs.part(job.taken, job.taken + count)))
            job.taken += count
            space -= count
            if job.taken < len(job.inputs):
                rest.append(job)
        self._jobs.extendleft(reversed(other))
        self._jobs.extend(rest)
        return parts

    def _work(self, parts: list[Part]) -> tuple[list[Any], bool | Exception]:
        """Score a batch and, where no other request waits, finish it; the results, and whether they are finished or why not."""
        results = self._attempt(parts)
        if self._jobs:
            return results, False
        try:
            return results, self._finish_now(_good(results))
        except Exception as error:
            return results, error

    def _attempt(self, parts: list[Part]) -> list[Any]:
        """Score a batch; if that fails, score each part, so that a request cannot spoil those beside it."""
        try:
            return self._score(parts[0].job.model, parts)
        except Exception as error:
            if len(parts) == 1:
                return [error]
            return [self._attempt([part])[0] for part in parts]

    async def _answer(self, parts: list[Part], results: list[Any], end: bool | Exception) -> None:
        failure = end if isinstance(end, Exception) else None
        try:
            if end is False:
                await self._finish(_good(results))
        except Exception as error:
            failure = error
        finally:
            self._in_flight.release()
        for part, result in zip(parts, results, strict=True):
            self.rows -= len(part.inputs)
            job = part.job
            error = result if isinstance(result, Exception) else failure
            if job.future.done():
                continue
            if error is not None:
                known = isinstance(error, PushforwardError)
                job.future.set_exception(error if known else RuntimeError(f"scoring failed: {type(error).__name__}"))
                continue
            job.parts.append(result)
            job.left -= len(part.inputs)
            if job.left == 0:
                job.future.set_result(job.parts)


def _good(results: list[Any]) -> list[Any]:
    return [result for result in results if not isinstance(result, Exception)]
