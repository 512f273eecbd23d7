"""Jacobians of a batch of rows, by forward-mode differentiation."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp, vmap

from pushforward.numerics.tracing import is_compiling, is_transformed

__all__ = ["batch_jacobian", "log_abs_det", "push_forward"]

_DIRECTIONS = 64
"""Most directions of one pass: it keeps so many copies of the activations."""


def log_abs_det(matrix: Tensor) -> Tensor:
    """log abs det of square matrices ``(*batch, d, d)``, with shape ``batch``; right under ``torch.func`` too.

    PyTorch's ``slogdet`` gives wrong derivatives under ``vmap(jacfwd(...))`` and nested ``jacfwd`` (seen in 2.13), where this one takes the
    LU factors.

    Example:
        >>> import torch
        >>> from pushforward.numerics import log_abs_det
        >>> log_abs_det(2 * torch.eye(2, dtype=torch.float64))
        tensor(1.3863, dtype=torch.float64)
    """
    if is_transformed():
        return torch.linalg.lu_factor_ex(matrix).LU.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
    return torch.linalg.slogdet(matrix).logabsdet


def push_forward(function: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """f(x), and df/dx v, by forward mode.

    Example:
        >>> import torch
        >>> from pushforward.numerics import push_forward
        >>> push_forward(lambda x: x**2, torch.tensor([3.0]), torch.tensor([1.0]))  # x^2, and 2 x
        (tensor([9.]), tensor([6.]))
    """
    if not is_compiling():
        _load_forward_mode()
    value, slope = jvp(function, (x.contiguous(),), (v,))[:2]  # dual numbers need memory of their own
    return value, slope


def batch_jacobian(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """f(z), and J = df/dz of each row, by d forward-mode products of the whole batch.

    Args:
        function: ``(*batch, d)`` to ``(*batch, *shape)``; a row of the result must depend on the same row of z alone.
        z: ``(*batch, d)``.

    Returns:
        ``(*batch, *shape)`` and ``(*batch, D, d)``, with D the size of ``shape``; both have gradients.

    >>> batch_jacobian(lambda z: z**2, torch.tensor([[1.0, 3.0]]))[1]
    tensor([[[2., 0.],
             [0., 6.]]])
    """
    directions = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)

    def push(direction: Tensor) -> tuple[Tensor, Tensor]:
        return push_forward(function, z, direction.expand_as(z))

    # Every direction gives the same value; out_dims of None would refuse it under another vmap, where it is batched too.
    push_all = vmap(push, out_dims=(0, -1))
    parts = [push_all(some) for some in directions.split(_DIRECTIONS)]
    value, columns = parts[0][0][0], torch.cat([part[1] for part in parts], -1)
    return value, columns.flatten(z.dim() - 1, -2)


@functools.cache
def _load_forward_mode() -> None:
    """Use forward mode once without torch's own deprecation warning, which it gives at the first use."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*torch.jit.*deprecated"
        )  # of two categories, by the version of torch
        jvp(torch.neg, (torch.zeros(()),), (torch.zeros(()),))
