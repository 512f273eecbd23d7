"""Whitening: the covariance becomes I, and constant directions keep their scale."""

import math

import pytest
import torch

from pushforward.errors import ConfigError, InputError
from pushforward.transforms import Whiten


def rows(count: int = 400) -> torch.Tensor:
    source = torch.Generator().manual_seed(0)
    mix = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.1, 0.3], [0.5, 0.0, 5.0]], dtype=torch.float64)
    return torch.randn(count, 3, dtype=torch.float64, generator=source) @ mix + torch.tensor([1e3, -2.0, 0.0])


def test_covariance_becomes_the_identity():
    x, whiten = rows(), Whiten(3).double()
    z = whiten.initialize(x)
    torch.testing.assert_close(torch.cov(z.mT, correction=0), torch.eye(3, dtype=torch.float64), atol=1e-10, rtol=0)
    torch.testing.assert_close(z.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-10, rtol=0)
    # log abs det of the linear transform is -1/2 log det of the covariance, for any rotation.
    expected = -0.5 * torch.linalg.slogdet(torch.cov(x.mT, correction=0))[1]
    torch.testing.assert_close(whiten.encode(x[0]).contribution, expected)


def test_directions_that_do_not_vary_keep_their_scale():
    x = rows()
    x[:, 2] = x[:, 0] + x[:, 1]  # a plane in three dimensions
    x = torch.cat((x, torch.full((len(x), 1), 7.0, dtype=torch.float64)), 1)  # and a constant column
    whiten = Whiten(4).double()
    z = whiten.initialize(x)
    spread = z.std(0, correction=0).sort().values
    assert spread[:2].max() < 1e-9
    torch.testing.assert_close(spread[2:], torch.ones(2, dtype=torch.float64))
    assert torch.isfinite(whiten.encode(x).contribution).all()
    torch.testing.assert_close(whiten.decode(z), x)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_rows_than_coordinates(count):
    x, whiten = rows(count), Whiten(3).double()
    z = whiten.initialize(x)
    assert torch.isfinite(z).all()
    torch.testing.assert_close(whiten.decode(z), x)
    torch.testing.assert_close(whiten.axes @ whiten.axes.mT, torch.eye(3, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("ratio", [1.0, 1e5, 1e12])
def test_coordinates_in_other_units_in_float32(ratio):
    """z and x of a float32 transform against those of the same rows in one unit, in float64."""
    mix = torch.tensor([[1.0, 0.8, 0.0], [0.0, 0.6, 0.3], [0.0, 0.0, 1.0]], dtype=torch.float64)
    plain = torch.randn(400, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) @ mix
    units = torch.tensor([1.0, ratio**-0.5, ratio**0.5], dtype=torch.float64)
    x = (plain * units).float()
    whiten = Whiten(3, units=True)
    z = whiten.initialize(x)
    torch.testing.assert_close(torch.cov(z.mT, correction=0), torch.eye(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(whiten.decode(z), x, rtol=1e-4, atol=0)
    expected = -0.5 * torch.linalg.slogdet(torch.cov(plain.mT, correction=0))[1] - units.log().sum()
    torch.testing.assert_close(whiten.encode(x[:1]).contribution.double(), expected[None], atol=1e-4, rtol=0)


def test_units_leave_constant_columns_and_similar_ones():
    whiten = Whiten(3, units=True)
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.0, 1e-4, 1e4])
    assert torch.isfinite(whiten.initialize(x)).all()
    assert whiten.unit[0] == 1.0
    torch.testing.assert_close(whiten.unit[1:], x[:, 1:].std(0, correction=0), rtol=1e-5, atol=0)
    alike, plain = Whiten(3, units=True).double(), Whiten(3).double()
    torch.testing.assert_close(alike.initialize(rows()), plain.initialize(rows()), rtol=0, atol=0)


@pytest.mark.parametrize("count", [333, 1000])
def test_units_do_not_take_rounding_of_the_mean_for_a_deviation(count):
    for value in (0.1, 1 / 3, 7.7):
        x = torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        x[:, 0] = value
        whiten = Whiten(3, units=True).double()
        whiten.initialize(x)
        assert whiten.unit.tolist() == [1.0, 1.0, 1.0]


def test_errors_of_invalid_arguments():
    with pytest.raises(InputError, match="one row"):
        Whiten(3).initialize(torch.zeros(0, 3))
    with pytest.raises(ConfigError, match="vectors"):
        Whiten((1, 2, 2))


def test_far_rows_stay_finite():
    whiten = Whiten(3).double()
    whiten.initialize(rows())
    z = whiten.encode(torch.full((1, 3), 1e20, dtype=torch.float64)).z
    assert not torch.isnan(z).any()
    assert math.isfinite(whiten.encode(torch.zeros(1, 3, dtype=torch.float64)).contribution.item())
