"""Selective prediction: abstain so that the risk among the accepted rows is at most what was promised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.detection.selective.inputs import loss_array
from pushforward.detection.selective.risk_bounds import risk_p_value, upper_bound
from pushforward.detection.validation import score_array
from pushforward.errors import CalibrationError, InputError
from pushforward.numerics.checks import check_choice, check_integer, check_number

__all__ = ["AbstentionRule", "control_risk", "sequence_thresholds"]


@dataclass(frozen=True)
class AbstentionRule:
    """Accept the rows with a score below ``threshold``; returned by :func:`control_risk`.

    Attributes:
        threshold: rows with this score or a higher one are rejected; inf accepts all, -inf none.
        risk: promised largest risk among the accepted rows.
        delta: probability over the calibration rows that the promise fails.
        coverage: fraction of the calibration rows that the rule accepts; 0 if no threshold could be shown to be good.
        bound: confidence bound of the risk at this threshold, at most ``risk``; 0 if the rule accepts none.

    Example:
        >>> import numpy as np
        >>> from pushforward.detection.selective import control_risk
        >>> rng = np.random.default_rng(0)
        >>> scores = rng.random(500)
        >>> rule = control_risk(scores, (rng.random(500) < scores**3).astype(float), risk=0.1, delta=0.1)
        >>> rule.bound <= 0.1, 0 < rule.coverage <= 1
        (True, True)
    """

    threshold: float
    risk: float
    delta: float
    coverage: float
    bound: float

    def accept(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Whether each row is accepted, ``(n,)``; a row is decided by its own score alone.

        Raises:
            InputError: for NaN, or a wrong shape or type.
        """
        return score_array(scores, "the scores", may_be_empty=True) < self.threshold


def control_risk(
    scores: ArrayLike,
    losses: ArrayLike,
    risk: float,
    delta: float = 0.05,
    *,
    method: str = "ranks",
    thresholds: ArrayLike | None = None,
    levels: int = 15,
) -> AbstentionRule:
    """Find the largest threshold at which the risk among the accepted rows is at most ``risk``, with confidence 1 - delta.

    The promise: with probability at least ``1 - delta`` over the calibration rows, ``E[loss | score < threshold] <= risk``,
    for any network, score and distribution, if calibration and new rows are independent draws of it, and if score and
    losses were fixed before the calibration rows were seen. A rule that accepts no row keeps the promise too. Each test
    uses exact binomial probabilities for errors, and those of Hoeffding and Bentkus for other losses
    (:func:`~pushforward.detection.selective.risk_p_value`).

    Methods:

    - "ranks": thresholds at ``levels`` ranks of the calibration scores that n, risk and delta determine, each tested at
      ``delta / levels``. Proof: let t be the (m+1)-th smallest score and m' <= m the number of smaller ones. Given t and m',
      the rows below t are m' independent draws of a row with a score below t, so their errors are Binomial(m', E[loss |
      score < t]) and the test at this rank is wrong with probability at most delta / levels. A union bound over the ranks
      completes it. The thresholds are random, so tests in a sequence, each at delta, would not be valid here: to know which
      earlier thresholds were good changes the distribution of the scores below t.
    - "sequence": the given ``thresholds``, chosen without the calibration rows (:func:`sequence_thresholds` finds them from
      the scores of other rows, which need no labels), each tested at ``delta`` in ascending order until the first failure:
      fixed-sequence testing (Angelopoulos et al. 2021, "Learn then test"). It accepts the most rows; prefer it where there
      are such other rows.
    - "sgr": the binary search over ranks of Geifman & El-Yaniv (2017, alg. 2), each test at ``delta / log2(n)``. Its
      union bound counts the thresholds that were visited, which depend on the labels; the promise is proved for
      thresholds fixed in advance and a risk that grows with the threshold, and otherwise holds approximately.

    Args:
        scores: of calibration rows, shape (n,); higher is rejected first.
        losses: of these rows: booleans ``prediction != label``, or numbers in [0, 1].
        risk: largest risk, in (0, 1).
        delta: probability that the promise may fail.
        method: see above.
        thresholds: of "sequence".
        levels: number of thresholds of "ranks".

    Raises:
        CalibrationError: if even n rows without an error would be too few; it says how many are needed.
        InputError: for NaN, losses outside [0, 1], a wrong shape or type, or thresholds without "sequence" or the other way round.
        ConfigError: for an invalid risk, delta, method or number of levels.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> score = rng.uniform(size=2000)
        >>> rule = control_risk(score, rng.uniform(size=2000) < 0.3 * score, risk=0.1)
        >>> 0.4 < rule.threshold < 2 / 3, rule.accept([0.1, 0.9])    # the risk below t is 0.15 t
        (True, array([ True, False]))
    """
    s = score_array(scores, "the scores")
    loss, errors = loss_array(losses, len(s))
    risk, delta = check_number("risk", risk, 0, 1), check_number("delta", delta, 0, 1)
    check_choice("method", method, ("ranks", "sequence", "sgr"))
    check_integer("levels", levels)
    if (thresholds is None) == (method == "sequence"):
        raise InputError('thresholds belong to method="sequence", which needs them; give other rows\' quantiles.')
    order = np.argsort(s, kind="stable")
    tests = _Tests(s[order], np.append(0.0, np.cumsum(loss[order])), risk, errors)
    if method == "sequence":
        tests.require(delta, delta)
        candidates = score_array(thresholds, "the thresholds")  # pyright: ignore[reportArgumentType]
        return tests.rule(_sequence(tests, np.unique(candidates), delta), delta, delta)
    if method == "sgr":
        level = delta / max(1, math.ceil(math.log2(len(s))))
        tests.require(level, delta)
        return tests.rule(_binary_search(tests, level), level, delta)
    level = delta / levels
    ranks = np.unique(np.linspace(tests.require(level, delta), len(s), levels).round().astype(int))
    passed = [t for t in map(tests.threshold, ranks) if tests.p_value(t) <= level]
    return tests.rule(passed[-1] if passed else -math.inf, level, delta)


