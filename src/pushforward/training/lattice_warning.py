"""A warning before a density is trained on data that lie on a lattice."""

from __future__ import annotations

from torch import Tensor

from pushforward.data.lattice import detect_lattice
from pushforward.errors import warn_caller
from pushforward.likelihood import Kind
from pushforward.models.base import Model
from pushforward.transforms import Jitter

__all__ = ["lattice_columns", "warn_of_lattice"]

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
    fitted = model.kind in (Kind.EXACT, Kind.UNBIASED) and model.measure.name == "Lebesgue"
    if not fitted or any(isinstance(part, Jitter) for part in model.chain):
        return {}
    columns = x.reshape(len(x), -1)
    width = columns.shape[1]
    chosen = range(0, width, -(-width // _COLUMNS))
    found = {k: detect_lattice(columns[:, k].cpu().double().numpy()) for k in chosen}
    return {k: lattice[1] for k, lattice in found.items() if lattice is not None}


def warn_of_lattice(model: Model, x: Tensor) -> None:
    """Warn of the :func:`lattice_columns` of training rows, or of a sample of them."""
    found = lattice_columns(model, x)
    if not found:
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
