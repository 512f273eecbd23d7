"""Conformity scores of labels, from which prediction sets are made: LAC, APS and RAPS. A higher score fits less."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pushforward.detection.selective.inputs import log_softmax
from pushforward.numerics.checks import check_seed
from pushforward.numerics.noise import RowNoise

__all__ = ["adaptive_scores", "hashed_uniform", "least_ambiguous_scores", "row_uniform"]

_MASKED = 1e4
"""Logits that are farther below the largest have probability 0, such as those that a network masks."""


def least_ambiguous_scores(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """``1 - p_k`` of each label, ``(n, K)``: least ambiguous set-valued classifier (LAC; Sadinle, Lei & Wasserman 2019)."""
    return 1 - np.exp(log_softmax(logits))


def adaptive_scores(
    logits: NDArray[np.float64], uniform: NDArray[np.float64], penalty: float = 0.0, rank: int = 0
) -> NDArray[np.float64]:
    """Probability of the labels that are likelier than k, plus ``u p_k``, ``(n, K)``: adaptive prediction sets (APS).

    APS is of Romano, Sesia & Candes (2020). With a penalty for each rank beyond ``rank`` it is RAPS, ``+ penalty max(0,
    o(k) - rank)`` with the rank o(k) from 1 (Angelopoulos et al. 2021, "Uncertainty sets for image classifiers using
    conformal prediction", eq. 4). Of equal probabilities the label with the smaller index counts as likelier.

    Args:
        logits: ``(n, K)``.
        uniform: u of each row, ``(n,)``, in [0, 1]; 1 counts the label itself in full.
        penalty: of each rank.
        rank: number of ranks without a penalty.
    """
    p = np.exp(log_softmax(logits))
    order = np.argsort(-p, axis=1, kind="stable")
    ordered = np.take_along_axis(p, order, axis=1)
    before = np.cumsum(ordered, axis=1) - ordered
    scores = before + uniform[:, None] * ordered + penalty * np.maximum(np.arange(1, p.shape[1] + 1) - rank, 0)
    result = np.empty_like(scores)
    np.put_along_axis(result, order, scores, axis=1)
    return result


def row_uniform(rows: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each row of logits ``(n, K)``, nearly uniform over rows, ``(n,)``.

    With z the logits less their mean, it is the fractional part of ``b + a z / ||z|| + c log ||z||``, where b, a and c follow from the
    seed, and ``||a||`` and c are between 50 and 150. So it is a continuous function but for the step from 1 to 0, and does not
    depend on the scale: the rounding of a network, which differs between batches by about 1e-6 of the logits, hardly changes it, where
    it would change a hash altogether. Logits of impossible classes, far below the largest, count as one less than the smallest of the others:
    beside them the others would be too close together to count.
    """
    rng = np.random.default_rng(check_seed(seed) if seed < 0 else seed)
    direction = rng.normal(size=rows.shape[1])
    direction *= rng.uniform(50, 150) / max(float(np.linalg.norm(direction)), 1e-12)
    z = np.clip(rows, -1e30, 1e30)  # also infinite ones
    masked = z < z.max(1, keepdims=True, initial=-1e30) - _MASKED
    z = np.where(masked, np.where(masked, np.inf, z).min(1, keepdims=True, initial=1e30) - 1, z)
    z = z - z.mean(1, keepdims=True)
    norm = np.sqrt((z**2).sum(1)).clip(min=1e-100)
    return np.mod(rng.uniform() + (z / norm[:, None] * direction).sum(1) + rng.uniform(50, 150) * np.log(norm), 1.0)


def hashed_uniform(rows: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """As :func:`row_uniform`, but a hash of the row: the u with which earlier files were calibrated, ``(n,)``."""
    return RowNoise(seed).uniform(torch.from_numpy(rows), 1, (1,))[:, 0].numpy()
