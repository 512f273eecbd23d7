import numpy as np
import torch
from scipy import stats
from torch import Size

from pushforward.distributions import Normal


def learned() -> Normal:
    base = Normal(2, trainable=True).double()
    with torch.no_grad():
        base.loc.copy_(torch.tensor([1.0, -2.0], dtype=torch.float64))
        base.log_scale.copy_(torch.tensor([0.3, -1.2], dtype=torch.float64))
    return base


def test_density_against_scipy():
    z = torch.linspace(-30, 30, 40, dtype=torch.float64).reshape(-1, 2)
    expected = stats.norm.logpdf(z.numpy()).sum(-1)
    np.testing.assert_allclose(Normal(2).double().log_prob(z), expected, rtol=1e-14)
    expected = stats.norm.logpdf(z.numpy(), [1.0, -2.0], np.exp([0.3, -1.2])).sum(-1)
    np.testing.assert_allclose(learned().log_prob(z).detach(), expected, rtol=1e-13)


def test_a_learned_normal_starts_standard():
    z = torch.randn(5, 3)
    assert torch.equal(Normal(3, trainable=True).log_prob(z), Normal(3).log_prob(z))


def test_mass(mass):
    assert abs(mass(learned().log_prob, -12, 12, 2, 600) - 1) < 1e-6


def test_samples_follow_the_density(assert_follows, generator):
    z = learned().sample(Size((4000,)), generator=generator)
    assert_follows(z[:, 0], stats.norm(1.0, np.exp(0.3)).cdf)
    assert_follows(z[:, 1], stats.norm(-2.0, np.exp(-1.2)).cdf)
    assert_follows(Normal(2).sample(Size((2000,)), generator=generator), stats.norm.cdf)


def test_long_sums_are_exact_in_float32():
    z = torch.randn(3, 30_000, generator=torch.Generator().manual_seed(0))
    expected = stats.norm.logpdf(z.double().numpy()).sum(-1)
    np.testing.assert_allclose(Normal(30_000).log_prob(z), expected, rtol=1e-6)
