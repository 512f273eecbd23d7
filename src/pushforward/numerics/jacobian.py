"""The Jacobian of each row of a batch."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pushforward.numerics.tracing import is_eager

__all__ = ["batch_jacobian"]


def batch_jacobian(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """f(z), ``(*batch, *shape)``, and df/dz, ``(*batch, D, d)``, by d forward-mode products of the whole batch.

    Args:
        function: ``(*batch, d)`` to ``(*batch, *shape)``; the rows must not see each other.
        z: ``(*batch, d)``.
    """
    if is_eager():
        _load_forward_mode()
    directions = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    products: Any = torch.func.vmap(
        lambda v: torch.func.jvp(function, (z,), (v.expand_as(z),)),
        out_dims=(None, 0),  # pyright: ignore[reportArgumentType]
    )
    value, columns = products(directions)
    return value, columns.flatten(z.dim()).movedim(0, -1)


@functools.cache
def _load_forward_mode() -> None:
    """Torch warns of its own deprecated parts when forward mode is first used: not the caller's concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward_ad._maybe_load_decompositions()  # pyright: ignore[reportAttributeAccessIssue]
