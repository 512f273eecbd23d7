"""Increasing polynomials in the Bernstein basis as a transformer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.numerics import constant, soft_clamp
from pushforward.numerics.checks import check_integer, check_number
from pushforward.registry import register
from pushforward.transforms.transformers.linear_tails import Interior, LinearTailTransformer

__all__ = ["BernsteinTransformer"]


@register("transformers")
@dataclass(frozen=True)
class BernsteinTransformer(LinearTailTransformer):
    """y = sum_j a_j B_{j,M}(u) with a_0 < ... < a_M, B_{j,M} = C(M, j) u^j (1 - u)^(M - j) and u = (x + bound) / (2 bound),
    and straight lines outside [-bound, bound] (Ramasinghe et al. 2021, arXiv 2102.03509, sec. 3).

    The slope is sum_j s_j B_{j,M-1}(u) with s_j = M (a_{j+1} - a_j) / (2 bound): a weighted mean of the s_j, so it lies
    between the smallest and the largest of them. The inverse is a bracketed root, found to rounding.

    Raw parameters: the M logarithms of s_j, and a shift. At 0 it is the identity, because coefficients that increase in
    equal steps give a straight line.

    Args:
        degree: degree M of the polynomial.
        bound: data should mostly lie within [-bound, bound].
        max_log_slope: smooth bound on abs(log s_j).

    Raises:
        ConfigError: for a degree not in 1, ..., 60, or bounds out of range.

    Example:
        >>> import torch
        >>> transformer = BernsteinTransformer(degree=5)
        >>> x = torch.tensor([-50.0, 0.5, 2.0])
        >>> raw = torch.linspace(-1, 1, transformer.parameters)[:, None].expand(-1, 3)
        >>> torch.allclose(transformer.inverse(transformer.forward(x, raw)[0], raw)[0], x, atol=1e-5)
        True
    """

    degree: int = 16
    bound: float = 4.0
    max_log_slope: float = 5.0

    def __post_init__(self) -> None:
        check_integer("degree", self.degree, most=60)
        super().__post_init__()
        check_number("max_log_slope", self.max_log_slope, 0, 10, closed="right")

    @property
    def parameters(self) -> int:
        """M + 1."""
        return self.degree + 1

    def interior(self, raw: Tensor) -> Interior:
        """The polynomial and the logarithm of its slope; the values at the two ends are opposite numbers."""
        slopes = soft_clamp(raw[:-1], self.max_log_slope).exp()  # (M, *x.shape)
        rise = torch.cumsum(slopes, 0) * (2 * self.bound / self.degree)
        half = 0.5 * rise[-1:]
        coefficients = torch.cat((-half, rise - half))  # (M + 1, *x.shape)

        def polynomial(x: Tensor) -> tuple[Tensor, Tensor]:
            # Inside the interval by one rounding: at its ends the second derivatives of powers are 0 times infinity.
            rounding = torch.finfo(x.dtype).eps
            u = ((x + self.bound) / (2 * self.bound)).clamp(rounding, 1 - rounding)
            value = (coefficients * _basis(u, self.degree)).sum(0)
            return value, (slopes * _basis(u, self.degree - 1)).sum(0).log()

        return polynomial


def _basis(u: Tensor, degree: int) -> Tensor:
    """B_{j,degree}(u), ``(degree + 1, *u.shape)``, for u in [0, 1]."""
    shape = (-1, *(1,) * u.dim())
    power = torch.arange(degree + 1, dtype=u.dtype, device=u.device).reshape(shape)
    counts = constant(tuple(math.comb(degree, j) for j in range(degree + 1)), u.dtype, u.device)
    return counts.reshape(shape) * u**power * (1 - u) ** (degree - power)
