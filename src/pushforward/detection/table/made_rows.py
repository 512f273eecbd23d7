"""Rows drawn from a Gaussian mixture, for reasons of a guard that stores no training rows."""

from __future__ import annotations

import numpy as np

from pushforward.detection.table.coordinates import Coordinates
from pushforward.detection.table.mixture import Mixture
from pushforward.detection.table.spaces import Spaces
from pushforward.detection.table_features import TableFeatures

__all__ = ["draw_rows"]


def draw_rows(
    features: TableFeatures, coordinates: Coordinates, spaces: Spaces, rows: np.ndarray, count: int, seed: int
) -> np.ndarray:
    """Draw rows of the feature matrix, ``(count, w)``: categories, flags, indicators and integers are rounded to what exists.

    The coordinates of a categorical column have a variance of 1 in all for this mixture. In those of a column that counts
    little for distances, the least variance of the mixture would blur which categories are frequent.

    Args:
        features: of the table.
        coordinates: fitted.
        spaces: fitted.
        rows: training rows in the soft space, to which the mixture is fitted, ``(n, d)``.
        count: number of rows.
        seed: of the draws.
    """
    total = np.bincount(coordinates.column, rows.var(0))[coordinates.column]
    scale = np.where(coordinates.free | (total == 0), 1.0, np.sqrt(total))
    mixture = Mixture.fit(rows / scale)
    drawn = spaces.from_soft(mixture.sample(count, np.random.default_rng(seed)) * scale)
    matrix = np.empty((count, len(coordinates.kind)))
    for j in range(matrix.shape[1]):
        own = drawn[:, coordinates.column == j]
        if coordinates.is_categorical(j):
            matrix[:, j] = (own / coordinates.sizes_of(j)).argmax(1)
        else:
            matrix[:, j] = own[:, 0]
    for j, origin, step in features.lattices:
        if not coordinates.is_categorical(j):
            matrix[:, j] = origin + step * np.rint((matrix[:, j] - origin) / step)
    flags = [k for k, i in enumerate(features.kept) if features.schema.columns[i].kind == "boolean"]
    flags += [len(features.kept) + k for k in range(len(features.indicators))]
    matrix[:, flags] = np.clip(matrix[:, flags], 0.0, 1.0)
    return matrix
