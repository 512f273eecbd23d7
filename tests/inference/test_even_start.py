"""A flow for several modes: where it starts, and which of its weights are the best."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward import inference
from pushforward.inference import Target, reverse_kl
from pushforward.inference.fit_to_target import _Search


def three_modes(x):
    """Half N(-2.5, 1) and half N(2.5, 1) in each of two coordinates, and exp(-60) of N(1000, 1)."""
    parts = [(-2.5, math.log(0.5)), (2.5, math.log(0.5)), (1000.0, -60.0)]
    return torch.stack(
        [-0.5 * (x - mean).square().sum(-1) - math.log(2 * math.pi) + mass for mean, mass in parts]
    ).logsumexp(0)


def test_a_mode_of_negligible_mass_gets_no_rows():
    """It would set the scale of the flow, and a third of the buffer would have no weight."""
    starts = torch.tensor([[-2.0, -2.0], [2.0, 2.0], [1001.0, 1001.0]])
    search = _Search(Target(three_modes, 2), starts, 8, 2.0, 0, torch.device("cpu"), None)
    assert len(search.modes) == 3
    assert search.several()
    rows = search.even_rows()
    assert rows.abs().max() < 20
    assert float((rows[:, 0] > 0).double().mean()) == pytest.approx(0.5, abs=0.05)
    at_the_first = float(search.even_log_prob(torch.full((1, 2), -2.5, dtype=torch.float64)))
    assert at_the_first == pytest.approx(math.log(0.5) - math.log(2 * math.pi), abs=1e-3)


def test_modes_with_little_mass_each_get_rows():
    """Thousands of them, of which a search finds a few, may have most of the mass."""

    def target(x):
        parts = torch.stack([-0.5 * (x - mean).square().sum(-1) for mean in (-5.0, 5.0)])
        return torch.logaddexp(parts[0], parts[1] - 20)

    starts = torch.tensor([[-4.0, -4.0], [4.0, 4.0]])
    rows = _Search(Target(target, 2), starts, 8, 2.0, 0, torch.device("cpu"), None).even_rows()
    assert float((rows[:, 0] > 0).double().mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.filterwarnings("ignore::pushforward.errors.PushforwardWarning")  # a few steps only
@pytest.mark.parametrize(("objective", "best"), [("fab", 10), ("reverse-kl", 0)])
def test_few_draws_where_the_target_is_tiny_do_not_decide_which_weights_are_kept(monkeypatch, objective, best):
    """A flow that covers a narrow neck has draws beside it, where log p is -1e6; its weights are the better ones all the same."""
    start = torch.linspace(-8, 2, 2_048, dtype=torch.float64)
    trained = torch.zeros(2_048, dtype=torch.float64)
    trained[0] = -1e6
    found = iter([start, trained])
    monkeypatch.setattr(reverse_kl, "log_ratios", lambda *_: (None, next(found), None))
    fit = inference.fit_to_target(
        2, lambda x: -0.5 * x.square().sum(-1), objective=objective, max_steps=10, draws=200, progress="silent"
    )
    assert fit.training.best_step == best
    assert fit.training.history[-1]["validation"] == pytest.approx(-1e6 / 2_048)


def test_the_least_log_ratio_leaves_the_others_and_what_is_outside():
    ratios = torch.tensor([0.0, 0.0, -1e6, -math.inf], dtype=torch.float64)
    kept = reverse_kl._with_least(ratios)
    assert kept[[0, 1, 3]].tolist() == [0.0, 0.0, -math.inf]
    assert float(kept[2]) == pytest.approx(math.log(0.5) - 10)
