"""Tests and confidence bounds of a mean loss that are valid for every number of rows."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.stats import beta, binom

from pushforward.detection.selective.inputs import loss_array
from pushforward.errors import ConfigError
from pushforward.numerics.checks import check_integer, check_number

__all__ = ["risk_p_value", "risk_upper_bound"]


def risk_p_value(total: float, n: int, risk: float, *, errors: bool) -> float:
    """P-value of the hypothesis that the mean loss is at least ``risk``, from n independent losses.

    For errors (losses 0 or 1) the exact binomial one, ``P(Binomial(n, risk) <= total)``. For losses in [0, 1] that of
    Hoeffding and Bentkus (Bates et al. 2021, "Distribution-free, risk-controlling prediction sets", thm. 1, as a p-value in
    Angelopoulos et al. 2021, "Learn then test", eq. 4).

    Args:
        total: sum of the losses.
        n: number of losses; 0 gives 1.
        risk: mean loss of the hypothesis, in (0, 1).
        errors: whether the losses are 0 or 1.

    Raises:
        ConfigError: for numbers outside these ranges: ``total`` is from 0 to n, and an integer for errors.

    Example:
        >>> from pushforward.detection.selective import risk_p_value
        >>> risk_p_value(2, 100, 0.1, errors=True) < 0.01  # two errors in a hundred, if the risk were 10 %
        True
    """
    check_integer("n", n, 0)
    check_number("risk", risk, 0, 1)
    check_number("total", total, 0, n, closed="both")
    if errors and total != int(total):
        raise ConfigError(f"total must be a number of errors, an integer, with errors=True; got {total!r}.")
    return _p_value(total, n, risk, errors)


def _p_value(total: float, n: int, risk: float, errors: bool) -> float:
    """The same without checks."""
    if n == 0:
        return 1.0
    if errors:
        return float(binom.cdf(total, n, risk))
    mean = min(total / n, risk)
    divergence = _x_log(mean, risk) + _x_log(1 - mean, 1 - risk)
    bentkus = math.e * float(binom.cdf(math.ceil(total * (1 - 1e-12)), n, risk))
    return min(1.0, math.exp(-n * divergence), bentkus)


def risk_upper_bound(losses: ArrayLike, delta: float = 0.05) -> float:
    """Upper confidence bound of the mean loss: at least the mean with probability 1 - delta, for every n.

    For booleans (errors) that of Clopper & Pearson (1934); for numbers in [0, 1] that of Hoeffding and Bentkus, see
    :func:`risk_p_value`.

    Args:
        losses: of independent rows, shape (n,): booleans, or numbers in [0, 1].
        delta: probability that the bound is too small.

    Raises:
        InputError: for no rows, or losses outside [0, 1].
        ConfigError: unless 0 < delta < 1.

    Example:
        >>> import numpy as np
        >>> round(risk_upper_bound(np.zeros(59, bool)), 4)    # the "rule of three": about 3 / n
        0.0495
    """
    values, errors = loss_array(losses)
    return upper_bound(float(values.sum()), len(values), check_number("delta", delta, 0, 1), errors=errors)


def upper_bound(total: float, n: int, delta: float, *, errors: bool) -> float:
    """The largest risk that :func:`risk_p_value` does not reject at level ``delta``."""
    if n == 0 or total >= n:
        return 1.0
    if errors:
        return float(beta.isf(delta, total + 1, n - total))
    mean = total / n

    def excess(risk: float) -> float:
        return _p_value(total, n, risk, errors=False) - delta

    nearly = 1 - 1e-12
    if excess(nearly) > 0:
        return 1.0
    root: Any = brentq(excess, max(mean, 1e-12), nearly, xtol=1e-12)
    return root


def _x_log(x: float, y: float) -> float:
    return x * math.log(x / y) if x > 0 else 0.0
