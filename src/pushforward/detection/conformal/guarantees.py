"""The guarantees of n calibration rows: alarm level, number of rows needed, distribution of the false-alarm rate.

An alarm at ``p <= k / (n + 1)`` is an alarm above the k-th largest calibration score. If the scores are continuous, the
false-alarm rate given the calibration rows follows Beta(k, n + 1 - k), the distribution of an order statistic. With ties
the rate is smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from pushforward.detection.validation import ROUNDING
from pushforward.errors import CalibrationError
from pushforward.numerics.checks import check_choice, check_integer, check_number

__all__ = [
    "SMALLEST_ALPHA",
    "FalseAlarmDistribution",
    "Guarantee",
    "alarm_count",
    "false_alarm_distribution",
    "realized_interval",
    "rows_needed",
]

Guarantee = Literal["marginal", "pac"]
"""``"marginal"``: the false-alarm rate is at most alpha on average over calibration sets.
``"pac"``: with probability at least 1 - delta over calibration sets, the false-alarm rate is at most alpha."""

SMALLEST_ALPHA = 1e-9
"""The smallest rate that can be promised."""
_SUMMED = 1_000_000
"""Most rows for which the masses of all numbers of alarms are summed."""
_MOST = 10**12
"""Rows beyond which the interval of this many is given, which is wider by 1e-6 for a million calibration rows."""
_NODES, _NEGLIGIBLE = 100, 1e-15
"""Nodes of the quadrature for more rows, and the probability that is left out at each end."""


def alarm_count(n: int, alpha: float, guarantee: Guarantee, delta: float) -> int:
    """The largest k for which an alarm at p <= k/(n+1) satisfies the guarantee; an error if there is none."""
    alpha, delta = _checked(alpha, guarantee, delta)
    k = _last_true(lambda k: _satisfied(k, n, alpha, guarantee, delta), end=n + 1)
    if k > 0:
        return k
    smallest = 1 / (n + 1) if guarantee == "marginal" else -math.expm1(math.log(delta) / n)
    smallest = _round_up(smallest)
    promise = f"alpha={alpha:g} with the {guarantee} guarantee" + (f" (delta={delta:g})" if guarantee == "pac" else "")
    raise CalibrationError(
        f"{promise} needs at least {rows_needed(alpha, guarantee, delta)} calibration rows and there "
        f"{'is' if n == 1 else 'are'} {n}: use more rows"
        + (f", or alpha={smallest:g} or more, which these rows support." if smallest < 1 else ".")
    )


def rows_needed(alpha: float, guarantee: Guarantee = "marginal", delta: float = 0.05) -> int:
    """The smallest number of calibration rows for which an alarm with this guarantee is possible.

    ``ceil(1/alpha) - 1`` for the marginal guarantee; the smallest n with ``1 - (1 - alpha)^n >= 1 - delta`` for the
    PAC one. With this number of rows only a score above all calibration scores raises an alarm; use ten times as many.

    Args:
        alpha: largest false-alarm rate, at least 1e-9.
        guarantee: ``"marginal"`` or ``"pac"``, see :meth:`ConformalCalibrator.threshold`.
        delta: probability that the PAC guarantee may fail.

    Raises:
        ConfigError: for an invalid alpha, guarantee or delta.

    Example:
        >>> from pushforward.detection import rows_needed
        >>> rows_needed(0.01), rows_needed(0.01, "pac"), rows_needed(0.05, "pac")
        (99, 299, 59)
    """
    alpha, delta = _checked(alpha, guarantee, delta)
    about = 1.0 / alpha if guarantee == "marginal" else math.log(delta) / math.log1p(-alpha)
    return 1 + _last_true(lambda n: not _satisfied(1, n, alpha, guarantee, delta), end=2 + 2 * math.ceil(about))


@dataclass(frozen=True)
class FalseAlarmDistribution:
    """Beta(a, b): the distribution of the false-alarm rate over calibration sets, for continuous scores.

    The false-alarm rate of a calibration set is the probability of an alarm on a new normal row. Returned by
    :func:`false_alarm_distribution`.

    Example:
        >>> from pushforward.detection import false_alarm_distribution
        >>> distribution = false_alarm_distribution(99, alpha=0.05)
        >>> distribution.a, distribution.b
        (5, 95)
    """

    a: int
    """k: alarms are raised at p <= k/(n+1)."""
    b: int
    """n + 1 - k."""
    left_out: int = field(default=0, repr=False)
    """Number of larger calibration scores that were left out and may have been of normal rows: the upper ends of intervals count them."""

    @property
    def mean(self) -> float:
        """Expected rate, a / (a + b) = k / (n+1), which the marginal guarantee bounds."""
        return self.a / (self.a + self.b)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Central interval that contains the rate with probability ``level``.

        Raises:
            ConfigError: unless 0 < level < 1.
        """
        from scipy.special import betainccinv, betaincinv

        tail = 0.5 * (1.0 - check_number("level", level, 0, 1))
        return float(betaincinv(self.a, self.b, tail)), float(betainccinv(self.a + self.left_out, self.b, tail))

    def realized_interval(self, n_test: int, level: float = 0.95) -> tuple[float, float]:
        """Interval of the fraction of alarms among ``n_test`` new normal rows, see :func:`realized_interval`.

        Raises:
            ConfigError: unless 0 < level < 1 and ``n_test`` is a positive integer.
        """
        tail, n_test = 0.5 * (1.0 - check_number("level", level, 0, 1)), min(check_integer("n_test", n_test), _MOST)
        if self.left_out:
            high = FalseAlarmDistribution(self.a + self.left_out, self.b).realized_interval(n_test, level)[1]
            return FalseAlarmDistribution(self.a, self.b).realized_interval(n_test, level)[0], high
        if n_test > _SUMMED:
            a, b = self.a, self.b
            lowest, unlikely = (
                _last_true(lambda k, a=a, b=b: _fewer_alarms(k, n_test, a, b) < tail, n_test + 1)
                for a, b in ((a, b), (b, a))
            )
            return lowest / n_test, (n_test - unlikely) / n_test
        x = np.arange(n_test, dtype=np.float64)
        # Sum log(P(x + 1) / P(x)) and normalize, to avoid differences of large log-gammas.
        ratio = np.log(n_test - x) + np.log(self.a + x) - np.log(x + 1) - np.log(self.b + n_test - 1 - x)
        log_mass = np.concatenate([[0.0], np.cumsum(ratio)])
        mass = np.exp(log_mass - log_mass.max())
        mass /= mass.sum()
        lowest = int(np.searchsorted(np.cumsum(mass), tail))
        highest = n_test - int(np.searchsorted(np.cumsum(mass[::-1]), tail))
        return lowest / n_test, highest / n_test


