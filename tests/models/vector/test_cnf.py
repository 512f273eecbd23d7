"""Continuous flows as models: both objectives learn, and neither leaks into the likelihood."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

import pushforward as pf
from pushforward.errors import ConfigError
from pushforward.likelihood import Kind
from pushforward.models.vector.cnf import _pair_optimally

SMALL = {"hidden": (16,), "steps": 6}


def two_moons(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    angle = math.pi * torch.rand(count, generator=generator)
    upper = torch.rand(count, generator=generator) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return torch.stack((x, y), -1) + 0.1 * torch.randn(count, 2, generator=generator)


def gaussian(train: Tensor, test: Tensor) -> float:
    return torch.distributions.MultivariateNormal(train.mean(0), train.T.cov()).log_prob(test).mean().item()


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"objective": "likelihood", "steps": 4}, 40),
        pytest.param(
            {
                "objective": "likelihood",
                "steps": 4,
                "log_det": "hutchinson",
                "kinetic_weight": 0.01,
                "jacobian_weight": 0.01,
            },
            40,
            marks=pytest.mark.slow,
        ),
        pytest.param({"objective": "flow-matching"}, 400, marks=pytest.mark.slow),
        ({"objective": "flow-matching", "pairing": "optimal"}, 150),
    ],
    ids=["likelihood", "regularized", "flow matching", "optimal pairing"],
)
def test_it_learns(options, steps):
    train, test = two_moons(2000, 0), two_moons(1000, 1)
    model = pf.models.CNF(2, hidden=(48, 48), activation="silu", **options)
    pf.fit(
        model,
        train,
        max_steps=steps,
        batch_size=256,
        learning_rate=1e-2,
        seed=0,
        progress="silent",
        evaluate_every=steps,
    )
    model.set_log_det("exact")
    with torch.no_grad():
        gain = model.log_prob(test).mean().item() - gaussian(train, test)
    assert gain > 0.15


def test_mass_is_one_up_to_the_solver_s_error():
    torch.manual_seed(2)
    model = pf.models.CNF(2, hidden=(12, 12)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    axis = torch.linspace(-8, 8, 110, dtype=torch.float64)
    with torch.no_grad():
        density = model.log_prob(torch.cartesian_prod(axis, axis)).exp()
    step = (axis[1] - axis[0]).item()
    assert density.sum().item() * step**2 == pytest.approx(1.0, abs=1e-3)
    assert density.std() > 1e-3


def test_one_likelihood_for_both_objectives():
    x = torch.randn(20, 2)
    a = pf.models.CNF(2, **SMALL)
    b = pf.models.CNF(2, objective="flow-matching", kinetic_weight=1.0, jacobian_weight=1.0, **SMALL)
    b.load_state_dict(a.state_dict())
    assert torch.equal(a.log_prob(x), b.log_prob(x))
    assert a.loss(x).item() == pytest.approx(-a.log_prob(x).mean().item(), abs=1e-6)
    assert b.loss(x).item() != pytest.approx(a.loss(x).item(), abs=1e-3)


def test_the_regularized_loss_adds_the_kinetic_energy_and_the_jacobian():
    x = torch.randn(20, 3, dtype=torch.float64)
    plain, both = (
        pf.models.CNF(3, standardize=False, kinetic_weight=k, jacobian_weight=j, **SMALL).double()
        for k, j in ((0, 0), (0.3, 0.7))
    )
    both.load_state_dict(plain.state_dict())
    _, effort = both.chain.transforms[0].encode_with_regularizers(x, noise=torch.Generator().manual_seed(4))
    expected = plain.loss(x) + (0.3 * effort.kinetic + 0.7 * effort.jacobian).mean()
    torch.testing.assert_close(both.loss(x, generator=torch.Generator().manual_seed(4)), expected)
    torch.testing.assert_close(both.log_prob(x), plain.log_prob(x))


def test_the_matching_loss_of_the_right_velocity_is_its_floor():
    """Between two standard normals the best velocity is (2 t - 1) x / (t^2 + (1 - t)^2), with error 1 / (t^2 + (1 - t)^2)."""

    class Best(torch.nn.Module):
        def forward(self, t, x, context=None):
            return (2 * t - 1) * x / (t**2 + (1 - t) ** 2)

    model = pf.models.CNF(1, objective="flow-matching", standardize=False, **SMALL).double()
    model.chain.transforms[0] = pf.transforms.Continuous(1, Best())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200_000, 1, dtype=torch.float64, generator=generator)
    floor = math.pi / 2  # the integral of 1 / (t^2 + (1 - t)^2) over [0, 1]
    assert model.loss(x, generator=generator).item() == pytest.approx(floor, abs=0.02)


def test_optimal_pairing_is_the_best_of_all_permutations():
    generator = torch.Generator().manual_seed(0)
    noise, data = (torch.randn(6, 2, generator=generator) for _ in range(2))
    found = _pair_optimally(noise, data)
    assert torch.equal(found.sort(0).values, noise.sort(0).values)
    best = min((noise[list(order)] - data).square().sum().item() for order in itertools.permutations(range(6)))
    assert (found - data).square().sum().item() == pytest.approx(best, rel=1e-5)


def test_training_noise_comes_from_the_generator():
    model = pf.models.CNF(2, objective="flow-matching", **SMALL)
    x = torch.randn(50, 2)
    losses = [model.loss(x, generator=torch.Generator().manual_seed(seed)).item() for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_the_kind_is_switched():
    model = pf.models.CNF(2, log_det="hutchinson", **SMALL)
    x = torch.randn(4, 2)
    assert model.kind is Kind.UNBIASED
    assert model.evaluate(x).stderr is not None
    model.set_log_det("exact")
    assert model.log_prob(x).shape == (4,)
    assert model.log_det == "exact"


def test_a_file_keeps_solver_and_objective(tmp_path):
    model = pf.models.CNF(2, objective="flow-matching", solver="dopri5", rtol=1e-4, **SMALL)
    pf.save(model, tmp_path / "m.safetensors")
    again = pf.load(tmp_path / "m.safetensors")
    assert (again.objective, again.solver, again.rtol) == ("flow-matching", "dopri5", 1e-4)
    x = torch.randn(4, 2)
    assert torch.equal(again.log_prob(x), model.log_prob(x))


@pytest.mark.parametrize(
    "options",
    [{"objective": "guess"}, {"pairing": "guess"}, {"kinetic_weight": -1.0}, {"jacobian_weight": math.inf},
     {"context": 1, "pairing": "optimal"}, {"solver": "euler"}],
    ids=str,
)  # fmt: skip
def test_options_that_are_refused(options):
    with pytest.raises(ConfigError):
        pf.models.CNF(2, **options)
