"""Bernstein polynomials against scipy's, and the lines that go on from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.interpolate
import torch

from pushforward.errors import ConfigError
from pushforward.transforms import BernsteinTransformer

B = 3.0


def by_hand(law, raw: list[float]) -> scipy.interpolate.BPoly:
    slopes = np.exp([law.max_log_slope * math.tanh(v / law.max_log_slope) for v in raw[:-1]])
    coefficients = np.concatenate(([0.0], np.cumsum(slopes))) * 2 * B / law.degree
    coefficients += raw[-1] - coefficients[-1] / 2
    return scipy.interpolate.BPoly(coefficients[:, None], [-B, B])


def raw_of(law, scale: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(law.parameters, 1, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("degree", [1, 2, 7, 40])
def test_values_are_those_of_scipy(degree, scale):
    law = BernsteinTransformer(degree, B)
    raw = raw_of(law, scale, degree)
    polynomial = by_hand(law, raw[:, 0].tolist())
    x = torch.tensor([-40.0, -B, -2.5, -0.1, 0.0, 1.7, B, 8.0], dtype=torch.float64)
    y, log_slope = law.forward(x, raw.expand(-1, len(x)))
    inner = x.clamp(-B, B).numpy()
    slope = polynomial.derivative()(inner)
    expected = polynomial(inner) + (x.numpy() - inner) * slope
    torch.testing.assert_close(y, torch.from_numpy(expected), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(log_slope, torch.from_numpy(np.log(slope)), rtol=0, atol=1e-10)


def test_the_slope_stays_within_its_bounds_for_any_raw_value():
    law = BernsteinTransformer(9, B, max_log_slope=2.0)
    x = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    for scale in (1.0, 20.0, 1e5):
        log_slope = law.forward(x, raw_of(law, scale, 0).expand(-1, 1001))[1]
        assert log_slope.abs().max() <= 2.0 + 1e-12


def test_slopes_are_continuous_at_the_border():
    law = BernsteinTransformer(9, B)
    for edge in (-B, B):
        x = torch.tensor([edge - 1e-9, edge, edge + 1e-9], dtype=torch.float64)
        y, log_slope = law.forward(x, raw_of(law, 2.0, 1).expand(-1, 3))
        assert y.diff().abs().max() < 1e-6
        assert log_slope.diff().abs().max() < 1e-6


@pytest.mark.parametrize(
    "options", [{"degree": 0}, {"degree": 61}, {"degree": True}, {"bound": -1.0}, {"max_log_slope": 0.0}]
)
def test_impossible_arguments(options):
    with pytest.raises(ConfigError):
        BernsteinTransformer(**options)
