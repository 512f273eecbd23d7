"""Radial flow: its constraint and its closed-form inverse."""

from __future__ import annotations

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.transforms import Inverse, Radial


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_contract(width, seed, check):
    transform = check.perturb(Radial(width, seed=seed), seed=seed, size=2.0).double()
    for spread in (1.0, 5.0, 1e3):
        check.round_trip(transform, check.normal(50, width, spread=spread), 1e-10)
        check.round_trip(transform.float(), check.normal(50, width, spread=spread).float(), 1e-3)
        transform.double()
    check.contribution(transform, check.normal(5, width))
    check.contribution(Inverse(transform), check.normal(5, width))
    check.decode_gradients(transform, check.normal(3, width))
    check.extremes(transform)
    check.shapes(transform.float())


def test_compiles(check):
    check.compiles(Radial(3), check.normal(4, 3, dtype=torch.float32))


@pytest.mark.parametrize("raw_slope", [-20.0, -1.0, 0.0, 5.0, 50.0])
@pytest.mark.parametrize("raw_alpha", [-20.0, 0.0, 20.0])
def test_constraint_and_closed_form_over_the_parameters(raw_alpha, raw_slope, check):
    transform = Radial(3).double()
    with torch.no_grad():
        transform.raw_alpha.fill_(raw_alpha)
        transform.raw_slope.fill_(raw_slope)
    alpha, slope = transform._constrained()
    beta = alpha * (slope - 1)
    assert alpha > 0
    assert beta > -alpha
    x = transform.center + check.normal(20, 3) * torch.logspace(-6, 6, 20, dtype=torch.float64).reshape(-1, 1)
    r = (x - transform.center).norm(dim=-1, keepdim=True)
    torch.testing.assert_close(
        transform.encode(x).z, x + beta / (alpha + r) * (x - transform.center), rtol=1e-10, atol=1e-10
    )
    check.round_trip(transform, x, 1e-9)


def test_at_its_center():
    transform = Radial(3, seed=4).double()
    x = transform.center.detach().clone().reshape(1, 3).requires_grad_()
    step = transform.encode(x)
    torch.testing.assert_close(step.z, x)
    torch.testing.assert_close(step.contribution, 3 * transform._constrained()[1].log().reshape(1))
    torch.testing.assert_close(transform.decode(step.z), x)
    leaves = [x, *transform.parameters()]
    for value in (step.contribution.sum() + step.z.sum(), transform.decode(x).sum()):
        gradients = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
        assert all(gradient is None or torch.isfinite(gradient).all() for gradient in gradients)


def test_start_is_near_but_not_at_the_identity(check):
    x = check.normal(200, 4, dtype=torch.float32)
    change = (Radial(4).encode(x).z - x).abs()
    assert 1e-3 < change.max() < 1.5
    with pytest.raises(ConfigError, match="vectors"):
        Radial((2, 2))
