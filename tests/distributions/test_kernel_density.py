"""Kernel density: against scipy, the bandwidth of the highest leave-one-out likelihood, and rows that are few or equal."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import minimize_scalar
from torch import Size

import pushforward as pf
from pushforward.distributions import KernelDensity, Normal, Product
from pushforward.errors import ConfigError, InputError


def rows(count, width=2, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, width)) * [3.0, 0.2][:width] + 1.0)


def made(x, **options):
    base = KernelDensity(x.shape[1], **options).double()
    base.initialize(x)
    return base


def test_density_against_scipy():
    x = rows(300)
    base = made(x, bandwidth=0.3)
    scale = 0.3 * x.numpy().std(0)
    z = rows(40, seed=1)
    expected = np.log(stats.norm.pdf(z.numpy()[:, None], x.numpy(), scale).prod(-1).mean(1))
    np.testing.assert_allclose(base.log_prob(z), expected, rtol=1e-10)


def test_the_bandwidth_has_the_highest_leave_one_out_likelihood():
    """Against one computed the slow way, by another search."""
    x = rows(200)

    def negative(log_h):
        scale = math.exp(log_h) * x.numpy().std(0)
        each = stats.norm.pdf(x.numpy()[:, None], x.numpy(), scale).prod(-1)
        np.fill_diagonal(each, 0.0)
        return -np.log(each.sum(1) / 199).mean()

    best = minimize_scalar(negative, bounds=(-4, 1), method="bounded", options={"xatol": 1e-4}).x
    h = (made(x).width / x.std(0, correction=0)).tolist()
    assert h == pytest.approx([math.exp(best)] * 2, rel=1e-2)


def test_it_approaches_the_entropy_of_a_distribution_unlike_a_normal():
    def draw(count, seed):
        generator = torch.Generator().manual_seed(seed)
        side = 4.0 * (torch.randint(0, 2, (count, 1), generator=generator) * 2.0 - 1)
        return side + torch.randn(count, 1, generator=generator)

    base = KernelDensity(1)
    base.initialize(draw(2000, 0))
    entropy = math.log(2) + 0.5 * math.log(2 * math.pi * math.e)  # the two sides do not overlap
    assert -base.log_prob(draw(5000, 1)).mean().item() == pytest.approx(entropy, abs=0.05)


def test_more_rows_than_kept_and_parts_of_a_large_batch():
    x = rows(500)
    base = made(x, points=100)
    assert base.kept == 100
    assert (base.rows[:, None] == x).all(-1).any(1).all()
    assert len(base.rows.unique(dim=0)) == 100
    assert torch.equal(base.rows, made(x, points=100).rows)
    assert not torch.equal(base.rows, made(x, points=100, seed=1).rows)
    assert torch.equal(base.rows, made(x, points=100, seed=2**64).rows)
    many = rows(30_000, seed=2)  # more cells than are held at once
    torch.testing.assert_close(base.log_prob(many)[:10], base.log_prob(many[:10]), rtol=1e-12, atol=0)


def test_it_is_initialized_once_and_may_have_fewer_rows_than_its_size():
    x = rows(30)
    base = made(x)
    before = base.width.clone()
    base.initialize(rows(30, seed=3))
    assert torch.equal(base.width, before)
    z = base.sample(Size((4000,)), generator=torch.Generator().manual_seed(0))
    nearest = ((z[:, None] - x) / base.width).square().sum(-1).amin(1)
    assert nearest.max() < 40  # of two normals' squares, and no sample near the unused rows at 0
    assert nearest.mean() > 0.3


@pytest.mark.parametrize("count", [1, 5])
def test_equal_rows_and_a_constant_column_stay_finite(count):
    x = torch.full((count, 2), 3.0, dtype=torch.float64)
    base = made(x)
    assert torch.isfinite(base.log_prob(torch.tensor([[3.0, 3.0], [1e6, -1e6]], dtype=torch.float64))).all()
    assert (base.width >= 1e-3 * 0.99).all()


def test_rounding_of_the_mean_is_no_deviation_of_a_constant():
    for value in (0.1, 1 / 3, 7.7):
        assert made(torch.full((1000, 1), value, dtype=torch.float64)).width >= 1e-3 * 0.99


def test_far_away_it_falls_as_a_normal_does():
    base = made(rows(50)).float()
    far = base.log_prob(torch.tensor([[1e10, 0.0], [1e30, 0.0], [math.inf, 0.0]]))
    assert torch.isfinite(far[:2]).all() or far[1] < far[0]
    assert far[2] == -math.inf
    assert not torch.isnan(far).any()


def test_as_a_part_of_a_product_and_through_a_file(tmp_path):
    x = rows(400).float()
    model = pf.models.Flow(pf.transforms.Standardize(2), Product(KernelDensity(1, 100), Normal(1)))
    result = pf.fit(model, x, progress="silent", validation=x[:50])
    assert result.stopped == "nothing to train"
    assert model.base.parts[0].kept == 100
    pf.save(model, tmp_path / "m.safetensors")
    assert torch.equal(pf.load(tmp_path / "m.safetensors").log_prob(x), model.log_prob(x))


def test_bad_rows_and_arguments():
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match="points"):
            KernelDensity(2, wrong)
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="bandwidth"):
            KernelDensity(2, bandwidth=wrong)
    with pytest.raises(InputError, match="at least one"):
        KernelDensity(2).initialize(torch.zeros(0, 2))
    with pytest.raises(InputError, match="finite"):
        KernelDensity(2).initialize(torch.full((3, 2), math.nan))


def test_the_bandwidth_does_not_depend_on_the_order_of_the_rows():
    """A table that is sorted by cluster, the narrow one of which comes first."""
    generator = torch.Generator().manual_seed(0)
    narrow, wide = (torch.randn(count, 1, generator=generator, dtype=torch.float64) for count in (600, 1400))
    x = torch.cat((0.02 * narrow, 5 + 3 * wide))
    shuffled = x[torch.randperm(2000, generator=generator)]
    assert made(x).width.item() == pytest.approx(made(shuffled).width.item(), rel=0.3)  # 500 rows choose it


def test_rows_on_the_cpu_where_the_default_device_is_another():
    x = rows(700)
    base, again = KernelDensity(2, 600).double(), KernelDensity(2, 600).double()
    base.initialize(x)
    with torch.device("meta"):  # stands for a GPU
        again.initialize(x)
    assert torch.equal(base.rows, again.rows)
    assert torch.equal(base.width, again.width)
