"""`Probit`: values against scipy, both tails, borders, and its place in a flow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from pushforward.distributions import Normal
from pushforward.likelihood import REAL, UNIT, Kind
from pushforward.models import Flow
from pushforward.transforms import Chain, Inverse, Probit, SoftTail


def test_values_slopes_shapes_and_compilation(check):
    transform = Probit(2).double()
    x = torch.rand(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = transform.encode(x)
    np.testing.assert_allclose(step.z.numpy(), scipy.special.ndtri(x.numpy()), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(step.contribution, -scipy.stats.norm.logpdf(step.z.numpy()).sum(1), rtol=1e-12)
    check.round_trip(transform, x, 1e-13)
    check.contribution(transform, x[:8])
    check.decode_contribution(transform, step.z, 1e-8)
    check.contribution(Inverse(transform), step.z[:8], 1e-7)
    check.shapes(Probit(2))
    check.shapes(Inverse(Probit(2)))
    check.compiles(Probit(2), x.float())


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_both_tails_keep_their_digits(dtype, rtol):
    """Near 0 relative to x, and near 1 up to the spacing of the numbers there."""
    small = 10.0 ** -torch.arange(1.0, 35.0, dtype=dtype)[:, None]
    z = Probit(1).encode(small).z
    np.testing.assert_allclose(z.double().numpy(), scipy.special.ndtri(small.double().numpy()), rtol=1e-5)
    torch.testing.assert_close(Probit(1).decode(z), small, rtol=rtol, atol=0)
    near_one = 1 - torch.finfo(dtype).eps * 2.0 ** torch.arange(20, dtype=dtype)[:, None]
    torch.testing.assert_close(
        Probit(1).decode(Probit(1).encode(near_one).z), near_one, rtol=0, atol=torch.finfo(dtype).eps
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_borders_and_far_points_are_finite(dtype):
    x = torch.tensor([[0.0], [1.0], [0.5]], dtype=dtype, requires_grad=True)
    step = Probit(1).encode(x)
    assert bool(torch.isfinite(step.z).all())
    assert bool(torch.isfinite(step.contribution).all())
    (gradient,) = torch.autograd.grad(step.z.sum() + step.contribution.sum(), x)
    assert bool(torch.isfinite(gradient).all())
    z = torch.tensor([[-1e30], [-40.0], [0.0], [40.0], [1e30]], dtype=dtype, requires_grad=True)
    back, contribution = Probit(1).decode_with_contribution(z)
    assert bool(((back > 0) & (back < 1)).all())
    assert bool(torch.isfinite(contribution).all())
    assert contribution[3].item() == pytest.approx(800 + 0.5 * math.log(2 * math.pi), rel=1e-6)
    (gradient,) = torch.autograd.grad(back.sum() + contribution.sum(), z)
    assert bool(torch.isfinite(gradient).all())


def test_outside_the_unit_interval_there_is_no_density():
    step = Probit(2).encode(torch.tensor([[0.5, 0.5], [0.5, 1.1], [-0.1, 0.5]]))
    assert step.contribution[1] == step.contribution[2] == -math.inf
    assert bool(torch.isfinite(step.contribution[0]))


def test_with_a_normal_base_it_is_uniform_up_to_the_border():
    x = torch.tensor([0.0, 1e-30, 1e-8, 0.3, 1 - 1e-6, 1.0])[:, None]
    flow = Flow(Probit(1), Normal(1))
    assert flow.kind is Kind.EXACT
    torch.testing.assert_close(flow.log_prob(x), torch.zeros(6), atol=1e-5, rtol=0)
    draws = flow.sample(20_000, seed=0)[:, 0]
    assert scipy.stats.kstest(draws.numpy(), "uniform").pvalue > 1e-3


def test_its_domain_and_codomain():
    assert Probit(1).domain == UNIT
    assert Probit(1).codomain == REAL
    assert Chain(Probit(1), SoftTail(1)).kind is Kind.EXACT
