"""Mixtures of sigmoids against arithmetic with fifty digits, in the middle and in both tails."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.transforms import MixtureCDFTransformer, SigmoidalTransformer

mpmath.mp.dps = 50

MIXTURE = MixtureCDFTransformer(components=3)
DEEP = SigmoidalTransformer(layers=2, units=3)
POINTS = [-1e20, -1e4, -200.0, -12.0, -1.5, 0.0, 0.3, 2.0, 9.0, 120.0, 1e6, 1e20]


def raw_of(law, scale: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(law.parameters, 1, generator=generator, dtype=torch.float64)


def clamp(value: float, bound: float) -> mpmath.mpf:
    return bound * mpmath.tanh(mpmath.mpf(value) / bound)


def mixture_by_hand(law, raw: list[float], x: mpmath.mpf) -> mpmath.mpf:
    """e x + (1 - e) logit of the mixture, in fifty digits and without a single logarithm before the last."""
    count = len(raw) // 3
    weights = [mpmath.exp(v) for v in raw[:count]]
    below = above = mpmath.mpf(0)
    for k in range(count):
        pace = mpmath.mpf(1) if count == 1 else mpmath.mpf(1) / 2 + mpmath.mpf(k) / (count - 1)
        center = clamp(float(raw[count + k] * pace), law.max_center)
        power = mpmath.exp(-(x - center) * mpmath.exp(-clamp(raw[2 * count + k], law.max_log_scale)))
        below += weights[k] / (1 + power)
        above += weights[k] * power / (1 + power)
    return law.min_slope * x + (1 - mpmath.mpf(law.min_slope)) * mpmath.log(below / above)


def by_hand(law, raw: list[float], x: mpmath.mpf) -> mpmath.mpf:
    if law is MIXTURE:
        scale = mpmath.exp(clamp(raw[-1], law.max_log_scale))
        return scale * mixture_by_hand(law, raw[:-2], x) + raw[-2]
    half = len(raw) // 2
    return mixture_by_hand(law, raw[half:], mixture_by_hand(law, raw[:half], x))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [0.5, 2.0])
@pytest.mark.parametrize("law", [MIXTURE, DEEP], ids=["mixture", "deep"])
def test_value_and_slope_are_exact_in_both_tails(law, scale, seed):
    raw = raw_of(law, scale, seed)
    numbers = raw[:, 0].tolist()
    x = torch.tensor(POINTS, dtype=torch.float64)
    y, log_slope = law.forward(x, raw.expand(-1, len(x)))
    for at, value, log_value in zip(POINTS, y.tolist(), log_slope.tolist(), strict=True):
        expected = by_hand(law, numbers, mpmath.mpf(at))
        assert value == pytest.approx(float(expected), rel=1e-12, abs=1e-13)
        step = mpmath.mpf(10) ** -20  # far below the law's scales, far above the fiftieth digit
        if abs(at) < 1e10:
            slope = (by_hand(law, numbers, at + step) - by_hand(law, numbers, at - step)) / (2 * step)
            assert log_value == pytest.approx(float(mpmath.log(slope)), rel=0, abs=1e-11)


def test_one_component_is_a_line():
    """logit(sigmoid((x - m) / s)) = (x - m) / s."""
    law = MixtureCDFTransformer(components=1, min_slope=1e-12)
    raw = torch.tensor([0.7, 1.0, -0.5, 0.2, 0.1], dtype=torch.float64)[:, None].expand(-1, 3)
    x = torch.tensor([-30.0, 0.0, 5.0], dtype=torch.float64)
    center = 8 * math.tanh(0.5 / 8)  # the first of the paces, 0.5
    scale = math.exp(3 * math.tanh(-0.5 / 3))
    expected = math.exp(3 * math.tanh(0.1 / 3)) * (x - center) / scale + 0.2
    torch.testing.assert_close(law.forward(x, raw)[0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_modes_far_apart_can_be_inverted(dtype):
    """Between sharp components at -8 and 8 the mixture alone has a slope of exp(-150); the floor of 1e-3 remains."""
    law = MixtureCDFTransformer(components=2)
    raw = torch.tensor([0.0, 0.0, -1e3, 1e3, -1e3, -1e3, 0.0, 0.0], dtype=dtype)[:, None].expand(-1, 401)
    x = torch.linspace(-10, 10, 401, dtype=dtype)
    y, log_slope = law.forward(x, raw)
    assert log_slope.min() == pytest.approx(math.log(1e-3), abs=1e-5)
    error = (law.inverse(y, raw)[0] - x).abs()
    assert (error <= 64 * torch.finfo(dtype).eps * (1 + y.abs()) * (1 + torch.exp(-log_slope))).all()


def test_slopes_are_bounded_for_any_raw_value():
    """By 2 exp(max_log_scale) for each law: p (1 - p) is at least half the smaller of p and 1 - p."""
    x = torch.linspace(-20, 20, 2001, dtype=torch.float64)
    for law, layers in (
        (SigmoidalTransformer(1, 5, max_log_scale=1.0), 1),
        (SigmoidalTransformer(2, 5, max_log_scale=1.0), 2),
    ):
        for scale in (1.0, 10.0, 1e4):
            log_slope = law.forward(x, raw_of(law, scale, 0).expand(-1, 2001))[1]
            assert log_slope.max() <= layers * (math.log(2) + 1.0)
            assert log_slope.min() >= layers * math.log(law.min_slope) - 1e-9


@pytest.mark.parametrize(
    ("law", "options"),
    [
        (MixtureCDFTransformer, {"components": 0}),
        (MixtureCDFTransformer, {"components": True}),
        (MixtureCDFTransformer, {"max_log_scale": 0.0}),
        (MixtureCDFTransformer, {"max_center": math.inf}),
        (MixtureCDFTransformer, {"min_slope": 1.0}),
        (SigmoidalTransformer, {"layers": 0}),
        (SigmoidalTransformer, {"units": 1.5}),
        (SigmoidalTransformer, {"max_log_scale": math.nan}),
        (SigmoidalTransformer, {"min_slope": 0.0}),
    ],
)
def test_impossible_arguments(law, options):
    with pytest.raises(ConfigError):
        law(**options)
