"""Gaussianization flow: iterative Gaussianization before training, and what training adds."""

from __future__ import annotations

import math

import pytest
import torch

import pushforward as pf
from pushforward.models import GaussianizationFlow
from pushforward.transforms import Gaussianize, Householder, Standardize


def ring(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Angle uniform, radius normal about 4 with deviation 0.4: points, and their log-density."""
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(count, generator=generator, dtype=torch.float64)
    radius = 4 + 0.4 * torch.randn(count, generator=generator, dtype=torch.float64)
    u = (radius - 4) / 0.4
    log_prob = -0.5 * u * u - math.log(0.4 * math.sqrt(2 * math.pi)) - (2 * math.pi * radius).log()
    return torch.stack((radius * angle.cos(), radius * angle.sin()), -1), log_prob


def test_its_parts_are_those_of_the_paper():
    kinds = [type(part) for part in GaussianizationFlow(3, layers=3).chain]
    assert kinds == [Standardize, Gaussianize, Householder, Gaussianize, Householder, Gaussianize]
    assert [type(part) for part in GaussianizationFlow(1, layers=2).chain] == [Standardize, Gaussianize, Gaussianize]
    rotations = [part.vectors for part in GaussianizationFlow(3, layers=3).chain if isinstance(part, Householder)]
    assert not torch.equal(rotations[0], rotations[1])


def test_without_training_more_layers_are_closer():
    """RBIG: the loss against the truth falls with the number of layers, from margins alone to a fair estimate."""
    x, _ = ring(5000, seed=0)
    test, truth = ring(4000, seed=1)
    losses = []
    for layers in (1, 4, 16):
        model = GaussianizationFlow(2, layers=layers).double()
        model.initialize(x)
        losses.append((truth - model.log_prob(test)).mean().item())
    assert losses[0] > losses[1] > losses[2] > 0
    assert losses[2] < 0.3 * losses[0]


@pytest.mark.slow
def test_training_improves_on_the_start():
    x, _ = ring(5000, seed=0)
    test, truth = ring(4000, seed=1)
    model = GaussianizationFlow(2, layers=8).double()
    model.initialize(x)
    before = (truth - model.log_prob(test)).mean().item()
    pf.fit(model, x, epochs=40, learning_rate=1e-2, seed=0, progress="silent")
    after = (truth - model.log_prob(test)).mean().item()
    assert -0.01 < after < 0.5 * before
    assert after < 0.06
