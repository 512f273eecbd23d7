"""Warnings before a density is trained on data that lie on a lattice, or repeat a value."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pushforward.data.lattice import detect_lattice
from pushforward.errors import warn_caller
from pushforward.likelihood import Kind
from pushforward.models.base import Model
from pushforward.transforms import Jitter

__all__ = ["lattice_columns", "repeated_value", "warn_of_lattice"]

_SHARE, _FEW = 0.05, 10
"""Part and number of the rows that have the most frequent value of a column, which those of a continuous column do not."""

_COLUMNS = 64
"""Columns that are examined, spread over all."""


def lattice_columns(model: Model, x: Tensor) -> dict[int, float]:
    """The columns that lie on a lattice where the model has a density, with the steps; the density can grow without bound.

    A chain with dequantization gives a probability or a bound, noise of training (jitter) bounds the density, and an autoencoder
    or a VAE with a fixed variance fits no spike: these do not warn. Which columns lie on a lattice is decided by :func:`~pushforward.data.lattice.detect_lattice`.

    Args:
        model: any model.
        x: training rows ``(n, *shape)``, or a sample of them.
    """
    found = {k: detect_lattice(column) for k, column in _columns(model, x).items()}
    return {k: lattice[1] for k, lattice in found.items() if lattice is not None}


def warn_of_lattice(model: Model, x: Tensor) -> None:
    """Warn of the :func:`lattice_columns` of training rows, or of a sample of them, and of columns that repeat one value."""
    found = lattice_columns(model, x)
    if not found:
        _warn_of_one_value(model, x)
        return
    first = next(iter(found))
    distinct = len(x.reshape(len(x), -1)[:, first].unique())
    more = len(found) - 1
    others = f" (and {more} other column{'s' if more > 1 else ''})" if more else ""
    warn_caller(
        f"column {first} lies on a lattice with steps of {found[first]:.6g} ({distinct} distinct values in {len(x)} "
        f"rows){others}, and a density on a lattice is a spike at each value, whose height means nothing: put "
        "transforms.LatticeDequantize (or UniformDequantize) first in the chain for probabilities of these values, add "
        "transforms.Jitter to bound the density, or use pf.Guard(density=True), which treats such columns as discrete."
    )


def _columns(model: Model, x: Tensor) -> dict[int, np.ndarray]:
    """The examined columns, by index; none for a model that does not fit a density on them."""
    fitted = model.kind in (Kind.EXACT, Kind.UNBIASED) and model.measure.name == "Lebesgue"
    if not fitted or any(isinstance(part, Jitter) for part in model.chain):
        return {}
    columns = x.reshape(len(x), -1)
    width = columns.shape[1]
    return {k: columns[:, k].cpu().double().numpy() for k in range(0, width, -(-width // _COLUMNS))}


def repeated_value(model: Model, x: Tensor) -> tuple[int, float, int, bool] | None:
    """The first column that is constant, or has one value in many rows, as columns with many zeros have.

    Args:
        model: any model.
        x: training rows ``(n, *shape)``, or a sample of them.

    Returns:
        Its index, the value, the number of rows that have it, and whether all have it; None if there is no such column, or the model
        fits no density there.
    """
    for k, column in _columns(model, x).items():
        values, counts = np.unique(column, return_counts=True)
        most = int(counts.max(initial=0))
        if most >= max(_FEW, _SHARE * len(column)):
            return k, float(values[counts.argmax()]), most, len(values) == 1
    return None


def _warn_of_one_value(model: Model, x: Tensor) -> None:
    found = repeated_value(model, x)
    if found is None:
        return
    k, value, most, constant = found
    what = "leave it out" if constant else "model the rows with and without this value separately"
    warn_caller(
        f"column {k} is {value:.6g} in {most} of {len(x)} rows, and a density is a spike there, whose height means "
        f"nothing and grows as training goes on: {what}, add transforms.Jitter to bound the density, or use pf.Guard(density=True)."
    )
