"""Surfaces with known densities: mass one, area from finite differences, samples that follow the density."""

import math

import pytest
import scipy.stats
import torch

from papers.manifolds import ManifoldDistribution, circle, rotated, sphere, swiss_roll

TARGETS = [circle(), sphere(), swiss_roll(), rotated(swiss_roll(), 20)]


@pytest.fixture(params=TARGETS, ids=lambda target: target.name)
def target(request) -> ManifoldDistribution:
    return request.param


def test_mass_is_one(target):
    assert target.masses(20, 20).sum().item() == pytest.approx(1.0, abs=2e-3)


def test_area_element_is_that_of_the_chart(target):
    u = target.draw(20, torch.Generator().manual_seed(0))
    for row, expected in zip(u, target.log_area(u), strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda t: target.point(t[None])[0], row)
        volume = 0.5 * torch.linalg.slogdet(jacobian.T @ jacobian)[1]
        assert volume.item() == pytest.approx(expected.item(), abs=1e-9)


def test_the_chart_of_a_point_is_inverted(target):
    u = target.draw(500, torch.Generator().manual_seed(1))
    torch.testing.assert_close(target.locate(target.point(u)), u, rtol=1e-9, atol=1e-9)
    x = target.sample(500, 2)
    assert x.shape == (500, target.ambient)
    assert target.distance(x).max() < 1e-5
    moved = target.distance(
        x.double() + 1e-3 * torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )
    assert 1e-4 < moved.median() < 1e-2


def test_samples_follow_the_density(target):
    count, cells = 40_000, 8
    expected = count * target.masses(cells)
    seen = torch.bincount(target.cell(target.sample(count, 3), cells), minlength=len(expected)).double()
    big = expected > 5
    scaled = expected[big] * seen[big].sum() / expected[big].sum()
    assert scipy.stats.chisquare(seen[big], scaled).pvalue > 1e-3


def test_entropy_of_the_circle():
    """-E log p = log(2 pi I0(kappa)) - kappa I1(kappa) / I0(kappa)."""
    ratio = scipy.special.i1(1.0) / scipy.special.i0(1.0)
    expected = math.log(2 * math.pi * scipy.special.i0(1.0)) - ratio
    assert expected == pytest.approx(1.6274, abs=1e-4)
    target = circle()
    u, size = target.grid(2000)
    log_density = target.log_density(target.point(u))
    assert -(log_density.exp() * log_density * size).sum().item() == pytest.approx(expected, abs=1e-6)


def test_rotation_changes_no_density():
    flat, turned = swiss_roll(), rotated(swiss_roll(), 20)
    x, y = flat.sample(50, 5), turned.sample(50, 5)
    torch.testing.assert_close(flat.log_density(x), turned.log_density(y), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        torch.cdist(x.double(), x.double()), torch.cdist(y.double(), y.double()), rtol=1e-5, atol=1e-5
    )


def test_total_variation_of_the_true_distribution_is_the_floor_and_of_another_is_larger():
    target = circle()
    floor = target.floor(100_000, 64)
    assert floor < 0.02
    assert target.total_variation(circle(concentration=0.5).sample(100_000, 0), 64) > 5 * floor
    uniform = torch.rand(100_000, 1, generator=torch.Generator().manual_seed(0)) * 2 * math.pi
    exact = 0.5 * (target.masses(64) - 1 / 64).abs().sum().item()
    assert target.total_variation(target.point(uniform), 64) == pytest.approx(exact, abs=0.02)


def test_frechet_distance_of_normals_is_that_of_their_moments():
    """With equal axes it is the squared difference of means and of deviations, and a rotation of both samples does not change it."""
    from papers.claims.rectangular import frechet

    x = torch.randn(500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T  # moments 0 and I, exactly
    y = x * torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64) + torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64)
    assert frechet(x, y) == pytest.approx(9 + 0 + 1 + 0.25, abs=1e-9)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    assert frechet(x @ turn, y @ turn) == pytest.approx(10.25, abs=1e-9)
    assert frechet(y, y) == pytest.approx(0.0, abs=1e-9)
