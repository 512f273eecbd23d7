"""Dequantization: round trip on every level, total mass of a known density, bounds, rows of probability zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal

import pushforward as pf
from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import REAL, UNIT, Counting, Kind, Lebesgue, Manifold, Mixed, Support
from pushforward.numerics import MiddleNoise, RowNoise
from pushforward.transforms import DynamicBinarize, LatticeDequantize, UniformDequantize


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [1, 2, 3, 10, 49, 255, 256, 1000, 65536])
def test_every_level_survives_a_round_trip(levels, dtype):
    transform = UniformDequantize(1, levels=levels).to(dtype)
    x = torch.arange(levels, dtype=dtype).repeat(max(1, 20_000 // levels)).reshape(-1, 1)
    for noise in (generator(), RowNoise(1), None):
        z = transform.encode(x, noise=noise).z
        assert (z > 0).all()
        assert (z < 1).all()
        assert torch.equal(transform.decode(z), x)


@pytest.mark.parametrize("unit", [0.0, 1 - 2.0**-24])
def test_extreme_noise_stays_in_the_cell(unit, monkeypatch):
    monkeypatch.setattr(
        "pushforward.transforms.discrete.dequantize.uniform_like", lambda x, dims, noise: torch.full_like(x, unit)
    )
    for levels in (3, 49, 256, 1000):
        x = torch.arange(levels, dtype=torch.float32).reshape(-1, 1)
        transform = UniformDequantize(1, levels=levels)
        assert torch.equal(transform.decode(transform.encode(x).z), x)
    lattice = LatticeDequantize(1, columns=(0,), steps=0.1, origins=3.0)
    x = 3.0 + 0.1 * torch.arange(-500, 500, dtype=torch.float32).reshape(-1, 1)
    torch.testing.assert_close(lattice.decode(lattice.encode(x).z), x, atol=1e-4, rtol=0)


def test_noise_is_uniform_and_seeded():
    transform = UniformDequantize(1, levels=4)
    x = torch.full((20_000, 1), 2.0)
    z = transform.encode(x, noise=generator()).z
    u = (4 * z - 2).flatten().sort().values
    steps = (torch.arange(20_000) + 0.5) / 20_000
    assert (u - steps).abs().max() < 1.63 / math.sqrt(20_000), "Kolmogorov-Smirnov at 1 %"
    assert torch.equal(z, transform.encode(x, noise=generator()).z)
    assert torch.equal(transform.encode(x).z, transform.encode(x).z)
    assert torch.unique(transform.encode(x).z).numel() == 1, "equal rows have equal noise when scored"


def test_uniform_density_gives_uniform_probability():
    # Density 1 on the unit cube: the bound is tight, P(x) = 1 / (2 * 3), and they sum to 1.
    transform = UniformDequantize(2, levels=(2, 3))
    grid = torch.cartesian_prod(torch.arange(2.0), torch.arange(3.0))
    assert transform.encode(grid).contribution.exp().sum().item() == pytest.approx(1.0, rel=1e-6)
    image = UniformDequantize((3, 8, 8)).encode(torch.zeros(2, 3, 8, 8))
    assert (-image.contribution / (192 * math.log(2))).tolist() == pytest.approx([8.0, 8.0])


def test_bound_and_mass_of_a_known_density():
    # Density 2 z on (0, 1): P(k) = (2 k + 1) / 16 exactly; the mean bound lies below log P, its exponential at 1.
    transform = UniformDequantize(1, levels=4).double()
    x = torch.arange(4, dtype=torch.float64).reshape(-1, 1)
    truth = (2 * x[:, 0] + 1) / 16
    step = transform.encode(x.expand(20_000, 4, 1), noise=generator())
    values = step.contribution + torch.log(2 * step.z[..., 0])
    error = values.exp().std(0) / math.sqrt(len(values))
    assert ((values.exp().mean(0) - truth).abs() < 4 * error).all()
    assert (values.mean(0) < truth.log()).all()


@pytest.mark.parametrize("bad", [-1.0, 4.0, 1.5, 1e20, -1e20, 3.0001])
def test_impossible_values_have_probability_zero(bad):
    x = torch.tensor([[1.0, 2.0], [1.0, bad]])
    transform = UniformDequantize(2, levels=4)
    step = transform.encode(x)
    assert step.contribution[0].item() == pytest.approx(-2 * math.log(4))
    assert step.contribution[1] == -math.inf
    assert ((step.z > 0) & (step.z < 1)).all()
    _, terms = transform.encode_terms(x)
    assert terms[1].tolist() == [pytest.approx(-math.log(4)), -math.inf]


def test_decode_of_values_outside_is_clamped():
    transform = UniformDequantize(2, levels=(4, 6))
    assert transform.decode(torch.tensor([[-1e20, 1.0], [1e20, 1e20]])).tolist() == [[0.0, 5.0], [3.0, 5.0]]


def test_integers_of_any_type():
    transform = UniformDequantize(3)
    pixels = torch.tensor([[0, 7, 255]], dtype=torch.uint8)
    assert transform.decode(transform.encode(pixels).z).tolist() == [[0.0, 7.0, 255.0]]


def test_shapes_and_compile(check):
    for transform in (UniformDequantize(2, levels=4), LatticeDequantize(2, columns=(1,), steps=0.5)):
        check.compiles(transform, torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
        for batch in ((), (3,), (2, 3), (0,)):
            step = transform.encode(torch.ones(*batch, 2))
            assert step.z.shape == (*batch, 2)
            assert step.contribution.shape == batch
            assert transform.decode(step.z).shape == (*batch, 2)


def test_kinds():
    pixels = UniformDequantize((1, 2, 2))
    assert pixels.kind is Kind.LOWER_BOUND
    assert pixels.measure(Lebesgue(4)) == Counting(4)
    assert pixels.codomain == UNIT
    assert pixels.domain == Support(0.0, 255.0)
    table = LatticeDequantize(3, columns=(0, 2))
    assert table.kind is Kind.LOWER_BOUND
    assert table.measure(Lebesgue(3)) == Mixed(1, 2)
    assert table.domain == table.codomain == REAL
    assert LatticeDequantize(3, columns=()).kind is Kind.EXACT
    assert LatticeDequantize(3, columns=()).measure(Lebesgue(3)) == Lebesgue(3)
    for transform in (pixels, table):
        with pytest.raises(KindError, match="Lebesgue"):
            transform.measure(Manifold(1, 3))
        with pytest.raises(KindError):
            transform.measure(Counting(3))


def test_lattice_does_not_change_other_columns(check):
    transform = LatticeDequantize(3, columns=(2, 0), steps=(0.25, 2.0), origins=(0.5, 1.0)).double()
    x = check.normal(200, 3)
    x[:, 0] = 1.0 + 2.0 * torch.round(5 * x[:, 0])
    x[:, 2] = 0.5 + 0.25 * torch.round(5 * x[:, 2])
    step = transform.encode(x, noise=generator())
    assert torch.equal(step.z[:, 1], x[:, 1])
    lift = (step.z - x)[:, [2, 0]] / torch.tensor([0.25, 2.0], dtype=torch.float64)
    assert ((lift > 0) & (lift < 1)).all()
    assert lift.std(0).min() > 0.2, "noise of standard deviation 1 / sqrt 12 = 0.29"
    torch.testing.assert_close(step.contribution, torch.full((200,), math.log(0.25 * 2.0), dtype=torch.float64))
    torch.testing.assert_close(transform.decode(step.z), x)


def test_lattice_probabilities_sum_to_one():
    # P(k) = E exp(contribution + log p(z)) is the mass of the cell; for a standard normal that is a difference of cdfs.
    transform = LatticeDequantize(1, columns=(0,), steps=0.5, origins=0.1).double()
    x = 0.1 + 0.5 * torch.arange(-14, 14, dtype=torch.float64).reshape(-1, 1)
    normal = Normal(torch.zeros((), dtype=torch.float64), 1.0)
    step = transform.encode(x.expand(20_000, 28, 1), noise=generator())
    values = step.contribution + normal.log_prob(step.z[..., 0])
    truth = normal.cdf(x[:, 0] + 0.5) - normal.cdf(x[:, 0])
    estimate, error = values.exp().mean(0), values.exp().std(0) / math.sqrt(len(values))
    assert ((estimate - truth).abs() < 4.5 * error + 1e-12).all()
    assert estimate.sum().item() == pytest.approx(1.0, abs=1e-3)
    assert (values.mean(0) < truth.log()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("step", [0.1, 0.01, 1.0, 1 / 3])
def test_lattice_reads_decimals(step, dtype):
    # 0.3 / 0.1 is 2.9999999999999996: a plain floor would put decimals into the cell below.
    transform = LatticeDequantize(1, columns=(0,), steps=step).to(dtype)
    k = torch.arange(-3000, 3000, dtype=dtype).reshape(-1, 1)
    x = k * torch.tensor(step, dtype=dtype)
    for noise in (generator(), None):
        z = transform.encode(x, noise=noise).z
        back = transform.decode(z)
        assert torch.equal(torch.round(back / step), k)


def test_off_lattice_is_scored_as_the_point_below():
    transform = LatticeDequantize(1, columns=(0,), steps=1.0).double()
    x = torch.tensor([[2.0], [2.4], [2.998], [2.9995]], dtype=torch.float64)
    z = transform.encode(x).z
    assert torch.equal(z[0], z[1])
    assert torch.equal(z[0], z[2])
    assert transform.decode(z).flatten().tolist() == [2.0, 2.0, 2.0, 3.0]


def test_lattice_far_values_are_finite():
    transform = LatticeDequantize(2, columns=(1,), steps=1e-3)
    x = torch.tensor([[0.0, 1e20], [1e30, -1e6]], requires_grad=True)
    step = transform.encode(x)
    (gradient,) = torch.autograd.grad(step.z.sum(), x)
    for value in (step.z, step.contribution, gradient, transform.decode(step.z)):
        assert torch.isfinite(value).all()
    torch.testing.assert_close(transform.decode(step.z), x, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: UniformDequantize(2, levels=0),
        lambda: UniformDequantize(2, levels=2.5),  # pyright: ignore[reportArgumentType]
        lambda: UniformDequantize(2, levels=True),
        lambda: UniformDequantize(2, levels=(2, 3, 4)),
        lambda: LatticeDequantize((2, 2), columns=(0,)),
        lambda: LatticeDequantize(2, columns=(2,)),
        lambda: LatticeDequantize(2, columns=(-1,)),
        lambda: LatticeDequantize(2, columns=(0, 0)),
        lambda: LatticeDequantize(2, columns=0),
        lambda: LatticeDequantize(2, columns=(True,)),
        lambda: LatticeDequantize(2, columns=(0,), steps="a"),
        lambda: LatticeDequantize(2, columns=(0,), steps=1e-50),  # 0 in float32
        lambda: LatticeDequantize(2, columns=(0,), steps=0.0),
        lambda: LatticeDequantize(2, columns=(0,), steps=(1.0, 2.0)),
        lambda: LatticeDequantize(2, columns=(0,), steps=math.nan),
        lambda: LatticeDequantize(2, columns=(0,), origins=math.inf),
    ],
)
def test_refusals(make):
    with pytest.raises(ConfigError):
        make()


def test_levels_may_be_integers_of_numpy():
    """``x.max() + 1`` of an array."""
    assert UniformDequantize(3, np.int64(8)).levels == 8
    assert LatticeDequantize(3, columns=(np.int64(1),)).columns == (1,)
    flow = pf.models.Glow((1, 4, 4), levels=np.int64(8), layers=np.int64(1), hidden=(4, 4))
    assert flow.evaluate(torch.randint(8, (2, 1, 4, 4))).value.shape == (2,)


def test_noise_of_one_half_rounds_gray_levels():
    """A runtime that cannot hash a row needs binarization without a hash."""
    x = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0]])
    assert DynamicBinarize(5, levels=5).encode(x, noise=MiddleNoise()).z.tolist() == [[0, 0, 0, 1, 1]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_16_bits_stay_inside_the_unit_interval(dtype):
    transform = UniformDequantize(1, levels=256).to(dtype)
    x = torch.arange(256, dtype=dtype).repeat(100).reshape(-1, 1)
    z = transform.encode(x, noise=RowNoise(1)).z
    assert z.dtype == dtype
    assert (z > 0).all()
    assert (z < 1).all()
    assert (transform.decode(z) - x).abs().max() <= 1
