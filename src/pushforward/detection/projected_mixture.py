"""A fast score for smoothing: a density of statistics of principal coordinates, whose values under noise need little noise."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.detection.scores.densities import gmm
from pushforward.detection.scores.principal import leading_directions
from pushforward.errors import InputError, StorageError
from pushforward.numerics.checks import check_integer

__all__ = ["ProjectedMixture"]

Array = NDArray[np.float64]
_MIXTURE = ("center", "spread", "log_weights", "means", "whitenings")
_PARTS = ("mean", "directions", *(f"rows_{name}" for name in _MIXTURE), *(f"statistics_{name}" for name in _MIXTURE))
_BANDS = (0, 4, 12)
"""First principal coordinate of each band whose energy is a statistic."""
_FEWEST = 20
_MOST_ROWS = 10_000
"""Training rows of the mixture, at most."""
_AT_A_TIME = 1024
"""Rows of many values in memory twice."""


class ProjectedMixture:
    """-log q of a few statistics of a row, q a Gaussian mixture; the statistics read a Gaussian mixture of principal coordinates.

    A row x enters by ``y = V^T (x - mean)``, k orthonormal directions V, and ``e = ||x - mean||^2 - ||y||^2``. Under noise
    sigma G the former is y + sigma G_k, and the latter ``(sqrt(e) + sigma g)^2 + sigma^2 chi^2`` with d - k - 1 degrees of
    freedom, independent of it: k + 2 numbers replace d.

    The statistics are -log p of a mixture of (y, log e), log e, and the log-energies of bands of standardized coordinates. A
    density of statistics, in place of p itself, also finds rows that are too likely, such as images of half the contrast
    (Morningstar et al. 2021, "Density of states estimation"). Both mixtures are fitted on training rows with noise, each on
    rows of its own, so that the statistics are those of new rows.

    Args:
        parts: the fitted arrays, by name; see :meth:`fit`.

    Example:
        >>> from pushforward.detection.smoothing import Smoothing
        >>> rows = np.random.default_rng(0).normal(size=(300, 20))
        >>> base = ProjectedMixture.fit(rows, sigma=0.3, directions=4)
        >>> near, far = Smoothing(0.3).score(base, np.stack([rows[0], np.full(20, 3.0)]))
        >>> bool(far > near)
        True
    """

    def __init__(self, parts: dict[str, Array]) -> None:
        self.parts = parts
        self._mixtures = {
            kind: _Mixture(*(parts[f"{kind}_{name}"] for name in _MIXTURE)) for kind in ("rows", "statistics")
        }

    @classmethod
    def fit(cls, rows: Array, sigma: float, *, directions: int = 32, components: int = 16, seed: int = 0) -> Self:
        """Fit on training rows, of which at most 10,000 are read.

        Where these are fewer than their values, the directions come from the products of at most 2048 rows with each other, and no
        matrix of d x d numbers is made.

        Args:
            rows: ``(n, d)``, finite, in the units of the noise.
            sigma: of the noise that will be added.
            directions: number k of principal directions, at most d, and at most n - 1 where n < d: what the other directions
                contain is a part of e.
            components: of each mixture, at most; fewer where there are few rows.
            seed: of the noise on the training rows, their division and the mixtures.

        Raises:
            InputError: for fewer than 20 rows.
        """
        check_integer("directions", directions)
        check_integer("components", components)
        if len(rows) < _FEWEST:
            raise InputError(f"the mixture of a smoothed score needs at least {_FEWEST} rows; got {len(rows)}.")
        generator = np.random.default_rng(seed)
        mean = rows.mean(0)
        some = rows[generator.permutation(len(rows))[:_MOST_ROWS]] - mean
        thin = len(some) < rows.shape[1]
        if thin:
            found = leading_directions(torch.from_numpy(some), directions).numpy()
        else:
            _, vectors = np.linalg.eigh(some.T @ some)
            found = np.ascontiguousarray(vectors[:, : -min(directions, rows.shape[1]) - 1 : -1])
        count = found.shape[1]
        parts = {"mean": mean, "directions": found}
        some += mean
        size = _AT_A_TIME if thin else len(some)
        pieces = [_coordinates(parts, some[start : start + size]) for start in range(0, len(some), size)]
        inside, outside = (np.concatenate(piece) for piece in zip(*pieces, strict=True))
        columns = _noisy(inside, outside, sigma, generator, rows.shape[1] - count)
        half = len(columns) // 2
        mixture = _Mixture.fit(columns[:half], components, seed)
        statistics = _Mixture.fit(_statistics(mixture, columns[half:], count), components, seed)
        for kind, fitted in (("rows", mixture), ("statistics", statistics)):
            parts |= {f"{kind}_{name}": np.ascontiguousarray(getattr(fitted, name)) for name in _MIXTURE}
        return cls(parts)

    @property
    def width(self) -> int:
        """d, the number of values of a row."""
        return len(self.parts["mean"])

    def noisy_scores(self, row: Array, sigma: float, generator: np.random.Generator, count: int) -> Array:
        """Draws of the score under noise, see :class:`~pushforward.detection.smoothing.NoisyScore`."""
        inside, outside = _coordinates(self.parts, row[None])
        free = self.width - inside.shape[1]
        return self._score(_noisy(np.repeat(inside, count, 0), np.repeat(outside, count), sigma, generator, free))

    def score(self, rows: Array) -> Array:
        """The score of rows ``(n, d)`` without noise, ``(n,)``; a distance of 0 from the subspace counts as 1e-150."""
        inside, outside = _coordinates(self.parts, rows)
        return self._score(_columns(inside, outside, self.width - inside.shape[1]))

    def _score(self, columns: Array) -> Array:
        directions = self.parts["directions"].shape[1]
        return self._mixtures["statistics"].surprise(_statistics(self._mixtures["rows"], columns, directions))

    def pack(self, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Description and tensors for a file."""
        return {}, {f"{prefix}{name}": torch.from_numpy(np.array(self.parts[name])) for name in _PARTS}

    @classmethod
    def unpack(cls, description: Any, tensors: dict[str, Tensor], prefix: str) -> Self:
        """Rebuild a score from what :meth:`pack` returned.

        Raises:
            StorageError: for parts that do not fit each other.
        """
        try:
            parts = {name: tensors[f"{prefix}{name}"].numpy() for name in _PARTS}
        except (KeyError, AttributeError) as error:
            raise StorageError(f"the smoothed score lacks a part: {error}") from error
        d, k = parts["mean"].size, parts["directions"].shape[-1] if parts["directions"].ndim else 0
        wanted = {"mean": (d,), "directions": (d, k)}
        for kind, width in (("rows", k + (k < d)), ("statistics", 1 + (k < d) + sum(k > first for first in _BANDS))):
            c = parts[f"{kind}_log_weights"].size
            shapes = ((width,), (width,), (c,), (c, width), (c, width, width))
            wanted |= {f"{kind}_{name}": shape for name, shape in zip(_MIXTURE, shapes, strict=True)}
        for name, shape in wanted.items():
            part = parts[name]
            if part.shape != shape or part.dtype != np.float64 or not np.isfinite(part).all() or not part.size:
                raise StorageError(f"the part {name!r} of the smoothed score does not fit the others.")
        return cls(parts)


