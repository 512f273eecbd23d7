"""Markov chains with flows: exact in the limit, with diagnostics."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

import pushforward as pf
from pushforward import inference
from pushforward.errors import ConfigError, PushforwardWarning

pytest.importorskip("arviz_stats")


def gamma(v):
    """Gamma(3, 1) without its constant."""
    return 2 * v["s"].log() - v["s"]


def fitted():
    space = inference.Parameters(s=inference.positive())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PushforwardWarning)
        return inference.fit_to_target(None, gamma, parameters=space, max_steps=20, progress="silent")


def test_independent_metropolis_draws_from_the_target():
    chains = inference.independent_metropolis(fitted(), 2000, chains=4)
    assert chains.draws.shape == (4, 2000, 1)
    assert float(chains.draws.mean()) == pytest.approx(3, abs=0.15)
    assert float(chains.draws.std()) == pytest.approx(math.sqrt(3), rel=0.1)
    assert chains.r_hat < 1.01
    assert chains.ess > 1000
    assert {name: value.shape for name, value in chains.to_arviz().items()} == {"s": (4, 2000)}
    assert set(chains.to_arviz(["scale"])) == {"scale"}
    with pytest.raises(ConfigError, match="1 coordinates and 2 names"):
        chains.to_arviz(["a", "b"])


def test_arrays_for_arviz_have_the_names_and_shapes_of_the_parameters():
    space = inference.Parameters(s=inference.positive(), p=inference.simplex(3))
    draws = torch.rand(2, 5, 3, dtype=torch.float64) / 3
    arrays = inference.ChainDraws(draws, 1.0, 1.0, 10.0, parameters=space).to_arviz()
    assert {name: value.shape for name, value in arrays.items()} == {"s": (2, 5), "p": (2, 5, 3)}
    assert arrays["p"].sum(-1) == pytest.approx(1)
    assert inference.ChainDraws(draws, 1.0, 1.0, 10.0).to_arviz()["x"].shape == (2, 5, 3)


def test_a_flow_that_misses_the_target_has_a_bad_r_hat():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PushforwardWarning)
        fit = inference.fit_to_target(
            pf.models.NICE(2, layers=2, hidden=(8,)), lambda x: -2 * torch.log1p(((x - 4) ** 2).sum(-1)), max_steps=1,
            starts=[[0.0, 0.0]], restarts=0, draws=200, progress="silent",
        )  # fmt: skip
    with pytest.warns(PushforwardWarning, match="do not agree yet"):
        inference.independent_metropolis(fit, 100)


def test_neutra_draws_from_the_target():
    pytest.importorskip("pyro")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PushforwardWarning)  # short chains
        chains = inference.neutra(fitted(), 150, warmup=50, chains=2)
    assert chains.draws.shape == (2, 150, 1)
    assert (chains.draws > 0).all()
    assert float(chains.draws.mean()) == pytest.approx(3, abs=0.8)
    assert chains.divergences == 0


@pytest.mark.slow
def test_long_chains_of_neutra():
    pytest.importorskip("pyro")
    chains = inference.neutra(fitted(), 1000, warmup=200, chains=4)
    assert float(chains.draws.mean()) == pytest.approx(3, abs=0.2)
    assert float(chains.draws.std()) == pytest.approx(math.sqrt(3), rel=0.1)
    assert chains.r_hat < 1.02
