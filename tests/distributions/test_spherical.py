"""Uniform and von Mises-Fisher distributions on the sphere: area, mass by quadrature, samples, both limits of the concentration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Size

from pushforward.distributions import UniformSphere, VonMisesFisher
from pushforward.errors import ConfigError
from pushforward.likelihood import Manifold


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("features", "area"), [(2, 2 * math.pi), (3, 4 * math.pi), (4, 2 * math.pi**2)])
def test_uniform_is_one_over_the_area(features, area):
    base = UniformSphere(features).double()
    z = base.sample(Size((5000,)), generator=gen())
    torch.testing.assert_close(base.log_prob(z), torch.full((5000,), -math.log(area), dtype=torch.float64))
    assert base.measure == Manifold(features - 1, features)
    # The square of a coordinate of a uniform direction is Beta(1/2, (D - 1)/2).
    expected = scipy.stats.beta(0.5, 0.5 * (features - 1))
    assert scipy.stats.kstest(z[:, 0].square().numpy(), expected.cdf).pvalue > 1e-3
    assert abs(z.mean(0)).max() < 5 / math.sqrt(5000 * features)


@pytest.mark.parametrize("kappa", [1e-8, 0.1, 1.0, 30.0])
def test_fisher_has_mass_one(kappa):
    base = VonMisesFisher(mean=(2.0, -1.0, 0.3), concentration=kappa).double()
    heights, weights = np.polynomial.legendre.leggauss(120)
    angles = 2 * math.pi * torch.arange(200, dtype=torch.float64) / 200
    h, a = torch.meshgrid(torch.from_numpy(heights), angles, indexing="ij")
    r = torch.sqrt(1 - h * h)
    density = base.log_prob(torch.stack((r * a.cos(), r * a.sin(), h), -1)).exp()
    mass = (density.sum(1) * torch.from_numpy(weights)).sum().item() * 2 * math.pi / 200
    assert mass == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("kappa", [1e-8, 2.0, 1e3, 1e8])
@pytest.mark.parametrize(
    "mean", [(0.0, 0.0, 1.0), (0.0, 0.0, -1.0), (3.0, -2.0, 0.5), (1e-3, 0.0, -5.0), (0.0, 1e20, 0.0)]
)
def test_fisher_samples_follow(mean, kappa):
    base = VonMisesFisher(mean=mean, concentration=kappa).double()
    z = base.sample(Size((4000,)), generator=gen(1))
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(4000, dtype=torch.float64))
    pole = torch.tensor(mean, dtype=torch.float64)
    pole = pole / pole.norm()
    # 1 - mu.z is exponential with rate kappa, cut at 2; half the squared distance keeps its digits.
    drop = 0.5 * (z - pole).square().sum(-1)
    expected = scipy.stats.truncexpon(2 * kappa, scale=1 / kappa)
    assert scipy.stats.kstest(drop.numpy(), expected.cdf).pvalue > 1e-3
    # and the angle around mu is uniform.
    side = torch.linalg.svd(pole[None])[2][1:]
    angle = torch.atan2(z @ side[0], z @ side[1])
    assert scipy.stats.kstest(angle.numpy(), scipy.stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-3


def test_fisher_at_known_points():
    z = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]], dtype=torch.float64)
    value = VonMisesFisher(concentration=1.0).double().log_prob(z)
    constant = -math.log(4 * math.pi * math.sinh(1.0))
    torch.testing.assert_close(value, constant + z[:, 2])
    flat = VonMisesFisher(concentration=1e-8).double().log_prob(z)
    torch.testing.assert_close(flat, torch.full((3,), -math.log(4 * math.pi), dtype=torch.float64), atol=1e-7, rtol=0)


@pytest.mark.parametrize("mean", [(0, 2, 0), (0.0, 1e-50, 0.0), (0.0, 1e50, 0.0)])
def test_the_mean_may_have_any_length(mean):
    z = torch.tensor([[0.0, 1.0, 0.0]])
    expected = VonMisesFisher(mean=(0.0, 1.0, 0.0)).log_prob(z)
    torch.testing.assert_close(VonMisesFisher(mean=mean, trainable=True).log_prob(z).detach(), expected)


def test_off_the_sphere_and_far_away():
    z = torch.tensor([[0.0, 0.6, 0.8], [0.0, 0.6, 0.81], [0.0, 0.0, 0.0], [1e20, 0.0, 0.0], [math.inf, 0.0, 0.0]])
    for base in (UniformSphere(3), VonMisesFisher(trainable=True)):
        y = z.clone().requires_grad_()
        value = base.log_prob(y)
        assert torch.isfinite(value[0])
        assert (value[1:] == -math.inf).all()
        value.sum().backward()
        assert y.grad is not None
        assert torch.isfinite(y.grad[0]).all()
        assert all(torch.isfinite(p.grad).all() for p in base.parameters())
        assert torch.isnan(base.log_prob(torch.tensor([[math.nan, 0.0, 1.0]]))).all()


def test_fisher_finds_its_weights():
    """Maximum likelihood from samples of another one: mu to a hundredth, kappa to a few per cent."""
    truth = VonMisesFisher(mean=(0.6, 0.0, -0.8), concentration=12.0)
    z = truth.sample(Size((20_000,)), generator=gen(2))
    base = VonMisesFisher(trainable=True)
    optimizer = torch.optim.Adam(base.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (-base.log_prob(z).mean()).backward()
        optimizer.step()
    mean, kappa = base._mean_and_concentration()
    torch.testing.assert_close(mean.detach(), torch.tensor([0.6, 0.0, -0.8]), atol=1e-2, rtol=0)
    assert kappa.item() == pytest.approx(12.0, rel=0.03)


def test_impossible_arguments_are_refused():
    for make in (
        lambda: UniformSphere(1),
        lambda: UniformSphere((2, 3)),  # type: ignore[arg-type]
        lambda: VonMisesFisher(4),
        lambda: VonMisesFisher(mean=(0.0, 0.0, 0.0)),
        lambda: VonMisesFisher(mean=(1.0, 0.0)),
        lambda: VonMisesFisher(mean=(1.0, math.nan, 0.0)),
        lambda: VonMisesFisher(mean=(1.0, "a", 0.0)),  # type: ignore[arg-type]
        lambda: VonMisesFisher(concentration=0.0),
    ):
        with pytest.raises(ConfigError, match="got"):
            make()
