"""NSF: its parts in the order of the paper, its conditionals, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward.distributions import Product, Uniform
from pushforward.errors import ConfigError
from pushforward.models import NSF

from ..tools import jolted, parts


def test_parts():
    small = {"layers": 2, "hidden": (8,)}
    mixed = ["Permutation", "LULinear"]
    assert parts(NSF(3, **small)) == ["Standardize", *mixed, "Coupling", *mixed, "Coupling", "LULinear"]
    assert parts(NSF(3, layer="autoregressive", **small)).count("MaskedAutoregressive") == 2
    assert parts(NSF(3, linear="permutation", **small)) == ["Standardize", *["Permutation", "Coupling"] * 2]
    assert parts(NSF(3, linear="none", **small)) == ["Standardize", "Coupling", "Coupling"]
    assert parts(NSF(1, **small)) == ["Standardize", "Monotone", "Monotone"]
    circular = NSF(3, circular=True, **small)
    assert parts(circular) == ["Permutation", "Coupling"] * 2
    assert isinstance(circular.base, Uniform)
    mixed = NSF(3, circular=(1,), **small)
    assert parts(mixed) == ["Blocks", "Permutation", *["Blocks", "Coupling", "Coupling"] * 2, "Blocks"]
    assert isinstance(mixed.base, Product)
    assert parts(NSF(3, circular=(0, 1, 2), **small)) == parts(circular)


def test_starts_at_the_base():
    """Identity splines and LU layers: the untrained density is near the standard normal of standardized data."""
    model = NSF(3, layers=2, hidden=(8, 8)).double()
    x = torch.randn(200, 3, dtype=torch.float64)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1)
    assert (model.log_prob(x) - normal).abs().mean() < 0.3


def test_every_output_depends_on_every_input():
    for kind in ("coupling", "autoregressive"):
        model = jolted(NSF(4, layer=kind, layers=2, hidden=(16, 16), activation="tanh"))
        jacobian = torch.func.jacrev(model.encode)(torch.zeros(4, dtype=torch.float64))
        assert (jacobian != 0).all()


def test_conditionals_follow_the_order_of_the_columns():
    model = jolted(NSF(3, layer="autoregressive", linear="none", layers=2, hidden=(16, 16)))
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    terms = model.conditional_log_prob(x)
    changed = x.clone()
    changed[:, 2] += 1.0
    other = model.conditional_log_prob(changed)
    torch.testing.assert_close(other[:, :2], terms[:, :2])
    assert (other[:, 2] != terms[:, 2]).all()
    # Each term is the log of a density in its own coordinate: it integrates to 1. The points are decoded from a grid
    # of noise, which puts them where the mass is, however narrow the peaks of these random splines.
    grid = torch.linspace(-9, 9, 160_001, dtype=torch.float64)
    with torch.no_grad():
        noise = model.encode(x[:1]).repeat(len(grid), 1)
        for i in range(3):
            moved = noise.clone()
            moved[:, i] = grid
            rows = model.decode(moved)
            mass = torch.trapezoid(model.conditional_log_prob(rows)[:, i].exp(), rows[:, i])
            assert mass.item() == pytest.approx(1.0, abs=1e-4)


def test_the_angle_pi_is_the_angle_minus_pi():
    model = jolted(NSF(2, circular=True, layers=2, hidden=(16, 16)))
    a = torch.tensor([[math.pi, 0.5], [0.5, math.pi]], dtype=torch.float64)
    b = torch.tensor([[-math.pi, 0.5], [0.5, -math.pi]], dtype=torch.float64)
    torch.testing.assert_close(model.log_prob(a), model.log_prob(b), rtol=1e-9, atol=1e-9)
    assert (model.log_prob(torch.tensor([[3.2, 0.0], [0.0, -3.2]])) == -math.inf).all()


def test_order_is_drawn_once_and_kept():
    small = {"layers": 2, "hidden": (8, 8)}
    a, b = NSF(6, **small), NSF(6, **small)
    permutations = [[p.permutation.tolist() for p in m.chain if hasattr(p, "permutation")] for m in (a, b)]
    assert permutations[0] == permutations[1]
    assert permutations[0][0] != permutations[0][1]


@pytest.mark.parametrize(
    "options",
    [
        {"layer": "maf"},
        {"linear": "qr"},
        {"bins": 1},
        {"tail_bound": 0.0},
        {"layers": 0},
        {"hidden": ()},
        {"hidden": (0,)},
        {"features": 2.0},
        {"features": (2, 2)},
    ],
    ids=str,
)
def test_impossible_arguments(options):
    with pytest.raises(ConfigError):
        NSF(**{"features": 3, **options})


@pytest.mark.parametrize("circular", [(True, False, True), (0, 0), (3,), (-1,), (), "01", 1, (0.0,)])
def test_indices_of_angles(circular):
    with pytest.raises(
        ConfigError, match=r"circular must be True, False, or the indices .* among 0, ..., 2, each once"
    ):
        NSF(3, circular=circular, layers=1, hidden=(8,))


@pytest.mark.parametrize("options", [{"layer": "autoregressive"}, {"unconditional": True}])
def test_what_angles_beside_numbers_exclude(options):
    with pytest.raises(ConfigError, match="angles beside numbers need layer='coupling' and unconditional=False"):
        NSF(3, circular=(0,), layers=1, hidden=(8,), **options)


@pytest.mark.parametrize("linear", ["lu", "permutation", "none"])
@pytest.mark.parametrize("angles", [(0,), (1, 2), (0, 3), (1, 2, 3)])
def test_angles_beside_numbers(angles, linear):
    model = jolted(NSF(4, circular=angles, layers=2, hidden=(16, 16), linear=linear), size=0.1)
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.rand(64, 4, dtype=torch.float64, generator=generator) - 1.5
    z = model.encode(x)
    log_det = torch.linalg.slogdet(torch.func.vmap(torch.func.jacrev(model.encode))(x))[1]
    torch.testing.assert_close(model.log_prob(x), model.base.log_prob(z) + log_det, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model.decode(z), x, rtol=1e-4, atol=1e-4)
    one, other = x.clone(), x.clone()
    one[:, list(angles)], other[:, list(angles)] = math.pi, -math.pi
    torch.testing.assert_close(model.log_prob(one), model.log_prob(other), rtol=1e-9, atol=1e-9)  # no seam
    outside = x.clone()
    outside[:, angles[0]] = 3.2
    assert (model.log_prob(outside) == -math.inf).all()
    numbers = [i for i in range(4) if i not in angles]
    outside = x.clone()
    outside[:, numbers[0]] = 1e6
    assert torch.isfinite(model.log_prob(outside)).all()


def test_the_density_of_an_angle_and_a_number_integrates_to_one():
    model = jolted(NSF(2, circular=(1,), layers=2, hidden=(8, 8)), size=0.1)
    number = torch.linspace(-12, 12, 2401, dtype=torch.float64)
    angle = (torch.arange(400, dtype=torch.float64) + 0.5) / 400 * 2 * math.pi - math.pi
    with torch.no_grad():
        density = model.log_prob(torch.cartesian_prod(number, angle)).exp()
    assert (density.sum() * (24 / 2400) * (2 * math.pi / 400)).item() == pytest.approx(1.0, abs=2e-3)
