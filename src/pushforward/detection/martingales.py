"""Test martingales of p-values, as evidence against exchangeability, in logarithms.

Each martingale starts with a capital of 1 and multiplies it, at each p-value, by a density on [0, 1] that is large for small
p. If the p-values are independent and uniform, the capital is a nonnegative martingale, so by Ville's inequality the
probability that it ever reaches 1/alpha is at most alpha.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.detection.validation import score_array
from pushforward.errors import InputError
from pushforward.numerics.checks import check_integer, check_number

__all__ = ["MARTINGALES", "BettingMartingale", "MixtureMartingale", "PowerMartingale", "RestartedMartingale"]


class BettingMartingale(ABC):
    """Base class of test martingales. ``state`` is the complete state as a list of numbers.

    Example:
        >>> from pushforward.detection.martingales import MARTINGALES
        >>> sorted(MARTINGALES)
        ['mixture', 'power', 'restarted']
    """

    def __init__(self) -> None:
        self.state: list[float] = self.start()

    @abstractmethod
    def start(self) -> list[float]:
        """The state before the first p-value."""

    def update(self, p: ArrayLike) -> NDArray[np.float64]:
        """Log capital after each of the next p-values, shape (m,).

        Raises:
            InputError: for a p-value outside (0, 1], NaN, or another shape; the state then does not change.
        """
        values = score_array(p, "the p-values", may_be_empty=True)
        if not ((values > 0) & (values <= 1)).all():
            raise InputError("p-values must be greater than 0 and at most 1: use conformal ones, which are never 0.")
        return self._update(values)

    @abstractmethod
    def _update(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """What ``update`` returns, for p-values that were checked."""


class PowerMartingale(BettingMartingale):
    """The power martingale, log M_t = sum log(epsilon p_i^(epsilon - 1)).

    From Vovk, Nouretdinov, Gammerman (2003), "Testing exchangeability on-line". Under exchangeability its capital decreases
    exponentially, so use it for a stream of a given length, not for unlimited monitoring.

    Args:
        epsilon: exponent in (0, 1); a smaller one gains more from very small p-values.

    Example:
        >>> import numpy as np
        >>> from pushforward.detection.martingales import PowerMartingale
        >>> evidence = PowerMartingale(epsilon=0.5).update(np.full(10, 0.001))  # ten small p-values
        >>> bool(evidence[-1] > np.log(100))  # an alarm at level 1 %
        True
    """

    def __init__(self, epsilon: float = 0.5) -> None:
        self.epsilon = check_number("epsilon", epsilon, 0, 1)
        super().__init__()

    def start(self) -> list[float]:
        """Log capital."""
        return [0.0]

    def _update(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log capital after each p-value."""
        gains = math.log(self.epsilon) + (self.epsilon - 1) * np.log(p)
        capital = np.cumsum(np.concatenate([self.state, gains]))[1:]
        self.state = [float(capital[-1])] if p.size else self.state
        return capital


class MixtureMartingale(BettingMartingale):
    """The mixture power martingale: the mean of power martingales over epsilon in (0, 1) (Vovk, Nouretdinov, Gammerman 2003).

    With S = -sum log p_i, M_t = integral of epsilon^t exp((1 - epsilon) S) = e^S S^-(t+1) t! P(t+1, S), where P is the
    regularized lower incomplete gamma function.

    Example:
        >>> import numpy as np
        >>> from pushforward.detection.martingales import MixtureMartingale
        >>> evidence = MixtureMartingale().update(np.full(10, 0.001))  # ten small p-values
        >>> bool(evidence[-1] > np.log(100))  # an alarm at level 1 %
        True
    """

    def start(self) -> list[float]:
        """Number of p-values, and S."""
        return [0.0, 0.0]

    def _update(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log capital after each p-value."""
        number = self.state[0] + np.arange(1.0, p.size + 1)
        total = np.cumsum(np.concatenate([[self.state[1]], -np.log(p)]))[1:]
        if p.size:
            self.state = [float(number[-1]), float(total[-1])]
        return log_mixture(number, total)


class RestartedMartingale(BettingMartingale):
    """A mixture of power martingales that start at every time, for several epsilon; it detects late changes.

    The fraction 1/(t (t + 1)) of the initial capital is reserved until time t and then divided equally among the epsilon. The
    sum of reserved and invested capital is a martingale, so Ville's bound is valid. A change at time t is detected with the
    delay of a martingale that starts at t and a loss of 2 log t, independent of the p-values before the change.

    Args:
        grid: number of values of epsilon, equally spaced between 0 and 1 without the ends.

    Example:
        >>> import numpy as np
        >>> from pushforward.detection.martingales import RestartedMartingale
        >>> evidence = RestartedMartingale().update(np.full(10, 0.001))  # ten small p-values
        >>> bool(evidence[-1] > np.log(100))  # an alarm at level 1 %
        True
    """

    def __init__(self, grid: int = 9) -> None:
        self.grid = check_integer("grid", grid)
        super().__init__()

    def start(self) -> list[float]:
        """Number of p-values, and the log of the capital invested in each epsilon."""
        return [0.0, *[-math.inf] * self.grid]

    def _update(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log capital after each p-value."""
        epsilon = np.arange(1, self.grid + 1) / (self.grid + 1)
        number, invested = self.state[0], np.array(self.state[1:])
        gains = np.log(epsilon) + (epsilon - 1) * np.log(p)[:, None]
        capital = np.empty(p.size)
        for k, gain in enumerate(gains):
            number += 1
            invested = np.logaddexp(invested, -math.log(number * (number + 1) * self.grid)) + gain
            capital[k] = np.logaddexp(np.logaddexp.reduce(invested), -math.log(number + 1))
        self.state = [number, *invested.tolist()]
        return capital


MARTINGALES: dict[str, type[BettingMartingale]] = {
    "power": PowerMartingale,
    "mixture": MixtureMartingale,
    "restarted": RestartedMartingale,
}
"""The test martingales by name."""


def log_mixture(number: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log of the integral over epsilon in (0, 1) of epsilon^n exp((1 - epsilon) S), elementwise for n >= 0 and S >= 0."""
    from scipy.special import gammainc, gammaln

    p_below = gammainc(number + 1, total)
    closed = p_below > 1e-200
    s = np.where(closed, total, 1.0)
    result = s - (number + 1) * np.log(s) + gammaln(number + 1) + np.log(np.where(closed, p_below, 1.0))
    for k in np.flatnonzero(~closed):  # S is much less than n: Kummer's series converges fast
        term = series = 1.0
        denominator = number[k] + 2
        while term > 1e-17 * series:
            term *= total[k] / denominator
            series += term
            denominator += 1
        result[k] = math.log(series) - math.log(number[k] + 1)
    return result
