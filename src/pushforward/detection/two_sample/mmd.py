"""Maximum mean discrepancy: a two-sample test that compares means in the feature space of a kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.detection.two_sample.base import Array, BatchTest, refuse_overflow, rows_of
from pushforward.errors import InputError
from pushforward.numerics.checks import check_integer, check_positive, check_seed

__all__ = ["MMDTest", "median_distance", "mmd_squared"]

_CHUNK = 4_000_000
"""Number of entries of the kernel matrix that are in memory at a time."""


class MMDTest(BatchTest):
    """Batch test with the statistic MMD^2 = mean k(r, r') + mean k(b, b') - 2 mean k(r, b) (Gretton et al. 2012, eq. 5).

    r are reference rows and b batch rows. The kernel is Gaussian, ``k(x, y) = exp(-|x - y|^2 / (2 s^2))``; the default s is the
    median distance within the pool. The kernel matrix is computed in strips, so memory does not grow with (N + n)^2.

    Args:
        reference: features of N held-out normal rows, ``(N, d)``.
        bandwidth: s; None for the median distance of each pool.
        permutations: number of random subsets of the pool.
        seed: seed of the subsets, and of the choice of rows (at most 1,000) for the median distance.

    Raises:
        ConfigError: for an invalid option.
        InputError: for a reference that is not finite numbers of shape ``(N, d)``.

    Example:
        >>> import numpy as np
        >>> from pushforward.detection import MMDTest
        >>> rng = np.random.default_rng(0)
        >>> test = MMDTest(rng.normal(size=(200, 3)))
        >>> test.p_value(rng.normal(size=(30, 3))) > 0.05, test.p_value(rng.normal(size=(30, 3)) + 1) > 0.05
        (True, False)
    """

    def __init__(
        self, reference: Any, *, bandwidth: float | None = None, permutations: int = 199, seed: int = 0
    ) -> None:
        super().__init__(reference, permutations=permutations, seed=seed)
        check_positive("bandwidth", bandwidth, optional=True)
        self.bandwidth = bandwidth
        self._sums: Array | None = None

    def _statistics(self, pool: Array, subsets: NDArray[np.intp]) -> Array:
        size, n = len(pool), subsets.shape[1]
        pool = pool - pool.mean(0)  # avoids cancellation in squared distances
        # Use the median over the pool: a median over the reference alone would break exchangeability, and so would a choice of
        # rows by their place in the pool, where those of the batch come first.
        bandwidth = self.bandwidth or median_distance(pool[np.lexsort(pool.T)], seed=self.seed)
        sums, inside = np.zeros(size), np.ones(len(subsets))  # k(x, x) = 1 is the whole sum for n = 1
        member = np.zeros((size, len(subsets)) if n > 1 else (size, 0))
        if n > 1:
            np.put_along_axis(member, subsets.T, 1.0, axis=0)
            inside[:] = 0.0
        strip = max(1, _CHUNK // size)
        for start in range(0, size, strip):
            kernel = _kernel(pool[start : start + strip], pool, bandwidth)
            sums[start : start + strip] = kernel.sum(1)
            if n > 1:
                inside += np.einsum("ip,ip->p", member[start : start + strip], kernel @ member)
        rest = size - n
        across = sums[subsets].sum(1) - inside
        return inside / n**2 + (sums.sum() - 2 * across - inside) / rest**2 - 2 * across / (n * rest)

    def single_p_values(self, rows: Any) -> Array:
        """:meth:`p_value` of each row as a batch of one row, ``(n,)``: conformal p-values.

        A row with a smaller mean kernel to all other rows is more anomalous. With a given bandwidth the cost for each row is
        N kernel evaluations; otherwise it is N^2, because each pool has its own bandwidth.

        Raises:
            InputError: as :meth:`p_value`.
        """
        rows = rows_of(rows, "the rows", self.reference.shape[1])
        if self.bandwidth is None:
            return super().single_p_values(rows)
        strip = max(1, _CHUNK // len(self.reference))
        center = self.reference.mean(0)
        rows, reference = rows - center, self.reference - center
        if self._sums is None:
            parts = np.array_split(reference, -(-len(reference) // strip))
            self._sums = np.concatenate([_kernel(part, reference, self.bandwidth).sum(1) for part in parts])
        found = []
        for start in range(0, len(rows), strip):
            kernel = _kernel(rows[start : start + strip], reference, self.bandwidth)
            own, others = 1.0 + kernel.sum(1, keepdims=True), self._sums + kernel
            refuse_overflow(others)
            less = others <= own * (1 + 1e-10)
            found.append((1 + less.sum(1)) / (1 + len(reference)))
        return np.concatenate(found)


_EQUAL = 1e-12


def median_distance(rows: Array, most: int = 1000, seed: int = 0) -> float:
    """Median distance between pairs of rows, of at most ``most`` rows chosen at random.

    If most pairs are equal, as those of a column of many zeros, it is the median of the positive distances; 1 if there is none.

    Raises:
        InputError: for anything but finite numbers of shape ``(n, d)``.
        ConfigError: for ``most`` below 1.

    Example:
        >>> import numpy as np
        >>> from pushforward.detection.two_sample import median_distance
        >>> median_distance(np.array([[0.0], [1.0], [2.0]]))
        1.0
    """
    check_integer("most", most)
    if np.shape(rows)[:1] in ((0,), (1,)):
        return 1.0
    rows = rows_of(rows, "the rows")
    if len(rows) > most:
        rows = rows[np.random.default_rng(check_seed(seed)).choice(len(rows), most, replace=False)]
    rows = rows - rows.mean(0)  # avoids cancellation in squared distances
    squares = _squares(rows, rows)[np.triu_indices(len(rows), 1)]
    squares[squares < _EQUAL * (rows * rows).sum(1).max()] = 0.0  # rounding errors of equal rows
    if not np.median(squares):
        squares = squares[squares > 0]
    return float(np.sqrt(np.median(squares))) if squares.size else 1.0


def mmd_squared(x: Tensor, y: Tensor, bandwidth: float) -> Tensor:
    """MMD^2 of two samples under the Gaussian kernel, with gradients; a scalar >= 0 (Gretton et al. 2012, eq. 5).

    It is computed in float64, because squared distances of clusters that are far apart cancel, and returned in the type of the rows.

    Args:
        x: tensor of rows ``(n, d)``.
        y: tensor of rows ``(m, d)``.
        bandwidth: s of the kernel ``exp(-|x - y|^2 / (2 s^2))``, for example :func:`median_distance`.

    Raises:
        ConfigError: if the bandwidth is not a positive number.
        InputError: for anything but tensors of these shapes, or values that are not finite.

    Example:
        >>> import torch
        >>> from pushforward.detection.two_sample import mmd_squared
        >>> x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
        >>> bool(mmd_squared(x, x + 2, 1.0) > mmd_squared(x[:50], x[50:], 1.0))
        True
    """
    check_positive("bandwidth", bandwidth)
    for name, rows in (("x", x), ("y", y)):
        if not isinstance(rows, Tensor):
            raise InputError(
                f"{name} must be a tensor of rows; got {type(rows).__name__}: give torch.as_tensor({name})."
            )
        if not torch.isfinite(rows.detach()).all():
            raise InputError(f"{name} must be finite; it contains NaN or infinity.")
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise InputError(
            f"x and y must have the shapes (n, d) and (m, d), with at least one row; got {tuple(x.shape)} and {tuple(y.shape)}."
        )

    dtype = torch.promote_types(x.dtype, y.dtype)
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    x, y = x.double(), y.double()
    center = torch.cat((x, y)).detach().mean(0)  # avoids cancellation in squared distances
    x, y = x - center, y - center

    def mean(a: Tensor, b: Tensor) -> Tensor:
        squares = (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.mT).clamp(min=0)
        return torch.exp(-squares / (2 * bandwidth**2)).mean()

    return (mean(x, x) + mean(y, y) - 2 * mean(x, y)).clamp(min=0).to(dtype)


def _squares(a: Array, b: Array) -> Array:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.maximum(squares, 0.0)


def _kernel(a: Array, b: Array, bandwidth: float) -> Array:
    return np.exp(_squares(a, b) / (-2 * bandwidth**2))
