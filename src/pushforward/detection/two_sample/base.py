"""`BatchTest`: a test of whether a batch comes from the distribution of the reference rows."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from pushforward.errors import InputError
from pushforward.numerics.checks import check_integer

__all__ = ["BatchTest"]

Array = NDArray[np.float64]


class BatchTest(ABC):
    """A permutation test of a batch of n rows against N reference rows.

    The pool consists of all N + n rows. A statistic is computed for the batch and for P random subsets of n rows of the pool,
    and ``p = (1 + #{subsets whose statistic is at least the batch's}) / (1 + P)``. With n = 1 all N + 1 subsets are used,
    so the p-value is a conformal p-value of the single row.

    **Guarantee:** if batch and reference rows are exchangeable, ``P(p <= a) <= a`` for every a, every n and every
    statistic (Phipson & Smyth 2010 explain the added ones; without them p can be 0 and the test rejects too often). The
    reference rows must be used for nothing else, in particular not to train the model that computes the features.

    The test is about the batch as a whole: a rejected batch may contain normal rows, and an accepted one anomalous rows.

    Args:
        reference: N rows of features, ``(N, d)``, or of one score each, ``(N,)``; array or CPU tensor.
        permutations: number P of subsets; the smallest p-value is 1/(P + 1).
        seed: seed of the subsets, which also depend on the content of the batch; equal batches get equal p-values.

    Raises:
        InputError: for no rows, other shapes, or values that are not finite.
        ConfigError: for an invalid option.

    Example:
        >>> import numpy as np
        >>> from pushforward.detection.two_sample import MMDTest
        >>> rng = np.random.default_rng(0)
        >>> test = MMDTest(rng.normal(size=(200, 2)))
        >>> test.p_value(rng.normal(2, 1, size=(20, 2)))
        0.005
    """

    def __init__(self, reference: Any, *, permutations: int = 199, seed: int = 0) -> None:
        self.reference = rows_of(reference, "the reference rows")
        self.permutations = check_integer("permutations", permutations)
        check_integer("seed", seed, 0)
        self.seed = seed

    @abstractmethod
    def _statistics(self, pool: Array, subsets: NDArray[np.intp]) -> Array:
        """The statistic of each subset, ``(subsets,)``; larger for a subset less like the rest of the pool.

        Args:
            pool: all rows, ``(M, d)``; apart from the choice of the subset, their order must not affect the statistic.
            subsets: indices into the pool, ``(subsets, n)``.
        """

    @final
    def p_value(self, batch: Any) -> float:
        """P-value of "this batch is like the reference".

        Args:
            batch: n rows, ``(n, d)`` or ``(n,)`` like the reference.

        Raises:
            InputError: for no rows, a different number of features, or values that are not finite.
        """
        batch = rows_of(batch, "the batch", self.reference.shape[1]) + 0.0  # -0 is 0
        batch = batch[np.lexsort(batch.T)]  # the same random subsets for the same rows in any order
        pool = np.concatenate([batch, self.reference])
        statistics = self._statistics(pool, self._subsets(batch, len(pool)))
        refuse_overflow(statistics)
        # Sums in a different order round differently, and equal statistics must count as ties.
        slack = 1e-10 * float(np.max(np.abs(statistics)))
        return float(np.mean(statistics >= statistics[0] - slack))

    def single_p_values(self, rows: Any) -> Array:
        """:meth:`p_value` of each row as a batch of one row, ``(n,)``.

        Raises:
            InputError: as :meth:`p_value`.
        """
        rows = rows_of(rows, "the rows", self.reference.shape[1])
        return np.array([self.p_value(row[None]) for row in rows])

    def _subsets(self, batch: Array, size: int) -> NDArray[np.intp]:
        """Indices of the batch in the pool, then of random subsets; for a single row, all subsets of one row."""
        if len(batch) == 1:
            return np.arange(size)[:, None]
        content = hashlib.blake2b(batch.tobytes(), digest_size=8).digest()
        rng = np.random.default_rng([self.seed, int.from_bytes(content, "little")])
        own = np.arange(len(batch))
        drawn = [rng.choice(size, len(batch), replace=False, shuffle=False) for _ in range(self.permutations)]
        return np.stack([own, *drawn])


def refuse_overflow(statistics: Array) -> None:
    """Refuse statistics that are not finite.

    Raises:
        InputError: for such a statistic.
    """
    if not np.isfinite(statistics).all():
        raise InputError("the statistic overflows because the features are too large: rescale them.")


def rows_of(rows: Any, name: str, width: int | None = None) -> Array:
    """Check rows of finite numbers and return them as float64 ``(n, d)``; a vector becomes a column.

    Raises:
        InputError: for anything that is not rows of finite numbers, or a number of features other than ``width``.
    """
    try:
        array = np.asarray(rows)
        if array.dtype.kind not in "fiu":
            raise ValueError(f"got dtype {array.dtype}")
        array = np.ascontiguousarray(array, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be real numbers of shape (n, d): {error}") from error
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"{name} must have shape (n, d) with n and d at least 1; got {np.shape(rows)}.")
    if width is not None and array.shape[1] != width:
        raise InputError(f"{name} must have {width} features, like the reference; got {array.shape[1]}.")
    if not np.isfinite(array).all():
        raise InputError(
            f"{name} contain NaN or infinity in row {np.flatnonzero(~np.isfinite(array).all(1))[0]}: leave such rows out."
        )
    return array
