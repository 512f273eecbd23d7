"""Increasing polynomials in the Bernstein basis as a law."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.numerics import constant, soft_clamp
from pushforward.registry import register
from pushforward.transforms.transformers.base import Transformer
from pushforward.transforms.transformers.linear_tails import extend, extend_inverse

__all__ = ["BernsteinTransformer"]


@register("transformers")
@dataclass(frozen=True)
class BernsteinTransformer(Transformer):
    """y = sum_j a_j B_{j,M}(u) with a_0 < ... < a_M, B_{j,M} = C(M, j) u^j (1 - u)^(M - j) and u = (x + bound) / (2 bound),
    and straight lines outside [-bound, bound] (Ramasinghe et al. 2021, arXiv 2102.03509, sec. 3).

    The slope is sum_j s_j B_{j,M-1}(u) with s_j = M (a_{j+1} - a_j) / (2 bound), a mean of the s_j: it lies between their
    least and greatest. The inverse is a bracketed root, found to rounding.

    Raw parameters: the M logarithms of s_j, and a shift. At 0 it is the identity, as increasing coefficients with equal
    steps give a line.

    Args:
        degree: M.
        bound: data should mostly lie within [-bound, bound].
        max_log_slope: smooth bound on abs(log s_j).

    Raises:
        ConfigError: for a degree not in 1, ..., 60, or bounds out of range.

    Example:
        >>> import torch
        >>> law = BernsteinTransformer(degree=5)
        >>> x, raw = torch.tensor([-50.0, 0.5, 2.0]), torch.linspace(-1, 1, law.parameters)[:, None].expand(-1, 3)
        >>> torch.allclose(law.inverse(law.forward(x, raw)[0], raw)[0], x, atol=1e-5)
        True
    """

    degree: int = 16
    bound: float = 4.0
    max_log_slope: float = 5.0
    start = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.degree, int) or isinstance(self.degree, bool) or not 1 <= self.degree <= 60:
            raise ConfigError(f"degree must be an integer in 1, ..., 60; got {self.degree!r}.")
        if not 0 < self.bound < math.inf:
            raise ConfigError(f"bound must be positive and finite; got {self.bound}.")
        if not 0 < self.max_log_slope <= 10:
            raise ConfigError(f"max_log_slope must lie in (0, 10]; got {self.max_log_slope}.")

    @property
    def parameters(self) -> int:
        """M + 1."""
        return self.degree + 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The polynomial, or the line that goes on from it."""
        slopes, coefficients = self._coefficients(raw)
        y, log_slope = extend(lambda x: self._polynomial(x, slopes, coefficients), x, self.bound)
        return y + raw[-1], log_slope

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The root in x."""
        slopes, coefficients = self._coefficients(raw)
        return extend_inverse(lambda x: self._polynomial(x, slopes, coefficients), y - raw[-1], self.bound)

    def _coefficients(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """s ``(M, *x.shape)`` and a ``(M + 1, *x.shape)``, the ends of a at equal distances from 0."""
        slopes = soft_clamp(raw[:-1], self.max_log_slope).exp()
        rise = torch.cumsum(slopes, 0) * (2 * self.bound / self.degree)
        half = 0.5 * rise[-1:]
        return slopes, torch.cat((-half, rise - half))

    def _polynomial(self, x: Tensor, slopes: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Value and log-slope inside."""
        u = ((x + self.bound) / (2 * self.bound)).clamp(0, 1)
        value = (coefficients * _basis(u, self.degree)).sum(0)
        return value, (slopes * _basis(u, self.degree - 1)).sum(0).log()


def _basis(u: Tensor, degree: int) -> Tensor:
    """B_{j,degree}(u), ``(degree + 1, *u.shape)``, for u in [0, 1]."""
    shape = (-1, *(1,) * u.dim())
    power = torch.arange(degree + 1, dtype=u.dtype, device=u.device).reshape(shape)
    counts = constant(tuple(math.comb(degree, j) for j in range(degree + 1)), u.dtype, u.device)
    return counts.reshape(shape) * u**power * (1 - u) ** (degree - power)
