"""The exact interval of a probability from a count."""

from __future__ import annotations

from pushforward.errors import ConfigError
from pushforward.numerics.checks import check_integer, check_number

__all__ = ["exact_interval"]


def exact_interval(count: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of the probability of an event that happened in ``count`` of ``of`` independent trials.

    Clopper and Pearson (1934): each end is a quantile of a Beta distribution, so that the interval contains the true
    probability with at least ``level``, however few trials there are. Of 0 in n the upper end at 95 % is about 3.7 / n.

    Args:
        count: number of trials with the event.
        of: number of trials.
        level: probability of the interval.

    Returns:
        Lower and upper end; (0, 1) without trials.

    Raises:
        ConfigError: for impossible numbers.

    Example:
        >>> from pushforward.detection import exact_interval
        >>> [round(end, 4) for end in exact_interval(3, 10)]
        [0.0667, 0.6525]
    """
    from scipy.special import betainccinv, betaincinv

    of = check_integer("of", of, 0)
    if check_integer("count", count, 0) > of:
        raise ConfigError(f"count must be at most of={of}; got {count}.")
    tail = 0.5 * (1.0 - check_number("level", level, 0, 1))
    low = float(betaincinv(count, of - count + 1, tail)) if count else 0.0
    high = float(betainccinv(count + 1, of - count, tail)) if count < of else 1.0
    return low, high
