"""Risk-coverage curves and the areas under them: how well a score ranks the errors of a network.

A higher score is rejected first. The losses of a classifier are its errors. Rows with equal scores are accepted together,
because no threshold separates them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.detection.selective.inputs import loss_array
from pushforward.detection.validation import score_array

__all__ = ["RiskCoverage", "augrc", "aurc", "excess_aurc", "risk_coverage_curve"]


class RiskCoverage(NamedTuple):
    """A risk-coverage curve: one point for each distinct score, in ascending order; see :func:`risk_coverage_curve`.

    Example:
        >>> import numpy as np
        >>> from pushforward.detection.selective import risk_coverage_curve
        >>> curve = risk_coverage_curve(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 0.0, 1.0, 1.0]))
        >>> curve.coverage, curve.risk
        (array([0.25, 0.5 , 0.75, 1.  ]), array([0.        , 0.        , 0.33333333, 0.5       ]))
    """

    threshold: NDArray[np.float64]
    """Rows with at most this score are accepted."""
    coverage: NDArray[np.float64]
    """Fraction of rows that are accepted."""
    risk: NDArray[np.float64]
    """Mean loss of the accepted rows (selective risk)."""
    generalized_risk: NDArray[np.float64]
    """Sum of the losses of the accepted rows over the number of all rows: for errors, P(accepted and wrong)."""


def risk_coverage_curve(scores: ArrayLike, losses: ArrayLike) -> RiskCoverage:
    """Risk of the accepted rows against their fraction, for all thresholds on a score.

    Args:
        scores: shape (n,); higher is rejected first: an anomaly score, 1 - confidence, an entropy.
        losses: shape (n,), in [0, 1]; for a classifier ``prediction != label``.

    Raises:
        InputError: for NaN, no rows, losses outside [0, 1], or a wrong shape or type.

    Example:
        >>> curve = risk_coverage_curve([0.1, 0.2, 0.3, 0.4], [False, False, True, False])
        >>> curve.coverage, curve.risk.round(2)
        (array([0.25, 0.5 , 0.75, 1.  ]), array([0.  , 0.  , 0.33, 0.25]))
    """
    s = score_array(scores, "the scores")
    loss, _ = loss_array(losses, len(s))
    order = np.argsort(s, kind="stable")
    s, total = s[order], np.cumsum(loss[order])
    last = np.append(s[1:] != s[:-1], True)
    accepted = np.flatnonzero(last) + 1
    return RiskCoverage(s[last], accepted / len(s), total[last] / accepted, total[last] / len(s))


def aurc(scores: ArrayLike, losses: ArrayLike) -> float:
    """Area under the risk-coverage curve, lower is better: the mean selective risk with the threshold at a random row.

    The population value is ``E_t[E[loss | score <= t]]`` with the threshold t distributed as the scores; this is its plug-in
    estimator ``1/n sum_i (sum_j loss_j 1{s_j <= s_i}) / #{j: s_j <= s_i}`` (Geifman & El-Yaniv 2017; Zhou et al. 2025, "A
    novel characterization of the population AURC", who show it consistent and write it as a sum of losses with harmonic
    weights). The trapezoid rule over coverages, which some libraries use, leaves out or doubles the first point.

    Args:
        scores: shape (n,); higher is rejected first.
        losses: shape (n,), in [0, 1].

    Raises:
        InputError: see :func:`risk_coverage_curve`.

    Example:
        >>> round(aurc([0.1, 0.2, 0.3, 0.4], [False, False, True, False]), 4)    # (0 + 0 + 1/3 + 1/4) / 4
        0.1458
    """
    curve = risk_coverage_curve(scores, losses)
    return float((np.diff(curve.coverage, prepend=0.0) * curve.risk).sum())


def excess_aurc(scores: ArrayLike, losses: ArrayLike) -> float:
    """Excess AURC: :func:`aurc` minus that of a perfect ranking of the same losses (E-AURC; Geifman et al. 2019, sec. 4).

    0 is a perfect ranking. It does not depend on the accuracy alone, as :func:`aurc` does in the main.

    Args:
        scores: shape (n,); higher is rejected first.
        losses: shape (n,), in [0, 1].

    Raises:
        InputError: see :func:`risk_coverage_curve`.

    Example:
        >>> excess_aurc([0.1, 0.2, 0.3, 0.4], [False, False, False, True])
        0.0
    """
    loss, _ = loss_array(losses)
    return aurc(scores, losses) - aurc(np.arange(len(loss)), np.sort(loss))


def augrc(scores: ArrayLike, losses: ArrayLike) -> float:
    """Area under the generalized risk-coverage curve, lower is better: the mean rate of undetected errors over coverages.

    ``int P(accepted and wrong) d coverage`` with straight lines between thresholds (Traub et al. 2024, "Overcoming common
    flaws in the evaluation of selective classification systems"). For errors it equals
    ``(1 - AUROC) acc (1 - acc) + (1 - acc)^2 / 2``, with the AUROC of the score for errors against correct rows. Unlike
    :func:`aurc` it weights an error by the number of rows it outranks, so the few most certain rows do not dominate.

    Args:
        scores: shape (n,); higher is rejected first.
        losses: shape (n,), in [0, 1].

    Raises:
        InputError: see :func:`risk_coverage_curve`.

    Example:
        >>> augrc([0.1, 0.2, 0.3, 0.4], [False, False, True, False])    # (1 - 2/3) 3/16 + 1/32
        0.09375
    """
    curve = risk_coverage_curve(scores, losses)
    width, height = np.diff(curve.coverage, prepend=0.0), np.append(0.0, curve.generalized_risk)
    return float((width * (height[1:] + height[:-1]) / 2).sum())
