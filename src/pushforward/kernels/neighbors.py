"""Nearest rows of a table, and the Gaussian of a row's nearest rows: plain and native.

The plain versions are the reference. The native ones differ from them by rounding. They compute each row for itself, so the
result for a row does not depend on the rows beside it.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np
import torch

from pushforward.kernels import tuning
from pushforward.kernels.native import library
from pushforward.kernels.structs import LocalGaussians, NearestRows

__all__ = ["References", "local_gaussian", "nearest"]

_INDEX = np.int64((1 << 24) - 1)  # bits for the index of a reference row
_EQUAL = 1e-12  # relative; squared distances below this are rounding errors of equal rows
_BLOCK = 32  # reference rows that the native version compares at a time, or a multiple of it
_PART = 1 << 21  # numbers of neighbors in memory at a time


class References:
    """Rows among which neighbors are searched, with what every search needs of them.

    Args:
        rows: ``(m, d)``, m < 2^24.
    """

    def __init__(self, rows: np.ndarray) -> None:
        m, d = rows.shape
        size = -(-m // _BLOCK) * _BLOCK
        self.rows = np.ascontiguousarray(rows, dtype=np.float64)
        self.squares = np.full(size, np.inf)
        self.squares[:m] = (self.rows * self.rows).sum(1)
        self.transposed = np.zeros((d, size))
        self.transposed[:, :m] = -2.0 * self.rows.T

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)


def nearest(
    rows: np.ndarray, references: References, k: int, drop: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distances of the k nearest reference rows, ascending, and their indices, each ``(n, k)``.

    Of rows at the same distance, to eight digits, the one with the lowest index is nearer.

    Args:
        rows: ``(n, d)``.
        references: at least k that are not dropped.
        k: number of neighbors.
        drop: indices of reference rows that are no neighbors of each row, ``(n, j)``.
    """
    rows = np.ascontiguousarray(rows, dtype=np.float64)
    functions = library("neighbors", torch.float64)
    # Positive floats have the order of their bits. The index in place of the lowest bits breaks ties in the same way
    # however the products were rounded, and distances keep eight digits.
    keys = _plain(rows, references, k, drop) if functions is None else _native(functions, rows, references, k, drop)
    index = keys & _INDEX
    squared = (keys & ~_INDEX).view(np.float64)
    least = _EQUAL * ((rows * rows).sum(1)[:, None] + references.squares[index])
    return np.sqrt(np.where(squared > least, squared, 0.0)), index


def _plain(rows: np.ndarray, references: References, k: int, drop: np.ndarray | None) -> np.ndarray:
    """The k smallest keys of each row, ascending."""
    m = len(references)
    squared = rows @ references.transposed[:, :m]
    squared += references.squares[:m]
    squared += (rows * rows).sum(1)[:, None]
    np.maximum(squared, 0.0, out=squared)
    if drop is not None:
        np.put_along_axis(squared, drop, np.inf, axis=1)
    keys = squared.view(np.int64)
    keys &= ~_INDEX
    keys |= np.arange(m)
    return np.sort(np.partition(keys, k - 1, axis=1)[:, :k] if k < m else keys, axis=1)


def _native(
    functions: SimpleNamespace, rows: np.ndarray, references: References, k: int, drop: np.ndarray | None
) -> np.ndarray:
    n, d = rows.shape
    keys = np.empty((n, k), dtype=np.int64)
    dropped = np.empty((n, 0), dtype=np.int64) if drop is None else np.ascontiguousarray(drop, dtype=np.int64)
    problem = NearestRows(
        n, len(references), len(references.squares), d, k, dropped.shape[1], _threads(n, n * len(references) * d),
        rows.ctypes.data, references.transposed.ctypes.data, references.squares.ctypes.data, dropped.ctypes.data,
        keys.ctypes.data,
    )  # fmt: skip
    if functions.nearest(ctypes.byref(problem)):
        raise MemoryError("there is not enough memory for the nearest rows.")
    return keys


def local_gaussian(
    rows: np.ndarray, reference: np.ndarray, index: np.ndarray, ridge: float, least: float = 1e-9
) -> tuple[np.ndarray, np.ndarray]:
    """(x - m)^T S^-1 (x - m) and log det S of each row x, with the mean m and the covariance C of its neighbors.

    S = C + (r tr C / d + l) I.

    Args:
        rows: x, ``(n, d)``.
        reference: ``(m, d)``.
        index: of the neighbors, ``(n, k)``.
        ridge: r.
        least: l.

    Returns:
        Squared distance and log determinant, each ``(n,)``.
    """
    (n, k), d = index.shape, rows.shape[1]
    square, log_det = np.empty(n), np.empty(n)
    functions = library("neighbors", torch.float64)
    if functions is not None:
        rows, reference = (np.ascontiguousarray(each, dtype=np.float64) for each in (rows, reference))
        index = np.ascontiguousarray(index, dtype=np.int64)
        problem = LocalGaussians(
            n, d, k, _threads(n, n * k * d * min(k, d)), rows.ctypes.data, reference.ctypes.data, index.ctypes.data,
            ridge, least, square.ctypes.data, log_det.ctypes.data,
        )  # fmt: skip
        if functions.local(ctypes.byref(problem)):
            raise MemoryError("there is not enough memory for the neighbors of a row.")
        return square, log_det
    size = max(1, _PART // (k * d))
    for a in range(0, n, size):
        part = slice(a, a + size)
        square[part], log_det[part] = _plain_gaussian(rows[part], reference[index[part]], ridge, least)
    return square, log_det


def _plain_gaussian(rows: np.ndarray, near: np.ndarray, ridge: float, least: float) -> tuple[np.ndarray, np.ndarray]:
    k, d = near.shape[1:]
    mean = near.mean(1)
    near, offset = near - mean[:, None], rows - mean
    scale = ridge * np.einsum("nkd,nkd->n", near, near) / (k * d) + least
    if d <= k:  # the covariance itself
        matrix = np.matmul(near.transpose(0, 2, 1), near) / k
        right = offset[:, :, None]
    else:  # Woodbury: the Gram matrix of the neighbors
        matrix = np.matmul(near, near.transpose(0, 2, 1)) / k
        right = np.matmul(near, offset[:, :, None])
    diagonal = np.arange(matrix.shape[1])
    matrix[:, diagonal, diagonal] += scale[:, None]
    factor = np.linalg.cholesky(matrix)
    z = np.linalg.solve(factor, right)[..., 0]
    square, log_det = (z * z).sum(1), 2 * np.log(factor[:, diagonal, diagonal]).sum(1)
    if d > k:
        square = ((offset * offset).sum(1) - square / k) / scale
        log_det = log_det + (d - k) * np.log(scale)
    return np.maximum(square, 0.0), log_det


def _threads(rows: int, work: int) -> int:
    return max(1, min(torch.get_num_threads(), rows, work // tuning.NEIGHBOR_WORK_PER_THREAD))
