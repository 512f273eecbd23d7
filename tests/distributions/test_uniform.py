import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Size

from pushforward.distributions import Uniform
from pushforward.errors import ConfigError
from pushforward.likelihood import Support


def test_density_against_scipy():
    z = torch.tensor([[-1.5, 2.0], [-1.0, 3.0], [0.0, 3.1], [-1.1, 0.0]], dtype=torch.float64)
    expected = stats.uniform(-1.0, 4.0).logpdf(z.numpy()).sum(-1)
    np.testing.assert_allclose(Uniform(2, -1.0, 3.0).log_prob(z), expected, rtol=1e-15)
    assert np.isinf(expected).tolist() == [True, False, True, True]


def test_support():
    assert Uniform(2).support == Support(0.0, 1.0)
    assert Uniform(2, -math.pi, math.pi).support == Support(-math.pi, math.pi)


def test_the_border_is_inside_in_float32():
    ends = torch.tensor([[-math.pi], [math.pi]])
    assert Uniform(1, -math.pi, math.pi).log_prob(ends).tolist() == pytest.approx([-math.log(2 * math.pi)] * 2)


def test_mass(mass):
    assert abs(mass(Uniform(2, -1.0, 3.0).log_prob, -2, 4, 2, 600) - 1) < 1e-12


def test_samples_follow_the_density(assert_follows, generator):
    z = Uniform(2, -1.0, 3.0).sample(Size((4000,)), generator=generator)
    assert_follows(z, stats.uniform(-1.0, 4.0).cdf)


def test_the_gradient_is_zero_and_connected():
    z = torch.tensor([[0.5, 0.5], [0.5, 1.5]], requires_grad=True)
    (gradient,) = torch.autograd.grad(Uniform(2).log_prob(z).sum(), z)
    assert torch.equal(gradient, torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("low", "high"),
    [("a", "b"), (0.0, None), (math.nan, 1.0), (0.0, math.inf), (1.0, 1.0), (True, 2.0), (-1e308, 1e308)],
)
def test_ends_are_finite_numbers_in_order(low, high):
    with pytest.raises(ConfigError, match=r"(low|high) must be a number|low < high"):
        Uniform(2, low, high)
