"""How well scores separate anomalous from normal rows.

A higher score means more anomalous, and an anomaly is the positive class. Scores may be infinite; NaN is refused. The functions take
the scores of the two groups, not labels, so that nobody swaps the groups by mistake. Areas are computed by scikit-learn.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from pushforward.detection.validation import ROUNDING, score_array
from pushforward.errors import InputError
from pushforward.numerics.checks import check_number

__all__ = [
    "auroc",
    "average_precision",
    "fpr_at_tpr",
    "miss_rate_at_acceptance",
    "normal_average_precision",
    "oscr",
    "partial_auroc",
    "separation",
    "tpr_at_fpr",
]


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
    labels, ranks = _labeled_ranks(normal, anomalous)
    m = labels.sum()
    pairs = ranks[labels == 1].sum() - m * (m + 1) / 2  # the statistic of Mann and Whitney (1947), exact in float64
    return float(pairs / ((labels.size - m) * m))


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
    return float(average_precision_score(*_labeled_ranks(normal, anomalous)))


def fpr_at_tpr(normal: ArrayLike, anomalous: ArrayLike, tpr: float = 0.95) -> float:
    """Share of normal rows that alarm when the threshold is as high as catching ``tpr`` of the anomalies allows.

    Two figures go by the name FPR95. Here the positive class is the anomaly: alarm often enough to catch 95% of the
    anomalies, count the normal rows that alarm. Much of the out-of-distribution literature makes the *normal* rows
    positive: accept 95% of the normal rows, count the anomalies that are accepted. They are different numbers; that
    other one is :func:`miss_rate_at_acceptance`.

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
    to_catch = max(1, math.ceil(check_number("tpr", tpr, 0, 1, closed="right") * anomalous.size / ROUNDING))
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
    may_alarm = math.floor(check_number("fpr", fpr, 0, 1, closed="both") * normal.size * ROUNDING)
    if may_alarm >= normal.size:
        return 1.0
    # The next normal row must stay quiet, and with it all that tie with it.
    return float(np.mean(anomalous > np.sort(normal)[-1 - may_alarm]))


def normal_average_precision(normal: ArrayLike, anomalous: ArrayLike) -> float:
    """:func:`average_precision` with the normal rows as the positive class (AUPR-In): scores are negated, groups swapped.

    Chance level is the share of normal rows n/(n+m).

    Args:
        normal: scores of normal rows, shape (n,).
        anomalous: scores of anomalous rows, shape (m,).

    Raises:
        InputError: for NaN, an empty group, or a wrong shape or type.

    Example:
        >>> from pushforward.detection import normal_average_precision
        >>> normal_average_precision(normal=[0, 2], anomalous=[1, 3])    # (1/1 + 2/3) / 2
        0.8333333333333333
    """
    normal, anomalous = _groups(normal, anomalous)
    return average_precision(-anomalous, -normal)


def miss_rate_at_acceptance(normal: ArrayLike, anomalous: ArrayLike, acceptance: float = 0.95) -> float:
    """Share of anomalies that pass when the threshold is as low as accepting ``acceptance`` of the normal rows allows.

    The "FPR95" (or with 0.8 the "FPR80") of papers that make the normal rows positive; :func:`fpr_at_tpr` is the other one.

    Args:
        normal: scores of normal rows, shape (n,).
        anomalous: scores of anomalous rows, shape (m,).
        acceptance: share of normal rows to accept, in (0, 1]; at least that share is accepted.

    Raises:
        InputError: for NaN, an empty group, or a wrong shape or type.
        ConfigError: for an acceptance outside (0, 1].

    Example:
        >>> from pushforward.detection import fpr_at_tpr, miss_rate_at_acceptance
        >>> normal, anomalous = [0, 1, 2, 3], [2.5, 4, 5, 6, 7]
        >>> miss_rate_at_acceptance(normal, anomalous), fpr_at_tpr(normal, anomalous)
        (0.2, 0.25)
    """
    normal, anomalous = _groups(normal, anomalous)
    return fpr_at_tpr(-anomalous, -normal, check_number("acceptance", acceptance, 0, 1, closed="right"))


