"""Splines solved one coordinate at a time equal the plain spline for all coordinates at once."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward.kernels import SplineSettings, SplineSteps, spline, use_kernels

SETTINGS = [
    SplineSettings(8, 4.0, 1e-2, -math.log(1e-2)),
    SplineSettings(2, 3.0, 1e-1, 1.0),
    SplineSettings(64, 1.0, 1e-3, 3.0),
]


def solved(
    y: torch.Tensor, raw: torch.Tensor, settings: SplineSettings, block: int
) -> tuple[torch.Tensor, torch.Tensor]:
    steps, found = SplineSteps(settings, block, y.shape[1], y), []
    for values, parameters in zip(y.split(block), raw.split(block, 1), strict=True):
        steps.begin(values)
        for column in range(len(values)):
            steps.raw.copy_(parameters[:, column])
            torch.testing.assert_close(steps.step(), steps.x[column : column + 1], equal_nan=True)
        found.append(steps.solved())
    xs, slopes = zip(*found, strict=True)
    return torch.cat(xs), torch.cat(slopes)


@pytest.mark.parametrize("size", [0.0, 1.0, 10.0])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("block", "rows"), [(3, 40), (7, 1), (20, 0)])
@torch.no_grad()
def test_steps_are_the_spline(settings, size, block, rows):
    raw = size * torch.randn(settings.parameters, 7, rows, dtype=torch.float64)
    y = settings.bound * torch.randn(7, rows, dtype=torch.float64)
    with use_kernels("plain"):
        wanted = spline(y, raw, settings, inverse=True)
    for one, other in zip(solved(y, raw, settings, block), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_ends_and_beyond():
    settings = SETTINGS[0]
    y = torch.tensor([[-math.inf, -1e30, -5.0, -4.0, 4.0, 5.0, 1e30, math.inf, math.nan]]).expand(2, 9)
    x, slope = solved(y, 3 * torch.randn(settings.parameters, 2, 9), settings, 2)
    torch.testing.assert_close(x, y, equal_nan=True)
    assert not slope.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@torch.no_grad()
def test_steep_splines_are_inverted_to_a_few_roundings(dtype):
    """The root cancels where the slope at the right end is the steeper one, if it is not taken by the other form."""
    settings = SETTINGS[0]
    raw, y = 10 * torch.randn(settings.parameters, 1, 20_000, dtype=dtype), 1.2 * torch.randn(1, 20_000, dtype=dtype)
    x, _ = solved(y, raw, settings, 1)
    with use_kernels("plain"):
        back, slope = spline(x.double(), raw.double(), settings)
    error = (back - y).abs() / (1 + slope.exp())
    assert error.max() < 50 * torch.finfo(dtype).eps


def test_a_root_that_changes_its_form_is_differentiable():
    settings = SETTINGS[1]
    raw = torch.zeros(settings.parameters, 3, dtype=torch.float64, requires_grad=True)  # g is 0 at the middle of a bin
    y = torch.tensor([-1.5, 1.5, 0.7], dtype=torch.float64, requires_grad=True)
    with use_kernels("plain"):
        assert torch.autograd.gradcheck(lambda y, raw: spline(y, raw, settings, inverse=True), (y, raw))
        assert torch.autograd.gradgradcheck(lambda y, raw: spline(y, raw, settings, inverse=True), (y, raw))
