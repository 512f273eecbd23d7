"""Add normal rows to a fitted pool: they become neighbors, and rows with which reasons compare."""

from __future__ import annotations

from typing import Any

import numpy as np

from pushforward.detection.table.conditional import calibrate, residuals
from pushforward.detection.table.families import FAMILIES
from pushforward.detection.table.neighbors import Neighbors
from pushforward.detection.table.pool import Pool
from pushforward.detection.table.reasons import Reasons, rows_to_store

__all__ = ["with_rows"]


def with_rows(pool: Pool, matrix: np.ndarray, known: int, most: int, seed: int = 0) -> Pool:
    """A pool that also measures distances to new rows, and whose reasons speak of old and new rows.

    Spaces, weights and tail scales stay those of the first rows, so the score must be calibrated again. Where there are more
    than ``most`` rows, a random part of the old and of the new rows stays, in proportion to how many rows there have been; so it is
    with the rows of the reasons.

    Args:
        pool: fitted with neighbors.
        matrix: new rows of the feature matrix, ``(m, w)``, finite.
        known: number of training rows so far.
        most: largest number of rows to store, unless the pool stores more.
        seed: of the choice.
    """
    generator = np.random.default_rng(seed)
    old, new = len(pool), len(matrix)
    capacity = max(old, most)
    if old + new <= capacity:
        kept, added = np.arange(old), np.arange(new)
    else:
        count = min(new, max(capacity - old, round(capacity * new / (known + new))))
        kept = np.sort(generator.permutation(old)[: capacity - count])
        added = np.sort(generator.permutation(new)[:count])
    coordinates = pool.coordinates(np.ascontiguousarray(matrix[added]))
    parts: dict[str, Any] = dict(pool.parts)
    for family, part in pool.parts.items():
        if isinstance(part, Neighbors):
            space = FAMILIES[family].space
            placed = coordinates if space is None else pool.spaces(space, coordinates)
            lof = any(f == family and name == "lof" for f, name in pool.scales)
            parts[family] = Neighbors.fit(np.concatenate((part.reference[kept], placed)), lof=lof)
    reasons = _reasons(pool, matrix, known, generator) if new else pool.reasons
    ends = pool.ends.reaching(pool.coordinates(matrix)) if pool.ends is not None and new else pool.ends
    return Pool(pool.coordinates, pool.spaces, parts, pool.scales, pool.weights, reasons, pool.report, ends)


def _reasons(pool: Pool, matrix: np.ndarray, known: int, generator: np.random.Generator) -> Reasons:
    """Reasons from a part of their rows and of the new ones, in proportion to how many rows there have been."""
    reasons, column = pool.reasons, pool.coordinates.column
    old, new = len(reasons.rows), len(matrix)
    size = max(old, rows_to_store(matrix.shape[1]))
    count = min(new, max(size - old, round(size * new / (known + new)))) if known + new > size else new
    kept = np.sort(generator.permutation(old)[: size - count])
    added = matrix[np.sort(generator.permutation(new)[:count])]
    placed = pool.spaces("soft", pool.coordinates(np.ascontiguousarray(added)))
    errors = residuals(pool.parts["linear"], placed, reasons.apart(column, pool.coordinates.on_circle))
    reasons = reasons.replace(
        rows=np.concatenate((reasons.rows[kept], added)), residual=np.concatenate((reasons.residual[kept], errors))
    )
    return calibrate(reasons, pool.spaces("soft", pool.coordinates(reasons.rows)), reasons.groups[column])
