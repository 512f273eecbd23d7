"""Mobius transforms of the circle: against complex arithmetic, bounds, two modes from free parameters, the torus."""

from __future__ import annotations

import cmath
import math

import pytest
import torch

import pushforward as pf
from pushforward import distributions, models, transforms
from pushforward.errors import ConfigError
from pushforward.transforms import MobiusTransformer
from pushforward.transforms.transformers.mobius import combination


def test_one_component_is_the_mobius_transform_of_the_paper():
    """h_w(z) = (1 - |w|^2) / |z - w|^2 (z - w) - w (eq. 6), then the rotation that takes the image of 1 back to 1."""
    for w in (0.0, 0.5, -0.7j, 0.4 + 0.6j):

        def h(z: complex, w: complex = w) -> complex:
            return (1 - abs(w) ** 2) / abs(z - w) ** 2 * (z - w) - w

        for x in torch.linspace(-3.1, 3.1, 23, dtype=torch.float64):
            a, b, weight = (torch.tensor([v], dtype=torch.float64) for v in (complex(w).real, complex(w).imag, 1.0))
            lifted, _ = combination(x, a, b, weight)
            expected = h(cmath.exp(1j * x.item())) / h(1.0)
            assert cmath.exp(1j * lifted.item()) == pytest.approx(expected, abs=1e-12)


def test_an_unwrapped_component_advances_by_one_turn():
    generator = torch.Generator().manual_seed(0)
    a, b = 0.6 * torch.rand(2, 4, 1, generator=generator, dtype=torch.float64) - 0.3
    weight = torch.softmax(torch.randn(4, 1, generator=generator, dtype=torch.float64), 0)
    x = torch.linspace(0, 2 * math.pi, 500, dtype=torch.float64)
    lifted, _ = combination(x, a, b, weight)
    assert (lifted.diff() > 0).all()
    assert lifted[0].item() == pytest.approx(0, abs=1e-14)
    assert lifted[-1].item() == pytest.approx(2 * math.pi, abs=1e-13)


@pytest.mark.parametrize("min_slope", [1e-1, 1e-2, 1e-3])
def test_slopes_reach_their_bounds_and_stay_within(min_slope):
    transformer = MobiusTransformer(components=1, min_slope=min_slope)
    x = torch.linspace(-math.pi, math.pi, 20_001, dtype=torch.float64)
    raw = torch.tensor([1e6, 0.0, 0.0, 0.0], dtype=torch.float64).unsqueeze(-1).expand(4, len(x))
    log_slope = transformer.forward(x, raw)[1]
    assert log_slope.min().item() == pytest.approx(math.log(min_slope), abs=1e-4)
    assert log_slope.max().item() == pytest.approx(-math.log(min_slope), abs=1e-4)
    y = transformer.forward(x, raw)[0]
    torch.testing.assert_close(torch.sin(transformer.inverse(y, raw)[0]), torch.sin(x), atol=1e-10, rtol=0)


def test_the_density_is_continuous_at_the_seam():
    """The density is the same from both sides of pi, and of where the turn puts it."""
    torch.manual_seed(0)
    model = models.Flow(transforms.Monotone(1, MobiusTransformer()), distributions.VonMises(1, trainable=True)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    near = torch.tensor([[-math.pi], [-math.pi + 1e-9], [math.pi - 1e-9], [math.pi]], dtype=torch.float64)
    value = model.log_prob(near)
    torch.testing.assert_close(value, value[:1].expand(4), atol=1e-6, rtol=0)


def test_free_parameters_learn_two_opposite_modes():
    """Opposite modes have no first harmonic, so equal components would have zero gradients at the start."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(2, (4000, 1), generator=generator) * math.pi + 0.4 * torch.randn(4000, 1, generator=generator)
    x = torch.remainder(x + 0.5 + math.pi, 2 * math.pi) - math.pi
    model = models.Flow(transforms.Monotone(1, MobiusTransformer()), distributions.Uniform(1, -math.pi, math.pi))
    pf.fit(model, x, epochs=60, learning_rate=3e-2, seed=0, progress="silent")
    # Entropy of the mixture: that of a normal of deviation 0.4, and log 2 (the two hardly overlap).
    entropy = math.log(2) + 0.5 * math.log(2 * math.pi * math.e * 0.4**2)
    assert model.log_prob(x).mean().item() == pytest.approx(-entropy, abs=0.06)


def test_a_torus_of_three_angles_has_mass_one_and_samples_from_its_density():
    torch.manual_seed(0)
    transformer = MobiusTransformer(components=4)
    model = models.Flow(
        transforms.Chain(
            transforms.Coupling(3, transformer, hidden=(8,)),
            transforms.MaskedAutoregressive(3, transformer, order="reverse", hidden=(8,)),
        ),
        distributions.Uniform(3, -math.pi, math.pi),
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    count = 64
    axis = -math.pi + 2 * math.pi / count * (torch.arange(count, dtype=torch.float64) + 0.5)
    grid = torch.cartesian_prod(axis, axis, axis)
    with torch.no_grad():
        density = model.log_prob(grid).exp().reshape(count, count, count)
        mass = (density * (2 * math.pi / count) ** 3).sum().item()
        x = model.sample(20_000, seed=1)
    assert mass == pytest.approx(1.0, abs=1e-3)
    assert density.max() > 3 * density.min()  # otherwise nothing is tested
    # Trigonometric moments of samples and of the density.
    for order in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, -1), (0, 2, 1), (1, 1, 1)):
        k = torch.tensor(order, dtype=torch.float64)
        for part in (torch.cos, torch.sin):
            seen = part(x @ k)
            expected = (density.flatten() * part(grid @ k)).sum().item() * (2 * math.pi / count) ** 3
            assert abs(seen.mean().item() - expected) < 4.5 * seen.std().item() / math.sqrt(len(x))


def test_impossible_arguments_are_refused():
    for bad in ({"components": 0}, {"components": 2.5}, {"min_slope": 0.0}, {"min_slope": 1.0}):
        with pytest.raises(ConfigError):
            MobiusTransformer(**bad)
