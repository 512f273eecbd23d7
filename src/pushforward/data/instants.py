"""The first and the last instant of rows, without the few that are far from all others, as a mistyped year is."""

from __future__ import annotations

import numpy as np

__all__ = ["ends_of"]

_GAP = 30 * 86_400.0  # seconds
_LEAST = 20  # rows, of fewer all count
_SHARE = 0.001  # of the rows at each end may be alone, and one row of fewer than 1,000
_TAIL = 0.05  # of the rows at the other end have no say, so that a mistyped year there does not matter


def ends_of(values: np.ndarray) -> tuple[float, float]:
    """The first and the last instant that are not alone.

    Instants at an end are alone if they are at most one in a thousand (or one) and the gap to the next instant is longer than
    all the time that the others take, and than 30 days.

    Args:
        values: seconds, finite, ``(n,)`` with n > 0.

    Example:
        >>> ends_of(np.append(np.arange(100.0), 1e8))
        (0.0, 99.0)
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if len(ordered) < _LEAST:
        return float(ordered[0]), float(ordered[-1])
    return -_last(-ordered[::-1]), _last(ordered)


def _last(ordered: np.ndarray) -> float:
    """The last of ascending instants that is not alone."""
    n, low = len(ordered), ordered[int(_TAIL * len(ordered))]
    alone = 0
    for k in range(1, max(1, int(_SHARE * n)) + 1):
        if ordered[n - k] - ordered[n - k - 1] > max(ordered[n - k - 1] - low, _GAP):
            alone = k
    return float(ordered[n - 1 - alone])
