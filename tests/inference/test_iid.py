"""Posteriors given several independent observations, beside closed forms."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import distributions as td

from pushforward import inference
from pushforward.errors import ConfigError, InputError

QUIET = {"progress": "silent"}
X = torch.tensor([[0.6], [1.5], [0.9], [1.4], [0.1]])
"""Of theta ~ N(0, 1) and x_i ~ N(theta, 1): the posterior is N(4.5 / 6, 1 / 6)."""


def trained(method):
    prior = td.Normal(torch.zeros(1), 1.0)
    theta = inference.Prior(prior).sample(2000, seed=0)
    x = theta + torch.randn(2000, 1, generator=torch.Generator().manual_seed(1))
    return (inference.NLE if method == "nle" else inference.NRE)(prior).fit(theta, x, max_steps=200, **QUIET)


@pytest.fixture(scope="module")
def nle():
    return trained("nle")


@pytest.mark.parametrize("method", ["nle", "nre"])
def test_several_observations_of_one_parameter(method, nle):
    single = nle if method == "nle" else trained("nre")
    post = inference.iid(single, 5)
    draws = post.sample(2000, X, seed=0)
    assert float(draws.mean()) == pytest.approx(0.75, abs=0.15)
    assert float(draws.std()) == pytest.approx(1 / math.sqrt(6), rel=0.15)
    grid = torch.linspace(-3, 4, 500)[:, None]
    with torch.no_grad():
        assert float(post.log_prob(grid, X).exp().sum() * 7 / 499) == pytest.approx(1.0, abs=0.03)
        each = sum(single._log_likelihood(grid, single._observation(x)) for x in X)
        torch.testing.assert_close(post._log_likelihood(grid, post._observation(X)), each, atol=1e-4, rtol=1e-4)


def test_likelihood_and_evidence_of_several_observations(nle):
    post = inference.iid(nle, 5)
    theta = torch.tensor([[0.0], [1.0]])
    with torch.no_grad():
        each = sum(nle.log_likelihood(theta, x) for x in X)
    torch.testing.assert_close(post.log_likelihood(theta, X), each, atol=1e-4, rtol=1e-4)
    truth = td.MultivariateNormal(torch.zeros(5), torch.eye(5) + 1).log_prob(X[:, 0])
    assert post.log_evidence(X) == pytest.approx(float(truth), abs=0.2)
    assert post.log_likelihood(theta.requires_grad_(), X).requires_grad


def test_counts_are_averaged_over_their_cells_and_parts_add_up(monkeypatch):
    prior = td.Uniform(torch.full((1,), 0.05), torch.full((1,), 0.95))
    theta = inference.Prior(prior).sample(500, seed=0)
    x = torch.bernoulli(theta, generator=torch.Generator().manual_seed(1))
    single = inference.NLE(prior).fit(theta, x, max_steps=20, **QUIET)
    heads, few = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]), theta[:3]
    post = inference.iid(single, 5)
    monkeypatch.setattr(
        sys.modules[inference.IIDPosterior.__module__], "_ROWS_AT_ONCE", 7
    )  # in parts of two observations
    with torch.no_grad():
        each = sum(single._log_likelihood(few, single._observation([value])) for value in heads.tolist())
        found = post._log_likelihood(few, post._observation(heads))  # a vector is a column, as for one number
        torch.testing.assert_close(found, each, atol=1e-4, rtol=1e-4)
        rough = post._rough_log_likelihood(few, post._observation(heads))
    assert post._is_rough
    assert float((rough - found).abs().max()) > 0.01
    assert post.sample(10, heads[None].T, seed=0).shape == (10, 1)


def two_columns(theta):
    """Two data of a parameter, the second in other units."""
    noise = torch.randn(len(theta), 2)
    return torch.cat((theta + noise[:, :1], 10 * (theta + noise[:, 1:])), 1)


def test_several_observations_of_several_numbers_are_checked():
    torch.manual_seed(0)
    prior = td.Normal(torch.zeros(1), 1.0)
    single = inference.NLE(prior).fit(simulator=two_columns, simulations=500, max_steps=30, **QUIET)
    post = inference.iid(single, 3)
    theta = prior.sample((30,))
    x = torch.stack([two_columns(theta) for _ in range(3)], 1)
    torch.testing.assert_close(post.scale(x[0].flatten()[None])[0], post._observation(x[0]))
    assert torch.equal(post._observation(x[:1]), post._observation(x[0]))

    def several(theta):
        return torch.stack([two_columns(theta) for _ in range(3)], 1)

    made, p_value = inference.posterior_predictive(post, several, x[0], draws=40)
    assert made.shape == (40, 3, 2)
    assert 0 < p_value <= 1
    _, p_value = inference.local_c2st(post, theta[:20], x[:20], x[0], permutations=1)
    assert 0 < p_value <= 1
    with pytest.raises(InputError, match="the local test needs at least 20 pairs"):
        inference.local_c2st(post, theta[:5], x[:5], x[0])


def test_the_network_reads_equal_observations_once(monkeypatch):
    prior = td.Gamma(torch.tensor([2.0]), torch.tensor([0.5]))
    torch.manual_seed(0)
    theta = prior.sample((500,))
    single = inference.NLE(prior).fit(theta, torch.poisson(theta), max_steps=20, **QUIET)
    x = torch.tensor([1.0, 3.0, 3.0, 1.0, 0.0, 3.0])
    post = inference.iid(single, 6)
    asked = []
    inner = single._log_likelihood
    monkeypatch.setattr(single, "_log_likelihood", lambda theta, x: asked.append(len(theta)) or inner(theta, x))
    with torch.no_grad():
        found = post._log_likelihood(theta[:5], post._observation(x))
        each = sum(inner(theta[:5], single._observation([value])) for value in x.tolist())
    torch.testing.assert_close(found, each, atol=1e-4, rtol=1e-4)
    assert asked == [15]


def test_what_iid_refuses(nle, tmp_path):
    with pytest.raises(ConfigError, match=r"NPEPosterior. NPE reads several observations as one datum"):
        prior = td.Normal(torch.zeros(1), 1.0)
        theta = inference.Prior(prior).sample(50, seed=0)
        inference.iid(inference.NPE(prior).fit(theta, theta, max_steps=2, **QUIET), 3)
    post = inference.iid(nle, 5)
    with pytest.raises(ConfigError, match="IIDPosterior"):
        inference.iid(post, 2)
    with pytest.raises(InputError, match=r"5 observations have the shape \(5, 1\); got \(4, 1\)"):
        post.sample(3, X[:4])
    with pytest.raises(InputError, match="NaN or infinity"):
        post.sample(3, X * math.nan)
    with pytest.raises(ConfigError, match="not saved"):
        post.save(tmp_path / "post.safetensors")
    with pytest.raises(ConfigError, match="use NLE"):
        inference.iid(trained("nre"), 5).log_evidence(X)
