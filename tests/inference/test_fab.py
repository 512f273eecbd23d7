"""Alpha = 2 with annealed importance sampling and a replay buffer, on targets with several modes."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

import pushforward as pf
from pushforward import inference
from pushforward.errors import PushforwardWarning
from pushforward.inference.fab import ReplayBuffer, annealed_samples


def ring_of_eight(x):
    """Eight normal distributions of standard deviation 0.5 on a circle of radius 8; normalized."""
    angles = torch.arange(8) * math.pi / 4
    centers = 8 * torch.stack((angles.cos(), angles.sin()), 1).to(x)
    squares = (x[:, None] - centers).square().sum(-1)
    return torch.logsumexp(-2 * squares, 1) - math.log(8) - math.log(2 * math.pi / 4)


def test_all_modes_are_found_and_the_evidence_is_right():
    fit = inference.fit_to_target(
        pf.models.NSF(2, layers=4, hidden=(32, 32)), ring_of_eight, objective="fab", spread=10.0, restarts=32,
        max_steps=150, learning_rate=3e-3, progress="silent",
    )  # fmt: skip
    assert fit.log_evidence == pytest.approx(0.0, abs=max(5 * fit.log_evidence_error, 0.02))
    assert fit.dropped_modes == []
    angle = torch.atan2(fit.draws[:, 1], fit.draws[:, 0])
    counts = torch.bincount(((angle / (math.pi / 4)).round().long() % 8), minlength=8)
    assert counts.min() > 300  # of 10,000; each mode has an eighth of the mass


def test_the_seed_may_be_any_integer():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PushforwardWarning)  # of a flow that is hardly trained
        fit = inference.fit_to_target(
            pf.models.NSF(1, layers=1, hidden=(8,)), lambda x: -0.5 * x.square().sum(-1), objective="fab", max_steps=1,
            restarts=0, draws=100, seed=2**64, progress="silent",
        )  # fmt: skip
    assert fit.objective == "fab"


@pytest.mark.slow
def test_forty_modes():
    """The GMM-40 benchmark of Midgley et al. 2023: reverse KL drops modes and says so, FAB finds all."""
    centers = 80 * (torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) - 0.5)
    scale = math.log(1 + math.e)

    def log_density(x):
        squares = (x[:, None] - centers.to(x)).square().sum(-1)
        return torch.logsumexp(-0.5 * squares / scale**2, 1) - math.log(40) - math.log(2 * math.pi * scale**2)

    options = {"spread": 40.0, "restarts": 64, "learning_rate": 2e-3, "progress": "silent"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PushforwardWarning)
        plain = inference.fit_to_target(2, log_density, objective="reverse-kl", max_steps=300, **options)
    assert plain.dropped_modes
    fit = inference.fit_to_target(2, log_density, objective="fab", max_steps=300, **options)
    nearest = torch.cdist(fit.draws, centers.double()).argmin(1)
    assert torch.bincount(nearest, minlength=40).min() > 10
    assert abs(fit.log_evidence) < 0.1


def test_annealed_weights_estimate_the_integral():
    """The mean weight is the integral of p^2 / q: for normals it is known."""
    model = pf.models.Flow(pf.transforms.Affine(1), pf.distributions.Normal(1))
    target = inference.Target(lambda x: -0.5 * (x[:, 0] / 0.8).square(), 1)
    generator = torch.Generator().manual_seed(0)
    points, log_weights, acceptance = annealed_samples(
        model, target, torch.randn(20_000, 1, generator=generator, dtype=torch.float64), generator, step=0.5
    )
    precision = 2 / 0.8**2 - 1  # p^2 / q = sqrt(2 pi) exp(-precision x^2 / 2)
    truth = math.log(math.sqrt(2 * math.pi) * math.sqrt(2 * math.pi / precision))
    found = float(torch.logsumexp(log_weights, 0) - math.log(len(log_weights)))
    assert found == pytest.approx(truth, abs=0.02)
    assert 0.5 < acceptance <= 1
    assert points.shape == (20_000, 1)


def test_the_buffer_drops_the_oldest_and_refuses_to_be_empty():
    buffer = ReplayBuffer(3)
    with pytest.raises(pf.errors.InputError, match="nothing to learn from"):
        buffer.draw(1, torch.Generator())
    for k in range(5):
        buffer.add(torch.full((1, 1), float(k)), torch.zeros(1), torch.zeros(1))
    assert buffer.points.flatten().tolist() == [2, 3, 4]
    buffer.add(torch.zeros(1, 1), torch.tensor([-math.inf]), torch.zeros(1))
    assert buffer.points.flatten().tolist() == [2, 3, 4]


def test_weights_follow_the_change_of_q():
    buffer = ReplayBuffer(10)
    buffer.add(torch.zeros(4, 1), torch.zeros(4), torch.zeros(4))
    buffer.update(torch.tensor([1]), torch.tensor([-2.0]))  # q fell by e^2, so p^2 / q grew
    assert buffer.log_weights.tolist() == [0, 2, 0, 0]