def partial_auroc(normal: ArrayLike, anomalous: ArrayLike, fpr: float = 0.05, *, standardized: bool = False) -> float:
    """Mean share of anomalies caught, over false-alarm rates from 0 to ``fpr``: the area under that part of the ROC curve.

    The area is divided by ``fpr``, so 1 is perfect and ``fpr / 2`` is chance. Between thresholds the curve is a straight
    line, so with ``fpr=1`` this is :func:`auroc`.

    Args:
        normal: scores of normal rows, shape (n,).
        anomalous: scores of anomalous rows, shape (m,).
        fpr: largest false-alarm rate, in (0, 1].
        standardized: rescale so that chance is 1/2 (McClish 1989), as scikit-learn's ``roc_auc_score(max_fpr=...)`` does.

    Raises:
        InputError: for NaN, an empty group, or a wrong shape or type.
        ConfigError: for an fpr outside (0, 1].

    Example:
        >>> from pushforward.detection import partial_auroc
        >>> partial_auroc(normal=[0, 1, 2, 3], anomalous=[2.5, 4, 5, 6, 7], fpr=0.25)
        0.8
    """
    labels, ranks = _labeled_ranks(normal, anomalous)
    fpr = check_number("fpr", fpr, 0, 1, closed="right")
    rescaled = float(roc_auc_score(labels, ranks, max_fpr=fpr))
    if standardized or fpr == 1:  # with max_fpr=1 scikit-learn does not rescale
        return rescaled
    return fpr / 2 + (2 * rescaled - 1) * (1 - fpr / 2)


def oscr(normal: ArrayLike, correct: ArrayLike, anomalous: ArrayLike) -> float:
    """Area under the open-set classification rate: P(a normal row is classified rightly and scores below an anomaly).

    The curve of the share of normal rows that are accepted and rightly classified against the share of anomalies that are
    accepted (Dhamija et al. 2018, "Reducing network agnostophobia"). A tie counts one half. At most the
    accuracy, and equal to it when scores separate perfectly.

    Args:
        normal: scores of normal rows, shape (n,).
        correct: whether each normal row's class was predicted rightly, booleans of shape (n,).
        anomalous: scores of anomalous rows, shape (m,).

    Raises:
        InputError: for NaN, an empty group, a wrong shape or type, or ``correct`` of another length.

    Example:
        >>> from pushforward.detection import oscr
        >>> oscr(normal=[0, 1, 2, 3], correct=[True, True, False, True], anomalous=[4, 5])
        0.75
    """
    normal, anomalous = _groups(normal, anomalous)
    right = np.asarray(correct)
    if right.dtype != np.bool_ or right.shape != normal.shape:
        raise InputError(
            f"correct must hold one boolean for each of the {normal.size} normal rows; got {right.dtype} of shape {right.shape}."
        )
    return float(right.mean() * auroc(normal[right], anomalous)) if right.any() else 0.0


def separation(normal: ArrayLike, anomalous: ArrayLike) -> dict[str, float]:
    """The usual figures at once, each under a name that leaves no doubt about its convention.

    Args:
        normal: scores of normal rows, shape (n,).
        anomalous: scores of anomalous rows, shape (m,).

    Returns:
        AUROC; partial AUROC up to 5% false alarms; average precision with either class positive, and the share of anomalies,
        which is the chance level of the first; false alarms when 95% or 80% of the anomalies are caught
        (:func:`fpr_at_tpr`); misses when 95% or 80% of the normal rows are accepted (:func:`miss_rate_at_acceptance`).

    Raises:
        InputError: for NaN, an empty group, or a wrong shape or type.

    Example:
        >>> from pushforward.detection import separation
        >>> separation(normal=[0, 1, 2, 3], anomalous=[2.5, 4, 5, 6, 7])["misses_at_95_acceptance"]
        0.2
    """
    normal, anomalous = _groups(normal, anomalous)
    return {
        "auroc": auroc(normal, anomalous),
        "partial_auroc_5": partial_auroc(normal, anomalous),
        "average_precision_of_anomalies": average_precision(normal, anomalous),
        "average_precision_of_normal": normal_average_precision(normal, anomalous),
        "fraction_of_anomalies": anomalous.size / (normal.size + anomalous.size),
        "false_alarms_at_95_detection": fpr_at_tpr(normal, anomalous, 0.95),
        "false_alarms_at_80_detection": fpr_at_tpr(normal, anomalous, 0.80),
        "misses_at_95_acceptance": miss_rate_at_acceptance(normal, anomalous, 0.95),
        "misses_at_80_acceptance": miss_rate_at_acceptance(normal, anomalous, 0.80),
    }


def _groups(normal: ArrayLike, anomalous: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return score_array(normal, "the normal scores"), score_array(anomalous, "the anomalous scores")


def _labeled_ranks(normal: ArrayLike, anomalous: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels (1 for an anomaly) and ranks of all scores. Infinite scores have ranks, and scikit-learn refuses infinity."""
    normal, anomalous = _groups(normal, anomalous)
    labels = np.repeat([0, 1], [normal.size, anomalous.size])
    return labels, rankdata(np.concatenate([normal, anomalous]))
