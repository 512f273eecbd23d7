from __future__ import annotations

import functools
import math

import pytest
import torch

import pushforward as pf
from pushforward.errors import ConfigError
from pushforward.training.ema import WeightAverage
from pushforward.training.sources import default_batch_size

from .tiny import curved, equal, gaussian, rows, silent, weights


def test_the_average_is_that_of_its_formula():
    weight = torch.nn.Parameter(torch.tensor([0.0]))
    average = WeightAverage([weight], 0.6)
    expected = 0.0
    for step, value in enumerate((3.0, -1.0, 5.0, 2.0), start=1):
        with torch.no_grad():
            weight.fill_(value)
        average.update(step)
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with average.applied():
        assert weight.item() == pytest.approx(expected, rel=1e-6)
    assert weight.item() == 2.0


def test_the_average_of_the_steps_is_kept():
    x = torch.tensor([[3.0]])
    optimizer = functools.partial(torch.optim.SGD, lr=0.01)
    options = {"validation": None, "initialize": False, "gradient_clip": None, "optimizer": optimizer, "schedule": None}
    shifts = []
    for steps in range(1, 5):
        model = gaussian(1)
        silent(model, x, max_steps=steps, ema=None, **options)
        shifts.append(model.chain.transforms[0].shift.item())
    expected = 0.0
    for step, shift in enumerate(shifts, start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * shift
    model = gaussian(1)
    silent(model, x, max_steps=4, ema=0.5, **options)
    assert model.chain.transforms[0].shift.item() == pytest.approx(expected, rel=1e-5)


def test_training_itself_is_not_changed():
    losses = [
        [event["loss"] for event in silent(made(), curved(100), ema=average, max_steps=30, evaluate_every=5).history]
        for average in (None, 0.9)
    ]  # fmt: skip
    assert losses[0] == losses[1]


def made():
    torch.manual_seed(0)
    return pf.models.NSF(features=3, layers=1, hidden=(8, 8))


def test_an_average_with_a_constant_rate_is_nearer_to_the_best_weights():
    x = rows(64)
    best = -0.5 * (math.log(2 * math.pi) + 1 + 2 * x.double().std(0, unbiased=False).log()).sum().item()
    behind = {}
    for average in (None, 0.99):
        gaps = []
        for seed in range(5):
            model = gaussian(x.shape[1])
            options = {
                "max_steps": 400,
                "batch_size": 4,
                "learning_rate": 0.05,
                "schedule": None,
                "ema": average,
                "seed": seed,
            }
            silent(model, x, validation=None, **options)
            gaps.append(best - model.log_prob(x).double().mean().item())
        behind[average] = sum(gaps)
    assert 0 <= behind[0.99] < 0.25 * behind[None]


def test_a_run_whose_callback_stops_it_keeps_the_average():
    model, other = made(), made()
    seen = []

    def look(event):
        seen.append(weights(model))
        return event.step >= 10

    silent(model, curved(100), max_steps=30, evaluate_every=5, callback=look, validation=None)
    assert equal(weights(model), seen[-1])  # a callback gets the weights that are measured
    silent(
        other,
        curved(100),
        max_steps=30,
        evaluate_every=5,
        callback=lambda e: e.step >= 10,
        validation=None,
        ema=None,
    )
    assert not equal(weights(model), weights(other))


@pytest.mark.parametrize("average", [0.0, 1.0, -0.5, 2, "much", float("nan"), True])
def test_bad_decays_are_refused(average):
    with pytest.raises(ConfigError, match=r"ema must be a decay in \(0, 1\) or None"):
        silent(gaussian(), rows(50), max_steps=1, ema=average)


def test_small_data_get_small_batches():
    assert [default_batch_size(n) for n in (10, 2048, 3200, 8192, 1_000_000)] == [64, 64, 100, 256, 512]
    assert silent(gaussian(), rows(3200), validation=None, epochs=2).steps == 64
