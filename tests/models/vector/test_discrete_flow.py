"""Discrete flows: total probability, samples, an exact target, and contexts."""

from __future__ import annotations

import itertools
import math

import pytest
import scipy.stats
import torch

import pushforward as pf
from pushforward.errors import ConfigError
from pushforward.likelihood import Counting
from pushforward.models import DiscreteFlow


def states(features: int, categories: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(categories), repeat=features)))


def made(*size: int, **options) -> DiscreteFlow:
    torch.manual_seed(0)
    model = DiscreteFlow(*size, hidden=(16,), **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.7 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("kind", ["autoregressive", "coupling"])
@pytest.mark.parametrize("size", [(1, 6), (3, 4), (6, 2)])
def test_the_probabilities_of_all_states_sum_to_one(kind, size):
    model = made(*size, layer=kind, layers=3)
    x = states(*size)
    assert model.log_prob(x).exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    assert torch.equal(model.decode(model.encode(x)), x.double())
    assert model.measure == Counting(size[0])
    assert model.evaluate(x).bits_per_dim().shape == (len(x),)


@pytest.mark.parametrize("kind", ["autoregressive", "coupling"])
def test_samples_follow_their_probabilities(kind):
    model = made(2, 4, layer=kind, layers=2)
    x = states(2, 4)
    expected = 8000 * model.log_prob(x).exp().detach()
    drawn = model.sample(8000, seed=1)
    observed = torch.bincount((drawn[:, 0] * 4 + drawn[:, 1]).long(), minlength=16)
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3


def test_other_values_than_categories_have_probability_zero():
    model = made(2, 3)
    x = torch.tensor([[0.0, 2.0], [0.0, 2.5], [3.0, 0.0], [0.0, -1.0], [1e20, 0.0], [math.inf, 0.0]])
    value = model.log_prob(x)
    assert torch.isfinite(value[0])
    assert torch.isneginf(value[1:]).all()


@pytest.mark.parametrize("kind", ["autoregressive", "coupling"])
def test_a_context_chooses_the_permutation(kind):
    model = made(3, 4, context=2, layer=kind, layers=2)
    x = states(3, 4)
    values = []
    for value in (-2.0, 0.0, 2.0):
        context = torch.full((2,), value, dtype=torch.float64)
        values.append(model.log_prob(x, context))
        assert values[-1].exp().sum().item() == pytest.approx(1.0, abs=1e-12)
        assert torch.equal(model.decode(model.encode(x, context), context), x.double())
    assert not torch.equal(values[0], values[1])
    assert not torch.equal(values[1], values[2])


@pytest.mark.parametrize("kind", ["autoregressive", "coupling"])
def test_it_learns_a_deterministic_dependence(kind):
    """Second column = first + 1 mod 4, with a noise of 10 %: independence costs log 4 = 1.386 less the noise's entropy."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(4, (4000,), generator=generator)
    noise = torch.rand(4000, generator=generator) < 0.1
    shift = torch.where(noise, torch.randint(4, (4000,), generator=generator), 1)
    x = torch.stack((first, (first + shift) % 4), -1).float()
    share = 0.1 / 4
    entropy = math.log(4) - (1 - 3 * share) * math.log(1 - 3 * share) - 3 * share * math.log(share)
    best = -math.inf
    for seed in range(2):  # local optima: the better of two seeds
        torch.manual_seed(seed)
        model = DiscreteFlow(2, 4, layer=kind, layers=1, hidden=(32,))
        pf.fit(model, x, max_steps=500, learning_rate=1e-2, batch_size=256, patience=None, seed=seed, progress="silent")
        best = max(best, model.log_prob(x).mean().item())
    assert best == pytest.approx(-entropy, abs=0.03)


def test_impossible_arguments_are_refused():
    with pytest.raises(ConfigError, match="layer"):
        DiscreteFlow(2, 3, layer="residual")
    with pytest.raises(ConfigError, match="layers"):
        DiscreteFlow(2, 3, layers=0)
    with pytest.raises(ConfigError, match="categories"):
        DiscreteFlow(2, 1)