def false_alarm_distribution(
    n: int, alpha: float, guarantee: Guarantee = "marginal", delta: float = 0.05, left_out: int = 0
) -> FalseAlarmDistribution:
    """Distribution of the realized false-alarm rate of :meth:`ConformalCalibrator.threshold` with n calibration rows.

    Exact for independent rows with continuous scores; with ties the rate is stochastically smaller (Vovk 2012).

    Args:
        n: number of calibration rows.
        alpha: largest false-alarm rate.
        guarantee: ``"marginal"`` or ``"pac"``.
        delta: probability that the PAC guarantee may fail.
        left_out: number of larger calibration scores that were left out as those of anomalies (``max_contamination``). It is not
            known whether they were, so the upper end is that for normal rows and the lower end that for anomalies.

    Raises:
        CalibrationError: if n rows are too few for the guarantee.
        ConfigError: for an invalid argument.

    Example:
        >>> from pushforward.detection import false_alarm_distribution
        >>> rate = false_alarm_distribution(1000, alpha=0.05)
        >>> rate, round(rate.mean, 4), [round(end, 3) for end in rate.interval(0.9)]
        (FalseAlarmDistribution(a=50, b=951), 0.05, [0.039, 0.062])
    """
    n = check_integer("n", n)
    k = alarm_count(n, alpha, guarantee, delta)
    return FalseAlarmDistribution(k, n + 1 - k, check_integer("left_out", left_out, 0))