def sequence_thresholds(
    scores: ArrayLike, n: int, risk: float, delta: float = 0.05, *, levels: int = 50
) -> NDArray[np.float64]:
    """Thresholds for ``control_risk(..., method="sequence")`` from the scores of rows that do not calibrate.

    Quantiles of these scores, ascending; the last is inf. The promise holds for any thresholds; these accept many rows. The
    first one accepts about three times as many of the n calibration rows as must be right for a test to succeed: with
    fewer a single error would end the sequence. Rows with equal scores are accepted together.

    Args:
        scores: of other rows, shape (m,), without labels; like the calibration rows, or the thresholds are worth less.
        n: number of calibration rows.
        risk: see :func:`control_risk`.
        delta: see :func:`control_risk`.
        levels: number of thresholds.

    Raises:
        InputError: for NaN, no scores, or a wrong shape or type.
        ConfigError: for an invalid risk, delta or number.

    Example:
        >>> sequence_thresholds(range(100), n=1000, risk=0.1, levels=3)
        array([ 8., 54., inf])
    """
    s = np.sort(score_array(scores, "the scores"))
    needed = math.log(check_number("delta", delta, 0, 1)) / math.log1p(-check_number("risk", risk, 0, 1))
    start = min(1.0, 3 * needed / check_integer("n", n))
    fractions = np.linspace(start, 1, check_integer("levels", levels))
    fractions[-1] = 1  # also of one level
    ranks = np.unique(np.floor(fractions * len(s)).astype(int))
    ranks = np.maximum(ranks, 1)  # a threshold that accepts no row would end the sequence
    ranks = np.where(_ties_before(s, ranks), np.searchsorted(s, s[np.minimum(ranks, len(s) - 1)], side="right"), ranks)
    return np.unique(np.append(s, math.inf)[ranks])


def _ties_before(s: NDArray[np.float64], ranks: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether the score at a rank, as a threshold, would reject rows before it, whose scores are equal."""
    inside = ranks < len(s)
    at = s[np.where(inside, ranks, 0)]
    return inside & (np.searchsorted(s, at, side="left") < ranks)


class _Tests:
    """The tests of all thresholds on one set of sorted calibration scores."""

    def __init__(self, scores: NDArray[np.float64], totals: NDArray[np.float64], risk: float, errors: bool) -> None:
        self.scores, self.totals, self.risk, self.errors = scores, totals, risk, errors
        self.n = len(scores)

    def threshold(self, rank: int) -> float:
        """The threshold below which there are ``rank`` calibration rows, or fewer with ties."""
        return float(self.scores[rank]) if rank < self.n else math.inf

    def accepted(self, threshold: float) -> int:
        return int(np.searchsorted(self.scores, threshold, side="left"))

    def p_value(self, threshold: float) -> float:
        count = self.accepted(threshold)
        total = min(float(self.totals[count]), count)  # a sum of losses may exceed their number by rounding
        return risk_p_value(total, count, self.risk, errors=self.errors)

    def require(self, level: float, delta: float) -> int:
        """The fewest rows without an error that pass a test at ``level``.

        Raises:
            CalibrationError: if there are not so many.
        """
        # Hoeffding's bound of no loss at all is (1 - risk)^n too, so the number is the same for both kinds of loss.
        needed = math.ceil(math.log(level) / math.log1p(-self.risk))
        if needed > self.n:
            raise CalibrationError(
                f"a risk of {self.risk:g} with delta={delta:g} needs at least {needed} calibration rows and there are "
                f"{self.n}: use more rows, or a larger risk or delta."
            )
        return needed

    def rule(self, threshold: float, level: float, delta: float) -> AbstentionRule:
        count = self.accepted(threshold)
        bound = upper_bound(float(self.totals[count]), count, level, errors=self.errors) if count else 0.0
        return AbstentionRule(threshold, self.risk, delta, count / self.n, min(bound, self.risk))


def _sequence(tests: _Tests, thresholds: Sequence[float] | NDArray[np.float64], level: float) -> float:
    passed = -math.inf
    for threshold in thresholds:
        if tests.p_value(float(threshold)) > level:
            break
        passed = float(threshold)
    return passed


def _binary_search(tests: _Tests, level: float) -> float:
    low, high, passed = 0, tests.n + 1, -math.inf  # rank `low` passed, rank `high` did not
    while high - low > 1:
        rank = (low + high) // 2
        threshold = tests.threshold(rank)
        if tests.p_value(threshold) <= level:
            low, passed = rank, threshold
        else:
            high = rank
    return passed
