"""Draws have a positive density in every floating type, and constants keep their digits."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward import distributions, models, transforms


@pytest.mark.parametrize("df", [1e6, 1.001e6, 1e9, 1e12, 1e20, 1e300])
def test_a_t_with_many_degrees_of_freedom_is_nearly_normal(df: float) -> None:
    x = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    found = distributions.StudentT(1, df=df).double().log_prob(x)
    series = (x[:, 0] ** 4 - 2 * x[:, 0] ** 2 - 1) / (4 * df)  # of log p - log p of a normal, up to 1 / df^2
    torch.testing.assert_close(found, distributions.Normal(1).double().log_prob(x) + series, atol=1e-9, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [distributions.UniformSphere, distributions.VonMisesFisher])
def test_draws_in_16_bits_are_on_the_sphere(make, dtype: torch.dtype) -> None:
    sphere = make(3).to(dtype)
    drawn = sphere.sample(torch.Size([500]), generator=torch.Generator().manual_seed(0))
    assert drawn.dtype is dtype
    assert sphere.log_prob(drawn).isfinite().all()


def test_uniform_draws_are_between_the_ends() -> None:
    narrow = distributions.Uniform(1, 1000000.1, 1000000.7)
    drawn = narrow.sample(torch.Size([10_000]), generator=torch.Generator().manual_seed(0))
    assert narrow.log_prob(drawn).isfinite().all()


@pytest.mark.parametrize("make", [transforms.Tanh, transforms.SoftTail])
def test_infinite_coordinates_have_density_zero_on_both_sides(make) -> None:
    """A finite row is infinite after the scaling."""
    base = distributions.Uniform(1, -1.0, 1.0) if make is transforms.Tanh else distributions.Normal(1)
    model = models.Flow(transforms.Chain(transforms.Affine(1, scale=10.0), make(1)), base)
    assert model.log_prob(torch.tensor([[1e38], [-1e38]])).tolist() == [-math.inf, -math.inf]


@pytest.mark.parametrize("x", [-3.0, 0.0, 2.0])
def test_derivatives_of_minus_log_cosh(x: float) -> None:
    from pushforward.numerics import minus_log_cosh

    at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    value = minus_log_cosh(at)
    (slope,) = torch.autograd.grad(value, at, create_graph=True)
    (second,) = torch.autograd.grad(slope, at)
    assert value.item() == pytest.approx(-math.log(math.cosh(x)), abs=1e-15)
    assert slope.item() == pytest.approx(-math.tanh(x), abs=1e-15)
    assert second.item() == pytest.approx(-(1 - math.tanh(x) ** 2), abs=1e-15)


def test_gaps_in_float64_are_exact() -> None:
    gaps = transforms.Gaps(4)
    x = torch.tensor([[0.0, 20.5, 41.5, 66.25]], dtype=torch.float64)
    torch.testing.assert_close(gaps.decode(gaps.encode(x).z), x, atol=1e-13, rtol=0)
