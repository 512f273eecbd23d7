import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Size

from pushforward.distributions import Logistic


def test_density_against_scipy():
    z = torch.linspace(-60, 60, 61, dtype=torch.float64)[:, None]
    np.testing.assert_allclose(Logistic(1).double().log_prob(z), stats.logistic.logpdf(z[:, 0].numpy()), rtol=1e-14)


@pytest.mark.parametrize("z", [100.0, -100.0, 1e6, -1e6, 1e20])
def test_tails_are_linear(z):
    x = torch.tensor([[z]], requires_grad=True)
    value = Logistic(1).log_prob(x)
    assert value.item() == pytest.approx(-abs(z), rel=1e-7)
    assert torch.autograd.grad(value.sum(), x)[0].item() == -math.copysign(1.0, z)


def test_curvature_at_the_mode():
    x = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(Logistic(1).log_prob(x).sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    assert (slope.item(), curvature.item()) == (0.0, -0.5)


def test_mass(mass):
    assert abs(mass(Logistic(1).log_prob, -45, 45, 1, 5000) - 1) < 1e-9
    assert abs(mass(Logistic(2).log_prob, -25, 25, 2, 800) - 1) < 1e-6


def test_samples_follow_the_density(assert_follows, generator):
    assert_follows(Logistic(2).sample(Size((4000,)), generator=generator), stats.logistic.cdf)


def test_samples_are_finite(generator):
    assert bool(torch.isfinite(Logistic(1000).sample(Size((2000,)), generator=generator)).all())
