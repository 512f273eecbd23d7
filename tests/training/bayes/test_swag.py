"""SWAG: the distribution of a path of weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import pushforward as pf
from pushforward.errors import ConfigError
from pushforward.training.bayes import swag
from pushforward.training.bayes.swag import Trajectory

from ..tiny import curved
from .small import SHIFT, location


def path(points: np.ndarray, rank: int) -> tuple[Trajectory, dict[str, nn.Parameter]]:
    """A trajectory of two tensors that together contain a point."""
    weights = {"a": nn.Parameter(torch.zeros(2)), "b": nn.Parameter(torch.zeros(1, 1))}
    trajectory = Trajectory(weights, rank)
    for point in points:
        with torch.no_grad():
            weights["a"].copy_(torch.tensor(point[:2]))
            weights["b"].copy_(torch.tensor(point[2:]))
        trajectory.add()
    return trajectory, weights


def test_samples_have_the_mean_and_covariance_of_the_paper():
    rng = np.random.default_rng(0)
    points = 100 + rng.normal(size=(12, 3)) @ np.array([[1.0, 0.8, 0], [0, 0.5, 0], [0, 0, 2]])
    trajectory, weights = path(points, rank=5)
    running = np.cumsum(points, 0) / np.arange(1, 13)[:, None]
    deviations = (points - running)[-5:]
    covariance = np.diag(points.var(0)) / 2 + deviations.T @ deviations / (2 * 4)
    source, drawn = torch.Generator().manual_seed(0), []
    for _ in range(8000):
        trajectory.set_weights(0.5, source)
        drawn.append([*weights["a"].tolist(), weights["b"].item()])
    drawn = np.array(drawn)
    scale = np.sqrt(np.diag(covariance))
    assert np.abs((drawn.mean(0) - points.mean(0)) / scale).max() < 0.05
    assert np.abs((np.cov(drawn.T) / 0.25 - covariance) / np.outer(scale, scale)).max() < 0.08
    trajectory.set_weights(0.0, None)
    np.testing.assert_allclose([*weights["a"].tolist(), weights["b"].item()], points.mean(0), rtol=1e-6)


def test_small_variances_beside_large_means_keep_their_digits():
    points = 1000 + 1e-3 * np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    seen = points.astype(np.float32).astype(np.float64)
    trajectory, _ = path(points.astype(np.float32), rank=2)
    np.testing.assert_allclose(trajectory.squares["a"].numpy() / 10, seen.var(0)[:2], rtol=1e-6)


def test_held_out_rows_choose_a_small_scale_for_a_wide_path():
    """SGD on single rows strays far beyond the posterior, which has the standard deviation 400^(-1/2)."""
    x = torch.randn(400, 32, generator=torch.Generator().manual_seed(0))
    options = {"parameters": ["shift"], "learning_rate": 0.02, "batch_size": 2, "snapshot_every": 5, "initialize": False,
               "progress": "silent"}  # fmt: skip
    wild = swag(location(32), x, 20, scale=1.0, **options)
    tame = swag(location(32), x, 20, **options)
    held = torch.randn(400, 32, generator=torch.Generator().manual_seed(1))
    assert wild.samples()[SHIFT].std(0).mean() > 0.15
    assert tame.samples()[SHIFT].std(0).mean() < 0.12
    assert tame.predictive(held).value.mean() > wild.predictive(held).value.mean()
    ratio = (
        wild.samples()[SHIFT] - wild.model.chain.transforms[0].shift,
        tame.samples()[SHIFT] - tame.model.chain.transforms[0].shift,
    )
    torch.testing.assert_close(ratio[1] / ratio[0], torch.full_like(ratio[0], (ratio[1] / ratio[0]).median().item()),
                               rtol=1e-2, atol=1e-3)  # fmt: skip


def test_batch_norm_statistics_belong_to_each_sample():
    x = curved(300)
    model = pf.models.MAF(3, layers=2, hidden=(8,), batch_norm=True)
    pf.fit(model, x, max_steps=30, validation=None, progress="silent")
    posterior = swag(
        model, x, 3, validation=None, scale=1.0, snapshots=4, rank=3, learning_rate=0.05, progress="silent"
    )
    assert any(name.endswith(".var") for name in posterior.names)
    for member in [*posterior, posterior.model]:
        before = {name: b.clone() for name, b in member.named_buffers()}
        member.refresh(x)
        for name, buffer in member.named_buffers():
            torch.testing.assert_close(buffer, before[name])


def test_chosen_weights_and_seeds():
    x = curved(100)

    def run(seed: int):
        torch.manual_seed(0)
        model = pf.models.NICE(3, layers=2, hidden=(8,))
        return swag(model, x, 2, parameters=["last"], snapshots=3, rank=2, seed=seed, batch_size=20, progress="silent")

    first = run(0)
    assert all(".last." in name for name in first.names)
    assert torch.equal(first.log_likelihoods(x), run(0).log_likelihoods(x))
    assert not torch.equal(first.log_likelihoods(x), run(1).log_likelihoods(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 1}, "rank"),
        ({"rank": 9, "snapshots": 8}, "rank must be at most the number of snapshots"),
        ({"snapshots": 1}, "snapshots"),
        ({"snapshot_every": 0}, "snapshot_every"),
        ({"n_samples": 0}, "n_samples"),
        ({"optimizer": "adam"}, "optimizer is not available in swag"),
        ({"validation": None}, "held-out"),
        ({"scale": 0.0}, "scale"),
        ({"scale": []}, "at least one to choose from"),
        ({"resume": True}, "resume"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ConfigError, match=message):
        swag(location(2), torch.randn(20, 2), **{"n_samples": 2, "progress": "silent"} | options)


def test_the_random_state_of_the_program_stays():
    model, before = pf.models.NICE(3, hidden=(8,)), torch.get_rng_state()
    swag(model, curved(100), 2, scale=1.0, validation=None, snapshots=3, rank=2, snapshot_every=3, progress="silent")
    assert torch.equal(torch.get_rng_state(), before)
