"""The maximum of a density by its draws, with and without the kernel that averages out bumps, beside closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributions as td

from pushforward.inference.maximum import Kernel, highest_density
from pushforward.inference.priors import Prior


def normal(covariance):
    return td.MultivariateNormal(torch.zeros(len(covariance)), torch.as_tensor(covariance))


def equal(width, correlation):
    return torch.full((width, width), correlation) + (1 - correlation) * torch.eye(width)


def known_sum(width, deviation):
    """Standard normal coordinates of which the sum is known: a ridge."""
    precision = torch.eye(width) + torch.ones(width, width) / deviation**2
    return td.MultivariateNormal(torch.zeros(width), precision_matrix=precision)


def two_modes(width, deviation, share, other):
    places = torch.tensor([[1.0] * width, [-1.0] * width])
    deviations = torch.tensor([[deviation] * width, [other] * width])
    each = td.Independent(td.Normal(places, deviations), 1)
    return td.MixtureSameFamily(td.Categorical(torch.tensor([share, 1 - share])), each)


def one(distribution):
    return td.Independent(distribution.expand((1,)), 1)


REALS = {
    "correlation 0.99": (normal(equal(2, 0.99)), 0.0),
    "correlation 0.99 of five": (normal(equal(5, 0.99)), 0.0),
    "a sum of five": (known_sum(5, 0.05), 0.0),
    "twenty coordinates": (normal(torch.eye(20)), 0.0),
    "two modes": (two_modes(1, 0.05, 0.6, 0.05), 1.0),
    "two modes of four coordinates": (two_modes(4, 0.05, 0.6, 0.05), 1.0),
    "a narrow mode beside a broad one": (two_modes(1, 0.05, 0.4, 0.2), 1.0),
}
BOUNDED = {
    **{
        f"lognormal {s}": (one(td.LogNormal(0.0, s)), math.exp(-s * s), td.LogNormal(0.0, 3.0)) for s in (0.5, 1.0, 2.0)
    },
    **{f"gamma {a}": (one(td.Gamma(a, 1.0)), a - 1, td.Gamma(1.0, 0.1)) for a in (1.0, 2.0, 3.0)},
    **{
        f"beta {a}, {b}": (one(td.Beta(a, b)), (a - 1) / (a + b - 2), td.Uniform(0.0, 1.0))
        for a, b in ((1.0, 10.0), (2.0, 10.0), (11.0, 1.0), (1.5, 1.5))
    },
}


def found(distribution, prior, averaged, seed=0):
    torch.manual_seed(seed)
    draws = prior.clamp(distribution.sample((1000,)))
    kernel = Kernel(prior, draws) if averaged else None
    return highest_density(distribution.log_prob, prior, draws, 10, kernel), draws


@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize("name", REALS)
def test_on_the_reals(name, averaged):
    distribution, mode = REALS[name]
    width = distribution.event_shape[0]
    place, _ = found(distribution, Prior(td.Normal(torch.zeros(width), 10.0)), averaged)
    assert float(distribution.log_prob(torch.full((width,), mode)) - distribution.log_prob(place)) < 0.01


@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize("name", BOUNDED)
def test_between_bounds(name, averaged):
    distribution, mode, prior = BOUNDED[name]
    place, draws = found(distribution, Prior(prior.expand((1,))), averaged)
    assert abs(float(place) - mode) < 0.05 * min(float(draws.std()), max(mode, 1.0))


def test_the_kernel_removes_narrow_spikes_and_keeps_the_place():
    """A normal density with spikes, each of a hundredth of the mass: the raw maximum is on a spike far from the middle."""
    spikes = torch.tensor([1.5, -1.8, 1.1])
    middle = td.Normal(0.0, 1.0)

    def log_density(theta):
        narrow = td.Normal(spikes, 0.003).log_prob(theta) + math.log(0.01)
        return torch.logsumexp(torch.cat((middle.log_prob(theta) + math.log(0.97), narrow), 1), 1)

    torch.manual_seed(0)
    draws = torch.cat((torch.randn(970, 1), spikes.repeat_interleave(10)[:, None] + 0.003 * torch.randn(30, 1)))
    prior = Prior(td.Normal(torch.zeros(1), 10.0))
    raw = highest_density(log_density, prior, draws, 10)
    assert abs(float(raw)) > 1
    averaged = highest_density(log_density, prior, draws, 30, Kernel(prior, draws))
    assert abs(float(averaged)) < 0.3
