"""Typicality test of a batch: deviation of its mean log-likelihood from the entropy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pushforward.detection.two_sample.base import Array, BatchTest, rows_of
from pushforward.errors import InputError
from pushforward.numerics.checks import check_integer, check_number

__all__ = ["TypicalityTest"]


class TypicalityTest(BatchTest):
    """Batch test with the statistic abs(mean of -log p over the batch - H), where H is the entropy (Nalisnick et al. 2019,
    arXiv 1906.02994).

    :meth:`p_value` is the exact permutation test, where H is the mean of the pool. :meth:`bootstrap_p_value` and
    :meth:`threshold` are the methods of the paper: H is the mean of the reference, and batches are drawn from the reference
    with replacement. They are faster, but reject too often: they underestimate the standard deviation of the statistic by a
    factor of up to sqrt(1 + n/N).

    The test cannot detect a batch that differs from the reference but has the same mean log-likelihood.

    Args:
        reference: log-likelihoods of N held-out normal rows, ``(N,)``; scores too, since the sign has no effect.
        permutations: number of random subsets, or of bootstrap batches.
        seed: seed of the subsets and bootstrap batches.

    Raises:
        InputError: for a reference that is not one finite number for each row.

    Example:
        >>> import numpy as np
        >>> from pushforward.detection import TypicalityTest
        >>> rng = np.random.default_rng(0)
        >>> test = TypicalityTest(rng.normal(size=1000))
        >>> test.p_value(rng.normal(size=50)) > 0.05, test.p_value(rng.normal(size=50) + 1) > 0.05
        (True, False)
    """

    def __init__(self, reference: Any, *, permutations: int = 999, seed: int = 0) -> None:
        super().__init__(reference, permutations=permutations, seed=seed)
        if self.reference.shape[1] != 1:
            raise InputError(f"TypicalityTest needs one number for each row; got {self.reference.shape[1]}.")
        self.entropy = float(self.reference.mean())

    def _statistics(self, pool: Array, subsets: NDArray[np.intp]) -> Array:
        values = pool[:, 0] - pool.mean()
        return np.abs(values[subsets].mean(1))

    def statistic(self, batch: Any) -> float:
        """abs(mean of the batch - H) in nats."""
        return float(np.abs(rows_of(batch, "the batch", 1).mean() - self.entropy))

    def threshold(self, size: int, alpha: float = 0.05) -> float:
        """The 1 - alpha quantile of the statistic over bootstrap batches of this size; reject above it.

        Raises:
            ConfigError: for a size below 1 or an alpha outside (0, 1).
        """
        return float(
            np.quantile(
                self._bootstrap(check_integer("size", size)), 1 - check_number("alpha", alpha, 0, 1), method="higher"
            )
        )

    def bootstrap_p_value(self, batch: Any) -> float:
        """(1 + number of bootstrap batches at least as far from H) / (1 + their number)."""
        far = self._bootstrap(len(rows_of(batch, "the batch", 1))) >= self.statistic(batch)
        return float((1 + far.sum()) / (1 + far.size))

    def _bootstrap(self, size: int) -> Array:
        rng = np.random.default_rng([self.seed, size])
        drawn = rng.integers(len(self.reference), size=(self.permutations, size))
        return np.abs(self.reference[drawn, 0].mean(1) - self.entropy)
