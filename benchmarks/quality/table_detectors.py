"""Detectors of tables that are compared on ADBench: the guard, and references with the settings of the literature.

Each takes training rows and a seed and returns a score, where higher is more anomalous. References read standardized columns
and train on all rows; the guard keeps a tenth of them for calibration.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.quality.denoising import k_dsm
from pushforward.estimators import Guard

__all__ = ["DETECTORS", "Score"]

Score = Callable[[np.ndarray], np.ndarray]


def standardizer(train: np.ndarray) -> Score:
    center, spread = train.mean(0), train.std(0)
    return lambda x: (x - center) / np.where(spread > 0, spread, 1.0)


def guard(train: np.ndarray, seed: int) -> Score:
    return Guard(0.05, random_state=seed).fit(train).anomaly_score


def exportable(train: np.ndarray, seed: int) -> Score:
    return Guard(0.05, exportable=True, random_state=seed).fit(train).anomaly_score


def neighbors(k: int) -> Callable[[np.ndarray, int], Score]:
    def fit(train: np.ndarray, seed: int) -> Score:
        from sklearn.neighbors import NearestNeighbors

        scale = standardizer(train)
        near = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(scale(train))
        return lambda x: near.kneighbors(scale(x))[0][:, -1]

    return fit


def diffusion_time(train: np.ndarray, seed: int) -> Score:
    """DTE-NP (Livernoche et al. 2024): the mean squared distance to the five nearest rows.

    The paper maps it through the posterior of the diffusion time, an inverse gamma distribution with one parameter for the
    table, which is increasing and changes no rank.
    """
    from sklearn.neighbors import NearestNeighbors

    scale = standardizer(train)
    near = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(scale(train))
    return lambda x: (near.kneighbors(scale(x))[0] ** 2).mean(1)


def lof(train: np.ndarray, seed: int) -> Score:
    from sklearn.neighbors import LocalOutlierFactor

    scale = standardizer(train)
    fitted = LocalOutlierFactor(n_neighbors=min(20, len(train) - 1), novelty=True).fit(scale(train))
    return lambda x: -fitted.score_samples(scale(x))


def forest(train: np.ndarray, seed: int) -> Score:
    from sklearn.ensemble import IsolationForest

    fitted = IsolationForest(random_state=seed).fit(train)
    return lambda x: -fitted.score_samples(x)


def support_vectors(train: np.ndarray, seed: int) -> Score:
    from sklearn.svm import OneClassSVM

    scale = standardizer(train)
    fitted = OneClassSVM().fit(scale(train))
    return lambda x: -fitted.score_samples(scale(x))


def mixture(train: np.ndarray, seed: int) -> Score:
    from sklearn.mixture import GaussianMixture

    scale = standardizer(train)
    fitted = GaussianMixture(min(5, len(train) // 4), reg_covar=1e-3, random_state=seed).fit(scale(train))
    return lambda x: -fitted.score_samples(scale(x))


def ecod(train: np.ndarray, seed: int) -> Score:
    """ECOD (Li et al. 2022) with the distribution functions of the training rows alone, so that a row is scored alone."""
    ordered, n = np.sort(train, axis=0), len(train)
    negative = ((train - train.mean(0)) ** 3).mean(0) < 0

    def score(x: np.ndarray) -> np.ndarray:
        below = np.stack([np.searchsorted(o, v, "right") for o, v in zip(ordered.T, x.T, strict=True)], axis=1)
        above = np.stack([n - np.searchsorted(o, v, "left") for o, v in zip(ordered.T, x.T, strict=True)], axis=1)
        left, right = (-np.log((count + 0.5) / (n + 1)) for count in (below, above))
        return np.maximum.reduce((left.sum(1), right.sum(1), np.where(negative, left, right).sum(1)))

    return score


DETECTORS: dict[str, Callable[..., Score]] = {
    "guard": guard, "exportable": exportable, "knn5": neighbors(5), "knn1": neighbors(1), "lof": lof, "iforest": forest, "ocsvm": support_vectors,
    "gmm5": mixture, "ecod": ecod, "dte-np": diffusion_time, "k-dsm": k_dsm,
}  # fmt: skip
