"""A fast score for smoothing: a Gaussian mixture of principal coordinates, whose values under noise are drawn without the noise."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.detection.scores.densities import gmm
from pushforward.errors import InputError, StorageError
from pushforward.numerics.checks import check_integer

__all__ = ["ProjectedMixture"]

Array = NDArray[np.float64]
_PARTS = ("mean", "directions", "center", "spread", "log_weights", "means", "whitenings")
_FEWEST = 20
_MOST_ROWS = 10_000
"""Training rows of the mixture, at most."""


class ProjectedMixture:
    """-log q of the principal coordinates of a row and of its distance from their subspace, q a Gaussian mixture.

    A row x enters by ``y = V^T (x - mean)``, k orthonormal directions V, and ``e = ||x - mean||^2 - ||y||^2``. Under noise
    sigma G the former is y + sigma G_k, and the latter ``(sqrt(e) + sigma g)^2 + sigma^2 chi^2`` with d - k - 1 degrees of
    freedom, independent of it: k + 2 numbers replace d. The mixture is fitted on training rows with noise.

    Args:
        parts: the fitted arrays, by name; see :meth:`fit`.

    Example:
        >>> from pushforward.detection.smoothing import Smoothing
        >>> rows = np.random.default_rng(0).normal(size=(300, 20))
        >>> base = ProjectedMixture.fit(rows, sigma=0.3, directions=4)
        >>> near, far = Smoothing(0.3).score(base, np.stack([np.zeros(20), np.full(20, 3.0)]))
        >>> bool(far > near)
        True
    """

    def __init__(self, parts: dict[str, Array]) -> None:
        self.parts = parts
        self._volumes = np.array([np.linalg.slogdet(w)[1] for w in parts["whitenings"]])

    @classmethod
    def fit(cls, rows: Array, sigma: float, *, directions: int = 48, components: int = 16, seed: int = 0) -> Self:
        """Fit on training rows.

        Args:
            rows: ``(n, d)``, finite, in the units of the noise.
            sigma: of the noise that will be added.
            directions: number k of principal directions, at most d.
            components: of the mixture, at most; fewer where there are few rows.
            seed: of the noise on the training rows and of the mixture.

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
        _, vectors = np.linalg.eigh(some.T @ some)
        count = min(directions, rows.shape[1])
        parts = {"mean": mean, "directions": np.ascontiguousarray(vectors[:, : -count - 1 : -1])}
        inside, outside = _coordinates(parts, some + mean)
        columns = _noisy(inside, outside, sigma, generator, rows.shape[1] - count)
        parts["center"], parts["spread"] = columns.mean(0), np.maximum(columns.std(0), 1e-6)
        white = torch.from_numpy((columns - parts["center"]) / parts["spread"])
        learned = gmm(white, components, seed)
        parts |= {name: part.numpy() for name, part in zip(_PARTS[4:], learned, strict=True)}
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
        parts = self.parts
        white = (columns - parts["center"]) / parts["spread"]
        logs = np.stack(
            [
                log_weight + volume - 0.5 * np.square((white - mean) @ whitening).sum(1)
                for log_weight, volume, mean, whitening in zip(
                    parts["log_weights"], self._volumes, parts["means"], parts["whitenings"], strict=True
                )
            ]
        )
        return 0.5 * white.shape[1] * math.log(2 * math.pi) - np.logaddexp.reduce(logs, 0)

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
        d, k = len(parts["mean"]), parts["directions"].shape[-1]
        c, columns = len(parts["log_weights"]), k + (k < d)
        shapes = ((d,), (d, k), (columns,), (columns,), (c,), (c, columns), (c, columns, columns))
        for name, shape in zip(_PARTS, shapes, strict=True):
            part = parts[name]
            if part.shape != shape or part.dtype != np.float64 or not np.isfinite(part).all() or not part.size:
                raise StorageError(f"the part {name!r} of the smoothed score does not fit the others.")
        return cls(parts)


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
