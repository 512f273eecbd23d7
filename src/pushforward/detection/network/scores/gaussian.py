"""Distances under normal distributions of the features: Mahalanobis, relative, of several layers, and a mixture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore
from pushforward.detection.network.streaming import Gathered
from pushforward.errors import InputError
from pushforward.numerics.checks import check_positive

__all__ = ["LayerMahalanobis", "Mahalanobis", "Mixture", "RelativeMahalanobis", "whitening"]

_FLOOR = 1e-6
"""Smallest variance along a principal direction, relative to the mean variance; a dead unit has variance 0."""


def whitening(covariance: Tensor, floor: float = _FLOOR) -> Tensor:
    """W with ``W W^T`` the inverse covariance, ``(D, D)``; variances are at least ``floor`` times their mean."""
    variances, directions = torch.linalg.eigh(covariance)
    mean = variances.clamp(min=0).mean()
    least = floor * mean if mean > 0 else torch.ones_like(mean)
    return directions * variances.clamp(min=float(least)).rsqrt()


def nearest(rows: Tensor, factor: Tensor, means: Tensor, squares: Tensor) -> Tensor:
    """Smallest squared distance of ``rows @ factor`` from whitened means with these squared norms, ``(n,)``; it may round below 0."""
    white = rows @ factor
    from_means = torch.addmm(squares, white, means.T, alpha=-2).amin(1)  # without the part that they share
    return white.square().sum(1) + from_means


def relative_form(factor: Tensor, means: Tensor, background: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The difference of two squared distances of a row x as one quadratic form and one product for each class, without cancellation.

    ``min_c |x W - m_c|^2 - |x B|^2 = sum_j s_j (x p_j)^2 + min_c (x d_c + |m_c|^2)`` with ``W W^T - B B^T = P diag(s) P^T`` and
    ``d_c = -2 W m_c``. Only as many p_j differ from 0 as there are classes less one, and directions without variance; those whose
    part of the squared distance within the classes is below 1e-6 are left out.

    Args:
        factor: whitening W within the classes, ``(D, D)``.
        means: whitened class means, ``(classes, D)``.
        background: whitening B of all rows, ``(D, D)``.

    Returns:
        p ``(D, kept)``, s ``(kept,)``, d ``(D, classes)`` and the squares ``(classes,)``.
    """
    precision = factor @ factor.T
    values, vectors = torch.linalg.eigh(precision - background @ background.T)
    kept = values.abs() > 1e-6 * torch.linalg.eigvalsh(precision)[0]
    values, vectors = values[kept], vectors[:, kept]
    return vectors * values.abs().sqrt(), values.sign(), -2 * factor @ means.T, means.square().sum(1)


def relative_distance(rows: Tensor, form: Sequence[Tensor]) -> Tensor:
    """Distance to the nearest class minus that to all rows, ``(n,)``, of rows whose origin is the mean of all."""
    projections, signs, directions, squares = form
    return (rows @ projections).square() @ signs + torch.addmm(squares, rows, directions).amin(1)


class Mahalanobis(NetworkScore):
    """``min_c (z - m_c)^T S^-1 (z - m_c)`` of the features z, with class means and the covariance within classes (Lee et al. 2018).

    arXiv 1807.03888, eq. 2, at the last layer and without perturbed inputs. Without labels there is one class.

    Args:
        floor: smallest variance along a principal direction, relative to the mean variance.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.Mahalanobis()
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).alarm
        tensor([True])
    """

    def __init__(self, floor: float = _FLOOR) -> None:
        super().__init__()
        self.floor = check_positive("floor", floor, zero=True)
        self.declare(origin=1, factor=2, means=2)

    origin: Tensor
    factor: Tensor
    means: Tensor

    def _learn(self, gathered: Gathered) -> None:
        moments = gathered.moments["features"]
        check_rows(moments.rows, type(self).__name__)
        self.origin = moments.mean  # distances stay the same, with less cancellation
        self.factor = whitening(moments.within, self.floor)
        self.means = (moments.means[moments.counts > 0] - self.origin) @ self.factor

    def _score(self, reading: Reading) -> Tensor:
        squares = self.means.square().sum(1)
        return nearest(reading.features - self.origin, self.factor, self.means, squares).clamp(min=0)


