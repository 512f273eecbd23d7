import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import gammaln
from torch import Size

from pushforward.distributions import StudentT


@pytest.mark.parametrize("df", [0.3, 1.0, 2.5, 30.0, 1e4])
def test_density_against_scipy(df):
    z = torch.cat([torch.linspace(-50, 50, 41), torch.tensor([1e3, -1e6])]).double()[:, None]
    expected = stats.t.logpdf(z[:, 0].numpy(), df)
    np.testing.assert_allclose(StudentT(1, df).double().log_prob(z), expected, rtol=1e-9)
    learned = StudentT(1, df, trainable_df=True).double()
    np.testing.assert_allclose(learned.log_prob(z).detach(), expected, rtol=1e-6)


@pytest.mark.parametrize("df", [1.0, 5.0, 1e6, 1e8])
def test_float32_is_as_good_as_float64(df):
    z = torch.tensor([[0.0], [0.1], [1.0], [7.0]])
    np.testing.assert_allclose(StudentT(1, df).log_prob(z), StudentT(1, df).log_prob(z.double()), rtol=2e-6)


def test_many_degrees_of_freedom_are_a_normal():
    z = torch.linspace(-5, 5, 11)[:, None]
    np.testing.assert_allclose(StudentT(1, 1e8).log_prob(z), stats.norm.logpdf(z[:, 0].numpy()), rtol=1e-6)


@pytest.mark.parametrize("z", [1e10, -1e20, 1e30])
@pytest.mark.parametrize("df", [1.0, 4.0])
def test_far_density_and_slope_in_float32(z, df):
    x = torch.tensor([[z]], requires_grad=True)
    value = StudentT(1, df).log_prob(x)
    # log(1 + z^2/df) = 2 log abs(z) - log df up to df / z^2.
    constant = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * math.log(df * math.pi)
    expected = constant - 0.5 * (df + 1) * (2 * math.log(abs(z)) - math.log(df))
    assert value.item() == pytest.approx(expected, rel=1e-6)
    assert torch.autograd.grad(value.sum(), x)[0].item() == pytest.approx(-(df + 1) / z, rel=1e-5)


def test_slope_where_the_formula_changes_branch():
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(StudentT(1, 1.0).log_prob(x).sum(), x)
    np.testing.assert_allclose(slope, [[-1.0], [1.0]], rtol=1e-12)  # -2 z / (1 + z^2)


def test_gradient_of_the_degrees_of_freedom():
    base = StudentT(1, 3.0, trainable_df=True).double()
    z = torch.tensor([[0.2], [4.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(base.log_prob(z).sum(), base.log_df)
    step, point = 1e-5, base.log_df.item()
    high, low = (stats.t.logpdf(z.numpy(), math.exp(point + s)).sum() for s in (step, -step))
    assert gradient.item() == pytest.approx((high - low) / (2 * step), rel=1e-6)


def test_mass(mass):
    assert abs(mass(StudentT(1, 6.0).log_prob, -200, 200, 1, 40_000) - 1) < 1e-8
    assert abs(mass(StudentT(2, 30.0).log_prob, -15, 15, 2, 600) - 1) < 1e-6


@pytest.mark.parametrize("df", [0.7, 1.0, 5.0, 200.0])
def test_samples_follow_the_density(df, assert_follows, generator):
    assert_follows(StudentT(2, df).sample(Size((4000,)), generator=generator), stats.t(df).cdf)
    assert_follows(StudentT(2, df, trainable_df=True).sample(Size((2000,)), generator=generator), stats.t(df).cdf)


def test_samples_are_finite_for_the_heaviest_tails(generator):
    assert bool(torch.isfinite(StudentT(10, 0.05).sample(Size((2000,)), generator=generator)).all())


def test_gradient_through_samples(generator):
    # E z^2 = df / (df - 2), so d/d(log df) E z^2 = -2 df / (df - 2)^2.
    base = StudentT(1, 20.0, trainable_df=True).double()
    z = base.sample(Size((200_000,)), generator=generator)
    (gradient,) = torch.autograd.grad(z.square().mean(), base.log_df)
    assert gradient.item() == pytest.approx(-2 * 20 / 18**2, rel=0.1)
