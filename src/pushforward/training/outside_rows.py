"""Which rows of a batch lie where a model has no mass, in words, for an error."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.distributions.spherical import TOLERANCE
from pushforward.likelihood import REAL, SPHERE, Support
from pushforward.models.base import Model

__all__ = ["rows_outside"]


def rows_outside(model: Model, x: Tensor) -> str:
    """A sentence on the rows of a batch outside the model's domain; empty if the domain is not known or holds all rows.

    Args:
        model: any model.
        x: rows ``(n, *shape)``.
    """
    if model.measure.manifold == SPHERE:
        length = torch.linalg.vector_norm(x.detach().double(), dim=-1)
        outside = (length - 1).abs() > TOLERANCE
        found = f"the first has the length {length[outside][0]:.6g}" if outside.any() else ""
        domain, remedy = "the sphere of radius 1, the domain", "divide each row by its length"
    else:
        support = model.base.support if model.chain.domain is None else model.chain.domain
        if support == REAL:
            return ""
        wrong = ~support.contains(x.detach())
        if model.measure.name == "Counting" and not wrong.any():
            return _fractions(model, x, str(support))
        outside = wrong.reshape(len(x), -1).any(1)
        found = f"one coordinate is {x[wrong][0].item():.6g}" if outside.any() else ""
        if support.ends and found:
            column = int(wrong.nonzero()[0, -1])
            support, found = Support(*support.ends[column]), f"column {column} is {x[wrong][0].item():.6g}"
        angles = support.low == -math.pi and support.high == math.pi
        domain = f"{'[-pi, pi]' if angles else support}, the domain"
        remedy = "remove or rescale such rows"
        if angles:
            remedy = "angles are in radians, and torch.remainder(x + pi, 2 * pi) - pi maps any angle to its equal there"
    if not found:
        return ""
    count = int(outside.sum())
    rows = f"{count} of {len(x)} rows lie" if count > 1 else f"1 of {len(x)} rows lies"
    return f"{rows} outside {domain} of {type(model).__name__} ({found}): {remedy}"


def _fractions(model: Model, x: Tensor, support: str) -> str:
    """The same for a model of integers and rows inside its range."""
    wrong = x.detach() != x.detach().round()
    if not wrong.any():
        return ""
    count = int(wrong.reshape(len(x), -1).any(1).sum())
    rows = f"{count} of {len(x)} rows have" if count > 1 else f"1 of {len(x)} rows has"
    return (
        f"{type(model).__name__} is a model of the integers of {support}, and {rows} fractions (the first is {x[wrong][0].item():.6g}): "
        f"give the raw pixels, or torch.round({support[1:-1].split(', ')[1]} * x) if they were divided"
    )
