"""The posterior of one observation as a torch distribution, and its maximum, beside closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributions as td

from pushforward import inference
from pushforward.errors import ConfigError, InputError

QUIET = {"progress": "silent"}
OBSERVED = torch.tensor([1.0, -0.4])


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def trained(method, prior, deviation=0.5, **options):
    """x = theta + deviation * noise."""
    theta = inference.Prior(prior).sample(3000, seed=0)
    options = {"max_steps": 300} | QUIET | options
    return method(prior).fit(theta, theta + deviation * noise(*theta.shape), **options)


@pytest.fixture(scope="module")
def npe():
    """Of theta ~ N(0, 1) and x ~ N(theta, 0.5^2): the posterior is N(0.8 x, 0.2)."""
    return trained(inference.NPE, td.Normal(torch.zeros(2), 1.0))


@pytest.mark.parametrize("method", [inference.NPE, inference.NLE, inference.NRE])
def test_the_maximum_of_a_normal_posterior_is_its_mean(method, npe):
    posterior = npe if method is inference.NPE else trained(method, td.Normal(torch.zeros(2), 1.0))
    found = posterior.map(OBSERVED)
    assert found.shape == (2,)
    assert not found.requires_grad
    torch.testing.assert_close(found, 0.8 * OBSERVED, atol=0.15, rtol=0)
    if method is not inference.NPE:  # whose density is smoothed first
        draws = posterior.sample(2000, OBSERVED, seed=5)
        with torch.no_grad():
            assert float(posterior.log_prob(found[None], OBSERVED)) >= float(posterior.log_prob(draws, OBSERVED).max())
    assert torch.equal(found, posterior.map(OBSERVED))


def test_the_maximum_at_a_bound_stays_inside():
    prior = td.Uniform(torch.zeros(1), torch.ones(1))
    posterior = trained(inference.NLE, prior, 0.2)
    found = posterior.map([-0.5])  # the likelihood falls from 0 on
    assert 0 < float(found) < 0.02
    assert posterior.prior.contains(found[None]).all()
    assert 0.4 < float(posterior.map([0.5])) < 0.6


def test_spikes_of_a_flow_at_a_bound_do_not_move_the_maximum():
    """x = theta + 0.2 noise with a flat prior in a square: the maximum is at x, or at the bound where x is outside."""
    posterior = trained(inference.NPE, td.Uniform(-torch.ones(2), torch.ones(2)), 0.2)
    for x in ([0.9, 0.2], [-0.95, 0.0], [0.0, 0.0], [1.1, -1.2], [0.5, 0.5]):
        truth = torch.tensor(x).clamp(-1, 1)
        torch.testing.assert_close(posterior.map(x), truth, atol=0.15, rtol=0)


def test_the_maximum_of_counts():
    """Poisson counts of rate 3 theta with an exponential prior: the posterior is Gamma(1 + x, 4), highest at x / 4."""
    prior = td.Gamma(torch.ones(1), 1.0)
    theta = inference.Prior(prior).sample(3000, seed=0)
    x = torch.poisson(3 * theta, generator=torch.Generator().manual_seed(1))
    posterior = inference.NPE(prior).fit(theta, x, max_steps=300, **QUIET)
    for count in (0.0, 1.0, 2.0, 5.0):
        assert float(posterior.map([count])) == pytest.approx(count / 4, abs=0.15)


def test_more_starts_find_the_higher_of_two_modes():
    """x = |theta| + 0.1 noise with a prior that prefers the right: modes near -1 and 1, of which the right is higher."""
    prior = td.Normal(torch.full((1,), 0.5), 1.0)
    theta = inference.Prior(prior).sample(3000, seed=0)
    posterior = inference.NPE(prior).fit(theta, theta.abs() + 0.1 * noise(3000, 1), max_steps=400, **QUIET)
    assert float(posterior.map([1.0])) == pytest.approx(1.0, abs=0.1)


def test_the_maximum_with_a_prior_that_has_gaps():
    class Ordered(td.Distribution):
        arg_constraints, support = {}, td.constraints.independent(td.constraints.unit_interval, 1)

        def __init__(self):
            super().__init__(event_shape=torch.Size((2,)), validate_args=False)

        def sample(self, sample_shape=()):
            return torch.rand(*sample_shape, 2).sort(-1).values

        def log_prob(self, value):
            inside = (value[..., 0] <= value[..., 1]) & ((value > 0) & (value < 1)).all(-1)
            return torch.where(inside, math.log(2.0), -math.inf)

    torch.manual_seed(0)
    posterior = trained(inference.NPE, Ordered(), 0.3)
    found = posterior.map([0.8, 0.2])  # the wrong way round: the maximum lies on the edge
    assert float(found[0]) <= float(found[1])
    assert bool(posterior.prior.contains(found[None]))


@pytest.mark.parametrize("starts", [0, 1.5, True])
def test_wrong_numbers_of_starts_are_refused(npe, starts):
    with pytest.raises(ConfigError, match="starts must be an integer"):
        npe.map(OBSERVED, starts=starts)


def test_it_is_the_posterior(npe):
    found = npe.distribution(OBSERVED)
    assert found.event_shape == (2,)
    assert found.batch_shape == ()
    torch.manual_seed(3)
    draws = found.sample((4, 5))
    assert draws.shape == (4, 5, 2)
    assert found.sample().shape == (2,)
    assert found.sample((0,)).shape == (0, 2)
    assert found.log_prob(torch.zeros(0, 2)).shape == npe.log_prob(torch.zeros(0, 2), OBSERVED).shape == (0,)
    with torch.no_grad():
        assert torch.equal(found.log_prob([0.0, 0.0]), found.log_prob(torch.zeros(2)))
    torch.manual_seed(3)
    assert torch.equal(draws, found.sample((4, 5)))
    assert not torch.equal(draws, found.sample((4, 5)))
    with torch.no_grad():
        torch.testing.assert_close(found.log_prob(draws), npe.log_prob(draws.view(-1, 2), OBSERVED).view(4, 5))
    theta = torch.zeros(2, requires_grad=True)
    found.log_prob(theta).backward()
    assert bool((theta.grad != 0).any())
    assert "PosteriorDistribution(NPEPosterior(2 parameters" in repr(found)


@pytest.mark.parametrize(
    ("prior", "inside", "outside"),
    [
        (td.Normal(torch.zeros(2), 1.0), [[-9.0, 9.0]], []),
        (td.Uniform(torch.tensor([0.0, -1.0]), torch.tensor([2.0, 1.0])), [[1.9, -0.9]], [[-0.1, 0.0], [1.0, 1.1]]),
        (td.Gamma(torch.full((2,), 2.0), 1.0), [[0.1, 99.0]], [[-0.1, 1.0]]),
        ([td.Normal(torch.zeros(1), 1.0), td.Gamma(torch.full((1,), 2.0), 1.0)], [[-9.0, 3.0]], [[-9.0, -3.0]]),
        ([td.Uniform(torch.zeros(1), torch.ones(1)), td.Normal(torch.zeros(1), 1.0)], [[0.5, -7.0]], [[1.5, -7.0]]),
    ],
)
def test_its_support_is_that_of_the_prior(prior, inside, outside):
    posterior = trained(inference.NPE, prior, max_steps=5)
    found = posterior.distribution(torch.ones(2))
    assert bool(found.support.check(torch.tensor(inside)).all())
    assert not len(outside) or not bool(found.support.check(torch.tensor(outside)).any())
    again = inference.Prior(found)
    assert torch.equal(again.low, posterior.prior.low)
    assert torch.equal(again.high, posterior.prior.high)
    u = torch.randn(3, 2)  # Pyro moves on the reals
    assert bool(found.support.check(td.biject_to(found.support)(u)).all())


def test_a_posterior_is_the_prior_of_the_next_experiment(npe):
    """Two experiments one after the other give the posterior of both: precision 1 + 4 + 4."""
    second = trained(inference.NPE, npe.distribution(OBSERVED))
    x = torch.tensor([0.2, 0.3])
    draws = second.sample(4000, x, seed=0)
    torch.testing.assert_close(draws.mean(0), (4 * OBSERVED + 4 * x) / 9, atol=0.1, rtol=0)
    torch.testing.assert_close(draws.std(0), torch.full((2,), 1 / 3), atol=0.07, rtol=0)
    with pytest.raises(ConfigError, match=r"[sS]ave with"):
        second.save("unused.safetensors")


def test_a_sum_that_the_data_know_and_parts_that_they_do_not():
    """x = sum of five + 0.1 noise: the maximum is at x / 5 each, on a ridge whose width is 0.1 across and 1 along it."""
    prior = td.Normal(torch.zeros(5), 1.0)
    theta = inference.Prior(prior).sample(3000, seed=0)
    posterior = inference.NPE(prior).fit(
        theta, theta.sum(1, keepdim=True) + 0.1 * noise(3000, 1), max_steps=300, **QUIET
    )
    assert float(posterior.map([2.0]).sum()) == pytest.approx(2.0, abs=0.15)


def test_it_keeps_its_observation(npe):
    x = OBSERVED.clone()
    found = npe.distribution(x)
    with torch.no_grad():
        before = found.log_prob(torch.zeros(2))
        x.zero_()
        assert torch.equal(found.log_prob(torch.zeros(2)), before)


def test_of_joint_constraints():
    stacked = td.constraints.stack([td.constraints.positive, td.constraints.unit_interval], -1)

    class Joint(td.Distribution):
        arg_constraints, support = {}, td.constraints.independent(stacked, 1)

        def __init__(self):
            super().__init__(event_shape=torch.Size((2,)), validate_args=False)

        def sample(self, sample_shape=()):
            return torch.stack((torch.rand(sample_shape) + 1, torch.rand(sample_shape)), -1)

        def log_prob(self, value):
            return torch.zeros(value.shape[:-1])

    prior = inference.Prior(Joint())
    assert prior.low.tolist() == [0.0, 0.0]
    assert prior.high.tolist() == [math.inf, 1.0]


def test_draws_and_the_maximum_with_other_defaults_of_torch(npe):
    expected = npe.map(OBSERVED)
    torch.set_default_dtype(torch.float64)
    try:
        assert npe.sample(5, OBSERVED).dtype == torch.float32
        torch.testing.assert_close(npe.map(OBSERVED), expected, atol=1e-3, rtol=0)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.inference_mode():
        torch.testing.assert_close(npe.map(OBSERVED), expected, atol=1e-3, rtol=0)


def test_pyro_takes_it(npe):
    pyro = pytest.importorskip("pyro")
    found = npe.distribution(OBSERVED)
    pyro.set_rng_seed(0)
    trace = pyro.poutine.trace(lambda: pyro.sample("theta", found)).get_trace()
    assert trace.nodes["theta"]["value"].shape == (2,)
    assert bool(torch.isfinite(trace.log_prob_sum()))


def test_wrong_input_is_refused(npe):
    with pytest.raises(InputError, match="an observation must have the shape"):
        npe.distribution(torch.zeros(3))
    with pytest.raises(InputError, match="NaN or infinity"):
        npe.distribution([math.nan, 0.0])
    with pytest.raises(InputError, match=r"shape \(\*batch, 2\)"):
        npe.distribution(OBSERVED).log_prob(torch.zeros(3))
    with pytest.raises(InputError, match="one observation"):
        npe.distribution(OBSERVED).expand((3,))
    with pytest.raises(InputError, match="NaN or infinity"):
        npe.map([math.nan, 0.0])
