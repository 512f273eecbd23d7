"""What a column usually is given the other columns: linear prediction, corrected by the errors of similar rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pushforward.detection.table.linear import Linear
from pushforward.detection.table.reasons import Reasons
from pushforward.detection.table.similar import Similar, similar

__all__ = ["NEAR", "Conditional", "calibrate", "conditional", "residuals"]

NEAR = 30
"""Similar training rows that are looked for."""

_MEAN = 10  # of them correct the prediction


@dataclass(frozen=True)
class Conditional:
    """Each coordinate of one row given those of the other columns, in the soft space, ``(d,)``.

    Attributes:
        middle: prediction.
        spread: standard deviation of its error.
        size: size of the standardized error of the row.
    """

    middle: np.ndarray
    spread: np.ndarray
    size: np.ndarray


def conditional(
    row: np.ndarray, residual: np.ndarray, reasons: Reasons, near: Similar, group: np.ndarray
) -> Conditional:
    """Predict each coordinate of one row from those of the other columns.

    The prediction is that of a Gaussian, plus a multiple of the mean of its errors on the ten training rows that are nearest
    in the other columns. The multiple is the coefficient of the regression of errors on such means, from 0 where nearness
    says nothing to 1. The variance of the error is the mean of that of the 30 nearest rows and of that of all rows.

    Args:
        row: in the soft space, ``(d,)``.
        residual: of the Gaussian's prediction for this row, ``(d,)``.
        reasons: fitted.
        near: rows near this one.
        group: column of each coordinate, ``(d,)``.
    """
    errors = np.take_along_axis(reasons.residual, near.others[:NEAR, group], axis=0)
    middle = row - residual + reasons.gain * errors[:_MEAN].mean(0)
    spread = np.sqrt(0.5 * errors.var(0) + 0.5 * reasons.spread**2)
    return Conditional(middle, spread, np.abs(row - middle) / spread)


def residuals(linear: Linear, rows: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Error of the Gaussian's prediction of each coordinate from those of other groups, ``(n, d)``.

    With the precision P and the coordinates G of a group the errors are P_GG^-1 (P (x - m))_G. The other coordinates of a group do not
    count: the place of an instant on the circle of the day would tell the time of day that is to be predicted.

    Args:
        linear: the Gaussian of the soft space.
        rows: in this space, ``(n, d)``.
        group: of each coordinate, see :meth:`Reasons.apart`, ``(d,)``.
    """
    found = linear.conditional(rows) / np.sqrt(np.diag(linear.precision))
    groups, counts = np.unique(group, return_counts=True)
    for each in groups[counts > 1]:
        mine = np.flatnonzero(group == each)
        block = linear.precision[np.ix_(mine, mine)]
        found[:, mine] = np.linalg.solve(block, (found[:, mine] * np.diag(block)).T).T
    return found


def calibrate(reasons: Reasons, placed: np.ndarray, group: np.ndarray) -> Reasons:
    """Find the sizes of errors on the training rows, each of which is left out of the rows that are similar to it.

    Args:
        reasons: with rows and residuals.
        placed: the rows in the soft space, ``(m, d)``.
        group: column of each coordinate, ``(d,)``.
    """
    near = [similar(row, placed, group, reasons.count, NEAR) for row in placed]
    pairs = list(zip(placed, reasons.residual, near, strict=True))
    means = np.array([row - own - conditional(row, own, reasons, each, group).middle for row, own, each in pairs])
    power = (means**2).sum(0)
    gain = np.clip(-(means * reasons.residual).sum(0) / np.where(power > 0, power, 1.0), 0.0, 1.0)
    spread = np.maximum((reasons.residual + gain * means).std(0), 1e-9)
    reasons = reasons.replace(gain=gain, spread=spread)
    sizes = np.array([conditional(row, own, reasons, each, group).size for row, own, each in pairs])
    return reasons.with_errors(sizes)
