"""A warning before a density is trained on columns of which one follows from others."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import warn_caller
from pushforward.likelihood import Kind
from pushforward.models.base import Model
from pushforward.transforms import Jitter

__all__ = ["dependent_columns", "warn_of_dependent_columns"]

_COLUMNS = 256
"""Wider rows are not examined."""
_FEW = 10
"""Fewer rows say nothing on how columns depend on each other."""
_ROUNDINGS = 4.0
"""How many roundings of the model's type a column may be away from a function of others, as standard deviations of columns."""
_CLOSE = 1e-4
"""The most that counts as rounding, whatever the offset of the columns."""
_NAMED = 6
"""Columns that the warning names."""


def dependent_columns(model: Model, x: Tensor) -> tuple[list[int], str] | None:
    """Columns of which one is a linear function of the others, up to the rounding of the model's type: rows fill no volume there.

    Like :func:`~pushforward.training.lattice_warning.lattice_columns` it finds nothing where the model has no density of the
    columns or jitter bounds it. Images and other arrays are not examined.

    Args:
        model: any model.
        x: training rows ``(n, *shape)``, or a sample of them.

    Returns:
        The columns, two if possible, and what they do, such as "are equal"; None if there are none.
    """
    fitted = model.kind in (Kind.EXACT, Kind.UNBIASED) and model.measure.name == "Lebesgue"
    if not fitted or len(model.shape) != 1 or any(isinstance(part, Jitter) for part in model.chain):
        return None
    if x.dim() != 2 or not 2 <= x.shape[1] <= _COLUMNS or len(x) < _FEW:
        return None
    rows = x.detach().cpu().to(model.dtype).double()
    mean, spread = rows.mean(0), rows.std(0, correction=0)
    varying = (spread > 0) & torch.isfinite(spread) & torch.isfinite(mean)
    index = varying.nonzero()[:, 0]
    if len(index) < 2:
        return None
    columns = (rows[:, index] - mean[index]) / spread[index]
    rounding = torch.finfo(model.dtype).eps * (1 + mean[index].abs() / spread[index])
    correlation = columns.T @ columns / len(rows)
    pair = _pair(columns, rounding, correlation)
    if pair is not None:
        first, second = (int(index[k]) for k in pair)
        equal = torch.equal(rows[:, first], rows[:, second])
        return [first, second], "are equal" if equal else "are linear functions of each other"
    if len(rows) < 2 * len(index) + _FEW:  # fewer rows than columns always lie in a plane
        return None
    variances, directions = torch.linalg.eigh(correlation)
    least, direction = float(variances[0]), directions[:, 0]
    noise = float((direction * rounding).norm())
    if least > min(_ROUNDINGS * noise, _CLOSE) ** 2 + 1e-14 * len(index):
        return None
    involved = direction.abs() > 1e-4 * direction.abs().max()
    return index[involved].tolist(), "are linearly dependent: one is a sum of multiples of the others"


def _pair(columns: Tensor, rounding: Tensor, correlation: Tensor) -> tuple[int, int] | None:
    """The first two standardized columns that are equal up to a sign and to rounding."""
    for i, j in (correlation.abs().triu(1) > 1 - _CLOSE**2).nonzero().tolist():
        apart = float((columns[:, i] - correlation[i, j].sign() * columns[:, j]).square().mean().sqrt())
        if apart <= min(_ROUNDINGS * float(rounding[i] + rounding[j]), _CLOSE):
            return i, j
    return None


def warn_of_dependent_columns(model: Model, x: Tensor) -> None:
    """Warn of the :func:`dependent_columns` of training rows, or of a sample of them."""
    found = dependent_columns(model, x)
    if found is None:
        return
    columns, what = found
    named, more = [str(column) for column in columns[:_NAMED]], len(columns) - _NAMED
    if more > 0:
        named.append(f"{more} other{'s' if more > 1 else ''}")
    warn_caller(
        f"columns {', '.join(named[:-1])} and {named[-1]} {what} in all of {len(x)} rows, and a density is a spike there, whose "
        "height means nothing and grows as training goes on: leave one of these columns out, or add transforms.Jitter to bound "
        "the density."
    )
