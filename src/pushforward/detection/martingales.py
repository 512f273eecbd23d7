"""Bets against exchangeability: test martingales of independent uniform p-values, in logarithms.

Each starts with a capital of 1 and multiplies it, at each p-value, by a density on [0, 1] that is large at small p. While
the p-values are independent and uniform the capital is a non-negative martingale, so by Ville's inequality it ever reaches
1/alpha with probability at most alpha.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from pushforward.numerics.checks import check_integer, check_number

__all__ = ["MARTINGALES", "BettingMartingale", "MixtureMartingale", "PowerMartingale", "RestartedMartingale"]


class BettingMartingale(ABC):
    """A strategy and its capital so far. ``state`` is all that it remembers, as plain numbers."""

    def __init__(self) -> None:
        self.state: list[float] = self.start()

    @abstractmethod
    def start(self) -> list[float]:
        """The state before the first p-value."""

    @abstractmethod
    def update(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log capital after each of the next p-values, shape (m,), each in (0, 1]."""


class PowerMartingale(BettingMartingale):
    """The power martingale, log M_t = sum log(epsilon p_i^(epsilon - 1)).

    From Vovk, Nouretdinov, Gammerman (2003), "Testing exchangeability on-line". It loses a fixed rate of its capital in
    quiet times, so it is for tests of a given stretch, not for a long watch.

    Args:
        epsilon: in (0, 1); the smaller, the more is staked on very small p-values.
    """

    def __init__(self, epsilon: float = 0.5) -> None:
        self.epsilon = check_number("epsilon", epsilon, 0, 1)
        super().__init__()

    def start(self) -> list[float]:
        """Log capital."""
        return [0.0]

    def update(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log capital after each p-value."""
        gains = math.log(self.epsilon) + (self.epsilon - 1) * np.log(p)
        capital = np.cumsum(np.concatenate([self.state, gains]))[1:]
        self.state = [float(capital[-1])] if p.size else self.state
        return capital


class MixtureMartingale(BettingMartingale):
    """The mixture power martingale, the power martingale averaged over epsilon uniform in (0, 1) (ibid.).

    With S = -sum log p_i, M_t = integral of epsilon^t exp((1 - epsilon) S) = e^S S^-(t+1) t! P(t+1, S), where P is the
    regularized lower incomplete gamma function.
    """

    def start(self) -> list[float]:
        """Number of p-values, and S."""
        return [0.0, 0.0]

    def update(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log capital after each p-value."""
        number = self.state[0] + np.arange(1.0, p.size + 1)
        total = np.cumsum(np.concatenate([[self.state[1]], -np.log(p)]))[1:]
        if p.size:
            self.state = [float(number[-1]), float(total[-1])]
        return log_mixture(number, total)


class RestartedMartingale(BettingMartingale):
    """PowerMartingale martingales of several epsilon that begin at every time, one mixture: it does not forget how to react.

    A share 1/(t (t + 1)) of the capital waits for time t and is staked from then on, equally on each epsilon. The sum of
    what waits and what is staked is a martingale again, so Ville's bound holds, and a change at time t costs the delay of
    a fresh start and 2 log t, however long the quiet before it was.

    Args:
        grid: number of epsilon, evenly from 0 to 1, without the ends.
    """

    def __init__(self, grid: int = 9) -> None:
        self.grid = check_integer("grid", grid)
        super().__init__()

    def start(self) -> list[float]:
        """Number of p-values, and the log of the capital staked on each epsilon."""
        return [0.0, *[-math.inf] * self.grid]

    def update(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log capital after each p-value."""
        epsilon = np.arange(1, self.grid + 1) / (self.grid + 1)
        number, staked = self.state[0], np.array(self.state[1:])
        gains = np.log(epsilon) + (epsilon - 1) * np.log(p)[:, None]
        capital = np.empty(p.size)
        for k, gain in enumerate(gains):
            number += 1
            staked = np.logaddexp(staked, -math.log(number * (number + 1) * self.grid)) + gain
            capital[k] = np.logaddexp(np.logaddexp.reduce(staked), -math.log(number + 1))
        self.state = [number, *staked.tolist()]
        return capital


MARTINGALES: dict[str, type[BettingMartingale]] = {
    "power": PowerMartingale,
    "mixture": MixtureMartingale,
    "restarted": RestartedMartingale,
}
"""The strategies by name."""


def log_mixture(number: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    """log of the integral over epsilon in (0, 1) of epsilon^n exp((1 - epsilon) S), elementwise for n >= 0 and S >= 0."""
    from scipy.special import gammainc, gammaln

    share_below = gammainc(number + 1, total)
    closed = share_below > 1e-200
    s = np.where(closed, total, 1.0)
    result = s - (number + 1) * np.log(s) + gammaln(number + 1) + np.log(np.where(closed, share_below, 1.0))
    for k in np.flatnonzero(~closed):  # S far below n: Kummer's series, whose terms fall at least as a power
        term = series = 1.0
        place = number[k] + 2
        while term > 1e-17 * series:
            term *= total[k] / place
            series += term
            place += 1
        result[k] = math.log(series) - math.log(number[k] + 1)
    return result
