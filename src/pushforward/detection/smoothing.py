"""Smoothed scores: an order statistic of a score under Gaussian noise, with a bound that holds in a ball around the input.

Notation: f is the base score of a row (any function; higher is more anomalous), sigma the standard deviation of the noise, G
standard normal, and ``h_q(x) = inf {t: P(f(x + sigma G) <= t) >= q}`` the smoothed score at quantile q.

Deployed score. ``D(x)`` is the k-th smallest of n draws f(x + sigma G_i). The noise is a cryptographic hash of the row (BLAKE2b, with
the seed as key), so D is a function of the row; it is calibrated as any other score, and its p-values are valid.

Certificate. For a row x, a radius r and a failure probability ``g = g_1 + g_2``, L(x) is found such that, with probability at least
1 - g over the noise, ``D(x') >= L(x)`` at each of the inputs x' with ||x' - x|| <= r that an attacker evaluates, if these are at most B.

1. *The ball.* For a set A, ``Phi^-1(P(x + sigma G in A))`` changes by at most ||x' - x|| / sigma if x moves to x' (Neyman-Pearson; Cohen et
   al. 2019, thm. 1; Salman et al. 2019). With A = {f <= t}: ``h_q(x') >= h_q'(x)`` for ``q' = Phi(Phi^-1(q) - r / sigma)`` and all x' in
   the ball (Chiang et al. 2020, "Detection as regression", lemma 1).
2. *The estimate at x.* f(x + sigma G) <= h_q'(x) has probability at least q'. So the j-th smallest of N draws of their own exceeds
   h_q'(x) with probability at most ``P(Binomial(N, q') <= j - 1)``. L(x) is the draw of the largest j with ``... <= g_1``.
3. *The estimate at x'.* f(x' + sigma G) < h_q(x') has probability at most q. So D(x') < h_q(x') has probability at most
   ``P(Binomial(n, q) >= k)``, and q is the largest number with ``... <= g_2 / B``. This holds at every x' given all that was evaluated
   before, since the noise of an input not yet evaluated is independent of it (the hash as a random oracle). The union bound over the
   B inputs gives g_2, for attackers who know the network, the score, the seed and the hash too.

Together ``D(x') >= h_q(x') >= h_q'(x) >= L(x)``. The p-value decreases in the score, so it is at most that of L(x). The bound of the
exact smoothed score h_q needs no B: with probability 1 - g_1 it holds for all x' in the ball at once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr, ndtri
from scipy.stats import binom

from pushforward.detection.validation import plain_array
from pushforward.errors import InputError
from pushforward.numerics.checks import check_integer, check_number, check_positive

__all__ = ["NoisyFunction", "NoisyScore", "Smoothing"]

Array = NDArray[np.float64]


class NoisyScore(Protocol):
    """A base score that can be drawn under noise.

    Example:
        >>> import numpy as np
        >>> from pushforward.detection.smoothing import NoisyFunction, Smoothing
        >>> base = NoisyFunction(lambda rows: np.square(rows).sum(1))  # any function of rows is a noisy score
        >>> Smoothing(sigma=0.5, draws=64).score(base, np.zeros((2, 3))).shape
        (2,)
    """

    def noisy_scores(self, row: Array, sigma: float, generator: np.random.Generator, count: int) -> Array:
        """``count`` independent draws of f(row + sigma G), for a row ``(d,)`` of real numbers."""
        ...


class NoisyFunction:
    """Any scoring function of rows of real numbers as a :class:`NoisyScore`.

    Args:
        function: from rows ``(n, d)``, float64, to scores ``(n,)``; rounding or clipping inside it are allowed.

    Example:
        >>> base = NoisyFunction(lambda rows: (rows**2).sum(1))
        >>> bool(0.8 < Smoothing(0.1).score(base, np.array([[1.0, 0.0]]))[0] < 1.2)
        True
    """

    def __init__(self, function: Callable[[Array], Array]) -> None:
        self.function = function

    def noisy_scores(self, row: Array, sigma: float, generator: np.random.Generator, count: int) -> Array:
        """Draws of the function's value under noise."""
        return plain_array(self.function(row + sigma * generator.standard_normal((count, row.size))), "the base scores")


