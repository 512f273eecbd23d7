"""Rows from which a flow for several modes starts: the same number around each mode that has mass."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward.inference import Target
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
