"""Kolmogorov-Smirnov distances of random projections of latents: GOD1KS and GOD2KS."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pushforward.detection.two_sample.base import Array, BatchTest
from pushforward.numerics.checks import check_choice, check_integer

__all__ = ["ProjectionKSTest"]

_CHUNK = 4_000_000
"""Numbers that are sorted at once."""


class ProjectionKSTest(BatchTest):
    """Mean over random unit directions w of the Kolmogorov-Smirnov distance of w'z in the batch.

    Against "normal", the distance is to N(0, 1), which w'z follows under a perfect flow with a normal base (GOD1KS); against
    "reference", it is to w'z of the rest of the pool, which absorbs what the flow got wrong (GOD2KS). P-values of both are
    exact: the distances of random subsets of the pool decide.

    Args:
        reference: latents of N held-out normal rows, ``(N, d)``, as ``model.encode(x)`` gives them.
        against: "reference" or "normal".
        directions: how many.
        permutations: subsets of the pool.
        seed: of the directions and the subsets.

    Raises:
        ConfigError: for an option that makes no sense.
        InputError: for rows that are no ``(N, d)`` of finite numbers.

    Example:
        >>> import numpy as np
        >>> from pushforward.detection import ProjectionKSTest
        >>> rng = np.random.default_rng(0)
        >>> test = ProjectionKSTest(rng.normal(size=(500, 20)))
        >>> test.p_value(rng.normal(size=(50, 20))) > 0.05, test.p_value(0.5 * rng.normal(size=(50, 20))) > 0.05
        (True, False)
    """

    def __init__(
        self,
        reference: Any,
        *,
        against: str = "reference",
        directions: int = 50,
        permutations: int = 199,
        seed: int = 0,
    ) -> None:
        super().__init__(reference, permutations=permutations, seed=seed)
        check_choice("against", against, ("reference", "normal"))
        self.against, self.directions = against, check_integer("directions", directions)
        drawn = np.random.default_rng(seed).normal(size=(self.reference.shape[1], self.directions))
        self.weights = drawn / np.linalg.norm(drawn, axis=0)

    def _statistics(self, pool: Array, subsets: NDArray[np.intp]) -> Array:
        projected = (pool @ self.weights).T
        if self.against == "normal":
            from scipy.special import ndtr

            below = at_most = ndtr(projected)
        else:
            ordered = np.sort(projected, axis=1)
            below, at_most = (
                np.stack([np.searchsorted(line, row, side=side) for line, row in zip(ordered, projected, strict=True)])
                / len(pool)
                for side in ("left", "right")
            )
        size = subsets.shape[1]
        steps = np.arange(size + 1) / size
        total = np.zeros(len(subsets))
        chunk = max(1, _CHUNK // subsets.size)
        for start in range(0, self.directions, chunk):
            # Where the subset's share of values at or below a place exceeds the law's, and where it falls short.
            over = steps[1:] - np.sort(at_most[start : start + chunk][:, subsets], axis=-1)
            under = np.sort(below[start : start + chunk][:, subsets], axis=-1) - steps[:-1]
            total += np.maximum(over, under).max(-1).sum(0)
        return total / self.directions
