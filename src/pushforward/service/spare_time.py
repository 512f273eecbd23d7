"""`SpareTime`: how much time work that nobody asked for may take beside the work that clients wait for."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["SpareTime"]


class SpareTime:
    """A share of the time that passes; unused time is kept up to a limit.

    An idle service has it at once, and a busy one spends no more than the share.

    Args:
        share: of the time that passes, between 0 and 1.
        most: seconds that are kept.
        clock: seconds.
    """

    def __init__(self, share: float, most: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._most, self._clock = share, most, clock
        self._left, self._seen = most, clock()

    def available(self) -> bool:
        """Whether some time is left."""
        now = self._clock()
        self._left = min(self._most, self._left + self._share * (now - self._seen))
        self._seen = now
        return self._left > 0

    def spend(self, seconds: float) -> None:
        """Take time, also more than is left; the rest is then taken from later time, but not more than is kept."""
        self._left = max(self._left - seconds, -self._most)
