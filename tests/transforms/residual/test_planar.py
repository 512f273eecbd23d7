"""Planar flow: the invertibility constraint with its squared norm, and exact decoding."""

from __future__ import annotations

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.transforms import Inverse, Planar


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_contract(width, seed, check):
    transform = check.perturb(Planar(width, seed=seed), seed=seed, size=2.0).double()
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
    check.compiles(Planar(3), check.normal(4, 3, dtype=torch.float32))


@pytest.mark.parametrize("norm", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("product", [-30.0, -3.0, 0.0, 3.0])
def test_constraint_divides_by_the_squared_norm(norm, product):
    # w.u' must be m(w.u) whatever the length of w; dividing by the norm alone breaks this for norm(w) = 3.
    transform = Planar(2).double()
    weight = norm * torch.tensor([0.6, 0.8], dtype=torch.float64)
    with torch.no_grad():
        transform.weight.copy_(weight)
        transform.direction.copy_(product * weight / norm**2 + torch.tensor([0.8, -0.6], dtype=torch.float64))
    push, slope = transform._constrained(transform.weight)
    along = (transform.weight * push).sum()
    assert along.item() == pytest.approx(slope.item() - 1, abs=1e-12)
    assert slope.item() >= 1e-3
    if product == 0:
        torch.testing.assert_close(push, transform.direction)
    # Across w nothing changes.
    across = torch.tensor([0.8, -0.6], dtype=torch.float64)
    assert (across * push).sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("product", [-1e3, -30.0, -5.0])
def test_stays_invertible_where_softplus_underflows(product, check):
    transform = Planar(2)
    with torch.no_grad():
        transform.weight.copy_(torch.tensor([3.0, 0.0]))
        transform.direction.copy_(torch.tensor([product / 3, 0.0]))
    x = torch.linspace(-1, 1, 201).reshape(-1, 1) * torch.tensor([1.0, 0.0])
    step = transform.encode(x)
    assert (step.z[1:, 0] > step.z[:-1, 0]).all()
    assert torch.isfinite(step.contribution).all()
    check.round_trip(transform, x, 2e-3)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-18])
def test_tiny_weight_is_a_shift(size):
    transform = Planar(2)
    with torch.no_grad():
        transform.weight.mul_(size)
    step = transform.encode(torch.ones(1, 2, requires_grad=True))
    gradients = torch.autograd.grad(step.z.sum() + step.contribution.sum(), list(transform.parameters()))
    assert torch.isfinite(step.z).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    torch.testing.assert_close(step.contribution, torch.zeros(1))


def test_start_is_near_but_not_at_the_identity(check):
    x = check.normal(200, 4, dtype=torch.float32)
    change = (Planar(4).encode(x).z - x).abs()
    assert 1e-3 < change.max() < 1.5
    assert not torch.equal(Planar(4, seed=0).weight, Planar(4, seed=1).weight)


def test_only_vectors():
    with pytest.raises(ConfigError, match="vectors"):
        Planar((2, 2))
