"""How well scores separate anomalous from normal rows, and how methods compare over data sets.

Everywhere a higher score means more anomalous and an anomaly is the positive class. Everything is computed from
counts in float64, so any finite or infinite score is ranked exactly; NaN is refused. Functions take the scores of
the two groups, not labels, so that the groups cannot be swapped unnoticed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.detection.checks import ROUNDING, score_array, share
from pushforward.errors import InputError

__all__ = ["auroc", "average_precision", "fpr_at_tpr", "mean_rank", "tpr_at_fpr", "wins"]


def auroc(normal: ArrayLike, anomalous: ArrayLike) -> float:
    """Area under the ROC curve: P(anomalous score > normal score) + P(equal)/2 for a random pair.

    1 is perfect, 0.5 is chance, below 0.5 is inverted. It does not depend on how many anomalies there are.

    Args:
        normal: scores of normal rows, shape (n,).
        anomalous: scores of anomalous rows, shape (m,).

    Raises:
        InputError: for NaN, an empty group, or a wrong shape or type.

    Example:
        >>> from pushforward.detection import auroc
        >>> auroc(normal=[0, 1, 2], anomalous=[2, 3])
        0.9166666666666666
    """
    normal, anomalous = _groups(normal, anomalous)
    ordered = np.sort(normal)
    below = np.searchsorted(ordered, anomalous, side="left").sum()
    at_most = np.searchsorted(ordered, anomalous, side="right").sum()
    return float((below + at_most) / (2 * normal.size * anomalous.size))


def average_precision(normal: ArrayLike, anomalous: ArrayLike) -> float:
    """Precision averaged over the anomalies: the step-wise area under the precision-recall curve.

    For each anomaly, alarm at its score and take the share of anomalies among the alarms; average. Tied scores alarm
    together. Chance level is the share of anomalies m/(n+m), so compare only figures with the same share.

    Args:
        normal: scores of normal rows, shape (n,).
        anomalous: scores of anomalous rows, shape (m,).

    Raises:
        InputError: for NaN, an empty group, or a wrong shape or type.

    Example:
        >>> from pushforward.detection import average_precision
        >>> average_precision(normal=[0, 1, 2], anomalous=[1.5, 3])    # (1/1 + 2/3) / 2
        0.8333333333333333
    """
    normal, anomalous = _groups(normal, anomalous)
    caught = _at_least(anomalous, anomalous)
    return float(np.mean(caught / (caught + _at_least(normal, anomalous))))


def fpr_at_tpr(normal: ArrayLike, anomalous: ArrayLike, tpr: float = 0.95) -> float:
    """Share of normal rows that alarm when the threshold is as high as catching ``tpr`` of the anomalies allows.

    Two figures go by the name FPR95. Here the positive class is the anomaly: alarm often enough to catch 95% of the
    anomalies, count the normal rows that alarm. Much of the out-of-distribution literature makes the *normal* rows
    positive: accept 95% of the normal rows, count the anomalies that are accepted. They are different numbers; that
    other one is ``1 - tpr_at_fpr(normal, anomalous, 0.05)``.

    Args:
        normal: scores of normal rows, shape (n,).
        anomalous: scores of anomalous rows, shape (m,).
        tpr: share of anomalies to catch, in (0, 1]; at least that share is caught.

    Raises:
        InputError: for NaN, an empty group, or a wrong shape or type.
        ConfigError: for a tpr outside (0, 1].

    Example:
        >>> from pushforward.detection import fpr_at_tpr, tpr_at_fpr
        >>> normal, anomalous = [0, 1, 2, 3], [2.5, 4, 5, 6, 7]
        >>> fpr_at_tpr(normal, anomalous, tpr=1.0), fpr_at_tpr(normal, anomalous, tpr=0.8)
        (0.25, 0.0)
        >>> round(1 - tpr_at_fpr(normal, anomalous, fpr=0.05), 12)    # the other convention, at 95%
        0.2
    """
    normal, anomalous = _groups(normal, anomalous)
    to_catch = max(1, math.ceil(share(tpr, "tpr", closed="right") * anomalous.size / ROUNDING))
    threshold = np.sort(anomalous)[-to_catch]
    return float(np.mean(normal >= threshold))


def tpr_at_fpr(normal: ArrayLike, anomalous: ArrayLike, fpr: float = 0.05) -> float:
    """Share of anomalies caught when the threshold is as low as alarming on ``fpr`` of the normal rows allows.

    The threshold is read off the very normal rows that are tested, so this measures separation. The rate that a
    deployed guard reaches is that of a calibrated threshold: see :class:`ConformalCalibrator`.

    Args:
        normal: scores of normal rows, shape (n,).
        anomalous: scores of anomalous rows, shape (m,).
        fpr: share of normal rows that may alarm, in [0, 1]; at most that share does.

    Raises:
        InputError: for NaN, an empty group, or a wrong shape or type.
        ConfigError: for an fpr outside [0, 1].

    Example:
        >>> from pushforward.detection import tpr_at_fpr
        >>> tpr_at_fpr(normal=[0, 1, 2, 3], anomalous=[2.5, 4, 5, 6, 7], fpr=0.25)
        1.0
    """
    normal, anomalous = _groups(normal, anomalous)
    may_alarm = math.floor(share(fpr, "fpr", closed="both") * normal.size * ROUNDING)
    if may_alarm >= normal.size:
        return 1.0
    # The next normal row must stay quiet, and with it all that tie with it.
    return float(np.mean(anomalous > np.sort(normal)[-1 - may_alarm]))


def mean_rank(table: Mapping[str, ArrayLike], *, higher_is_better: bool = True) -> dict[str, float]:
    """Average rank of each method over data sets; 1 is best. Ties on a data set share the average of their ranks.

    Args:
        table: method -> its figure on each data set, shape (datasets,), in the same order for all methods.
        higher_is_better: as for AUROC; False for error rates.

    Returns:
        method -> mean rank, in the order of ``table``. The values sum to k(k+1)/2 for k methods.

    Raises:
        InputError: for no methods, different lengths, or NaN: a failed run has no rank, so drop its data set.

    Example:
        >>> from pushforward.detection import mean_rank
        >>> mean_rank({"flow": [0.9, 0.8, 0.7], "knn": [0.8, 0.8, 0.9], "forest": [0.7, 0.6, 0.8]})
        {'flow': 1.8333333333333333, 'knn': 1.5, 'forest': 2.6666666666666665}
    """
    figures = _figures(table, higher_is_better)
    better = (figures[None, :, :] > figures[:, None, :]).sum(1)
    tied = (figures[None, :, :] == figures[:, None, :]).sum(1)
    ranks = better + 0.5 * (tied + 1)
    return dict(zip(table, ranks.mean(1).tolist(), strict=True))


def wins(table: Mapping[str, ArrayLike], *, higher_is_better: bool = True) -> dict[str, float]:
    """On how many data sets each method is best. Methods that tie for best share that data set equally.

    With a table of two methods these are the wins of one against the other.

    Args:
        table: method -> its figure on each data set, shape (datasets,), in the same order for all methods.
        higher_is_better: as for AUROC; False for error rates.

    Returns:
        method -> wins, in the order of ``table``. The values sum to the number of data sets.

    Raises:
        InputError: for no methods, different lengths, or NaN.

    Example:
        >>> from pushforward.detection import wins
        >>> wins({"flow": [0.9, 0.8, 0.7], "knn": [0.8, 0.8, 0.9]})
        {'flow': 1.5, 'knn': 1.5}
    """
    figures = _figures(table, higher_is_better)
    best = figures == figures.max(0)
    return dict(zip(table, (best / best.sum(0)).sum(1).tolist(), strict=True))


def _groups(normal: ArrayLike, anomalous: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return score_array(normal, "the normal scores"), score_array(anomalous, "the anomalous scores")


def _at_least(scores: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of ``scores`` are at or above each threshold."""
    return scores.size - np.searchsorted(np.sort(scores), thresholds, side="left")


def _figures(table: Mapping[str, ArrayLike], higher_is_better: bool) -> NDArray[np.float64]:
    """The table as an array (methods, datasets) in which higher is better."""
    if not isinstance(table, Mapping) or not table:
        raise InputError("the table must map each method's name to its figures, one a data set; got none.")
    rows = [score_array(values, f"the figures of {name!r}") for name, values in table.items()]
    lengths = {name: row.size for name, row in zip(table, rows, strict=True)}
    if len(set(lengths.values())) > 1:
        raise InputError(f"every method needs a figure for every data set; got {lengths}.")
    figures = np.stack(rows)
    return figures if higher_is_better else -figures
