"""Regret with a known best posterior: a linear decoder with Gaussian noise."""

import math

import pytest
import torch

from pushforward import models, transforms
from pushforward.detection.scores import LikelihoodRegret
from pushforward.errors import ConfigError


def latent(model: models.VAE) -> transforms.Variational:
    last = list(model.chain)[-1]
    assert isinstance(last, transforms.Variational)
    return last


def linear_vae() -> models.VAE:
    """x = w z + noise of scale 1, one latent: p(x) = N(0, I + w w^T) and p(z | x) are known."""
    model = models.VAE(2, latent=1, hidden=(), standardize=False).double()
    layer = [m for m in latent(model).decoder.modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        layer.weight[:] = torch.tensor([[2.0], [0.0], [1.0], [0.0]])  # mean and log-scale of x_1, then of x_2
    return model


def test_the_decoder_is_as_specified():
    model = linear_vae()
    drawn = latent(model).draw_from(torch.zeros(1, 2).double(), torch.tensor([[1.0, 3.0]]).double(), None)
    mean = drawn.z * torch.tensor([2.0, 1.0]).double()
    law = torch.distributions.Normal(mean, 1.0)
    torch.testing.assert_close(drawn.log_p, law.log_prob(torch.tensor([[1.0, 3.0]]).double()).sum(1))


def test_refitting_reaches_the_true_posterior():
    """The encoder says N(0, 1) for every x, and the true posterior is N(x . w / 6, 1 / 6); the plain bounds differ by
    KL(q || p(z | x)) on average."""
    model = linear_vae()
    rows = torch.tensor([[0.0, 0.5], [3.0, -1.0], [4.0, 4.0]], dtype=torch.float64)
    # Noise is a hash of the row, so copies that differ by nothing that matters have noise of their own.
    x = rows.repeat_interleave(128, 0) + 1e-9 * torch.arange(384).double()[:, None]
    mean, variance = rows @ torch.tensor([2.0, 1.0]).double() / 6, torch.tensor(1 / 6).double()
    divergence = 0.5 * (1 / variance + mean**2 / variance - 1 + variance.log())
    plain = LikelihoodRegret(model, steps=100, samples=1)(x).reshape(3, 128)
    error = plain.std(1) / math.sqrt(128)
    # The refit stops near its optimum, where what it leaves is of second order in Adam's steps of 0.05.
    assert ((plain.mean(1) - divergence).abs() < 4 * error + 0.05).all()


def test_no_regret_if_the_encoder_is_exact():
    model = linear_vae()
    encoder = [m for m in latent(model).encoder.modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        encoder.weight[0] = torch.tensor([2.0, 1.0]) / 6
        encoder.bias[1] = 7 * math.atanh(-0.5 * math.log(6.0) / 7)
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    for refit in ("latent", "encoder"):
        regret = LikelihoodRegret(model, refit, steps=50, samples=200, learning_rate=1e-3)(x)
        assert regret.abs().max() < 0.02, refit


def test_refitting_a_copy_of_the_encoder_reaches_it_too():
    model = linear_vae().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.tensor([[3.0, -1.0], [0.5, 2.0]], dtype=torch.float64)
    covariance = torch.eye(2) + torch.outer(torch.tensor([2.0, 1.0]), torch.tensor([2.0, 1.0]))
    truth = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance.double()).log_prob(x)
    score = LikelihoodRegret(model, "encoder", steps=60, learning_rate=0.05, samples=200)
    torch.testing.assert_close(score(x), truth - model.evaluate(x, samples=2000).value, rtol=0.05, atol=0.1)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


def test_bad_arguments():
    with pytest.raises(ConfigError, match="of a VAE"):
        LikelihoodRegret(models.NICE(2))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="refit"):
        LikelihoodRegret(models.VAE(2, latent=1), refit="decoder")
    with pytest.raises(ConfigError, match="steps must be an integer of at least 1"):
        LikelihoodRegret(models.VAE(2, latent=1), steps=0)


def test_a_row_too_far_for_an_exact_difference_has_no_small_score():
    score = LikelihoodRegret(models.VAE(2, latent=1, hidden=(8,)), steps=2, samples=2)
    values = score(torch.tensor([[3.0, 0.0], [1e6, 0.0], [1e10, 0.0], [1e15, 0.0]]))
    assert values.isfinite().all()
    assert (values.diff() > 1e3).all()
