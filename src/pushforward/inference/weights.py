"""Importance weights: Pareto smoothing with its diagnostic k-hat, effective sample size, evidence, resampling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.errors import InputError
from pushforward.inference.real_numbers import as_numbers
from pushforward.numerics.checks import check_integer

__all__ = ["ImportanceWeights", "effective_sample_size", "khat_threshold", "pareto_smooth"]

Array = NDArray[np.float64]

_FEW = 20
"""Effective number of draws below which equal weights of a tail say nothing."""
_MOST_OUTLIERS, _LOG_RARE, _NOTICEABLE = 20, math.log(1e-4), 0.05
"""At most so many values are outliers of a tail: they have more than a 20th of the total, and a probability below 1e-4."""
NEARLY_EQUAL = 1.5
"""Weights of which none exceeds this times their mean count as equal."""


@dataclass(frozen=True)
class ImportanceWeights:
    """Importance weights w_i = p(x_i) / q(x_i) of draws from q, for an unnormalized p.

    Attributes:
        log_ratios: log p - log q of the draws, nats, ``(n,)``; -inf where p is 0.
        log_weights: logarithms of the Pareto-smoothed weights, normalized to sum 1.
        k_hat: shape of the generalized Pareto distribution of the largest weights. Below 0.7 the estimates are reliable;
            above it the weights have no useful variance and q misses a part of p. A part of p that no draw reaches has no
            weights, so it does not show in k-hat, nor in the errors.
        ess: effective sample size of the smoothed weights, 1 / sum w_i^2 (Kong 1992).
        log_evidence: log Z = log mean w, nats.
        log_evidence_error: its standard error by the delta method, std(w) / (mean(w) sqrt(n)).

    Example:
        >>> import torch
        >>> from pushforward.inference import ImportanceWeights
        >>> weights = ImportanceWeights.of(torch.zeros(1000, dtype=torch.float64))  # log p - log q of 1,000 draws, all equal
        >>> round(weights.ess), weights.reliable
        (1000, True)
    """

    log_ratios: Tensor
    log_weights: Tensor
    k_hat: float
    ess: float
    log_evidence: float
    log_evidence_error: float

    @classmethod
    def of(cls, log_ratios: Tensor) -> ImportanceWeights:
        """Weights from log p - log q, ``(n,)``.

        Raises:
            InputError: for another shape, fewer than 25 draws, NaN or +inf, or if every ratio is -inf.

        Example:
            >>> import torch
            >>> from pushforward.inference import ImportanceWeights
            >>> weights = ImportanceWeights.of(torch.full((1000,), 2.0))        # q is p / exp(2)
            >>> weights.log_evidence, round(weights.ess)
            (2.0, 1000)
        """
        ratios = as_numbers(log_ratios, "the log-ratios").double()
        if ratios.squeeze().dim() > 1:  # as of log p (n, 1) and log q (n,), whose difference is (n, n)
            raise InputError(
                f"the log-ratios must have the shape (n,), one for each draw; got {tuple(ratios.shape)}: give log p and log q that shape."
            )
        ratios = ratios.flatten()
        if len(ratios) < 25:
            raise InputError(f"importance weights need at least 25 draws; got {len(ratios)}.")
        if bool((torch.isnan(ratios) | torch.isposinf(ratios)).any()):
            raise InputError("a log ratio is NaN or +inf; log p must be a number or -inf, and q positive at its draws.")
        if bool(torch.isneginf(ratios).all()):
            raise InputError("the log-density is -inf at every draw: q has no mass where p has any.")
        smoothed, k_hat = pareto_smooth(ratios.numpy())
        weights = (ratios - ratios.max()).exp()
        mean = weights.mean()
        error = weights.std() / (mean * math.sqrt(len(ratios)))
        log_weights = torch.from_numpy(smoothed)
        return cls(
            ratios,
            log_weights,
            k_hat,
            effective_sample_size(log_weights),
            float(mean.log() + ratios.max()),
            float(error),
        )

    @property
    def largest(self) -> float:
        """The largest weight in units of the mean weight."""
        return float((self.log_ratios.max() - self.log_evidence).exp())

    @property
    def reliable(self) -> bool:
        """Whether k-hat is below its threshold, or no weight exceeds 1.5 of the mean.

        k-hat describes the shape of the tail whatever its size: if the weights are equal but for a few that are a tenth
        larger, it may be large although nothing is wrong.
        """
        return self.k_hat <= khat_threshold(len(self.log_ratios)) or self.largest < NEARLY_EQUAL

    def resample(self, count: int, generator: torch.Generator, *, replacement: bool = True) -> Tensor:
        """Indices of ``count`` draws chosen with the probabilities of the smoothed weights.

        Systematic resampling (Kitagawa 1996): a draw of weight w appears floor or ceil of ``count`` w times.

        Raises:
            ConfigError: for a negative number of draws, or without replacement one above that of the draws with a weight.
        """
        weights = self.log_weights.exp()
        check_integer("count", count, 0, most=None if replacement else int((weights > 0).sum()))
        if not replacement:
            none = torch.empty(0, dtype=torch.long)
            return torch.multinomial(weights, count, generator=generator) if count else none
        ends = weights.cumsum(0)
        points = (
            torch.arange(count, dtype=torch.float64) + torch.rand((), generator=generator, dtype=torch.float64)
        ) / count
        chosen = torch.searchsorted(ends / ends[-1], points).clamp(max=len(ends) - 1)
        return chosen[torch.randperm(count, generator=generator)]

    def mean(self, values: Tensor) -> Tensor:
        """Self-normalized mean of values at the draws, ``(n, *shape)`` to ``shape``; those at draws without weight do not count.

        Raises:
            InputError: for another number of values than of draws.
        """
        if values.shape[:1] != self.log_weights.shape:
            raise InputError(
                f"values must have the shape ({len(self.log_weights)}, ...), one for each draw; got {tuple(values.shape)}."
            )
        weights = self.log_weights.exp().to(values.device)
        used = weights > 0  # where the target is 0 a value may be infinite or NaN
        rows = values.double().reshape(len(values), -1)
        return (weights[used] @ rows[used]).reshape(values.shape[1:])


def effective_sample_size(log_weights: Tensor | Array) -> float:
    """(sum w)^2 / sum w^2 of weights given by their logarithms (Kong 1992).

    Args:
        log_weights: ``(n,)``, an array or a tensor; with any constant added, and -inf for weights of 0.

    Returns:
        A number from 1 to n: n for equal weights.

    Raises:
        InputError: for another shape, no numbers, NaN or +inf, or no weight at all.

    Example:
        >>> import torch
        >>> from pushforward.inference import effective_sample_size
        >>> effective_sample_size(torch.tensor([0.0, 0.0, -torch.inf]))
        2.0
    """
    logarithms = _checked(log_weights, "log-weights")
    weights = np.exp(logarithms - logarithms.max())
    return float(weights.sum() ** 2 / (weights**2).sum())


def khat_threshold(draws: int) -> float:
    """Largest k-hat at which estimates from this number of draws are reliable, min(1 - 1 / log10(n), 0.7).

    Example:
        >>> from pushforward.inference import khat_threshold
        >>> round(khat_threshold(100), 2), khat_threshold(100_000)
        (0.5, 0.7)
    """
    return min(1 - 1 / math.log10(check_integer("draws", draws, 2)), 0.7)


def pareto_smooth(log_ratios: Array | Tensor) -> tuple[Array, float]:
    """Pareto-smoothed importance sampling (Vehtari, Simpson, Gelman, Yao, Gabry 2024, JMLR 25, algorithm 1).

    The M = min(n / 5, 3 sqrt(n)) largest weights are replaced by the expected order statistics of a generalized Pareto
    distribution that is fitted to them, and no weight exceeds the largest raw one.

    Args:
        log_ratios: log p - log q, ``(n,)``, an array or a tensor; may be -inf.

    Returns:
        Logarithms of the smoothed weights, normalized to sum 1, and k-hat. k-hat is -inf if all weights of the tail are
        equal. It is +inf if fewer than five draws have a positive weight, if equal weights count as fewer than 20 draws, or if
        a few weights with more than 5 % of the total are too large for the tail that was fitted: with a probability below 1e-4.

    Raises:
        InputError: for another shape, no numbers, NaN or +inf, or no weight at all.

    Example:
        >>> import numpy as np
        >>> from pushforward.inference import pareto_smooth
        >>> normal = np.random.default_rng(0).standard_normal(4000)
        >>> log_weights, k = pareto_smooth(-0.01 * normal**2)
        >>> k < 0.7, bool(abs(np.exp(log_weights).sum() - 1) < 1e-12)
        (True, True)
    """
    log_ratios = _checked(log_ratios, "log-ratios")
    n = len(log_ratios)
    log_w = log_ratios - log_ratios.max()
    tail = int(min(0.2 * n, 3 * np.sqrt(n)))
    order = np.argsort(log_w, kind="stable")
    cutoff = max(log_w[order[-tail - 1]], np.log(np.finfo(float).tiny))
    members = order[log_w[order] > cutoff]
    k_hat, beyond = np.inf, False
    if len(members) > 4:
        excess = np.exp(cutoff) * np.expm1(log_w[members] - cutoff)  # positive, however small the difference
        k_hat, sigma = fit_generalized_pareto(excess)
        beyond = _has_outliers(excess, k_hat, sigma, float(np.exp(log_w).sum()))
        if np.isfinite(k_hat):
            quantiles = (np.arange(len(members)) + 0.5) / len(members)
            log_w[members] = np.log(_pareto_quantile(quantiles, k_hat, sigma) + np.exp(cutoff))
        log_w = np.minimum(log_w, 0.0)
    elif np.isfinite(cutoff) and np.isfinite(log_w).sum() > 4:
        k_hat = -np.inf  # the largest weights are equal
    if (
        k_hat == -np.inf and np.exp(log_w).sum() ** 2 < _FEW * np.exp(2 * log_w).sum()
    ):  # equal, of a few draws that have all the weight
        k_hat = np.inf
    return log_w - np.logaddexp.reduce(log_w), np.inf if beyond else float(k_hat)


def _checked(logarithms: Array | Tensor, name: str) -> Array:
    """Logarithms of weights, of which at least one is positive.

    Raises:
        InputError: for another shape, no numbers, NaN or +inf, or no weight at all.
    """
    values = as_numbers(logarithms, f"the {name}").double().numpy()
    if values.ndim != 1 or not len(values):
        raise InputError(f"the {name} must have the shape (n,), one for each draw; got {values.shape}.")
    if np.isnan(values).any():
        raise InputError(
            f"{int(np.isnan(values).sum())} of {len(values)} {name} are NaN: give -inf for draws without weight."
        )
    if np.isposinf(values).any() or np.isneginf(values).all():
        what = (
            "infinite: the density of the target is, or that of the draws is 0"
            if np.isposinf(values).any()
            else "-inf: no draw has any weight"
        )
        raise InputError(f"{name} are {what}; use other draws.")
    return values


def tail_shape(values: Array, count: int) -> float:
    """Shape k of a generalized Pareto distribution fitted to the ``count`` largest values; -inf if fewer than five exceed the next."""
    ordered = np.sort(values)
    excess = ordered[-count:] - ordered[-count - 1]
    excess = excess[excess > 0]
    if len(excess) <= 4:
        return -np.inf
    k, sigma = fit_generalized_pareto(excess)
    return np.inf if _has_outliers(excess, k, sigma, float(np.abs(values).sum())) else k


def _has_outliers(excess: Array, k: float, sigma: float, total: float) -> bool:
    """Whether the largest values have a noticeable part of the total and are too large for the tail that was fitted to all.

    One weight of exp(20) among 10,000 nearly equal ones hardly moves the fitted shape, and smoothing would drop it.
    If M values follow the fit, at least j exceed x with a probability of at most (M S(x))^j / j!.
    """
    if not np.isfinite(k):
        return False
    top = excess[: -_MOST_OUTLIERS - 1 : -1]
    rank = np.arange(1, len(top) + 1)
    survival = -np.log1p(k * top / sigma) / k if abs(k) > 1e-12 else -top / sigma
    log_probability = rank * (math.log(len(excess)) + survival) - np.array([math.lgamma(j + 1) for j in rank])
    return bool(((log_probability < _LOG_RARE) & (top.cumsum() > _NOTICEABLE * total)).any())


def fit_generalized_pareto(x: Array) -> tuple[float, float]:
    """Shape k and scale of a generalized Pareto distribution (Zhang and Stephens 2009, Technometrics 51).

    The shape has a weak prior of mean 1/2 that counts as ten observations (Vehtari et al. 2024, app. G).

    Args:
        x: at least five positive numbers in increasing order.
    """
    n = len(x)
    if x[-1] - x[0] < 1e-14 * max(x[-1], 1e-300):
        return -np.inf, 0.0
    prior_scale, prior_count = 3.0, 10.0
    points = 30 + int(np.sqrt(n))
    grid = np.arange(1, points + 1)
    theta = 1 / x[-1] + (1 - np.sqrt(points / (grid - 0.5))) / (prior_scale * x[int(n / 4 + 0.5) - 1])
    k = np.log1p(-theta[:, None] * x).mean(1)
    log_likelihood = n * (np.log(-theta / k) - k - 1)
    weights = np.exp(log_likelihood - np.logaddexp.reduce(log_likelihood))
    kept = weights >= 10 * np.finfo(float).eps
    weights = weights[kept] / weights[kept].sum()
    best = float(np.sum(theta[kept] * weights))
    shape = float(np.log1p(-best * x).mean())
    scale = -shape / best
    return (n * shape + prior_count * 0.5) / (n + prior_count), scale


def _pareto_quantile(p: Array, k: float, scale: float) -> Array:
    if abs(k) < 1e-12:
        return -scale * np.log1p(-p)
    with np.errstate(over="ignore"):  # no weight is above the largest raw one
        return scale * np.expm1(-k * np.log1p(-p)) / k
