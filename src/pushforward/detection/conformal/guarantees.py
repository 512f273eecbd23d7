"""What n calibration rows can promise: which p-value level to alarm at, how many rows it takes, what law results.

Alarming at ``p <= k / (n + 1)`` means alarming above the k-th largest calibration score. The false-alarm rate, given
the calibration rows, then follows Beta(k, n + 1 - k) when scores are continuous (the law of an order statistic); ties
only make it smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from pushforward.detection.validation import ROUNDING
from pushforward.errors import CalibrationError
from pushforward.numerics.checks import check_choice, check_integer, check_number

__all__ = [
    "FalseAlarmDistribution",
    "Guarantee",
    "alarm_count",
    "false_alarm_distribution",
    "realized_interval",
    "rows_needed",
]

Guarantee = Literal["marginal", "pac"]
"""``"marginal"``: the false-alarm rate is at most alpha on average over calibration sets.
``"pac"``: with probability at least 1 - delta the calibration set at hand has a rate of at most alpha."""

_SMALLEST_ALPHA = 1e-9


def alarm_count(n: int, alpha: float, guarantee: Guarantee, delta: float) -> int:
    """The largest k for which alarming at p <= k/(n+1) keeps the promise; an error if there is none."""
    alpha, delta = _checked(alpha, guarantee, delta)
    k = _last_true(lambda k: _keeps(k, n, alpha, guarantee, delta), end=n + 1)
    if k > 0:
        return k
    smallest = 1 / (n + 1) if guarantee == "marginal" else -math.expm1(math.log(delta) / n)
    smallest = _round_up(smallest)
    promise = f"alpha={alpha:g} with the {guarantee} guarantee" + (f" (delta={delta:g})" if guarantee == "pac" else "")
    raise CalibrationError(
        f"{promise} needs at least {rows_needed(alpha, guarantee, delta)} calibration rows and there "
        f"{'is' if n == 1 else 'are'} {n}: give more rows"
        + (f", or ask for alpha={smallest:g} or more, which these rows support." if smallest < 1 else ".")
    )


def rows_needed(alpha: float, guarantee: Guarantee = "marginal", delta: float = 0.05) -> int:
    """The smallest number of calibration rows with which an alarm at this promise is possible.

    ``ceil(1/alpha) - 1`` for the marginal guarantee; the smallest n with ``1 - (1 - alpha)^n >= 1 - delta`` for the
    PAC one. With so few rows only a score above all calibration scores alarms; ten times as many are better.

    Args:
        alpha: promised false-alarm rate, at least 1e-9.
        guarantee: ``"marginal"`` or ``"pac"``, see :meth:`ConformalCalibrator.threshold`.
        delta: how often the PAC promise may fail.

    Raises:
        ConfigError: for an alpha, guarantee or delta that makes no sense.

    Example:
        >>> from pushforward.detection import rows_needed
        >>> rows_needed(0.01), rows_needed(0.01, "pac"), rows_needed(0.05, "pac")
        (99, 299, 59)
    """
    alpha, delta = _checked(alpha, guarantee, delta)
    about = 1.0 / alpha if guarantee == "marginal" else math.log(delta) / math.log1p(-alpha)
    return 1 + _last_true(lambda n: not _keeps(1, n, alpha, guarantee, delta), end=2 + 2 * math.ceil(about))


@dataclass(frozen=True)
class FalseAlarmDistribution:
    """Beta(a, b): the law of the false-alarm rate over calibration sets, for continuous scores.

    The rate of a given calibration set is what infinitely many new normal rows would show. Made by
    :func:`false_alarm_distribution`.
    """

    a: int
    """k: alarms are raised at p <= k/(n+1)."""
    b: int
    """n + 1 - k."""

    @property
    def mean(self) -> float:
        """Expected rate, a / (a + b) = k / (n+1): what the marginal guarantee bounds."""
        return self.a / (self.a + self.b)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Central interval that holds the rate of a fraction ``level`` of all calibration sets.

        Raises:
            ConfigError: unless 0 < level < 1.
        """
        from scipy.special import betainccinv, betaincinv

        tail = 0.5 * (1.0 - check_number("level", level, 0, 1))
        return float(betaincinv(self.a, self.b, tail)), float(betainccinv(self.a, self.b, tail))