class RelativeMahalanobis(NetworkScore):
    """Mahalanobis distance to the nearest class minus that to all rows together (Ren et al. 2021, arXiv 2106.09022, eq. 3).

    Args:
        floor: as of :class:`Mahalanobis`.
        single: whether to score in single precision where the network computes in it, which is faster.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.RelativeMahalanobis()
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).alarm
        tensor([True])
    """

    def __init__(self, floor: float = _FLOOR, single: bool = False) -> None:
        super().__init__()
        self.floor, self.single = check_positive("floor", floor, zero=True), bool(single)
        self.declare(origin=1, factor=2, means=2, background=2)

    origin: Tensor
    factor: Tensor
    means: Tensor
    background: Tensor

    def _learn(self, gathered: Gathered) -> None:
        moments = gathered.moments["features"]
        check_rows(moments.rows, type(self).__name__)
        self.origin = moments.mean
        self.factor = whitening(moments.within, self.floor)
        self.means = (moments.means[moments.counts > 0] - self.origin) @ self.factor
        self.background = whitening(moments.covariance, self.floor)

    def _derive(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The origin, and the form of :func:`relative_form`."""
        form = relative_form(self.factor, self.means, self.background)
        return tuple(part.to(dtype) for part in (self.origin, *form))

    def _score(self, reading: Reading) -> Tensor:
        dtype = self.precision(reading)
        origin, *form = self.prepared(dtype)
        return relative_distance(reading.features.to(dtype) - origin, form)


class LayerMahalanobis(NetworkScore):
    """Sum over inner layers and the features of the Mahalanobis distances to the nearest class (Lee et al. 2018).

    The outputs of inner layers are averaged over positions. All layers have weight 1: the paper's weights need outliers.

    Args:
        features: whether the features are one of the layers.
        floor: as of :class:`Mahalanobis`.
        single: whether to score in single precision where the network computes in it, which is faster.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.LayerMahalanobis()
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).alarm
        tensor([True])
    """

    needs = frozenset({"layers"})

    def __init__(self, features: bool = True, floor: float = _FLOOR, single: bool = False) -> None:
        super().__init__()
        self.features, self.floor = bool(features), check_positive("floor", floor, zero=True)
        self.single = bool(single)
        self.declare(packed=1, sizes=1)

    packed: Tensor
    sizes: Tensor

    def _learn(self, gathered: Gathered) -> None:
        names = [f"layer {name}" for name in gathered.layers] + ["features"] * self.features
        packed, sizes = [], []
        for name in names:
            moments = gathered.moments[name]
            check_rows(moments.rows, type(self).__name__)
            factor = whitening(moments.within, self.floor)
            means = (moments.means[moments.counts > 0] - moments.mean) @ factor
            packed += [moments.mean, factor.flatten(), means.flatten()]
            sizes += [len(factor), len(means)]
        self.packed, self.sizes = torch.cat(packed), torch.tensor(sizes, dtype=torch.float64)

    def _derive(self, dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
        """Origin, whitening, means and their squared norms of each layer."""
        layers, start = [], 0
        for width, count in self.sizes.long().reshape(-1, 2).tolist():
            lengths = [width, width * width, count * width]
            origin, factor, means = self.packed[start : start + sum(lengths)].to(dtype).split(lengths)
            means = means.reshape(count, width)
            layers.append((origin, factor.reshape(width, width), means, means.square().sum(1)))
            start += sum(lengths)
        return layers

    def distances(self, reading: Reading) -> Tensor:
        """The squared distance of every layer, ``(layers, n)``."""
        dtype = self.precision(reading)
        rows = [*reading.layers.values(), *([reading.features] if self.features else [])]
        parts = [
            nearest(row.to(dtype) - origin, factor, means, squares)
            for row, (origin, factor, means, squares) in zip(rows, self.prepared(dtype), strict=True)
        ]
        return torch.stack(parts).clamp(min=0)

    def _score(self, reading: Reading) -> Tensor:
        return self.distances(reading).sum(0)


class Mixture(NetworkScore):
    """``-log sum_c w_c N(z; m_c, S_c)`` in nats: one normal distribution per class, each with its own covariance.

    Gaussian discriminant analysis on features (Mukhoti et al. 2023, arXiv 2102.11582, eq. 4).

    Args:
        ridge: added to every variance.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.Mixture()
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).alarm
        tensor([True])
    """

    needs = frozenset({"labels"})

    def __init__(self, ridge: float = 1e-6) -> None:
        super().__init__()
        self.ridge = check_positive("ridge", ridge, zero=True)
        self.declare(means=2, factors=3, offsets=1)

    means: Tensor
    factors: Tensor
    offsets: Tensor

    def _learn(self, gathered: Gathered) -> None:
        rows, labels = gathered.sample["features"].double(), gathered.sample["labels"]
        means, factors, offsets = [], [], []
        for k in labels.unique():
            own = rows[labels == k]
            if len(own) < 2:
                raise InputError(
                    f"Mixture needs at least two training rows of every class; class {int(k)} has {len(own)}."
                )
            centered = own - own.mean(0)
            covariance = centered.T @ centered / len(own)
            covariance.diagonal().add_(self.ridge)
            variances, directions = torch.linalg.eigh(covariance)
            variances = variances.clamp(min=max(self.ridge, 1e-12 * float(variances[-1])))
            means.append(own.mean(0))
            factors.append(directions * variances.rsqrt())
            offsets.append(math.log(len(own) / len(rows)) - 0.5 * float(variances.log().sum()))
        self.means, self.factors = torch.stack(means), torch.stack(factors)
        self.offsets = torch.tensor(offsets, dtype=torch.float64) - 0.5 * rows.shape[1] * math.log(2 * math.pi)

    def _score(self, reading: Reading) -> Tensor:
        rows = reading.features.double()
        squares = [
            ((rows - mean) @ factor).square().sum(1) for mean, factor in zip(self.means, self.factors, strict=True)
        ]
        return -torch.logsumexp(self.offsets - 0.5 * torch.stack(squares, 1), 1)


def check_rows(rows: int, owner: str) -> None:
    """Refuse fewer than the two training rows that a covariance needs."""
    if rows < 2:
        raise InputError(f"{owner} needs at least two training rows for a covariance; got {rows}.")
