"""The drift of chains on eight Gaussians: shapes and fractions of the modes are told apart, and chains that return are counted."""

import math
from typing import Any, cast

import pytest
import torch

from papers.cyclic.eight_gaussians import accepted, drift, eight, energy_distance, fractions, jumps, modes, restarted

UNEVEN = (4.0, 1.0, 1.0, 1.0, 4.0, 1.0, 1.0, 1.0)


class Kernel:
    """A chain with a known move in each call."""

    def __init__(self, move):
        self.move = move

    def gibbs(self, count, steps, *, seed=0, start):
        assert len(start) == count
        return self.move(start)


def _between(difference: torch.Tensor) -> float:
    """The energy distance of two mixtures of the same modes: -sum of d_i d_j times the mean distance of two draws of modes i and j."""
    draws = eight(4000, 9)
    angle = torch.atan2(draws[:, 1], draws[:, 0])
    mode = torch.remainder(torch.round(angle / (math.pi / 4)), 8).long()
    member = torch.nn.functional.one_hot(mode, 8).double()
    sizes = member.sum(0)
    pairs = sizes[:, None] * sizes - torch.diag(sizes)  # of different rows
    mean = member.T @ torch.cdist(draws.double(), draws.double()) @ member / pairs
    return -(difference @ mean @ difference).item()


def test_weighted_distances_are_those_of_equal_weights():
    x, y = eight(200, 0), eight(300, 1) + 0.2
    equal = [torch.full((len(rows),), 1 / len(rows), dtype=torch.float64) for rows in (x, y)]
    assert energy_distance(x, y, *equal) == pytest.approx(energy_distance(x, y), abs=1e-9)


def test_wrong_fractions_and_wrong_shapes_are_told_apart():
    test, uneven = eight(2000, 1), eight(2000, 2, UNEVEN)
    found = drift(uneven, test)
    # (4 / 14 - 1 / 8) for two modes is half the sum of all deviations
    assert found["variation"] == pytest.approx(2 * (4 / 14 - 1 / 8), abs=0.03)
    assert abs(found["shapes"]) < 0.003 < 0.01 < found["fractions"]
    assert found["fractions"] == pytest.approx(_between(fractions(uneven) - 1 / 8), abs=0.002)
    assert found["distance"] == pytest.approx(_between(fractions(uneven) - fractions(test)), abs=0.004)
    right = drift(uneven, test, UNEVEN)
    assert right["variation"] < 0.05
    assert right["fractions"] < 0.003
    angle = torch.round(torch.atan2(test[:, 1], test[:, 0]) / (math.pi / 4)) * math.pi / 4
    center = 2 * torch.stack((angle.cos(), angle.sin()), 1)
    wide = drift(  # wider modes at the same centers
        center + 4 * (test - center), eight(2000, 3)
    )
    assert wide["shapes"] > 5 * abs(wide["fractions"])


def test_fractions_and_modes():
    x = eight(4000, 0, UNEVEN)
    torch.testing.assert_close(fractions(x), torch.tensor(UNEVEN, dtype=torch.float64) / 14, atol=0.03, rtol=0)
    assert modes(x) == 8
    assert modes(x[x[:, 0] > 0]) < 8


def test_jumps_are_counted_by_mode():
    turn = torch.tensor([[1.0, 1.0], [-1.0, 1.0]]) / math.sqrt(2)  # by 45 degrees, with rows from the left
    found = jumps(cast("Any", Kernel(lambda x: x @ turn)), eight(500, 0), 1, 0)
    torch.testing.assert_close(found, torch.eye(8, dtype=torch.float64).roll(1, 1))


def test_chains_return_to_data_as_often_as_asked():
    shift = torch.tensor([1.0, 0.0])
    x = restarted(cast("Any", Kernel(lambda x: x + shift)), eight(4000, 0), 1, 0.5, 30, 0)
    assert x[:, 0].mean().item() == pytest.approx(2.0, abs=0.1)  # 1 / rate rounds since the last return
    every = restarted(cast("Any", Kernel(lambda x: x + shift)), eight(4000, 0), 1, 1.0, 5, 0)
    assert every[:, 0].mean().item() == pytest.approx(1.0, abs=0.1)


def test_the_acceptance_step_corrects_fractions():
    rows = eight(2000, 0)
    x = accepted(eight(2000, 1, UNEVEN), rows, eight(10_000, 2, UNEVEN), 0, passes=10)
    assert len(x) == 1000
    assert drift(x, rows)["variation"] < 0.5 * drift(eight(2000, 3, UNEVEN), rows)["variation"]
