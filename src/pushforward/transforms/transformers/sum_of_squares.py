"""The integral of a sum of squared polynomials as a transformer (SOS)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pushforward.numerics import constant, soft_clamp
from pushforward.numerics.checks import check_integer, check_number
from pushforward.registry import register
from pushforward.transforms.transformers.linear_tails import Interior, LinearTailTransformer

__all__ = ["SumOfSquaresTransformer"]


@register("transformers")
@dataclass(frozen=True)
class SumOfSquaresTransformer(LinearTailTransformer):
    """y = c + integral from 0 to x of sum_k p_k(t)^2 dt, p_k of degree r (SOS, Jaini et al. 2019, sec. 3).

    The integrand is e + (1 - e) sum_k p_k(t / bound)^2 on [-bound, bound], with e = ``min_slope`` (0 in the paper), and
    constant outside, so that y is a straight line there. Gauss's rule with r + 1 nodes integrates it exactly, as a sum
    of positive terms. The inverse is a bracketed root, found to rounding.

    Raw parameters: K (r + 1) coefficients, then c. Fixed numbers whose squares add up to 1 are added to the constant
    coefficients, so that it is the identity at 0.

    Args:
        polynomials: number of polynomials K; two are enough for any positive polynomial.
        degree: degree r of each polynomial.
        bound: data should mostly lie within [-bound, bound].
        max_coefficient: smooth bound on each raw coefficient.
        min_slope: smallest slope e.

    Raises:
        ConfigError: for no polynomials, a degree not in 1, ..., 32, or bounds out of range.

    Example:
        >>> import torch
        >>> transformer = SumOfSquaresTransformer(polynomials=2, degree=3)
        >>> x = torch.tensor([-50.0, 0.5, 2.0])
        >>> raw = torch.linspace(-1, 1, transformer.parameters)[:, None].expand(-1, 3)
        >>> torch.allclose(transformer.inverse(transformer.forward(x, raw)[0], raw)[0], x, atol=1e-5)
        True
    """

    polynomials: int = 3
    degree: int = 4
    bound: float = 4.0
    max_coefficient: float = 5.0
    min_slope: float = 1e-2
    _rule: tuple[tuple[float, ...], tuple[float, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_integer("polynomials", self.polynomials)
        check_integer("degree", self.degree, most=32)
        super().__post_init__()
        check_number("max_coefficient", self.max_coefficient, 0, 100, closed="right")
        check_number("min_slope", self.min_slope, 0, 1)
        nodes, weights = np.polynomial.legendre.leggauss(self.degree + 1)
        object.__setattr__(self, "_rule", (tuple((0.5 + 0.5 * nodes).tolist()), tuple((0.5 * weights).tolist())))

    @property
    def parameters(self) -> int:
        """K (r + 1) + 1."""
        return self.polynomials * (self.degree + 1) + 1

    def interior(self, raw: Tensor) -> Interior:
        """The integral from 0 to x, and the logarithm of the integrand at x."""
        coefficients = self._coefficients(raw)

        def integral(x: Tensor) -> tuple[Tensor, Tensor]:
            nodes, weights = constant(self._rule, x.dtype, x.device)
            shape = (-1, *(1,) * x.dim())
            mean = (weights.reshape(shape) * self._integrand(nodes.reshape(shape) * x, coefficients)).sum(0)
            return x * mean, self._integrand(x.unsqueeze(0), coefficients)[0].log()

        return integral

    def _coefficients(self, raw: Tensor) -> Tensor:
        """``(r + 1, K, *x.shape)``, the constant coefficients first."""
        free = soft_clamp(raw[:-1], self.max_coefficient).unflatten(0, (self.degree + 1, self.polynomials))
        # Unequal constants: equal polynomials with equal gradients would stay equal.
        squares = torch.arange(1, self.polynomials + 1, dtype=raw.dtype, device=raw.device)
        constants = (squares / squares.sum()).sqrt().reshape(-1, *(1,) * (raw.dim() - 1))
        return torch.cat(((free[0] + constants).unsqueeze(0), free[1:]))

    def _integrand(self, t: Tensor, coefficients: Tensor) -> Tensor:
        """The integrand at t of shape ``(N, *x.shape)``."""
        u = t / self.bound
        value = coefficients[-1].unsqueeze(1)
        for k in range(self.degree - 1, -1, -1):
            value = value * u + coefficients[k].unsqueeze(1)
        return self.min_slope + (1 - self.min_slope) * value.square().sum(0)
