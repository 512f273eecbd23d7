"""Elementary functions without cancellation or overflow, and long sums."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "inverse_softplus",
    "log1mexp",
    "log1p_square",
    "log_sum",
    "logmeanexp",
    "minus_log_cosh",
    "softplus_positive",
    "sum_event",
    "unsoftplus",
]


def sum_event(x: Tensor, dims: int) -> Tensor:
    """Sum over the last ``dims`` dimensions, in the type of x; more than 1024 terms are added in float64.

    Example:
        >>> import torch
        >>> from pushforward.numerics import sum_event
        >>> sum_event(torch.ones(2, 3, 4), 2)
        tensor([12., 12.])
    """
    if dims == 0:
        return x
    if dims == 1 and x.shape[-1] <= 1024:
        return x.sum(-1)
    axes = tuple(range(-dims, 0))
    if math.prod(x.shape[-dims:]) > 1024 and x.dtype in (torch.float32, torch.bfloat16, torch.float16):
        return x.sum(axes, dtype=torch.float64).to(x.dtype)
    return x.sum(axes)


def log1p_square(x: Tensor) -> Tensor:
    """``log(1 + x^2)`` for any finite x: exact for small x, and ``2 log abs(x)`` where x^2 would overflow.

    Example:
        >>> import torch
        >>> from pushforward.numerics import log1p_square
        >>> log1p_square(torch.tensor([1e-10, 1.0, 1e30]))
        tensor([1.0000e-20, 6.9315e-01, 1.3816e+02])
    """
    far = x.abs() > 1
    near = torch.log1p(torch.where(far, 0.0, x) ** 2)
    outer = torch.where(far, x, 1.0).abs()
    return torch.where(far, 2 * torch.log(outer) + torch.log1p(outer.reciprocal() ** 2), near)


def log1mexp(x: Tensor) -> Tensor:
    """``log(1 - exp(-x))`` for x > 0 without cancellation.

    Example:
        >>> import torch
        >>> from pushforward.numerics import log1mexp
        >>> log1mexp(torch.tensor([1e-20, 1.0], dtype=torch.float64))
        tensor([-46.0517,  -0.4587], dtype=torch.float64)
    """
    near = x < math.log(2.0)
    small, large = torch.where(near, x, 1.0), torch.where(near, 1.0, x)
    return torch.where(near, torch.log(-torch.expm1(-small)), torch.log1p(-torch.exp(-large)))


def logmeanexp(x: Tensor, dim: int) -> Tensor:
    """``log mean exp`` along ``dim``; -inf if every term is -inf, with finite gradients for the others.

    Example:
        >>> import torch
        >>> from pushforward.numerics import logmeanexp
        >>> logmeanexp(torch.tensor([-1000.0, -1000.0]), 0)
        tensor(-1000.)
    """
    empty = torch.isneginf(x).all(dim, keepdim=True)
    mean = torch.logsumexp(torch.where(empty, 0.0, x), dim) - math.log(x.shape[dim])
    return torch.where(empty.squeeze(dim), -math.inf, mean)


def log_sum(a: Tensor, b: Tensor) -> Tensor:
    """log(exp(a) + exp(b)), elementwise. The second derivative of ``torch.logaddexp`` is NaN where a and b are far apart; here it is 0.

    Example:
        >>> import torch
        >>> from pushforward.numerics import log_sum
        >>> log_sum(torch.tensor([0.0, 0.0]), torch.tensor([0.0, -1000.0]))
        tensor([0.6931, 0.0000])
    """
    return torch.logsumexp(torch.stack(torch.broadcast_tensors(a, b)), 0)


def minus_log_cosh(x: Tensor) -> Tensor:
    """-log cosh(x), which is half of log d tanh(x) / dx; accurate for large x, and -inf for an infinite one.

    Example:
        >>> import torch
        >>> from pushforward.numerics import minus_log_cosh
        >>> minus_log_cosh(torch.tensor([0.0, -100.0]))
        tensor([  0.0000, -99.3069])
    """
    size = torch.where(x >= 0, x, -x)  # abs would have no second derivative at 0
    return math.log(2.0) - size + F.logsigmoid(2 * size)


def inverse_softplus(y: float) -> float:
    """The x with ``softplus(x) == y``, for a constant y > 0.

    Example:
        >>> from pushforward.numerics import inverse_softplus
        >>> round(inverse_softplus(1.0), 4)
        0.5413
    """
    return y + math.log(-math.expm1(-y))


def unsoftplus(y: Tensor) -> Tensor:
    """The x with ``softplus(x) == y``, elementwise; a y that is not positive counts as the smallest normal number.

    Example:
        >>> import torch
        >>> from pushforward.numerics import unsoftplus
        >>> torch.nn.functional.softplus(unsoftplus(torch.tensor([0.5, 40.0])))
        tensor([ 0.5000, 40.0000])
    """
    y = y.clamp(min=torch.finfo(y.dtype).tiny)
    return y + torch.log(-torch.expm1(-y))


def softplus_positive(raw: Tensor, minimum: float) -> Tensor:
    """A number above ``minimum``, increasing in ``raw``, that is 1 at raw = 0.

    Example:
        >>> import torch
        >>> from pushforward.numerics import softplus_positive
        >>> softplus_positive(torch.tensor([0.0, -100.0]), 0.01)
        tensor([1.0000, 0.0100])
    """
    return minimum + F.softplus(raw + inverse_softplus(1.0 - minimum))
