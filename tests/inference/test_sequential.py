"""Sequential rounds for one observation."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch
from torch import distributions as td

from pushforward import inference
from pushforward.errors import ConfigError, InputError, PushforwardWarning
from pushforward.networks import SetSummary

from .closed_form import PRIOR, Exact, simulations, simulator

QUIET = {"progress": "silent"}
BOX = td.Uniform(-10 * torch.ones(2), 10 * torch.ones(2))
X = torch.tensor([3.0, -4.0])


def narrow(theta):
    return theta + 0.2 * torch.randn_like(theta)


@pytest.mark.parametrize("method", [inference.NPE, pytest.param(inference.NLE, marks=pytest.mark.slow)])
def test_later_rounds_sharpen_the_posterior(method):
    """The posterior has a thousandth of the prior's area; 3 rounds of 300 simulations find it."""
    seen = []

    def recorded(theta):
        seen.append(theta)
        return narrow(theta)

    post = inference.sequential(method(BOX), recorded, X, rounds=3, simulations=300, max_steps=250, **QUIET)
    draws = post.sample(1000, x=X, seed=0)
    torch.testing.assert_close(draws.mean(0), X, atol=0.15, rtol=0)
    assert (draws.std(0) < 0.5).all()
    assert seen[-1].std(0).max() < seen[0].std(0).min() / 2
    assert all(((theta > -10) & (theta < 10)).all() for theta in seen)


def test_an_epsilon_that_needs_too_many_draws_is_refused():
    with pytest.raises(ConfigError, match=r"epsilon must be a number in \[1e-06, 1\)"):
        inference.sequential(inference.NPE(BOX), narrow, X, epsilon=1e-9)


def test_other_methods_are_refused():
    with pytest.raises(ConfigError, match="takes pf"):
        inference.sequential(inference.NRE(BOX), narrow, X)


def test_a_set_summary_makes_the_posterior_independent_of_the_order():
    theta, _ = simulations(300)
    x = theta[:, None] + 0.5 * torch.randn(300, 10, 2)
    post = inference.NPE(PRIOR, embedding=SetSummary(10, 2, 4, hidden=(16,))).fit(theta, x, max_steps=30, **QUIET)
    first = post.sample(20, x=x[0], seed=1)
    assert first.shape == (20, 2)
    raw = x[0].flatten()
    assert post.scale(raw.double()).shape == (20,)
    # Rows that are filled up in the simulations may be anywhere in the observation.
    count = torch.arange(300) % 10 + 1
    there = (torch.arange(10) < count[:, None])[..., None]
    sets = torch.cat((torch.where(there, x[..., :1] ** 2 + 5, 0.0), there.float()), -1)
    post = inference.NPE(PRIOR, embedding=SetSummary(10, 2, 4, hidden=(16,))).fit(theta, sets, max_steps=30, **QUIET)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        post.sample(20, x=sets[3][order], seed=1), post.sample(20, x=sets[3], seed=1), rtol=1e-4, atol=1e-4
    )


def test_what_cannot_work_is_said_before_the_first_run():
    def simulator(theta):
        raise AssertionError("no run")

    with pytest.raises(InputError, match="the observation contains NaN"):
        inference.sequential(inference.NPE(PRIOR), simulator, torch.full((2,), torch.nan), **QUIET)
    with pytest.raises(ConfigError, match="sequential trains once in each round"):
        inference.sequential(inference.NPE(PRIOR), simulator, torch.zeros(2), checkpoint="file", **QUIET)


def test_a_truncation_that_cut_the_posterior_off_is_said(monkeypatch):
    """The first round gives a wrong posterior or the right one, and the second the right one."""
    found = []

    def fit(self, theta, x, **options):
        found.append(Exact(shift=self.shift if not found else 0.0))
        return found[-1]

    monkeypatch.setattr(sys.modules[inference.sequential.__module__], "NPEPosterior", Exact)
    monkeypatch.setattr(inference.NPE, "fit", fit)
    method, x = inference.NPE(PRIOR), torch.tensor([0.5, -0.5])
    method.shift = 4.0
    with pytest.warns(PushforwardWarning, match=r"\d+ % of the draws of the last posterior lie outside the regions"):
        inference.sequential(method, simulator, x, rounds=2, simulations=50, **QUIET)
    found.clear()
    method.shift = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inference.sequential(method, simulator, x, rounds=2, simulations=50, **QUIET)
