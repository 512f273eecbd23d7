"""A warning before a density is trained on rows that lie on the border of its domain."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.errors import warn_caller
from pushforward.likelihood import REAL, Kind
from pushforward.models.base import Model
from pushforward.transforms import Bounds

__all__ = ["warn_of_border"]


def warn_of_border(model: Model, x: Tensor) -> None:
    """Warn if the chain starts with a map of bounded data to the reals, and rows lie on the bounds.

    Such a map takes a bound to infinity, or to the largest number that it allows. A standardization after it then has the scale
    of these rows, and the density has no limit there.

    Args:
        model: any model.
        x: training rows ``(n, *shape)``, or a sample of them.
    """
    first = model.chain[0]
    domain = first.domain
    if model.kind is not Kind.EXACT or model.measure.name != "Lebesgue" or domain in (None, REAL):
        return
    if first.codomain != REAL:
        return
    ends = domain.low, domain.high
    if isinstance(first, Bounds):
        ends = ([-math.inf if a is None else a for a in first.low], [math.inf if b is None else b for b in first.high])
    low, high = (torch.tensor(end, dtype=model.dtype) for end in ends)
    rows = x.detach().cpu().to(model.dtype)  # where a number next to a bound may become the bound
    on = ((rows == low) | (rows == high)) & torch.isfinite(rows)
    if not on.any():
        return
    row, *index = on.nonzero()[0].tolist()
    count = int(on.reshape(len(rows), -1).any(1).sum())
    where = f"column {index[0]}" if len(index) == 1 else f"index {tuple(index)}"
    warn_caller(
        f"{count} of {len(rows)} rows {'has' if count == 1 else 'have'} a value on an end of the domain of "
        f"{type(first).__name__} (the first is {rows[(row, *index)].item():g} in {where}): the density has no limit there, and such "
        "rows spoil the fit to all others; give slightly wider bounds, or leave such rows out."
    )
