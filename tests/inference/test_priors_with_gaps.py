"""Priors whose density is 0 at some points between their bounds, such as ordered parameters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributions as td

from pushforward import inference
from pushforward.errors import ConfigError, InputError
from pushforward.inference.auto import _member

QUIET = {"progress": "silent"}


class Ordered(td.Distribution):
    """Two uniform numbers in rising order: a triangle of the unit square, with density 2."""

    support = td.constraints.independent(td.constraints.interval(0.0, 1.0), 1)
    arg_constraints = {}

    def __init__(self) -> None:
        super().__init__(event_shape=torch.Size((2,)), validate_args=False)

    def sample(self, sample_shape=()):
        return torch.rand(*sample_shape, 2).sort(-1).values

    def log_prob(self, value):
        inside = (value[..., 0] <= value[..., 1]) & ((value >= 0) & (value <= 1)).all(-1)
        return torch.where(inside, math.log(2.0), -math.inf)


@pytest.fixture(scope="module")
def trained():
    theta = inference.Prior(Ordered()).sample(500, seed=0)
    x = theta.sum(-1, keepdim=True) + 0.3 * torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    return inference.NPE(Ordered()).fit(theta, x, max_steps=60, **QUIET)


def test_gaps_are_found_and_common_priors_have_none():
    assert inference.Prior(Ordered()).has_gaps
    assert inference.Prior([td.Normal(0.0, 1.0), Ordered()]).has_gaps
    for prior in (
        td.Uniform(torch.zeros(3), torch.ones(3)), td.LogNormal(torch.zeros(2), 3.0), td.Cauchy(torch.zeros(1), 1.0),
        td.Dirichlet(torch.ones(4)), td.Gamma(torch.tensor([0.01]), 1.0), td.Beta(torch.tensor([0.1, 5.0]), 0.1),
        td.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.9999], [0.9999, 1.0]])), td.Normal(torch.zeros(2), 1e-7),
    ):  # fmt: skip
        assert not inference.Prior(prior).has_gaps, prior


def test_draws_lie_within_the_prior_and_the_density_is_normalized(trained):
    """The flow knows nothing of the gap: some of its own draws lie in it."""
    x = torch.tensor([1.2])
    raw = trained.draw(5000, trained._observation(x), torch.Generator().manual_seed(1))
    assert not bool(trained.prior.contains(raw).all())
    draws = trained.sample(5000, x, seed=0)
    assert draws.shape == (5000, 2)
    assert bool(trained.prior.contains(draws).all())
    with torch.no_grad():
        assert bool(torch.isfinite(trained.log_prob(draws, x)).all())
        middles = (torch.arange(200) + 0.5) / 200
        grid = torch.cartesian_prod(middles, middles)
        assert float(trained.log_prob(grid, x).exp().mean()) == pytest.approx(1.0, abs=0.02)
        each = trained.log_prob(draws[:3], x.expand(3, 1))
        torch.testing.assert_close(each, trained.log_prob(draws[:3], x))


def test_a_file_is_read_with_its_prior(trained, tmp_path):
    path = tmp_path / "post.safetensors"
    trained.save(path, prior=False)
    again = inference.load_posterior(path, prior=Ordered())
    assert torch.equal(again.sample(100, [1.0], seed=0), trained.sample(100, [1.0], seed=0))


def test_a_flow_outside_the_prior_is_an_error_and_no_endless_loop(trained, monkeypatch):
    monkeypatch.setattr(
        trained, "draw", lambda count, x, generator: torch.tensor([[0.9, 0.1]]).expand(count, 2).contiguous()
    )
    with pytest.raises(InputError, match="only 0 of 10 draws were found where the prior has a density"):
        trained.sample(10, [5.0], seed=0)
    theta = torch.tensor([[0.1, 0.9], [0.2, 0.3]])
    with pytest.raises(InputError, match="train on more simulations"):
        trained.log_prob(theta, [5.0])
    with torch.no_grad():  # one such observation among others is no reason to lose the others
        assert bool(torch.isfinite(trained.log_prob(theta, [[5.0], [6.0]])).all())


def test_members_do_not_share_what_is_known_of_an_observation(trained):
    trained.log_prob(torch.tensor([[0.1, 0.9]]), [1.2])
    one = _member(trained, 0)
    assert trained._accepted
    assert not one._accepted


def test_a_distribution_without_a_density_is_refused_by_name():
    prior = td.TransformedDistribution(td.Normal(torch.zeros(1), torch.ones(1)), [td.transforms.AbsTransform()])
    with pytest.raises(ConfigError, match=r"TransformedDistribution has draws and no density.*HalfNormal"):
        inference.NPE(prior)
