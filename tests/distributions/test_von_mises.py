import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import i0e
from torch import Size

from pushforward.distributions import VonMises
from pushforward.likelihood import Support


@pytest.mark.parametrize("kappa", [1e-8, 1e-3, 0.5, 4.0, 100.0, 1e4, 1e8])
def test_density_against_scipy(kappa):
    z = torch.linspace(-math.pi, math.pi, 101, dtype=torch.float64)[:, None]
    expected = stats.vonmises(kappa).logpdf(z[:, 0].numpy())
    np.testing.assert_allclose(VonMises(1, kappa).log_prob(z), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kappa", [1e-3, 1.0, 100.0, 1e4])
def test_float32_at_the_mode_and_far_from_it(kappa):
    base = VonMises(1, kappa, trainable=True)
    z = torch.tensor([[0.0], [1e-3], [-0.02], [1.0]])
    angle = z[:, 0].double().numpy()
    expected = -2 * kappa * np.sin(angle / 2) ** 2 - np.log(2 * np.pi * i0e(kappa))
    np.testing.assert_allclose(base.log_prob(z).detach(), expected, rtol=3e-6)


def test_gradient_of_the_concentration():
    # d/dkappa log p = cos z - I1(kappa) / I0(kappa), here against differences of scipy's density.
    base = VonMises(1, 100.0, trainable=True).double()
    z = torch.tensor([[0.05]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(base.log_prob(z).sum(), base.log_concentration)
    step = 1e-4
    high, low = (stats.vonmises(100.0 * math.exp(s)).logpdf(0.05) for s in (step, -step))
    assert gradient.item() == pytest.approx((high - low) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("kappa", [1e4, 1e6, 5e7])
def test_gradient_of_a_large_concentration_in_float32(kappa):
    base = VonMises(1, kappa, trainable=True)
    base.log_prob(torch.zeros(1, 1)).backward()  # at the mode log p is near (log kappa) / 2 - log(2 pi) / 2
    assert base.log_concentration.grad.item() == pytest.approx(0.5, rel=1e-4)


def test_angles_outside_have_no_density():
    base = VonMises(1, 2.0)
    assert base.support == Support(-math.pi, math.pi)
    assert torch.isinf(base.log_prob(torch.tensor([[3.2], [-4.0], [1e20]]))).all()
    assert torch.isfinite(base.log_prob(torch.tensor([[math.pi], [-math.pi]]))).all()


def test_location_is_periodic():
    base = VonMises(1, 3.0, trainable=True).double()
    with torch.no_grad():
        base.loc.fill_(3.0)
        base.log_concentration.fill_(math.log(3.0))
    z = torch.linspace(-3.1, 3.1, 11, dtype=torch.float64)[:, None]
    np.testing.assert_allclose(base.log_prob(z).detach(), stats.vonmises(3.0, 3.0).logpdf(z[:, 0].numpy()), rtol=1e-12)


def test_mass(mass):
    # The midpoint rule is exact to rounding for smooth periodic functions.
    assert abs(mass(VonMises(2, 5.0).log_prob, -math.pi, math.pi, 2, 400) - 1) < 1e-12
    assert abs(mass(VonMises(1, 1e4).log_prob, -math.pi, math.pi, 1, 10_000) - 1) < 1e-12


@pytest.mark.parametrize("kappa", [1e-8, 1e-3, 0.5, 5.0, 200.0, 1e4, 1e8])
def test_samples_follow_the_density(kappa, assert_follows, generator):
    z = VonMises(2, kappa).double().sample(Size((2000,)), generator=generator)
    # scipy's distribution function loses its digits at the highest concentration, where the distribution is normal to 1e-8.
    expected = stats.vonmises(kappa) if kappa < 1e6 else stats.norm(0, kappa**-0.5)
    assert_follows(z, expected.cdf)


def test_samples_wrap_around(generator):
    base = VonMises(1, 2.0, trainable=True)
    with torch.no_grad():
        base.loc.fill_(3.0)
    z = base.sample(Size((4000,)), generator=generator)
    assert bool(((z >= -math.pi) & (z < math.pi)).all())
    # The first circular moment is e^{i mu} I1 / I0.
    resultant = torch.exp(1j * z[:, 0].double()).mean().item()
    expected = np.exp(3j) * stats.vonmises(2.0).expect(np.cos, lb=-np.pi, ub=np.pi)
    assert abs(resultant - expected) < 4 / math.sqrt(4000)


def test_broken_weights_end_the_sampler():
    base = VonMises(1, trainable=True)
    with torch.no_grad():
        base.log_concentration.fill_(math.nan)
    assert torch.isnan(base.sample(Size((3,)))).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits(dtype):
    base, narrow = VonMises(2, trainable=True), VonMises(2, trainable=True).to(dtype)
    drawn = narrow.sample(Size((100,)), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(narrow.log_prob(drawn).float(), base.log_prob(drawn.float()), atol=0.1, rtol=0)
