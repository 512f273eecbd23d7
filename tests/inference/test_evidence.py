"""Integrals of densities by importance sampling around draws, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributions as td

from pushforward import inference
from pushforward.inference.data_scale import DataScale
from pushforward.inference.evidence import sampled_evidence
from pushforward.inference.nle import LikelihoodPosterior


def found(log_target, points, seed=0):
    return sampled_evidence(log_target, points, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("width", "tolerance"), [(1, 0.01), (2, 0.015), (5, 0.04)])
def test_the_integral_of_a_correlated_normal(width, tolerance):
    """In units that differ by 1e6, and with an offset."""
    factor = torch.diag(10.0 ** torch.linspace(-3, 3, width)) @ (
        torch.eye(width) + 0.5 * torch.ones(width, width).tril(-1)
    )
    points = 5 + torch.randn(1000, width) @ factor.mT
    normal = td.MultivariateNormal(torch.full((width,), 5.0), scale_tril=factor)
    weights = found(lambda u: normal.log_prob(u) + 2.0, points)
    assert weights.log_evidence == pytest.approx(2.0, abs=tolerance)
    assert weights.log_evidence_error < tolerance / 2


def test_a_target_with_an_edge_and_one_with_two_modes():
    points = torch.empty(1000, 1).exponential_()
    edge = found(lambda u: torch.where(u[:, 0] > 0, -u[:, 0], -math.inf), points)
    assert edge.log_evidence == pytest.approx(0.0, abs=0.03)
    points = 0.05 * torch.randn(1000, 1) + torch.randint(2, (1000, 1))
    modes = td.MixtureSameFamily(td.Categorical(torch.ones(2)), td.Normal(torch.tensor([0.0, 1.0]), 0.05))
    assert found(lambda u: modes.log_prob(u[:, 0]), points).log_evidence == pytest.approx(0.0, abs=0.05)


class Known(LikelihoodPosterior):
    """theta ~ N(0, 1), x ~ N(theta, 0.5), with the true likelihood."""

    method = "known likelihood of the tests"

    def _log_likelihood(self, theta, x):
        return td.Normal(theta[:, 0], 0.5).log_prob(x)


def test_the_density_of_a_likelihood_is_normalized_to_one_percent_and_its_errors_are_independent():
    post = Known(inference.Prior(td.Normal(torch.zeros(1), 1.0)), [torch.nn.Identity()], DataScale(1), (1,))
    grid = torch.linspace(-6, 6, 2001)[:, None]
    errors = []
    for x in torch.linspace(-2, 3, 12).tolist():
        log_prob = post.log_prob(grid, x=torch.tensor([x])).double()
        errors.append(float(torch.trapezoid(log_prob.exp(), grid[:, 0].double())) - 1)
    assert max(map(abs, errors)) < 0.01
    assert min(errors) < 0 < max(errors)
