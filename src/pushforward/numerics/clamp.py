"""Smooth and hard bounds on the inputs and outputs of networks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["bound_input", "bound_square", "cast_finite", "soft_clamp", "softsign_clamp", "split_infinite"]


def soft_clamp(x: Tensor, bound: float) -> Tensor:
    """Smooth clamp to (-bound, bound) with slope 1 at 0: ``bound * tanh(x / bound)``.

    Example:
        >>> import torch
        >>> from pushforward.numerics import soft_clamp
        >>> soft_clamp(torch.tensor([0.0, 0.1, 100.0]), 3.0)
        tensor([0.0000, 0.1000, 3.0000])
    """
    return bound * torch.tanh(x / bound)


def softsign_clamp(x: Tensor, bound: float) -> Tensor:
    """Smooth clamp to (-bound, bound) with slope 1 at 0 that saturates slowly: ``x / (1 + |x| / bound)``.

    Its slope falls as 1/x^2 and not exponentially, so a scale near its bound still gets a gradient.

    Example:
        >>> import torch
        >>> from pushforward.numerics import softsign_clamp
        >>> softsign_clamp(torch.tensor([0.0, 3.0, 300.0]), 3.0)
        tensor([0.0000, 1.5000, 2.9703])
    """
    return x / torch.rsub(x.abs(), 1, alpha=-1 / bound)  # 1 + |x| / bound in one operation


def bound_input(x: Tensor, bound: float) -> Tensor:
    """Clamp the input of a conditioner to [-bound, bound].

    The network then returns bounded shifts and scales, so far from the data a flow is close to a fixed affine transform:
    nothing overflows, and the log-density falls as that of the base distribution.

    Example:
        >>> import torch
        >>> from pushforward.numerics import bound_input
        >>> bound_input(torch.tensor([-1e20, 0.5, 1e20]), 10.0)
        tensor([-10.0000,   0.5000,  10.0000])
    """
    return F.hardtanh(x, -bound, bound)  # the same as clamp, whose gradient takes five operations


def bound_square(x: Tensor, terms: int) -> Tensor:
    """Clamp x so that the sum of ``terms`` squares is finite; for one term, at about 1e19 in float32.

    Mixtures need it: if every component is -inf, the gradient of their log-sum-exp is NaN.

    Example:
        >>> import torch
        >>> from pushforward.numerics import bound_square
        >>> bound_square(torch.tensor([2.0, 1e30]), 1).square().isfinite()
        tensor([True, True])
    """
    limit = 0.5 * math.sqrt(torch.finfo(x.dtype).max / terms)
    return x.clamp(-limit, limit)


def cast_finite(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in a floating type, where finite numbers that the type does not hold become large numbers of their sign, not infinite ones.

    Example:
        >>> import torch
        >>> from pushforward.numerics import cast_finite
        >>> cast_finite(torch.tensor([1.0, -1e300, torch.inf], dtype=torch.float64), torch.float32).isinf()
        tensor([False, False,  True])
    """
    cast = x.to(dtype)
    if cast is x or not x.is_floating_point():
        return cast
    most = torch.finfo(dtype).max ** 0.9  # so that a few sums stay finite
    # Comparisons, since ONNX has neither copysign nor, for float64, isinf and isfinite.
    large = torch.full_like(cast, most)
    large = torch.where(cast < 0, -large, large)
    return torch.where((cast.abs() == math.inf) & (x.abs() < math.inf), large, cast)


def split_infinite(x: Tensor, dims: int) -> tuple[Tensor, Tensor]:
    """x with its infinite entries set to 0, and the term to add to each row's log-density: 0, or -inf if an entry was infinite.

    Example:
        >>> import torch
        >>> from pushforward.numerics import split_infinite
        >>> split_infinite(torch.tensor([[1.0, 2.0], [torch.inf, 2.0]]), 1)
        (tensor([[1., 2.],
                [0., 2.]]), tensor([0., -inf]))
    """
    infinite = torch.isinf(x)
    rows = infinite.flatten(x.dim() - dims).any(-1) if dims else infinite
    return torch.where(infinite, 0.0, x), torch.where(rows, -math.inf, 0.0).to(x.dtype)
