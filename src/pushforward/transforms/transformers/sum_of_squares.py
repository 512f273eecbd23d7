"""The integral of a sum of squared polynomials as a law (SOS)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.numerics import constant, soft_clamp
from pushforward.registry import register
from pushforward.transforms.transformers.base import Transformer
from pushforward.transforms.transformers.linear_tails import extend, extend_inverse

__all__ = ["SumOfSquaresTransformer"]


@register("transformers")
@dataclass(frozen=True)
class SumOfSquaresTransformer(Transformer):
    """y = c + integral from 0 to x of sum_k p_k(t)^2 dt, p_k of degree r (SOS, Jaini et al. 2019, sec. 3).

    The integrand is e + (1 - e) sum_k p_k(t / bound)^2 on [-bound, bound], with e = ``min_slope`` (0 in the paper), and
    constant outside, so that the law is a line far away. Gauss's rule with r + 1 nodes integrates it exactly, as a sum
    of positive terms. The inverse is a bracketed root, found to rounding.

    Raw parameters: K (r + 1) coefficients, the constant ones counted from fixed numbers whose squares add up to 1, and c.
    At 0 it is the identity.

    Args:
        polynomials: K; two are enough for any positive polynomial.
        degree: r.
        bound: data should mostly lie within [-bound, bound].
        max_coefficient: smooth bound on each raw coefficient.
        min_slope: e.

    Raises:
        ConfigError: for no polynomials, a degree not in 1, ..., 32, or bounds out of range.

    Example:
        >>> import torch
        >>> law = SumOfSquaresTransformer(polynomials=2, degree=3)
        >>> x, raw = torch.tensor([-50.0, 0.5, 2.0]), torch.linspace(-1, 1, law.parameters)[:, None].expand(-1, 3)
        >>> torch.allclose(law.inverse(law.forward(x, raw)[0], raw)[0], x, atol=1e-5)
        True
    """

    polynomials: int = 3
    degree: int = 4
    bound: float = 4.0
    max_coefficient: float = 5.0
    min_slope: float = 1e-2
    _rule: tuple[tuple[float, ...], tuple[float, ...]] = field(init=False, repr=False, compare=False)
    start = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.polynomials, int) or isinstance(self.polynomials, bool) or self.polynomials < 1:
            raise ConfigError(f"polynomials must be an integer of at least 1; got {self.polynomials!r}.")
        if not isinstance(self.degree, int) or isinstance(self.degree, bool) or not 1 <= self.degree <= 32:
            raise ConfigError(f"degree must be an integer in 1, ..., 32; got {self.degree!r}.")
        if not 0 < self.bound < math.inf or not 0 < self.max_coefficient <= 100:
            raise ConfigError(
                "bound must be positive and finite, and max_coefficient in (0, 100]; "
                f"got {self.bound} and {self.max_coefficient}."
            )
        if not 0 < self.min_slope < 1:
            raise ConfigError(f"min_slope must lie in (0, 1); got {self.min_slope}.")
        nodes, weights = np.polynomial.legendre.leggauss(self.degree + 1)
        object.__setattr__(self, "_rule", (tuple((0.5 + 0.5 * nodes).tolist()), tuple((0.5 * weights).tolist())))

    @property
    def parameters(self) -> int:
        """K (r + 1) + 1."""
        return self.polynomials * (self.degree + 1) + 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """c + the integral, and the logarithm of the integrand."""
        coefficients = self._coefficients(raw)
        y, log_slope = extend(lambda x: self._integral(x, coefficients), x, self.bound)
        return y + raw[-1], log_slope

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The root in x, and the logarithm of the integrand there."""
        coefficients = self._coefficients(raw)
        return extend_inverse(lambda x: self._integral(x, coefficients), y - raw[-1], self.bound)

    def _coefficients(self, raw: Tensor) -> Tensor:
        """``(r + 1, K, *x.shape)``, the constant ones first."""
        free = soft_clamp(raw[:-1], self.max_coefficient).unflatten(0, (self.degree + 1, self.polynomials))
        # Unequal constants: equal polynomials with equal gradients would stay equal.
        squares = torch.arange(1, self.polynomials + 1, dtype=raw.dtype, device=raw.device)
        constants = (squares / squares.sum()).sqrt().reshape(-1, *(1,) * (raw.dim() - 1))
        return torch.cat(((free[0] + constants).unsqueeze(0), free[1:]))

    def _integrand(self, t: Tensor, coefficients: Tensor) -> Tensor:
        """At t of shape ``(N, *x.shape)``."""
        u = t / self.bound
        value = coefficients[-1].unsqueeze(1)
        for k in range(self.degree - 1, -1, -1):
            value = value * u + coefficients[k].unsqueeze(1)
        return self.min_slope + (1 - self.min_slope) * value.square().sum(0)

    def _integral(self, x: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """The integral from 0 to x, and the logarithm of the integrand at x."""
        nodes, weights = constant(self._rule, x.dtype, x.device)
        shape = (-1, *(1,) * x.dim())
        mean = (weights.reshape(shape) * self._integrand(nodes.reshape(shape) * x, coefficients)).sum(0)
        return x * mean, self._integrand(x.unsqueeze(0), coefficients)[0].log()
