"""Posteriors of Pyro models."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward import inference

pyro = pytest.importorskip("pyro")
dist = pytest.importorskip("pyro.distributions")

Y = torch.tensor([1.2, 0.3, -0.7, 2.0])


def linear():
    """mu ~ N(0, 2), y ~ N(mu, 1): the evidence is that of a multivariate normal."""
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("rows", len(Y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=Y)


def with_constraint():
    sigma = pyro.sample("sigma", dist.Gamma(2.0, 1.0))
    shares = pyro.sample("shares", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("rows", len(Y)):
        pyro.sample("y", dist.Normal(shares[0], sigma), obs=Y)


def test_the_evidence_of_a_linear_model():
    covariance = torch.eye(4) + 4 * torch.ones(4, 4)
    truth = float(torch.distributions.MultivariateNormal(torch.zeros(4), covariance).log_prob(Y))
    fit = inference.fit_to_target(None, inference.PyroTarget(linear), max_steps=20, progress="silent")
    assert fit.log_evidence == pytest.approx(truth, abs=1e-3)


def test_vectorized_values_are_those_of_pyro():
    from pyro.infer.mcmc.util import initialize_model

    target = inference.PyroTarget(with_constraint)
    assert target.features == 3
    u = torch.randn(6, 3)
    _, potential, _, _ = initialize_model(with_constraint)
    values = target(u)
    expected = torch.stack([-potential({"sigma": row[0], "shares": row[1:]}) for row in u])
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-4)
    constrained = target.constrain(u)
    torch.testing.assert_close(constrained["shares"].sum(-1), torch.ones(6))
    assert math.isfinite(float(values.sum()))