def false_alarm_distribution(
    n: int, alpha: float, guarantee: Guarantee = "marginal", delta: float = 0.05
) -> FalseAlarmDistribution:
    """The law of the realized false-alarm rate of :meth:`ConformalCalibrator.threshold` with n calibration rows.

    Exact for independent rows with continuous scores; with ties the rate is stochastically smaller (Vovk 2012).

    Args:
        n: number of calibration rows.
        alpha: promised false-alarm rate.
        guarantee: ``"marginal"`` or ``"pac"``.
        delta: how often the PAC promise may fail.

    Raises:
        CalibrationError: if n rows are too few for the promise.
        ConfigError: for an argument that makes no sense.

    Example:
        >>> from pushforward.detection import false_alarm_distribution
        >>> law = false_alarm_distribution(1000, alpha=0.05)
        >>> law, round(law.mean, 4), [round(rate, 3) for rate in law.interval(0.9)]
        (FalseAlarmDistribution(a=50, b=951), 0.05, [0.039, 0.062])
    """
    n = check_integer("n", n)
    k = alarm_count(n, alpha, guarantee, delta)
    return FalseAlarmDistribution(k, n + 1 - k)


def realized_interval(
    n_cal: int,
    n_test: int,
    alpha: float,
    level: float = 0.95,
    guarantee: Guarantee = "marginal",
    delta: float = 0.05,
) -> tuple[float, float]:
    """Where the share of alarms among ``n_test`` new normal rows falls with probability at least ``level``.

    The number of alarms is beta-binomial: binomial with a rate drawn from :func:`false_alarm_distribution`. Each tail outside
    has at most (1 - level)/2. With tied scores only the upper end is guaranteed.

    Args:
        n_cal: number of calibration rows.
        n_test: number of new normal rows, independent of the calibration rows and of each other.
        alpha: promised false-alarm rate.
        level: probability of the interval.
        guarantee: ``"marginal"`` or ``"pac"``.
        delta: how often the PAC promise may fail.

    Returns:
        Lowest and highest share of alarms, both inside the interval.

    Raises:
        CalibrationError: if n_cal rows are too few for the promise.
        ConfigError: for an argument that makes no sense.

    Example:
        >>> from pushforward.detection import realized_interval
        >>> realized_interval(1000, 500, alpha=0.05)
        (0.028, 0.074)
    """
    n_test = check_integer("n_test", n_test)
    tail = 0.5 * (1.0 - check_number("level", level, 0, 1))
    law = false_alarm_distribution(n_cal, alpha, guarantee, delta)
    x = np.arange(n_test, dtype=np.float64)
    # P(x + 1) / P(x), summed in logs and normalized: no difference of large log-gammas.
    ratio = np.log(n_test - x) + np.log(law.a + x) - np.log(x + 1) - np.log(law.b + n_test - 1 - x)
    log_mass = np.concatenate([[0.0], np.cumsum(ratio)])
    mass = np.exp(log_mass - log_mass.max())
    mass /= mass.sum()
    lowest = int(np.searchsorted(np.cumsum(mass), tail))
    highest = n_test - int(np.searchsorted(np.cumsum(mass[::-1]), tail))
    return lowest / n_test, highest / n_test


def _checked(alpha: float, guarantee: str, delta: float) -> tuple[float, float]:
    check_choice("guarantee", guarantee, get_args(Guarantee))
    return check_number("alpha", alpha, _SMALLEST_ALPHA, 1, closed="left"), check_number("delta", delta, 0, 1)


def _keeps(k: int, n: int, alpha: float, guarantee: Guarantee, delta: float) -> bool:
    """Whether alarming at p <= k/(n+1), for k in 1..n, keeps the promise."""
    if guarantee == "marginal":
        return k <= alpha * (n + 1) * ROUNDING
    from scipy.special import betaincc

    # P(Beta > alpha) <= delta rather than P(Beta <= alpha) >= 1 - delta: a small delta keeps its digits.
    return bool(betaincc(k, n + 1 - k, alpha) <= delta * ROUNDING)


def _last_true(holds: Callable[[int], bool], end: int) -> int:
    """The largest i in [0, end) with ``holds(i)``, for a ``holds`` that is true at 0 and turns false at most once."""
    low = 0
    while end - low > 1:
        middle = (low + end) // 2
        low, end = (middle, end) if holds(middle) else (low, middle)
    return low


def _round_up(value: float) -> float:
    """Three significant digits, upward, so that the alpha that an error proposes does work."""
    scale = 10.0 ** (2 - math.floor(math.log10(value)))
    return math.ceil(value * scale - 1e-9) / scale
