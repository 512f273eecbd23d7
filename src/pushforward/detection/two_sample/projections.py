"""Tests by Kolmogorov-Smirnov distances of random projections of latents: GOD1KS and GOD2KS."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pushforward.detection.two_sample.base import Array, BatchTest
from pushforward.numerics.checks import check_choice, check_integer

__all__ = ["ProjectionKSTest"]

_CHUNK = 4_000_000
"""Number of values that are sorted at a time."""


class ProjectionKSTest(BatchTest):
    """Batch test with the Kolmogorov-Smirnov distance of w'z, averaged over random unit directions w.

    With ``against="normal"`` the distance is to N(0, 1), the distribution of w'z under a perfect flow with a normal base
    (GOD1KS). With ``against="reference"`` it is to the distribution of w'z in the pool, which corrects for errors of the
    flow (GOD2KS). The p-values of both are exact, because they compare with random subsets of the pool.

    Args:
        reference: latents of N held-out normal rows, ``(N, d)``, from ``model.encode(x)``.
        against: "reference" or "normal".
        directions: number of directions.
        permutations: number of random subsets of the pool.
        seed: seed of the directions and the subsets.

    Raises:
        ConfigError: for an invalid option.
        InputError: for a reference that is not finite numbers of shape ``(N, d)``.

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
            # Largest differences between the two distribution functions, in both directions.
            over = steps[1:] - np.sort(at_most[start : start + chunk][:, subsets], axis=-1)
            under = np.sort(below[start : start + chunk][:, subsets], axis=-1) - steps[:-1]
            total += np.maximum(over, under).max(-1).sum(0)
        return total / self.directions
