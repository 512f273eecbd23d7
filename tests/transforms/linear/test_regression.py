"""Regression on the context: least squares, whitened residuals, and shrinkage where there is nothing to find."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward.errors import ConfigError, InputError
from pushforward.transforms import Regression
from pushforward.transforms.linear.regression import _ridge


def pairs(count, noise=0.5, seed=0):
    """x = (c0 - c1, 2 c1) + 3 + noise."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    exact = torch.stack((context[:, 0] - context[:, 1], 2 * context[:, 1]), 1) + 3
    return exact + noise * torch.randn(count, 2, generator=generator, dtype=torch.float64), context


def test_slopes_are_those_of_least_squares_and_the_residual_is_white():
    x, context = pairs(5000)
    regression = Regression(2, context=2).double()
    z = regression.initialize(x, context)
    design = torch.cat((context, torch.ones(5000, 1, dtype=torch.float64)), 1)
    expected = torch.linalg.lstsq(design, x).solution[:2].mT
    torch.testing.assert_close(regression.slopes, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cov(z.mT, correction=0), torch.eye(2, dtype=torch.float64), atol=1e-6, rtol=0)
    assert z.mean(0).abs().max() < 1e-6
    assert float(regression.encode(x, context).contribution[0]) == pytest.approx(-2 * math.log(0.5), abs=0.05)


def test_a_wide_context_without_information_is_ignored():
    """40 columns of noise and 50 rows: least squares would explain 80 % of the variance, cross-validation nothing."""
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(50, 40, generator=generator, dtype=torch.float64)
    x = torch.randn(50, 1, generator=generator, dtype=torch.float64)
    regression = Regression(1, context=40).double()
    regression.initialize(x, context)
    fresh = torch.randn(2000, 40, generator=generator, dtype=torch.float64) @ regression.slopes.mT
    assert fresh.std() < 0.4


def test_the_units_of_the_context_do_not_matter():
    """A penalty in the units of the first column would be 1e4 times the variance of the second."""
    x, context = pairs(2000)
    plain, scaled = Regression(2, context=2).double(), Regression(2, context=2).double()
    units = torch.tensor([1e6, 1.0], dtype=torch.float64)
    expected = plain.initialize(x, context)
    torch.testing.assert_close(scaled.initialize(x, context * units), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(scaled.slopes * units, plain.slopes, rtol=0, atol=1e-4)


def test_it_is_fitted_on_the_device_of_the_rows():
    """On "meta" the first number that is read ends it; before, no tensor may be on another device."""
    rows = torch.zeros(5, 2, dtype=torch.float64, device="meta")
    with pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta"):
        _ridge(rows, rows)


def test_it_is_the_identity_before_and_is_set_once():
    x, context = pairs(100)
    regression = Regression(2, context=2).double()
    torch.testing.assert_close(regression.encode(x, context).z, x)
    regression.initialize(x, context)
    slopes = regression.slopes.clone()
    regression.initialize(2 * x, context)
    assert torch.equal(slopes, regression.slopes)


def test_bad_input_has_a_sentence():
    with pytest.raises(ConfigError):
        Regression((2, 2), context=1)
    with pytest.raises(ConfigError, match="context"):
        Regression(2, context=0)
    with pytest.raises(InputError, match="needs a context"):
        Regression(2, context=1).initialize(torch.zeros(3, 2))
    with pytest.raises(InputError, match="at least one row"):
        Regression(2, context=1).initialize(torch.zeros(0, 2), torch.zeros(0, 1))
