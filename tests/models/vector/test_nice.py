"""NICE: three couplings are the fewest, unit Jacobian but for the scaling, and its priors."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward import io
from pushforward.distributions import Logistic, Normal
from pushforward.errors import ConfigError, StorageError
from pushforward.models import NICE


def jolted(model: NICE, seed: int = 0) -> NICE:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.double().parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model.eval()


def seen(model: NICE, features: int) -> torch.Tensor:
    """Which inputs each output depends on."""
    generator = torch.Generator().manual_seed(1)
    total = torch.zeros(features, features, dtype=torch.float64)
    for _ in range(4):
        x = torch.randn(features, generator=generator, dtype=torch.float64)
        total += torch.func.jacrev(model.encode)(x).abs()
    return total > 0


@pytest.mark.parametrize("features", [4, 5, 8])
def test_three_couplings_are_the_fewest_for_full_dependence(features):
    options = {"hidden": (32,), "activation": "tanh"}
    assert not seen(jolted(NICE(features, layers=1, **options)), features).all()
    two = seen(jolted(NICE(features, layers=2, **options)), features)
    assert not two.all()
    assert seen(jolted(NICE(features, layers=3, **options)), features).all()
    assert seen(jolted(NICE(features, layers=4, **options)), features).all()


def test_zeros_of_the_jacobian_with_two_couplings():
    """A = even, then A = odd: an odd output is x_odd + m(x_even), and sees no other odd input."""
    pattern = seen(jolted(NICE(4, layers=2, hidden=(32,), activation="tanh")), 4)
    expected = torch.ones(4, 4, dtype=torch.bool)
    expected[1, 3] = expected[3, 1] = False
    assert torch.equal(pattern, expected)


def test_only_the_scaling_changes_volume():
    model = jolted(NICE(5, layers=3, hidden=(16,), standardize=False))
    result = model.evaluate(torch.randn(7, 5, dtype=torch.float64))
    volume = [term for name, term in result.terms.items() if "Coupling" in name]
    assert len(volume) == 3
    assert all((term == 0).all() for term in volume)
    scaling = next(term for name, term in result.terms.items() if "Affine" in name)
    assert torch.equal(scaling, scaling[:1].expand(7))
    assert scaling[0] != 0


@pytest.mark.parametrize(("prior", "base"), [("logistic", Logistic), ("normal", Normal)])
def test_priors(prior, base):
    model = NICE(2, prior=prior, standardize=False, layers=1)
    assert type(model.base) is base
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    value = model.log_prob(torch.zeros(1, 2)).item()
    expected = -2 * math.log(4.0) if prior == "logistic" else -math.log(2 * math.pi)
    assert value == pytest.approx(expected, abs=1e-6)


def test_far_rows_have_a_bounded_gradient_under_the_logistic_prior():
    model = NICE(2, hidden=(16,)).double()
    x = torch.tensor([[1e6, -1e6]], dtype=torch.float64, requires_grad=True)
    model.log_prob(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() < 2.0


def test_a_multiplier_moves_the_scaling_further_and_changes_nothing_else():
    """One step of Adam moves each log-scale by multiplier times the learning rate; before it, the models are the same."""
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.01, 1.0, 100.0])
    scales, values = {}, {}
    for multiplier in (1.0, 10.0):
        torch.manual_seed(0)
        model = NICE(3, hidden=(8,), standardize=False, scaling_multiplier=multiplier)
        values[multiplier] = model.log_prob(x).detach()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-12)
        model.loss(x).backward()
        optimizer.step()
        scales[multiplier] = list(model.chain)[-1].log_scale().detach()
    assert torch.equal(values[1.0], values[10.0])
    torch.testing.assert_close(scales[1.0].abs(), torch.full((3,), 1e-3), rtol=1e-3, atol=0)
    torch.testing.assert_close(scales[10.0], 10 * scales[1.0], rtol=1e-3, atol=0)


def test_old_files_are_read_with_their_meaning(tmp_path):
    """With a multiplier or without; and a file from before there was one holds plain log-scales."""
    x = torch.randn(5, 4, dtype=torch.float64)
    for multiplier in (1.0, 10.0):
        model = jolted(NICE(4, hidden=(8,), scaling_multiplier=multiplier))
        io.save(model, tmp_path / "nice")
        assert torch.equal(io.load(tmp_path / "nice").log_prob(x), model.log_prob(x))
    model = jolted(NICE(4, hidden=(8,)))
    description, tensors = io.pack(model)
    del description["arguments"]["scaling_multiplier"]
    assert torch.equal(io.unpack(description, tensors).log_prob(x), model.log_prob(x))
    with pytest.raises(StorageError, match="log_factor"):
        io.unpack(io.pack(NICE(4, hidden=(8,), scaling_multiplier=10.0))[0], tensors)


@pytest.mark.parametrize(
    "options", [{"scaling_multiplier": 0.0}, {"prior": "cauchy"}, {"layers": 0}, {"layers": 1.5}, {"features": 0}]
)
def test_impossible_arguments(options):
    with pytest.raises(ConfigError):
        NICE(**{"features": 3, **options})
