"""Sums of squared polynomials against their integral in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.polynomial import Polynomial

from pushforward.errors import ConfigError
from pushforward.transforms import SumOfSquaresTransformer


def integrand_by_hand(transformer, raw: list[float]) -> Polynomial:
    """e + (1 - e) sum_k p_k^2 as a polynomial in t / bound."""
    count = transformer.polynomials
    free = np.array([transformer.max_coefficient * math.tanh(v / transformer.max_coefficient) for v in raw[:-1]])
    total = Polynomial([transformer.min_slope])
    for k in range(count):
        coefficients = free.reshape(transformer.degree + 1, count)[:, k].copy()
        coefficients[0] += math.sqrt((k + 1) / (count * (count + 1) / 2))
        total = total + (1 - transformer.min_slope) * Polynomial(coefficients) ** 2
    return total


def raw_of(transformer, scale: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(transformer.parameters, 1, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("polynomials", "degree"), [(1, 1), (2, 3), (3, 8), (1, 32)])
def test_values_are_those_of_the_integrated_polynomial(polynomials, degree, seed):
    transformer = SumOfSquaresTransformer(polynomials, degree, bound=2.0)
    raw = raw_of(transformer, 1.0, seed)
    integrand = integrand_by_hand(transformer, raw[:, 0].tolist())
    integral = integrand.integ()
    x = torch.tensor([-7.0, -2.0, -1.3, 0.0, 1e-3, 0.8, 2.0, 50.0], dtype=torch.float64)
    y, log_slope = transformer.forward(x, raw.expand(-1, len(x)))
    u = x.clamp(-2, 2).numpy() / 2
    edge = x.numpy() - 2 * u
    expected = 2 * integral(u) + edge * integrand(u) + raw[-1].item()
    torch.testing.assert_close(y, torch.from_numpy(expected), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(log_slope, torch.from_numpy(np.log(integrand(u))), rtol=0, atol=1e-9)


def test_slopes_have_a_lower_bound_where_the_polynomials_vanish():
    """p = 1 - t / bound has a root at the border, where only e is left."""
    transformer = SumOfSquaresTransformer(1, 1, bound=2.0, min_slope=1e-3)
    raw = torch.tensor([0.0, -5 * math.atanh(1 / 5), 0.0], dtype=torch.float64)[:, None].expand(-1, 3)
    x = torch.tensor([2.0, 1e3, 0.0], dtype=torch.float64)
    y, log_slope = transformer.forward(x, raw)
    expected = torch.tensor([1e-3, 1e-3, 1.0], dtype=torch.float64).log()
    torch.testing.assert_close(log_slope, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(transformer.inverse(y, raw)[0], x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"polynomials": 0},
        {"polynomials": 1.5},
        {"degree": 0},
        {"degree": 33},
        {"bound": math.inf},
        {"max_coefficient": 0.0},
        {"min_slope": 0.0},
    ],
)
def test_impossible_arguments(options):
    with pytest.raises(ConfigError):
        SumOfSquaresTransformer(**options)
