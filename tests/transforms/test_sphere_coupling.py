"""Spheres of any dimension: surface area, the poles, mass, samples, and a target of known density."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import pushforward as pf
from pushforward.distributions import UniformSphere
from pushforward.errors import ConfigError
from pushforward.likelihood import Manifold
from pushforward.models import Flow
from pushforward.transforms import Chain, Householder, Inverse, SphereCoupling


def unit(count: int, features: int, seed: int = 0) -> Tensor:
    x = torch.randn(count, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm(dim=-1, keepdim=True)


def stack(features: int, layers: int, base=None) -> Flow:
    parts = []
    for k in range(layers):
        parts += [SphereCoupling(features, bins=4, hidden=(16,)), Householder(features, seed=k)]
    return Flow(Chain(*parts), base or UniformSphere(features))


@pytest.mark.parametrize("features", [3, 4, 7])
def test_contract(features, check):
    torch.manual_seed(0)
    transform = check.perturb(SphereCoupling(features, bins=4, hidden=(8,))).double()
    for spread in (1.0, 50.0, 1e6, 1e20):
        check.round_trip(transform, check.normal(50, features, spread=spread), 1e-10)
    check.contribution(transform, check.normal(5, features))
    check.contribution(Inverse(transform), check.normal(5, features))
    check.decode_contribution(transform, check.normal(5, features))
    check.shapes(transform.float())
    check.extremes(transform)


@pytest.mark.parametrize("features", [3, 4, 7])
def test_the_contribution_is_that_of_surface_area(features, check):
    """1/2 log det J^T J of the transform of the sphere to itself, in an orthonormal frame of the tangent plane."""
    torch.manual_seed(0)
    transform = check.perturb(SphereCoupling(features, hidden=(8,))).double()
    for x in unit(5, features):
        jacobian = torch.autograd.functional.jacobian(lambda t: transform.encode(t).z, x)
        tangent = jacobian @ torch.linalg.svd(x[None])[2][1:].mT
        expected = 0.5 * torch.logdet(tangent.mT @ tangent)
        assert transform.encode(x).contribution.item() == pytest.approx(expected.item(), abs=1e-9)
        assert transform.encode(x).z.norm().item() == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("radius", [0.0, 1e-30, 1e-12, 1e-7, 1e-5, 1.1e-5, 1e-3])
def test_near_the_poles_it_is_the_identity_and_finite(radius, dtype, check):
    torch.manual_seed(0)
    transform = check.perturb(SphereCoupling(5, hidden=(8,))).to(dtype)
    for pole in (1.0, -1.0):
        x = torch.tensor([[radius * 0.6, 0.0, -radius * 0.8, 0.0, pole]], dtype=dtype, requires_grad=True)
        step = transform.encode(x)
        torch.testing.assert_close(step.z, x, atol=100 * radius**2 + 1e-12, rtol=1e-5)
        assert abs(step.contribution.item()) < 1e2 * radius + 1e-6
        gradients = torch.autograd.grad(step.z.sum() + step.contribution.sum(), [x, *transform.parameters()])
        assert all(torch.isfinite(g).all() for g in gradients)
        torch.testing.assert_close(
            transform.decode(step.z), x, atol=1e-8 if dtype is torch.float64 else 1e-6, rtol=1e-5
        )


@pytest.mark.parametrize("features", [3, 4, 6])
def test_mass_is_one_and_samples_follow(features, check):
    """The mean density over uniform points is one over the area; moments of samples against weighted uniform points."""
    torch.manual_seed(0)
    model = check.perturb(stack(features, 3), size=0.15).double()
    x = unit(100_000, features, seed=3)
    area = 2 * math.pi ** (features / 2) / math.gamma(features / 2)
    with torch.no_grad():
        result = model.evaluate(x)
        weight = area * result.value.exp()
        samples = model.sample(20_000, seed=0)
    assert result.measure == Manifold(features - 1, features)
    assert abs(weight.mean().item() - 1) < 4 * weight.std().item() / math.sqrt(len(x))
    assert 0.1 < weight.std() < 3
    for i in range(features):
        for f in (lambda t, i=i: t[:, i], lambda t, i=i: t[:, i] * t[:, (i + 1) % features]):
            expected, seen = f(x) * weight, f(samples)
            error = math.hypot(expected.std().item() / math.sqrt(len(x)), seen.std().item() / math.sqrt(len(samples)))
            assert abs(seen.mean().item() - expected.mean().item()) < 4.5 * error


def test_it_learns_a_von_mises_fisher_law():
    """exp(4 mu.x) on the sphere in R^4, drawn by rejection: within 0.05 nats of the truth."""
    mu, kappa = torch.tensor([1.0, -1.0, 0.5, 2.0], dtype=torch.float64), 4.0
    mu = mu / mu.norm()
    constant = math.log(kappa / (4 * math.pi**2 * torch.special.i1(torch.tensor(kappa, dtype=torch.float64)).item()))
    points = unit(100_000, 4, seed=7)
    u = torch.rand(100_000, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    rows = points[u.log() < kappa * (points @ mu - 1)]
    assert len(rows) > 6000
    train, test = rows[:4000].float(), rows[4000:6000]
    truth = (kappa * test @ mu).mean().item() + constant
    torch.manual_seed(0)
    model = stack(4, 4)
    pf.fit(model, train, max_steps=200, batch_size=500, validation=None, learning_rate=1e-2, progress="silent")
    with torch.no_grad():
        loss = truth - model.double().evaluate(test).value.mean().item()
    assert truth + math.log(2 * math.pi**2) > 0.5  # a uniform law would be that far off
    assert -0.02 < loss < 0.05


def test_impossible_arguments_are_refused():
    for features in (2, 1, (3, 3)):
        with pytest.raises(ConfigError):
            SphereCoupling(features)
