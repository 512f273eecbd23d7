"""BNAF: its shape, and a target of known entropy."""

from __future__ import annotations

import math

import pytest
import torch

import pushforward as pf
from pushforward.models import BNAF
from pushforward.transforms import BlockAutoregressive, Reverse, Standardize


def test_its_parts_are_those_of_the_paper():
    kinds = [type(part) for part in BNAF(3, layers=2, hidden=(4,)).chain]
    assert kinds == [Standardize, BlockAutoregressive, Reverse, BlockAutoregressive]
    assert [type(part) for part in BNAF(1, layers=2, hidden=(4,)).chain] == [Standardize, *[BlockAutoregressive] * 2]


def test_one_flow_factorizes_in_the_order_of_the_columns():
    torch.manual_seed(0)
    model = BNAF(3, layers=1, hidden=(4,))
    x = torch.randn(5, 3)
    torch.testing.assert_close(model.conditional_log_prob(x).sum(-1), model.log_prob(x))


@pytest.mark.slow
def test_it_finds_four_separate_modes():
    """An even mixture of normals of deviation 0.2 at (+-1, +-1): two independent bimodal columns of known entropy."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> torch.Tensor:
        signs = torch.randint(2, (count, 2), generator=generator) * 2.0 - 1
        return signs + 0.2 * torch.randn(count, 2, generator=generator)

    def truth(x: torch.Tensor) -> torch.Tensor:
        u = (x.unsqueeze(-1) - torch.tensor([-1.0, 1.0])) / 0.2
        one = torch.logsumexp(-0.5 * u * u, -1) - math.log(2 * 0.2 * math.sqrt(2 * math.pi))
        return one.sum(-1)

    torch.manual_seed(0)
    model = BNAF(2, layers=2)
    pf.fit(model, draw(6000), seed=0, epochs=80, learning_rate=2e-2, progress="silent")
    test = draw(4000)
    loss = (truth(test) - model.log_prob(test)).mean().item()
    assert -0.02 < loss < 0.1  # a mode that is missed costs log 2
