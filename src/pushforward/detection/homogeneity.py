"""Whether two rows of counts have one distribution: a test that is valid with few rows and many classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import rel_entr

__all__ = ["homogeneity"]

_ENOUGH = 5
"""Expected count of a class above which the chi-squared approximation is used."""

_WORK = 10**7
"""Most cells that are drawn for one p-value, about half a second; few p-values need as many."""

_MOST_DRAWN_FROM = 10**9
"""Rows from which numpy does not draw at random."""

_EXCEEDANCES = 20
"""Simulated statistics as large as the observed one after which no more are drawn (Besag and Clifford 1991)."""


def homogeneity(before: np.ndarray, after: np.ndarray, level: float = 0.01) -> float:
    """P-value of the hypothesis that two rows of counts have one distribution.

    If each expected count is at least 5, it is that of the chi-squared test, and for two classes otherwise Fisher's. Else it is
    twice the smaller one of two p-values, at most 1:

    - of the chi-squared statistic, by simulation: the rows of both samples are divided at random. Where ``level`` would need too
      many simulations, or there are a billion rows, rare classes are joined until the approximation holds;
    - of the class whose fraction changed most: a bound for the tails of the hypergeometric distribution (Hoeffding 1963,
      "Probability inequalities for sums of bounded random variables"), times the number of classes. It can be as small as the
      change is certain, where simulations end at 1 / (1 + their number).

    Simulations have a fixed seed, so equal counts have equal p-values.

    Args:
        before: counts of the one sample, ``(k,)``.
        after: counts of the other one, ``(k,)``.
        level: a p-value at most as large is a finding; as many simulations are made as tell.

    Example:
        >>> import numpy as np
        >>> before = np.full(10, 100)
        >>> homogeneity(before, np.array([3, 0, 0, 0, 0, 0, 0, 0, 0, 0])) < 0.05
        True
        >>> homogeneity(before, np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0])) > 0.5
        True
    """
    table = np.stack((before, after)).astype(float)
    table = table[:, table.sum(0) > 0]
    total, classes = table.sum(), table.shape[1]
    if classes < 2 or not table.sum(1).all():
        return 1.0
    pooled, drawn = table.sum(0), table[np.argmin(table.sum(1))]
    expected = pooled * (drawn.sum() / total)
    if expected.min() >= _ENOUGH:
        return _chi_squared(table)
    if classes == 2:
        from scipy.stats import fisher_exact

        found: Any = fisher_exact(
            table[:, np.argsort(pooled)].astype(np.int64)
        )  # rare first: its sums have fewer terms
        return float(min(1.0, found.pvalue))
    change = _largest_change(drawn, pooled)
    rows = drawn.sum()
    by_rows = bool(rows < 9 * classes and total <= 10**6)  # which way of drawing takes less time
    most = int(_WORK // (classes + rows if by_rows else 10 * classes))
    draws = min(most, math.ceil(20 / level))
    if draws < 4 / level or total >= _MOST_DRAWN_FROM:
        statistic = _chi_squared(_joined(table, expected))
    elif change * (1 + draws) <= 1:  # no simulation can give a smaller one
        statistic = 1.0
    else:
        statistic = _simulated(drawn, pooled, draws, "count" if by_rows else "marginals")
    return min(1.0, 2 * min(change, statistic))


def _chi_squared(table: np.ndarray) -> float:
    from scipy.stats import chi2_contingency

    if table.shape[1] < 2:
        return 1.0
    found: Any = chi2_contingency(table, correction=False)
    return float(found.pvalue)


def _largest_change(drawn: np.ndarray, pooled: np.ndarray) -> float:
    """A bound of the p-value of the class that changed most, for either side and any class."""
    rows = drawn.sum()
    fraction, usual = drawn / rows, pooled / pooled.sum()
    exponents = rows * (rel_entr(fraction, usual) + rel_entr(1 - fraction, 1 - usual))
    return min(1.0, 2 * len(drawn) * math.exp(-exponents.max()))


def _simulated(drawn: np.ndarray, pooled: np.ndarray, draws: int, method: Any) -> float:
    """P-value of the chi-squared statistic when the rows of both samples are divided at random.

    Given the sums, the statistic is an increasing function of the sum of squared counts of one sample, divided by the pooled ones.
    """
    generator = np.random.default_rng(0)
    colors, rows = pooled.astype(np.int64), int(drawn.sum())
    observed = (drawn**2 @ (1 / pooled)) * (1 - 1e-12)  # equal statistics are equal up to rounding
    done = reached = 0
    part = 100
    while done < draws:
        part = max(1, min(2 * part, draws - done, 10**6 // len(pooled)))
        counts = generator.multivariate_hypergeometric(colors, rows, size=part, method=method)
        large = counts.astype(float) ** 2 @ (1 / pooled) >= observed
        if reached + large.sum() >= _EXCEEDANCES:
            last = int(np.flatnonzero(large)[_EXCEEDANCES - reached - 1])
            return _EXCEEDANCES / (done + last + 1)
        reached += int(large.sum())
        done += part
    return (1 + reached) / (1 + draws)


def _joined(table: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The counts with rare classes joined, neighbors in their order of frequency, until each expected count is large enough."""
    order = np.argsort(-expected, kind="stable")
    table, expected = table[:, order], expected[order]
    group = np.arange(len(expected))
    rare = expected < _ENOUGH
    first = int(rare.argmax())
    group[rare] = first + np.cumsum(expected[rare]) // (2 * _ENOUGH)
    _, group = np.unique(group, return_inverse=True)
    if np.bincount(group, expected)[-1] < _ENOUGH:
        group[group == group[-1]] = max(0, group[-1] - 1)
    return np.stack([np.bincount(group, row) for row in table])
