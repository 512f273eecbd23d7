"""Linear, quadratic and cubic splines against splines built by hand, and their behavior at the ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.interpolate
import scipy.optimize
import torch

from pushforward.errors import ConfigError
from pushforward.transforms import CubicSplineTransformer, LinearSplineTransformer, QuadraticSplineTransformer

B, K = 3.0, 5
LINEAR, QUADRATIC, CUBIC = (
    LinearSplineTransformer(K, B),
    QuadraticSplineTransformer(K, B),
    CubicSplineTransformer(K, B),
)
TRANSFORMERS = [LINEAR, QUADRATIC, CUBIC]
every = pytest.mark.parametrize("transformer", TRANSFORMERS, ids=["linear", "quadratic", "cubic"])
INSIDE = torch.linspace(-B, B, 301, dtype=torch.float64)[1:-1]


def raw_of(transformer, scale: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(transformer.parameters, 1, generator=generator, dtype=torch.float64)


def levels(transformer, raw: list[float]) -> np.ndarray:
    limit = -math.log(transformer.min_slope) / 2
    return np.array([math.exp(limit * math.tanh(v / limit)) for v in raw])


def widths(transformer, raw: list[float]) -> np.ndarray:
    fractions = np.exp(raw) / np.exp(raw).sum()
    return transformer.min_bin + (1 - transformer.bins * transformer.min_bin) * fractions


def knots(fractions: np.ndarray) -> np.ndarray:
    return np.concatenate(([-B], -B + 2 * B * np.cumsum(fractions)))


def linear_by_hand(raw: list[float], x: np.ndarray) -> np.ndarray:
    level = levels(LINEAR, raw)
    return np.interp(x, np.linspace(-B, B, K + 1), knots(level / level.sum()))


def quadratic_by_hand(raw: list[float], x: np.ndarray) -> np.ndarray:
    """The integral of the piecewise-linear interpolation of slopes that are 1 at both ends and 1 in the mean."""
    xs, level = knots(widths(QUADRATIC, raw[:K])), levels(QUADRATIC, raw[K:])

    def excess(factor: float) -> float:
        return np.trapezoid(np.concatenate(([1.0], factor * level, [1.0])), xs) - 2 * B

    factor = scipy.optimize.brentq(excess, 1e-6, 1e6, xtol=1e-15, rtol=1e-14)
    slopes = np.concatenate(([1.0], factor * level, [1.0]))
    fine = np.unique(np.concatenate((xs, x)))  # the trapezoid rule is exact between knots
    values = -B + np.concatenate(([0.0], scipy.integrate.cumulative_trapezoid(np.interp(fine, xs, slopes), fine)))
    return values[np.searchsorted(fine, x)]


def cubic_by_hand(raw: list[float], x: np.ndarray) -> np.ndarray:
    w, level = widths(CUBIC, raw[:K]), levels(CUBIC, raw[K:])
    floor = np.array([0.4, *[0.0] * (K - 2), 0.4])
    # Heights: the floor's part, and the rest of the interval in the proportions of levels times what each width has left.
    heights = floor * w + (1 - floor @ w) * (level * w * (1 - floor)) / (level @ (w * (1 - floor)))
    s = heights / w
    inner = [
        2 * min(s[k - 1], s[k], 0.5 * (s[k - 1] * w[k] + s[k] * w[k - 1]) / (w[k - 1] + w[k])) for k in range(1, K)
    ]
    return scipy.interpolate.CubicHermiteSpline(knots(w), knots(heights), [1.0, *inner, 1.0])(x)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [0.5, 2.0])
@pytest.mark.parametrize(
    ("transformer", "by_hand"),
    [(LINEAR, linear_by_hand), (QUADRATIC, quadratic_by_hand), (CUBIC, cubic_by_hand)],
    ids=["linear", "quadratic", "cubic"],
)
def test_values_are_those_of_a_spline_built_by_hand(transformer, by_hand, scale, seed):
    raw = raw_of(transformer, scale, seed)
    found = transformer.forward(INSIDE, raw.expand(-1, len(INSIDE)))[0]
    expected = by_hand(raw[:, 0].tolist(), INSIDE.numpy())
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


@every
@pytest.mark.parametrize("scale", [1.0, 10.0, 1e3])
def test_it_is_increasing_with_bounded_slopes(transformer, scale):
    """Also where the first bin is as flat as it can be, and a border slope of 1 would bend a plain cubic backwards."""
    x = torch.linspace(-B, B, 100_001, dtype=torch.float64)[1:-1]
    for seed in range(4):
        raw = raw_of(transformer, scale, seed)
        if seed == 0:
            raw[-K:] = scale
            raw[-K], raw[-1] = -scale, -scale
        y, log_slope = transformer.forward(x, raw.expand(-1, len(x)))
        assert (y.diff() > 0).all()
        assert (
            log_slope.exp().max() <= 3 / transformer.min_slope
        )  # a cubic is at most 1.5 times steeper than s, d at most 2 s
        assert log_slope.exp().min() >= 0.1 * transformer.min_slope


@pytest.mark.parametrize("transformer", [QUADRATIC, CUBIC], ids=["quadratic", "cubic"])
def test_slopes_are_continuous_into_the_identity_outside(transformer):
    step = 1e-7
    x = torch.tensor([-B - step, -B, -B + step, B - step, B, B + step], dtype=torch.float64)
    for seed in range(5):
        y, log_slope = transformer.forward(x, raw_of(transformer, 2.0, seed).expand(-1, 6))
        torch.testing.assert_close(y, x, rtol=0, atol=1e-9)
        assert log_slope.abs().max() < 1e-3
        assert log_slope[[0, 1, 4, 5]].abs().max() == 0


def test_the_slope_of_a_linear_spline_jumps_at_its_border():
    """The slope inside is what the bin has, the slope outside 1: a kink, and the function itself is continuous."""
    raw = torch.tensor([1.0, 0.0, 0.0, 0.0, -1.0], dtype=torch.float64)[:, None].expand(-1, 2)
    y, log_slope = LINEAR.forward(torch.tensor([-B + 1e-9, B - 1e-9], dtype=torch.float64), raw)
    torch.testing.assert_close(y, torch.tensor([-B, B], dtype=torch.float64), rtol=0, atol=1e-8)
    expected = levels(LINEAR, [1.0, 0.0, 0.0, 0.0, -1.0])
    expected = np.log(expected / expected.mean())
    torch.testing.assert_close(log_slope, torch.from_numpy(expected[[0, -1]]), rtol=1e-12, atol=0)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_inverse_is_as_exact_as_its_slope_allows(transformer, dtype):
    x = torch.linspace(-1.1 * B, 1.1 * B, 4001, dtype=dtype)
    for scale in (1.0, 4.0, 20.0):
        raw = raw_of(transformer, scale, 1).to(dtype).expand(-1, 4001)
        y, log_slope = transformer.forward(x, raw)
        error = (transformer.inverse(y, raw)[0] - x).abs()
        assert (error <= 64 * torch.finfo(dtype).eps * B * (1 + torch.exp(-log_slope))).all()


@pytest.mark.parametrize(
    ("transformer", "options"),
    [
        (LinearSplineTransformer, {"bins": 0}),
        (LinearSplineTransformer, {"bins": 1}),
        (LinearSplineTransformer, {"bins": 2.5}),
        (LinearSplineTransformer, {"bound": -1.0}),
        (LinearSplineTransformer, {"min_slope": 1.0}),
        (QuadraticSplineTransformer, {"bins": 2}),
        (QuadraticSplineTransformer, {"min_bin": 0.2}),
        (CubicSplineTransformer, {"bins": 1}),
        (CubicSplineTransformer, {"bound": math.inf}),
        (CubicSplineTransformer, {"min_slope": 0.0}),
    ],
)
def test_impossible_splines(transformer, options):
    with pytest.raises(ConfigError):
        transformer(**options)
