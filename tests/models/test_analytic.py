"""Models whose density is known in closed form."""

from __future__ import annotations

import math

import pytest
import scipy.special
import scipy.stats
import torch

from pushforward import distributions, transforms
from pushforward.likelihood import Counting, Kind, Lebesgue, Mixed
from pushforward.models import Flow


def points(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_a_linear_flow_is_a_multivariate_gaussian():
    model = Flow(transforms.LULinear(3), distributions.Normal(3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * points(*parameter.shape))
    zero = torch.zeros(1, 3, dtype=torch.float64)
    matrix = (model.encode(torch.eye(3, dtype=torch.float64)) - model.encode(zero)).T.detach()
    inverse = torch.linalg.inv(matrix)
    mean = model.decode(zero)[0].detach()
    truth = scipy.stats.multivariate_normal(mean.numpy(), (inverse @ inverse.T).numpy())
    x = points(50, 3)
    assert model.log_prob(x).tolist() == pytest.approx(truth.logpdf(x.numpy()).tolist(), abs=1e-10)


def test_standardized_gaussian():
    model = Flow(transforms.Standardize(2), distributions.Normal(2)).double()
    x = torch.tensor([3.0, -1.0]).double() + torch.tensor([2.0, 0.1]).double() * points(500, 2)
    model.initialize(x)
    truth = scipy.stats.norm(x.mean(0).numpy(), x.std(0, correction=0).numpy())
    assert model.log_prob(x).tolist() == pytest.approx(truth.logpdf(x.numpy()).sum(-1).tolist(), abs=1e-9)


def test_lognormal():
    model = Flow(
        transforms.Chain(transforms.Inverse(transforms.Exp(1)), transforms.Affine(1, shift=-0.5, scale=2.0)),
        distributions.Normal(1),
    ).double()
    x = points(50, 1).exp()
    # z = 2 log x - 0.5, so log x is normal with mean 0.25 and deviation 0.5.
    truth = scipy.stats.lognorm(s=0.5, scale=math.exp(0.25))
    assert model.log_prob(x).tolist() == pytest.approx(truth.logpdf(x[:, 0].numpy()).tolist(), abs=1e-12)
    assert model.log_prob(torch.tensor([[-1.0]], dtype=torch.float64)).item() == -math.inf


def test_logit_normal():
    model = Flow(transforms.Logit(1), distributions.Normal(1)).double()
    x = torch.rand(50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = scipy.special.logit(x.numpy())
    expected = scipy.stats.norm.logpdf(z) - (x.log() + torch.log1p(-x)).numpy()
    assert model.log_prob(x).tolist() == pytest.approx(expected[:, 0].tolist(), abs=1e-10)


def test_logistic_from_the_uniform():
    """The sigmoid takes a logistic to the uniform, so the flow's density is the logistic's."""
    model = Flow(transforms.Sigmoid(1), distributions.Uniform(1)).double()
    x = 3 * points(50, 1)
    assert model.kind is Kind.EXACT
    assert model.log_prob(x).tolist() == pytest.approx(scipy.stats.logistic.logpdf(x[:, 0].numpy()).tolist(), abs=1e-10)


def test_von_mises_circle():
    """Turned by a phase: the density is that of the turned distribution, and the mass is 1."""
    spline = transforms.CircularSplineTransformer(bins=4)
    model = Flow(transforms.Monotone(1, spline), distributions.VonMises(1, concentration=3.0)).double()
    turn = 2.0
    with torch.no_grad():
        warp = next(iter(model.chain))
        warp.free[-1] = math.pi * math.atanh(turn / math.pi)  # soft_clamp(raw, pi) = turn
    x = torch.linspace(-3.1, 3.1, 40, dtype=torch.float64)[:, None]
    expected = scipy.stats.vonmises(3.0, loc=-turn).logpdf(x[:, 0].numpy())
    assert model.log_prob(x).tolist() == pytest.approx(expected.tolist(), abs=1e-9)


def test_soft_tail_of_a_student():
    """asinh of a variable: p(x) = p_z(w asinh(x / w)) / sqrt(1 + (x / w)^2)."""
    model = Flow(transforms.SoftTail(1, width=2.0), distributions.StudentT(1, df=4.0)).double()
    x = 10 * points(50, 1)
    z = 2 * torch.asinh(x / 2)
    expected = scipy.stats.t(4).logpdf(z.numpy()) - 0.5 * torch.log1p((x / 2) ** 2).numpy()
    assert model.log_prob(x).tolist() == pytest.approx(expected[:, 0].tolist(), abs=1e-10)


def test_gaussian_mixture():
    base = distributions.GaussianMixture(2, components=2).double()
    with torch.no_grad():
        base.loc.copy_(torch.tensor([[-1.0, 0.0], [2.0, 1.0]]))
        base.log_scale.copy_(7 * torch.atanh(torch.tensor([[0.5, 1.0], [2.0, 0.3]], dtype=torch.float64).log() / 7))
        base.logits.copy_(torch.tensor([0.25, 0.75], dtype=torch.float64).log())
    model = Flow(transforms.Reverse(2), base)
    x = 2 * points(50, 2)
    z = x.flip(-1).numpy()
    one, two = (
        scipy.stats.norm([-1.0, 0.0], [0.5, 1.0]).logpdf(z).sum(-1),
        scipy.stats.norm([2.0, 1.0], [2.0, 0.3]).logpdf(z).sum(-1),
    )
    expected = scipy.special.logsumexp([one + math.log(0.25), two + math.log(0.75)], axis=0)
    assert model.log_prob(x).tolist() == pytest.approx(expected.tolist(), abs=1e-10)


def test_conditional_gaussian():
    """x | c ~ N(2 c, 0.5^2), made by hand from an affine transform of the context."""
    model = Flow(
        transforms.Monotone(1, transforms.AffineTransformer(), context=1, hidden=()), distributions.Normal(1)
    ).double()
    warp = next(iter(model.chain))
    with torch.no_grad():  # z = (x - 2 c) / 0.5, with log-scale raw / (1 + raw / 3) = log 2
        warp.network.last.weight.copy_(torch.tensor([[-4.0], [0.0]]))
        warp.network.last.bias.copy_(torch.tensor([0.0, math.log(2.0) / (1 - math.log(2.0) / 3)], dtype=torch.float64))
    x, c = points(30, 1), points(30, 1).flip(0)
    expected = scipy.stats.norm.logpdf(x.numpy(), 2 * c.numpy(), 0.5)
    assert model.log_prob(x, c).tolist() == pytest.approx(expected[:, 0].tolist(), abs=1e-10)


def test_uniform_bytes():
    """Dequantized bytes under a uniform density: every point has probability 256^-D, without any gap."""
    model = Flow(transforms.UniformDequantize(3, levels=256), distributions.Uniform(3))
    x = torch.tensor([[0, 128, 255], [7, 7, 7]])
    result = model.evaluate(x)
    assert result.measure == Counting(3)
    assert result.kind is Kind.LOWER_BOUND
    assert result.value.tolist() == pytest.approx([-3 * math.log(256)] * 2, abs=1e-5)
    assert result.bits_per_dim().tolist() == pytest.approx([8.0, 8.0], abs=1e-6)
    for impossible in ([[0.5, 1.0, 2.0]], [[256.0, 0.0, 0.0]], [[-1.0, 0.0, 0.0]]):
        assert model.evaluate(torch.tensor(impossible)).value.item() == -math.inf


def test_dequantized_normal_is_a_bound_that_draws_tighten():
    """P(k) of a rounded normal is a difference of its distribution function."""
    chain = transforms.Chain(
        transforms.LatticeDequantize(1, columns=(0,), steps=0.5, origins=0.0), transforms.Affine(1, shift=-0.25)
    )
    model = Flow(chain, distributions.Normal(1)).double()
    x = torch.tensor([[-1.0], [0.0], [0.5], [2.0]], dtype=torch.float64)
    low = x[:, 0].numpy() - 0.25
    truth = torch.from_numpy(scipy.stats.norm.cdf(low + 0.5) - scipy.stats.norm.cdf(low)).log()
    assert model.measure == Mixed(0, 1) == Counting(1)
    values = torch.stack([model.evaluate(x, seed=s).value for s in range(400)])
    assert (values.mean(0) <= truth + 4 * values.std(0) / 20).all()
    tight = model.evaluate(x, samples=400, seed=1)
    torch.testing.assert_close(tight.value, truth, rtol=0, atol=0.02)
    assert tight.stderr is not None
    assert tight.stderr.shape == (4,)
    assert (tight.stderr > 0).all()


def test_measures_of_the_bases_are_kept():
    assert Flow(transforms.Affine(2), distributions.Logistic(2)).measure == Lebesgue(2)
    assert Flow(transforms.Affine((2, 3)), distributions.Normal((2, 3))).measure == Lebesgue(6)