class _Mixture(NamedTuple):
    """A mixture of normals of standardized columns."""

    center: Array
    spread: Array
    log_weights: Array
    means: Array
    whitenings: Array

    @classmethod
    def fit(cls, columns: Array, components: int, seed: int) -> _Mixture:
        center, spread = columns.mean(0), np.maximum(columns.std(0), 1e-6)
        learned = gmm(torch.from_numpy((columns - center) / spread), components, seed)
        return cls(center, spread, *(part.numpy() for part in learned))

    def surprise(self, columns: Array) -> Array:
        """-log q of the standardized columns, ``(n,)``."""
        white = (columns - self.center) / self.spread
        logs = [
            log_weight
            + np.log(np.abs(np.diagonal(whitening))).sum()
            - 0.5 * np.square((white - mean) @ whitening).sum(1)
            for log_weight, mean, whitening in zip(self.log_weights, self.means, self.whitenings, strict=True)
        ]  # scikit-learn's factors are triangular
        return 0.5 * white.shape[1] * math.log(2 * math.pi) - np.logaddexp.reduce(np.stack(logs), 0)


def _statistics(mixture: _Mixture, columns: Array, directions: int) -> Array:
    """What the second mixture reads of the columns ``(n, k + 1)``: surprise, log-energies of bands, log of the distance."""
    white = np.square((columns[:, :directions] - mixture.center[:directions]) / mixture.spread[:directions])
    ends = (*(first for first in _BANDS[1:] if first < directions), directions)
    bands = [np.log(white[:, a:b].mean(1) + 1e-6) for a, b in zip(_BANDS, ends, strict=False)]
    return np.column_stack([mixture.surprise(columns), *bands, columns[:, directions:]])


def _coordinates(parts: dict[str, Array], rows: Array) -> tuple[Array, Array]:
    """Principal coordinates ``(n, k)`` and squared distance from their subspace ``(n,)``."""
    centered = rows - parts["mean"]
    inside = centered @ parts["directions"]
    return inside, np.maximum(np.square(centered).sum(1) - np.square(inside).sum(1), 0.0)


def _noisy(inside: Array, outside: Array, sigma: float, generator: np.random.Generator, free: int) -> Array:
    """The columns of one draw of noise for each row; ``free`` = d - k."""
    inside = inside + sigma * generator.standard_normal(inside.shape)
    if free > 0:
        outside = np.square(np.sqrt(outside) + sigma * generator.standard_normal(len(outside)))
    if free > 1:
        outside = outside + sigma**2 * generator.chisquare(free - 1, len(outside))
    return _columns(inside, outside, free)


def _columns(inside: Array, outside: Array, free: int) -> Array:
    return np.column_stack([inside, 0.5 * np.log(np.maximum(outside, 1e-300))]) if free else inside
