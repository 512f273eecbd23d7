"""NLE of counts: noise of width 1 before the data are scaled, also where they become logarithms or asinh."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import distributions as td

from pushforward import inference
from pushforward.errors import PushforwardWarning
from pushforward.inference.data_scale import DataScale
from pushforward.inference.nle import NLEPosterior

from .closed_form import PRIOR, simulations

QUIET = {"progress": "silent"}


def test_integer_data_are_dequantized():
    """Counts: theta in (0, 1), x ~ Binomial(20, theta); the posterior of a uniform prior is Beta(1 + x, 21 - x)."""
    prior = td.Uniform(torch.zeros(1), torch.ones(1))
    theta = prior.sample((3000,))
    x = torch.binomial(torch.full((3000, 1), 20.0), theta)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PushforwardWarning)
        post = inference.NLE(prior).fit(theta, x, max_steps=400, **QUIET)
    draws = post.sample(2000, x=torch.tensor([5.0]), seed=0)
    truth = td.Beta(6.0, 16.0)
    assert float(draws.mean()) == pytest.approx(float(truth.mean), abs=0.05)
    assert float(draws.std()) == pytest.approx(float(truth.stddev), rel=0.3)


@pytest.mark.parametrize("least", [0, 1])
def test_counts_over_orders_of_magnitude_are_dequantized_before_they_are_scaled(least, tmp_path):
    """theta ~ N(1, 2.5^2), x - least ~ Poisson(exp(theta)); the posterior of the smallest count is computed on a grid."""
    prior = td.Normal(torch.ones(1), 2.5)
    torch.manual_seed(0)
    theta = prior.sample((4000,))
    x = torch.poisson(theta.exp()) + least
    scale = DataScale.of(x)
    assert bool(scale.logarithm) == (least == 1)
    assert bool(scale.tail) == (least == 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PushforwardWarning)
        post = inference.NLE(prior).fit(theta, x, max_steps=400, **QUIET)
    grid = torch.linspace(-11, 11, 5001, dtype=torch.float64)
    weights = torch.softmax(-0.5 * ((grid - 1) / 2.5).square() - grid.exp(), 0)
    draws = post.sample(2000, x=torch.tensor([float(least)]), seed=0)
    assert float(draws.mean()) == pytest.approx(float((weights * grid).sum()), abs=0.35)
    post.save(tmp_path / "post.safetensors")
    again = inference.load_posterior(tmp_path / "post.safetensors")
    assert torch.equal(again.sample(50, x=torch.tensor([3.0]), seed=0), post.sample(50, x=torch.tensor([3.0]), seed=0))


def test_earlier_files_of_posteriors_have_the_widths_of_cells():
    theta, x = simulations(50)
    post = inference.NLE(PRIOR).fit(theta, x, max_steps=1, **QUIET)
    again = NLEPosterior._restore(
        post.prior, post.networks, post.scale, post.x_shape, {"networks": 1, "half_steps": [0.0, 0.2]}
    )
    assert again.counts.tolist() == [False, True]


def test_data_are_recovered_from_their_scales():
    torch.manual_seed(0)
    x = torch.stack((torch.randn(500), 3 * torch.randn(500).exp() ** 3, torch.randn(500) ** 9), 1).double()
    scale = DataScale.of(x)
    assert scale.logarithm.tolist() == [False, True, False]
    assert scale.tail.tolist() == [False, False, True]
    torch.testing.assert_close(scale.inverse(scale(x)), x, rtol=1e-4, atol=1e-5)


def test_small_numbers_are_no_counts():
    """Data of a size below 1e-3 are all near the integer 0; with noise of width 1 nothing of them would be left."""
    theta, x = simulations(50)
    assert not inference.NLE(PRIOR).fit(theta, 1e-4 * x, max_steps=1, **QUIET).counts.any()
