"""Conformal risk control: the expected loss of a new row is at most what was promised, for losses that a parameter lowers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from pushforward.detection.conformal.guarantees import rows_needed
from pushforward.detection.selective.inputs import loss_array
from pushforward.detection.validation import ROUNDING, plain_array, score_array
from pushforward.errors import CalibrationError, InputError
from pushforward.numerics.checks import check_number, check_positive

__all__ = ["conformal_risk_control", "undetected_error_threshold"]


def conformal_risk_control(losses: ArrayLike, alpha: float, *, bound: float = 1.0) -> int:
    """The first parameter of a grid at which the expected loss of a new row is at most ``alpha``.

    ``min {k: (sum_i L_i(k) + bound) / (n + 1) <= alpha}`` (Angelopoulos et al. 2022, "Conformal risk control", thm. 1). The
    promise is ``E[L_new(k)] <= alpha`` over the calibration rows and the new row, if they are exchangeable and the losses do
    not increase with k: the share of missed labels against the size of a set, for example. With the loss "label not in the
    set" this is the conformal prediction set.

    Args:
        losses: ``(n, K)``, loss of each calibration row at each of K parameters, from small to large; not increasing in a
            row, at most ``bound``, and at most ``alpha`` at the last parameter.
        alpha: largest expected loss.
        bound: largest loss that there can be.

    Raises:
        CalibrationError: if no parameter keeps the promise, since there are too few rows.
        InputError: for NaN, a loss that increases along a row or exceeds the bound, or is above alpha at the end.
        ConfigError: unless 0 < alpha < bound.

    Example:
        >>> import numpy as np
        >>> score, cut = np.arange(19) / 19, np.linspace(0, 1, 101)    # loss: the score is above the cut
        >>> cut[conformal_risk_control(score[:, None] > cut, alpha=0.1)]
        np.float64(0.9)
    """
    bound = check_positive("bound", bound)
    alpha = check_number("alpha", alpha, 0, bound)
    table = plain_array(losses, "losses")
    if table.ndim != 2 or 0 in table.shape or table.dtype.kind not in "bfiu":
        raise InputError(
            f"losses must be numbers of shape (rows, parameters); got {table.dtype} of shape {table.shape}."
        )
    table = table.astype(np.float64)
    if not (table <= bound).all():
        raise InputError(f"losses must be at most bound={bound:g}, and not NaN.")
    rising = (np.diff(table, axis=1) > 0).any(1)
    if rising.any():
        raise InputError(f"losses must not increase with the parameter, and those of row {int(rising.argmax())} do.")
    if (table[:, -1] > alpha).any():
        raise InputError(
            f"losses at the last parameter must be at most alpha={alpha:g}: let the grid end at a safe value."
        )
    controlled = np.flatnonzero(table.sum(0) + bound <= alpha * (len(table) + 1) * ROUNDING)
    if not controlled.size:
        raise CalibrationError(
            f"no parameter keeps an expected loss of {alpha:g} with {len(table)} calibration rows: use more rows "
            f"(at least {rows_needed(alpha / bound)}), a larger alpha, or a grid that ends at a loss of 0."
        )
    return int(controlled[0])


def undetected_error_threshold(scores: ArrayLike, losses: ArrayLike, alpha: float) -> float:
    """The largest threshold for which P(accepted and wrong) is at most ``alpha``: rows with a score below it are accepted.

    Conformal risk control of ``loss 1{score < t}``, the generalized risk of :func:`~pushforward.detection.selective.augrc`.
    The promise is marginal, ``E[loss 1{score < t}] <= alpha`` over calibration rows and new row if they are exchangeable;
    it needs no delta and wastes nothing, but it bounds undetected errors among all rows, not among the accepted ones as
    :func:`~pushforward.detection.selective.control_risk` does.

    Args:
        scores: of calibration rows, shape (n,); higher is rejected first.
        losses: of these rows: booleans ``prediction != label``, or numbers in [0, 1].
        alpha: largest rate of undetected errors.

    Raises:
        CalibrationError: if the rows are too few for alpha.
        InputError: for NaN, losses outside [0, 1], or a wrong shape or type.
        ConfigError: unless 0 < alpha < 1.

    Example:
        >>> undetected_error_threshold([1, 2, 3, 4, 5, 6, 7, 8, 9], [False, True] * 4 + [False], alpha=0.3)
        6.0
    """
    s = score_array(scores, "the scores")
    loss, _ = loss_array(losses, len(s))
    allowed = check_number("alpha", alpha, 0, 1) * (len(s) + 1) * ROUNDING - 1
    if allowed < 0:
        raise CalibrationError(
            f"alpha={alpha:g} needs at least {rows_needed(alpha)} calibration rows and there are {len(s)}."
        )
    order = np.argsort(s, kind="stable")
    above = np.flatnonzero(np.cumsum(loss[order]) > allowed)
    return float(s[order][above[0]]) if above.size else math.inf
