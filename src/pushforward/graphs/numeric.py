"""Tensor operations that torch.export and ONNX both have: search in sorted values, quadratic forms, sums of exponentials."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

__all__ = ["Part", "count_below", "exact", "infinite", "log_sum_exp", "quadratic_form", "tolerance"]


class Part(nn.Module):
    """A part of a graph, whose constants are buffers."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def count_below(values: Tensor, x: Tensor, *, right: bool = False) -> Tensor:
    """Number of sorted values below x, as ``torch.searchsorted``; in two steps of comparisons, since ONNX has no search.

    The values are divided into about sqrt(m) runs. The first step counts the runs that lie below x, the second one counts
    within the next run.

    Args:
        values: ascending, ``(m,)``, or ``(b, m)`` for a batch of searches.
        x: any shape, or ``(b, n)``; not +inf with ``right``.
        right: count values equal to x too.

    Returns:
        int64, shaped as x.
    """
    count = values.shape[-1]
    width = max(1, math.isqrt(count))
    runs = -(-count // width)
    padded = torch.nn.functional.pad(values, (0, runs * width - count), value=torch.inf)
    table = padded.reshape(*values.shape[:-1], runs, width)
    last = table[..., -1].unsqueeze(-2) if values.dim() == 2 else table[..., -1]
    point = x.unsqueeze(-1)
    before = ((last <= point) if right else (last < point)).to(torch.int64).sum(-1)
    run = before.clamp(max=runs - 1)
    if values.dim() == 2:
        offset = torch.arange(len(values), device=values.device).unsqueeze(1) * runs
        own = table.flatten(0, 1)[run + offset]
    else:
        own = table[run]
    inside = ((own <= point) if right else (own < point)).to(torch.int64).sum(-1)
    return run * width + inside


def exact(value: float) -> Tensor:
    """A constant of float64: the translation to ONNX rounds Python's numbers to float32."""
    return torch.tensor(value, dtype=torch.float64)


def infinite(x: Tensor) -> Tensor:
    """Where x is infinite: the translation of ``torch.isinf`` to ONNX reads float32, in which 1e300 is infinite too."""
    return x.abs() == torch.inf


def tolerance(x: Tensor, relative: float) -> Tensor:
    """How much smaller than x a value must be to count as smaller: runtimes round the last digits differently."""
    return relative * (1.0 + x.abs())


def quadratic_form(matrix: Tensor, vector: Tensor, *, portable: bool) -> tuple[Tensor, Tensor]:
    """v^T A^-1 v and log det A of positive definite matrices.

    Args:
        matrix: A, ``(n, s, s)``.
        vector: v, ``(n, s)``.
        portable: use one operation that :mod:`pushforward.graphs.operators` translates, since ONNX has no Cholesky factor.

    Returns:
        Two tensors ``(n,)``.
    """
    if portable:
        form, log_det = _eliminate(matrix, vector).unbind(1)
        return form, log_det
    factor = torch.linalg.cholesky_ex(matrix)[0]
    z = torch.linalg.solve_triangular(factor, vector.unsqueeze(-1), upper=False)
    return z.square().sum((-2, -1)), 2.0 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


@torch.library.custom_op("pushforward::quadratic_form", mutates_args=())
def _eliminate(matrix: Tensor, vector: Tensor) -> Tensor:
    """:func:`quadratic_form`, ``(n, 2)``, by Gaussian elimination of [[A, v], [v^T, 0]]: its last entry becomes -v^T A^-1 v."""
    side = vector.unsqueeze(-1)
    corner = torch.zeros_like(vector[:, :1]).unsqueeze(-1)
    rest = torch.cat((torch.cat((matrix, side), 2), torch.cat((side.transpose(1, 2), corner), 2)), 1)
    log_det = torch.zeros_like(vector[:, 0])
    for _ in range(matrix.shape[-1]):
        pivot = rest[:, :1, :1]
        log_det = log_det + pivot[:, 0, 0].log()
        rest = rest[:, 1:, 1:] - rest[:, 1:, :1] * (rest[:, :1, 1:] / pivot)
    return torch.stack((-rest[:, 0, 0], log_det), 1)


@_eliminate.register_fake
def _(matrix: Tensor, vector: Tensor) -> Tensor:
    return vector.new_empty(vector.shape[0], 2)


def log_sum_exp(x: Tensor) -> Tensor:
    """log sum exp over the last dimension, of numbers that are not +inf; -inf where all are below -1e38."""
    largest = x.amax(-1, keepdim=True).clamp(min=-1e38)
    return (x - largest).exp().sum(-1).log() + largest.squeeze(-1)