def realized_interval(
    n_cal: int,
    n_test: int,
    alpha: float,
    level: float = 0.95,
    guarantee: Guarantee = "marginal",
    delta: float = 0.05,
    left_out: int = 0,
) -> tuple[float, float]:
    """Interval that contains the fraction of alarms among ``n_test`` new normal rows with probability at least ``level``.

    The number of alarms is beta-binomial: binomial with a rate drawn from :func:`false_alarm_distribution`. Each tail
    outside the interval has a probability of at most (1 - level)/2. With tied scores only the upper end is guaranteed.

    Args:
        n_cal: number of calibration rows.
        n_test: number of new normal rows, independent of the calibration rows and of each other.
        alpha: largest false-alarm rate.
        level: probability of the interval.
        guarantee: ``"marginal"`` or ``"pac"``.
        delta: probability that the PAC guarantee may fail.
        left_out: see :func:`false_alarm_distribution`.

    Returns:
        Lower and upper end, both included.

    Raises:
        CalibrationError: if n_cal rows are too few for the guarantee.
        ConfigError: for an invalid argument.

    Example:
        >>> from pushforward.detection import realized_interval
        >>> realized_interval(1000, 500, alpha=0.05)
        (0.028, 0.074)
    """
    n_test = check_integer("n_test", n_test)
    return false_alarm_distribution(n_cal, alpha, guarantee, delta, left_out).realized_interval(n_test, level)


def _checked(alpha: float, guarantee: str, delta: float) -> tuple[float, float]:
    check_choice("guarantee", guarantee, get_args(Guarantee))
    return check_number("alpha", alpha, SMALLEST_ALPHA, 1, closed="left"), check_number("delta", delta, 0, 1)


def _satisfied(k: int, n: int, alpha: float, guarantee: Guarantee, delta: float) -> bool:
    """Whether an alarm at p <= k/(n+1), for k in 1..n, satisfies the guarantee."""
    if guarantee == "marginal":
        return k <= alpha * (n + 1) * ROUNDING
    from scipy.special import betaincc

    # P(Beta > alpha) <= delta keeps the digits of a small delta; P(Beta <= alpha) >= 1 - delta does not.
    return bool(betaincc(k, n + 1 - k, alpha) <= delta * ROUNDING)


def _fewer_alarms(k: int, n: int, a: int, b: int) -> float:
    """P(fewer than k alarms among n rows), if the rate is Beta(a, b): P(rate < the k-th smallest of n uniform numbers).

    The mean of the distribution function of the wider of the two over the density of the narrower one, by Gauss-Legendre quadrature.
    """
    from scipy.special import betainc, betaincc, betainccinv, betaincinv
    from scipy.stats import beta

    if k == 0:
        return 0.0
    rate, kth = (float(a), float(b)), (float(k), float(n + 1 - k))
    narrow = max(rate, kth, key=sum)
    low, high = (float(end(*narrow, _NEGLIGIBLE)) for end in (betaincinv, betainccinv))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    points = 0.5 * (high - low) * nodes + 0.5 * (high + low)
    mass = weights * beta.pdf(points, *narrow)
    return float((mass * (betainc(*rate, points) if narrow == kth else betaincc(*kth, points))).sum() / mass.sum())


def _last_true(condition: Callable[[int], bool], end: int) -> int:
    """The largest i in [0, end) with ``condition(i)``, for a condition that is true at 0 and turns false at most once."""
    low = 0
    while end - low > 1:
        middle = (low + end) // 2
        low, end = (middle, end) if condition(middle) else (low, middle)
    return low


def _round_up(value: float) -> float:
    """Round up to three significant digits, so that the alpha proposed by the error is valid."""
    scale = 10.0 ** (2 - math.floor(math.log10(value)))
    return math.ceil(value * scale - 1e-9) / scale
