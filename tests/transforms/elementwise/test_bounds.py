"""`Bounds` with normal quantiles: values against scipy, both ends, far points, and agreement with `Probit`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from pushforward.errors import ConfigError
from pushforward.transforms import Bounds, Probit

LOW, HIGH = (-3.0, 0.5, None, None), (5.0, None, 4.0, None)


def test_values_and_slopes_of_each_kind_of_column():
    transform = Bounds(4, LOW, HIGH, link="probit").double()
    x = torch.rand(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x * torch.tensor([8.0, 3.0, -3.0, 2.0]) + torch.tensor([-3.0, 0.6, 3.9, -1.0])
    z = transform.encode(x).z
    np.testing.assert_allclose(z[:, 0], scipy.special.ndtri((x[:, 0].numpy() + 3) / 8), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(z[:, 1:], Bounds(4, LOW, HIGH).double().encode(x).z[:, 1:])
    slopes = transform.encode_terms(x)[1]
    np.testing.assert_allclose(slopes[:, 0], -scipy.stats.norm.logpdf(z[:, 0]) - math.log(8), rtol=1e-10)
    back, decode_slopes = transform.inverse_function(z)
    torch.testing.assert_close(back, x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(decode_slopes, slopes, rtol=1e-8, atol=1e-8)


def test_it_is_probit_between_0_and_1():
    x = torch.rand(100, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step, expected = Bounds(2, (0.0,) * 2, (1.0,) * 2, link="probit").encode(x), Probit(2).encode(x)
    torch.testing.assert_close(step.z, expected.z, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(step.contribution, expected.contribution, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("link", ["logit", "probit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_points_stay_inside_and_have_gradients(link, dtype):
    transform = Bounds(4, LOW, HIGH, link=link)
    z = torch.tensor([-1e30, -1e6, -50.0, -5.0, 0.0, 5.0, 50.0, 1e6, 1e30], dtype=dtype)[:, None].repeat(1, 4)
    z.requires_grad_()
    x, contribution = transform.decode_with_contribution(z)
    assert (x[:, 0] > -3).all()
    assert (x[:, 0] < 5).all()
    assert (x[:, 1] > 0.5).all()
    assert (x[:, 2] < 4).all()
    assert torch.isfinite(contribution[1:-1]).all()
    (gradient,) = torch.autograd.grad(x[:, 0].sum() + contribution[1:-1].sum(), z)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 13.0), (torch.float64, 38.0)])
def test_rows_on_a_bound_are_finite_and_outside_have_no_density(dtype, most):
    transform = Bounds(1, (-3.0,), (5.0,), link="probit")
    x = torch.tensor([[-3.0], [5.0]], dtype=dtype, requires_grad=True)
    step = transform.encode(x)
    assert torch.equal(step.z[0], -step.z[1])
    assert 12.0 < step.z.abs().max() < most
    (gradient,) = torch.autograd.grad(step.contribution.sum(), x)
    assert torch.isfinite(gradient).all()
    outside = transform.encode(torch.tensor([[-3.1], [5.1]], dtype=dtype)).contribution
    assert torch.equal(outside, torch.full_like(outside, -math.inf))


@pytest.mark.parametrize("link", ["logit", "probit"])
@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        (torch.float32, 1e8, 1e8 + 16),  # between which float32 has one number
        (torch.float32, 1e8, 1e8 + 40),
        (torch.float32, -1e8 - 16, -1e8),
        (torch.float32, 1 - 2**-22, 1.0),
        (torch.float32, 0.0, 1e-34),
        (torch.float64, 1e8, 1e8 + 4),
        (torch.float64, 1.0, 1 + 2**-51),
    ],
)
def test_close_bounds_are_kept(dtype, low, high, link):
    transform = Bounds(2, (low, None), (high, None), link=link)
    z = torch.linspace(-30, 30, 41, dtype=dtype)[:, None].repeat(1, 2)
    x = transform.decode(z)[:, 0].double()
    assert (x > low).all()
    assert (x < high).all()
    assert torch.isfinite(transform.encode(x[:, None].repeat(1, 2).to(dtype)).contribution).all()


@pytest.mark.parametrize(
    ("low", "high"), [(1e8, 1e8 + 4), (-1e8 - 4, -1e8), (1.0, 1 + 1e-9), (0.0, 1e-40), (1e39, None), (None, -1e39)]
)
def test_bounds_without_a_number_between_them_are_refused(low, high):
    transform = Bounds(2, (None, low), (None, high))
    for call in (transform.decode, transform.encode):
        with pytest.raises(ConfigError, match=r"no number of torch.float32 lies between the bounds of column 1, "):
            call(torch.zeros(3, 2))
    x = transform.decode(torch.linspace(-5, 5, 11, dtype=torch.float64)[:, None].repeat(1, 2))[:, 1]
    assert (x >= -math.inf if low is None else x > low).all()
    assert (x <= math.inf if high is None else x < high).all()


def test_another_link_is_refused():
    with pytest.raises(ConfigError, match="link must be"):
        Bounds(1, (0.0,), (1.0,), link="cloglog")


def test_bounds_may_be_numbers_of_numpy():
    bounds = Bounds(2, (np.float32(-0.5), np.int64(0)), (None, np.float64(1.0)))
    assert (bounds.low, bounds.high) == ((-0.5, 0.0), (None, 1.0))
    with pytest.raises(ConfigError, match="finite numbers or None"):
        Bounds(1, (np.float32(np.nan),), (None,))
