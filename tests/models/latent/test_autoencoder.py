"""Autoencoders: the value by hand, the discrepancy by hand, and refusals."""

import math

import pytest
import torch
from torch.distributions import Normal

from pushforward import models
from pushforward.errors import ConfigError
from pushforward.models.latent.autoencoder import mmd


def test_the_value_is_the_joint_density_at_the_code():
    torch.manual_seed(0)
    model = models.AutoEncoder(3, latent=2, hidden=(8,)).double()
    x = torch.randn(50, 3, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.1]) + 4
    model.initialize(x)
    with torch.no_grad():
        model.chain.transforms[1].log_scale.fill_(0.3)
    std = x.std(0, correction=0)
    z = model.code(x)
    scale = std * math.exp(5 * math.tanh(0.3 / 5))
    expected = Normal(model.decode_mean(z), scale).log_prob(x).sum(-1) + Normal(0.0, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(model.evaluate(x).value, expected)
    torch.testing.assert_close(model.loss(x), -expected.mean())
    torch.testing.assert_close(model.decode(z), model.decode_mean(z))
    spread = (model.sample(4000, seed=0, noise=z[:1].expand(4000, 2)) - model.decode_mean(z[:1])).std(0)
    torch.testing.assert_close(spread, scale, rtol=0.05, atol=0)  # 4000 draws: 1.1% standard error


def test_gray_levels_are_scaled_to_the_unit_box():
    model = models.AutoEncoder((1, 2, 2), latent=1, levels=256, hidden=(4,))
    z = model.chain.transforms[0].encode(torch.tensor([0.0, 255.0, 127.5, 255.0]).reshape(1, 2, 2)).z
    torch.testing.assert_close(z.flatten(), torch.tensor([-1.0, 1.0, 0.0, 1.0]))


def test_the_discrepancy_is_the_mean_over_all_pairs():
    source = torch.Generator().manual_seed(0)
    x, y = (torch.randn(7, 2, dtype=torch.float64, generator=source) for _ in range(2))

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        square = (a - b).square().sum().item()
        return sum(4 * s / (4 * s + square) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10)) / 7

    within = sum(kernel(a, b) for s in (x, y) for i, a in enumerate(s) for j, b in enumerate(s) if i != j) / 42
    across = sum(kernel(a, b) for a in x for b in y) / 49
    assert mmd(x, y).item() == pytest.approx(within - 2 * across, abs=1e-12)
    assert mmd(x[:1], y[:1]).item() == 0.0
    many = torch.randn(400, 2, dtype=torch.float64, generator=source)
    assert abs(mmd(many[:200], many[200:]).item()) < 0.01  # the same distribution
    assert mmd(many[:200], many[200:] + 1).item() > 0.03


def test_codes_of_a_wasserstein_autoencoder_become_normal():
    """From codes far from N(0, I), the discrepancy falls; without the penalty nothing asks for it."""
    torch.manual_seed(0)
    x = torch.rand(200, 2) * 6
    model = models.AutoEncoder(2, latent=2, hidden=(32,), penalty="mmd", penalty_weight=300.0)
    model.initialize(x)
    draw = torch.Generator().manual_seed(1)
    normal = torch.randn(200, 2, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with torch.no_grad():
        model.chain.transforms[1].codec.encoder.last.weight.mul_(8)
        before = mmd(model.code(x), normal).item()
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(x, generator=draw).backward()
        optimizer.step()
    assert before > 0.2
    assert mmd(model.code(x), normal).item() < 0.02


def test_errors_of_invalid_arguments():
    for wrong in (
        {"penalty": "none"},
        {"penalty_weight": -1.0},
        {"penalty_weight": math.inf},
        {"latent": 0},
        {"levels": 1},
    ):
        with pytest.raises(ConfigError):
            models.AutoEncoder(3, **wrong)
    with pytest.raises(ConfigError, match="channels"):
        models.AutoEncoder(3, channels=(4,))
    with pytest.raises(ConfigError, match="vectors"):
        models.AutoEncoder((3, 3))


def test_without_a_weight_only_the_squared_error_is_left():
    torch.manual_seed(0)
    plain = models.AutoEncoder(3, latent=2, hidden=(8,), penalty="mmd", penalty_weight=0.0).double()
    x = torch.randn(20, 3, dtype=torch.float64)
    scaler, coder = plain.chain
    expected = -coder.encode(scaler.encode(x).z).contribution.mean() - scaler.encode(x).contribution.mean()
    torch.testing.assert_close(plain.loss(x), expected)


def test_weights_are_compared_by_what_is_trained():
    """Without a penalty of the codes their prior is not in the loss, so it must not choose the weights."""
    x = torch.randn(20, 3)
    free = models.AutoEncoder(3, latent=2, hidden=(8,), penalty="mmd", penalty_weight=0.0).eval()
    torch.testing.assert_close(free.held_out_value(x).mean(), -free.loss(x))
    code = models.AutoEncoder(3, latent=2, hidden=(8,)).eval()
    torch.testing.assert_close(code.held_out_value(x), code.evaluate(x).value)
