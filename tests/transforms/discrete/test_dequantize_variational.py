"""VariationalDequantize: a bound with the right terms, uniform at the start, and integers that survive a round trip."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from pushforward import distributions, models
from pushforward.errors import ConfigError
from pushforward.numerics import RowNoise
from pushforward.transforms import Chain, Flatten, Logit, UniformDequantize, VariationalDequantize

SMALL = {"couplings": 2, "hidden": (6,)}


def test_starts_as_uniform_dequantization():
    x = torch.randint(16, (50, 2, 3, 3), generator=torch.Generator().manual_seed(0)).double()
    transform, uniform = (
        m.double() for m in (VariationalDequantize((2, 3, 3), 16, **SMALL), UniformDequantize((2, 3, 3), 16))
    )
    step, plain = (m.encode(x, noise=RowNoise(3)) for m in (transform, uniform))
    torch.testing.assert_close(step.z, plain.z, rtol=0, atol=1e-12)
    torch.testing.assert_close(step.contribution, plain.contribution, rtol=0, atol=1e-10)


def test_contribution_is_minus_log_q_minus_log_levels(check):
    """The density q of u given x, from the dense Jacobian with respect to the uniform noise."""
    transform = check.perturb(VariationalDequantize((1, 2, 2), 4, **SMALL).double(), size=0.4)
    x = torch.tensor([[[1.0, 0.0], [3.0, 2.0]]], dtype=torch.float64)

    class ConditionalDensity(RowNoise):
        def uniform(self, x, event_dims, shape=None):
            return self.start.reshape(x.shape)

    def u(start):
        noise = ConditionalDensity()
        noise.start = start
        return (transform.encode(x, noise=noise).z * 4 - x).flatten()

    start = torch.tensor([0.2, 0.7, 0.5, 0.9], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(u, start)
    log_q = -torch.linalg.slogdet(jacobian)[1]  # uniform noise has density 1
    noise = ConditionalDensity()
    noise.start = start
    assert transform.encode(x, noise=noise).contribution.item() == pytest.approx(
        -log_q.item() - 4 * math.log(4), abs=1e-9
    )
    assert abs(log_q.item()) > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [1, 2, 256, 65536])
def test_integers_survive_a_round_trip(levels, dtype, check):
    transform = check.perturb(VariationalDequantize((1, 3, 2), levels, **SMALL).to(dtype), size=0.4)
    x = torch.randint(levels, (300, 1, 3, 2), generator=torch.Generator().manual_seed(1))
    x[0], x[1] = 0, levels - 1
    step = transform.encode(x)
    assert torch.equal(transform.decode(step.z), x.to(dtype))
    assert torch.isfinite(step.contribution).all()
    assert ((step.z > 0) & (step.z < 1)).all()


def test_values_that_are_not_pixels_have_probability_zero(check):
    transform = check.perturb(VariationalDequantize((1, 1, 2), 4, **SMALL))
    x = torch.tensor([[0.5, 1.0], [-1.0, 1.0], [4.0, 1.0], [2.0, 1.0]]).reshape(4, 1, 1, 2)
    assert torch.isinf(transform.encode(x).contribution).tolist() == [True, True, True, False]


def test_mass_over_all_images_is_at_most_one_and_one_in_the_mean_weight(check):
    transform = check.perturb(VariationalDequantize((1, 1, 2), 4, **SMALL).double(), size=0.15)
    chain = Chain(transform, Logit((1, 1, 2)), Flatten((1, 1, 2)))
    model = models.Flow(chain, distributions.Normal(2)).double()
    x = torch.tensor(list(itertools.product(range(4), repeat=2))).double().reshape(16, 1, 1, 2)
    with torch.no_grad():
        values = torch.stack([model.evaluate(x, seed=seed).value for seed in range(1500)])
    weights = values.exp()
    error = (weights.var(0) / 1500).sum().sqrt()
    assert values.mean(0).exp().sum() < 1
    assert abs(weights.mean(0).sum() - 1) < 4 * error
    assert error < 0.02


def test_training_the_noise_tightens_the_bound():
    """A density on [0, 1] with a step inside each cell: learned noise has a tighter bound than uniform noise."""
    torch.manual_seed(0)
    losses = {}
    for kind in (UniformDequantize, VariationalDequantize):
        first = kind((1, 1, 2), 2) if kind is UniformDequantize else kind((1, 1, 2), 2, **SMALL)
        model = models.Flow(Chain(first, Logit((1, 1, 2)), Flatten((1, 1, 2))), distributions.StudentT(2, df=3.0))
        x = torch.tensor(list(itertools.product(range(2), repeat=2))).float().reshape(4, 1, 1, 2).repeat(64, 1, 1, 1)
        generator = torch.Generator().manual_seed(1)
        if parameters := list(model.parameters()):
            optimizer = torch.optim.Adam(parameters, 1e-2)
            for _ in range(150):
                optimizer.zero_grad()
                model.loss(x, generator=generator).backward()
                optimizer.step()
        with torch.no_grad():
            losses[kind] = torch.stack([model.loss(x, generator=generator) for _ in range(40)]).mean().item()
    best = 2 * math.log(2)  # the model is symmetric, so each of four images has probability 1/4
    assert losses[UniformDequantize] > best + 0.02
    assert best - 0.01 < losses[VariationalDequantize] < losses[UniformDequantize] - 0.01


@pytest.mark.parametrize("levels", [0, 2.5, "many", (4, 4)])
def test_errors(levels):
    with pytest.raises(ConfigError, match="levels"):
        VariationalDequantize((1, 2, 2), levels)