@dataclass(frozen=True)
class Smoothing:
    """Smooth a score by the order statistic of its values under Gaussian noise; see the module for the proof of the bound.

    Attributes:
        sigma: standard deviation of the noise, in the units of the rows.
        draws: number n of draws at each row.
        quantile: the order statistic is k = ceil(quantile n); 0.5 is the median.
        seed: key of the hash that makes the noise of a row.

    Raises:
        ConfigError: for a number out of range.

    Example:
        >>> smoothing, base = Smoothing(0.5), NoisyFunction(lambda rows: rows[:, 0])
        >>> row = np.array([[3.0, 0.0]])
        >>> lower = smoothing.lower_bound(base, row, radius=0.5)[0]    # the median is 3, and 2.5 in the ball
        >>> bool(2.0 < lower < 2.5 < smoothing.score(base, row)[0])
        True
    """

    sigma: float
    draws: int = 256
    quantile: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive("sigma", self.sigma)
        check_integer("draws", self.draws)
        check_number("quantile", self.quantile, 0, 1, closed="right")
        check_integer("seed", self.seed, 0, most=2**64 - 1)

    @property
    def rank(self) -> int:
        """k: the deployed score is the k-th smallest draw."""
        return max(1, math.ceil(self.quantile * self.draws * (1 - 1e-12)))

    def score(self, base: NoisyScore, rows: Array) -> Array:
        """The deployed score D of each row ``(m, d)``, float64 ``(m,)``; equal rows have equal scores.

        Raises:
            InputError: for rows with NaN or infinity, or a base score that is NaN or not one number for each draw.
        """
        found = (self._sorted_draws(base, row, b"score", self.draws)[self.rank - 1] for row in _finite(rows))
        return np.fromiter(found, np.float64, len(rows))

    def lower_bound(
        self,
        base: NoisyScore,
        rows: Array,
        radius: float,
        *,
        draws: int = 10_000,
        confidence: float = 0.99,
        attempts: int = 10**6,
    ) -> Array:
        """L of each row ``(m, d)``: D is at least L at all inputs within the radius that an attacker evaluates, ``(m,)``.

        Args:
            base: the base score.
            rows: rows of real numbers.
            radius: largest L2 norm of a change of a row, in the units of the rows; 0 covers the noise of x itself.
            draws: number N of draws at each row; more make the bound sharper, and large radii possible.
            confidence: 1 - g: probability of the statement, for each row and radius.
            attempts: B, the largest number of inputs that the attacker evaluates.

        Returns:
            Lower bounds; -inf where the draws are too few for this radius.

        Raises:
            InputError: for rows with NaN or infinity, or a base score that is NaN.
            ConfigError: for a number out of range.
        """
        j = self.certified_rank(radius, draws, confidence, attempts)
        if j == 0:
            return np.full(len(_finite(rows)), -math.inf)
        found = (self._sorted_draws(base, row, b"bound", draws)[j - 1] for row in _finite(rows))
        return np.fromiter(found, np.float64, len(rows))

    def certified_rank(self, radius: float, draws: int, confidence: float, attempts: int) -> int:
        """j: L is the j-th smallest of the draws; 0 if they are too few. Arguments as of :meth:`lower_bound`."""
        check_positive("radius", radius, zero=True)
        check_integer("draws", draws)
        q, failure = self._guaranteed(confidence, attempts)
        shifted = float(ndtr(ndtri(q) - radius / self.sigma))
        ranks = np.arange(1, draws + 1)
        return int(np.count_nonzero(binom.cdf(ranks - 1, draws, shifted) <= failure))  # the cdf increases in the rank

    def certified_radius(
        self,
        base: NoisyScore,
        rows: Array,
        threshold: float,
        *,
        draws: int = 10_000,
        confidence: float = 0.99,
        attempts: int = 10**6,
    ) -> Array:
        """The largest radius at which :meth:`lower_bound` is at least ``threshold``, ``(m,)``; NaN where it is at none.

        Args:
            base: the base score.
            rows: rows of real numbers.
            threshold: score at or above which there is an alarm.
            draws: see :meth:`lower_bound`.
            confidence: see :meth:`lower_bound`; the threshold must not depend on the draws.
            attempts: see :meth:`lower_bound`.

        Raises:
            InputError: for rows with NaN or infinity, or a base score that is NaN.
            ConfigError: for a number out of range.
        """
        check_integer("draws", draws)
        q, failure = self._guaranteed(confidence, attempts)
        radii = []
        for row in _finite(rows):
            below = int(np.searchsorted(self._sorted_draws(base, row, b"bound", draws), threshold, side="left"))
            # The smallest q' for which rank below + 1 passes: P(Binomial(N, q') <= below) = g_1.
            least = float(betaincinv(below + 1, draws - below, 1 - failure)) if below < draws else 1.0
            radius = self.sigma * (float(ndtri(q)) - float(ndtri(least)))
            radii.append(radius if radius >= 0 else math.nan)
        return np.array(radii, dtype=np.float64)

    def _guaranteed(self, confidence: float, attempts: int) -> tuple[float, float]:
        """q of step 3, and g_1; the failure probability is divided into halves."""
        half = 0.5 * (1 - check_number("confidence", confidence, 0, 1))
        per_attempt = half / check_integer("attempts", attempts)
        return float(betaincinv(self.rank, self.draws - self.rank + 1, per_attempt)), half

    def _sorted_draws(self, base: NoisyScore, row: Array, purpose: bytes, count: int) -> Array:
        key = int(self.seed).to_bytes(8, "little")
        content = (row + 0.0).astype("<f8").tobytes()  # -0.0 becomes 0.0
        digest = hashlib.blake2b(content, digest_size=16, key=key, person=purpose).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
        parts = []
        for size in (min(1024, count - k) for k in range(0, count, 1024)):
            part = base.noisy_scores(row, self.sigma, generator, size)
            if part.shape != (size,) or part.dtype.kind not in "fiub":
                raise InputError(
                    f"the base score must be one number for each row, (n,); for {size} rows it gave {part.dtype} of shape {part.shape}."
                )
            parts.append(part)
        values = np.sort(np.concatenate(parts).astype(np.float64))
        if np.isnan(values[-1]):
            raise InputError("the base score is NaN under noise: it needs a value for every input near the rows.")
        return values


def _finite(rows: Array) -> Array:
    rows = plain_array(rows, "rows to smooth")
    if rows.ndim != 2 or rows.dtype.kind not in "fiub":
        raise InputError(f"rows to smooth must be numbers of shape (rows, d); got {rows.dtype} of shape {rows.shape}.")
    rows = rows.astype(np.float64)
    wrong = ~np.isfinite(rows).all(1)
    if wrong.any():
        raise InputError(f"rows to smooth must be finite numbers; row {int(wrong.argmax())} is not.")
    return rows
