"""`BatchTest`: is a batch as a whole drawn from where the reference rows were drawn?"""

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

    A statistic is computed for the batch and for P random subsets of n rows of the pool of all N + n, and
    ``p = (1 + #{subsets whose statistic is at least the batch's}) / (1 + P)``. With n = 1 all N + 1 subsets are taken,
    so the p-value is a conformal p-value of the single row.

    **What holds:** if batch and reference rows are exchangeable, ``P(p <= a) <= a`` for every a and n, whatever the
    statistic (Phipson & Smyth 2010 for the two ones; without them p can be 0 and the test alarms too often). The
    reference rows must have served for nothing else: not to train the model that gives the features.

    The answer is about the batch. Rows of a rejected batch may be fine, and the rows of one that passes may not be.

    Args:
        reference: N rows of features, ``(N, d)``, or of one score each, ``(N,)``; array or CPU tensor.
        permutations: P; the smallest p-value is 1/(P + 1).
        seed: of the subsets, which also depend on the batch's content; the same batch gets the same p-value.

    Raises:
        InputError: for no rows, other shapes, or numbers that are not finite.
        ConfigError: for an option that makes no sense.
    """

    def __init__(self, reference: Any, *, permutations: int = 199, seed: int = 0) -> None:
        self.reference = rows_of(reference, "the reference rows")
        self.permutations = check_integer("permutations", permutations)
        check_integer("seed", seed, 0)
        self.seed = seed

    @abstractmethod
    def _statistics(self, pool: Array, subsets: NDArray[np.intp]) -> Array:
        """The statistic of each subset, ``(subsets,)``, larger for one that is less like the rest of the pool.

        Args:
            pool: ``(M, d)``; the statistic must not depend on the order of its rows otherwise than by the subset.
            subsets: indices into the pool, ``(subsets, n)``.
        """

    @final
    def p_value(self, batch: Any) -> float:
        """P-value of "this batch is like the reference".

        Args:
            batch: n rows, ``(n, d)`` or ``(n,)`` as the reference.

        Raises:
            InputError: for no rows, another width, or numbers that are not finite.
        """
        batch = rows_of(batch, "the batch", self.reference.shape[1])
        pool = np.concatenate([batch, self.reference])
        statistics = self._statistics(pool, self._subsets(batch, len(pool)))
        if not np.isfinite(statistics).all():
            raise InputError("the features are too large for this test: bring them to a common scale.")
        # Sums of another order round differently: what is equal must not count as smaller.
        slack = 1e-10 * float(np.max(np.abs(statistics)))
        return float(np.mean(statistics >= statistics[0] - slack))

    def single_p_values(self, rows: Any) -> Array:
        """:meth:`p_value` of each row as a batch of its own, ``(n,)``.

        Raises:
            InputError: as :meth:`p_value`.
        """
        rows = rows_of(rows, "the rows", self.reference.shape[1])
        return np.array([self.p_value(row[None]) for row in rows])

    def _subsets(self, batch: Array, size: int) -> NDArray[np.intp]:
        """The batch's own places in the pool, then those of random subsets; all subsets of one for a single row."""
        if len(batch) == 1:
            return np.arange(size)[:, None]
        content = hashlib.blake2b(batch.tobytes(), digest_size=8).digest()
        rng = np.random.default_rng([self.seed, int.from_bytes(content, "little")])
        own = np.arange(len(batch))
        drawn = [rng.choice(size, len(batch), replace=False, shuffle=False) for _ in range(self.permutations)]
        return np.stack([own, *drawn])


def rows_of(rows: Any, name: str, width: int | None = None) -> Array:
    """Rows of finite numbers, float64 ``(n, d)``; one number a row becomes a column.

    Raises:
        InputError: for anything else.
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
        raise InputError(f"{name} must have shape (n, d), n and d at least 1; got {np.shape(rows)}.")
    if width is not None and array.shape[1] != width:
        raise InputError(f"{name} must have {width} features as the reference has; got {array.shape[1]}.")
    if not np.isfinite(array).all():
        raise InputError(f"{name} hold NaN or infinity in row {np.flatnonzero(~np.isfinite(array).all(1))[0]}.")
    return array
