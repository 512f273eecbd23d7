"""Metrics of the separation of anomalous and normal rows by a score.

A higher score is more anomalous, and anomalies are the positive class. Scores may be infinite, but not NaN. The functions take
the scores of the two groups instead of labels, to prevent swapped labels. Areas are computed with scikit-learn.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from pushforward.detection.validation import ROUNDING, plain_array, score_array
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

    1 is perfect, 0.5 is chance, below 0.5 is inverted. It does not depend on the fraction of anomalies.

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
    """Average precision: the step-wise area under the precision-recall curve.

    It is the mean over the anomalies of the precision (the fraction of anomalies among the alarms) with the threshold at the
    score of the anomaly. Tied scores raise alarms together. Chance level is the fraction of anomalies m/(n+m), so compare only
    results with the same fraction.

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
    """False-alarm rate at the highest threshold that detects at least a fraction ``tpr`` of the anomalies.

    Two different metrics are called FPR95. Here anomalies are the positive class: the threshold detects 95% of the anomalies,
    and the metric is the fraction of normal rows that raise an alarm. Much of the out-of-distribution literature uses the
    *normal* rows as the positive class: the threshold accepts 95% of the normal rows, and the metric is the fraction of
    anomalies that are accepted. That metric is :func:`miss_rate_at_acceptance`.

    Args:
        normal: scores of normal rows, shape (n,).
        anomalous: scores of anomalous rows, shape (m,).
        tpr: smallest fraction of anomalies to detect, in (0, 1].

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
    detected = max(1, math.ceil(check_number("tpr", tpr, 0, 1, closed="right") * anomalous.size / ROUNDING))
    threshold = np.sort(anomalous)[-detected]
    return float(np.mean(normal >= threshold))


def tpr_at_fpr(normal: ArrayLike, anomalous: ArrayLike, fpr: float = 0.05) -> float:
    """Detection rate at the lowest threshold that raises alarms on at most a fraction ``fpr`` of the normal rows.

    The threshold is set on the tested normal rows themselves, so this metric measures separation. For the detection rate of a
    threshold calibrated on other rows, see :func:`operating_point`.

    Args:
        normal: scores of normal rows, shape (n,).
        anomalous: scores of anomalous rows, shape (m,).
        fpr: largest fraction of normal rows that raise an alarm, in [0, 1].

    Raises:
        InputError: for NaN, an empty group, or a wrong shape or type.
        ConfigError: for an fpr outside [0, 1].

    Example:
        >>> from pushforward.detection import tpr_at_fpr
        >>> tpr_at_fpr(normal=[0, 1, 2, 3], anomalous=[2.5, 4, 5, 6, 7], fpr=0.25)
        1.0
    """
    normal, anomalous = _groups(normal, anomalous)
    allowed = math.floor(check_number("fpr", fpr, 0, 1, closed="both") * normal.size * ROUNDING)
    if allowed >= normal.size:
        return 1.0
    # The next normal row, and all scores equal to it, must not raise an alarm.
    return float(np.mean(anomalous > np.sort(normal)[-1 - allowed]))


def normal_average_precision(normal: ArrayLike, anomalous: ArrayLike) -> float:
    """:func:`average_precision` with the normal rows as the positive class (AUPR-In) and negated scores.

    Chance level is the fraction of normal rows n/(n+m).

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
    """Fraction of anomalies accepted at the lowest threshold that accepts at least a fraction ``acceptance`` of the normal rows.

    This is the "FPR95" (with 0.8 the "FPR80") of papers with normal rows as the positive class; :func:`fpr_at_tpr` is the
    metric of the same name with anomalies as the positive class.

    Args:
        normal: scores of normal rows, shape (n,).
        anomalous: scores of anomalous rows, shape (m,).
        acceptance: smallest fraction of normal rows to accept, in (0, 1].

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
    """Partial area under the ROC curve, for false-alarm rates from 0 to ``fpr``: the mean detection rate over this range.

    The area is divided by ``fpr``, so 1 is perfect and ``fpr / 2`` is chance. The curve is linear between thresholds, so with
    ``fpr=1`` this is :func:`auroc`.

    Args:
        normal: scores of normal rows, shape (n,).
        anomalous: scores of anomalous rows, shape (m,).
        fpr: largest false-alarm rate, in (0, 1].
        standardized: whether to rescale so that chance is 1/2 (McClish 1989), like scikit-learn's
            ``roc_auc_score(max_fpr=...)``.

    Raises:
        InputError: for NaN, an empty group, or a wrong shape or type.
        ConfigError: for an fpr outside (0, 1].

    Example:
        >>> from pushforward.detection import partial_auroc
        >>> round(partial_auroc(normal=[0, 1, 2, 3], anomalous=[2.5, 4, 5, 6, 7], fpr=0.25), 12)
        0.8
    """
    labels, ranks = _labeled_ranks(normal, anomalous)
    fpr = check_number("fpr", fpr, 0, 1, closed="right")
    rescaled = float(roc_auc_score(labels, ranks, max_fpr=fpr))
    if standardized or fpr == 1:  # with max_fpr=1 scikit-learn does not rescale
        return rescaled
    return fpr / 2 + (2 * rescaled - 1) * (1 - fpr / 2)


def oscr(normal: ArrayLike, correct: ArrayLike, anomalous: ArrayLike) -> float:
    """Area under the open-set classification rate curve: P(a normal row is classified correctly and scores below an anomaly).

    The curve is the fraction of normal rows that are accepted and classified correctly, against the fraction of anomalies that
    are accepted (Dhamija et al. 2018, "Reducing network agnostophobia"). A tie counts one half. The area is at most the
    accuracy, and equal to it if the scores separate perfectly.

    Args:
        normal: scores of normal rows, shape (n,).
        correct: whether the class of each normal row was predicted correctly, booleans of shape (n,).
        anomalous: scores of anomalous rows, shape (m,).

    Raises:
        InputError: for NaN, an empty group, a wrong shape or type, or ``correct`` of another length.

    Example:
        >>> from pushforward.detection import oscr
        >>> oscr(normal=[0, 1, 2, 3], correct=[True, True, False, True], anomalous=[4, 5])
        0.75
    """
    normal, anomalous = _groups(normal, anomalous)
    mask = plain_array(correct, "correct")
    if mask.dtype != np.bool_ or mask.shape != normal.shape:
        raise InputError(
            f"correct must contain one boolean for each of the {normal.size} normal rows; got {mask.dtype} of shape {mask.shape}."
        )
    return float(mask.mean() * auroc(normal[mask], anomalous)) if mask.any() else 0.0


def separation(normal: ArrayLike, anomalous: ArrayLike) -> dict[str, float]:
    """All usual metrics of separation, with names that state the convention.

    Args:
        normal: scores of normal rows, shape (n,).
        anomalous: scores of anomalous rows, shape (m,).

    Returns:
        AUROC; partial AUROC up to 5% false alarms; average precision with anomalies and with normal rows as the positive class;
        fraction of anomalies, which is the chance level of the former; false-alarm rate if 95% or 80% of the anomalies are
        detected (:func:`fpr_at_tpr`); miss rate if 95% or 80% of the normal rows are accepted
        (:func:`miss_rate_at_acceptance`).

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
    """Labels (1 for an anomaly) and ranks of all scores. Ranks replace the scores because scikit-learn rejects infinity."""
    normal, anomalous = _groups(normal, anomalous)
    labels = np.repeat([0, 1], [normal.size, anomalous.size])
    return labels, rankdata(np.concatenate([normal, anomalous]))
