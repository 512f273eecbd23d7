"""The integral of a positive network: the stated error of its quadrature for any weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate
import torch

from pushforward.errors import ConfigError
from pushforward.transforms import UnconstrainedMonotoneTransformer
from pushforward.transforms.transformers.unconstrained_monotone import clenshaw_curtis


def integrand_by_hand(transformer, raw: list[float], t: float) -> float:
    """g(t) of one set of raw parameters, in plain Python."""
    count, m = transformer.units, transformer.max_log_slope
    t = min(max(t, -transformer.bound), transformer.bound)
    weights = [1e6 * math.tanh(v / 1e6) for v in raw[:count]]
    total = sum(abs(v) for v in weights)
    log_g = m * math.tanh(raw[-2] / m)
    for k in range(count):
        node = transformer.bound * (2 * (k + 1) / (count + 1) - 1)
        center = node + transformer.bound * math.tanh(raw[count + k] / transformer.bound)
        steep = math.exp(math.log(2) * math.tanh(raw[2 * count + k] / math.log(2))) * 4 / transformer.bound
        log_g += m * weights[k] / (m + total) * math.tanh(steep * (t - center))
    return math.exp(log_g)


def raw_of(transformer, scale: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(transformer.parameters, 1, generator=generator, dtype=torch.float64)


def steepest(transformer, sign: float, center: float) -> torch.Tensor:
    """All weight on one unit of the largest steepness: the hardest case for the quadrature."""
    raw = torch.zeros(transformer.parameters, 1, dtype=torch.float64)
    raw[0], raw[transformer.units], raw[2 * transformer.units] = sign * 1e6, center, 1e3
    return raw


@pytest.mark.parametrize("bound", [4.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_value_and_slope_are_those_of_the_integral(bound, seed):
    transformer = UnconstrainedMonotoneTransformer(units=3, bound=bound)
    raw = raw_of(transformer, 2.0, seed)
    numbers = raw[:, 0].tolist()
    x = torch.tensor([-30.0, -4.0, -0.9, 0.0, 0.3, 3.9, 7.0], dtype=torch.float64)
    y, log_slope = transformer.forward(x, raw.expand(-1, len(x)))
    for at, value, log_value in zip(x.tolist(), y.tolist(), log_slope.tolist(), strict=True):
        # The integrand has a kink at the bound, which quad needs.
        inner = min(max(at, -bound), bound)
        expected = scipy.integrate.quad(
            lambda t: integrand_by_hand(transformer, numbers, t), 0, inner, epsabs=1e-13, epsrel=1e-13, limit=200
        )[0]
        expected += (at - inner) * integrand_by_hand(transformer, numbers, at) + numbers[-1]
        assert value == pytest.approx(expected, rel=1e-11, abs=1e-11)
        assert log_value == pytest.approx(math.log(integrand_by_hand(transformer, numbers, at)), rel=0, abs=1e-13)


@pytest.mark.parametrize(("nodes", "value_error", "slope_error"), [(64, 1e-13, 1e-9), (32, 1e-8, 1e-4)])
def test_the_stated_error_of_the_quadrature(nodes, value_error, slope_error):
    """For random weights of every size, and for the steepest unit at every position; the reference has a thousand nodes."""
    x = torch.linspace(-4, 4, 200, dtype=torch.float64).requires_grad_()
    for units in (1, 5):
        transformer, truth = (UnconstrainedMonotoneTransformer(units, n) for n in (nodes, 1024))
        cases = [raw_of(transformer, scale, seed) for scale in (1.0, 5.0, 100.0) for seed in range(4)]
        cases += [
            steepest(transformer, sign, center) for sign in (-1.0, 1.0) for center in (-1e3, -4.0, -1.0, 0.0, 2.0)
        ]
        for raw in cases:
            raw = torch.cat((raw[:-1], torch.zeros_like(raw[-1:]))).expand(-1, len(x))
            y, log_slope = transformer.forward(x, raw)
            (slope,) = torch.autograd.grad(y.sum(), x)
            expected = truth.forward(x, raw)[0]
            assert (y / expected - 1).abs().max() < value_error
            assert (slope / log_slope.exp() - 1).abs().max() < slope_error
            assert (y.diff() > 0).all()


def test_the_quadrature_error_is_real():
    """With 8 nodes it is large, so the test above could fail."""
    transformer = UnconstrainedMonotoneTransformer(units=1, nodes=8)
    x = torch.linspace(1, 4, 50, dtype=torch.float64)
    raw = steepest(transformer, 1.0, 1.0).expand(-1, 50)
    expected = UnconstrainedMonotoneTransformer(units=1, nodes=1024).forward(x, raw)[0]
    assert (transformer.forward(x, raw)[0] / expected - 1).abs().max() > 1e-4


@pytest.mark.parametrize("count", [2, 8, 20])
def test_the_rule_is_exact_for_polynomials(count):
    nodes, weights = (np.array(part) for part in clenshaw_curtis(count))
    for degree in range(count + 1):
        exact = 2 / (degree + 1) if degree % 2 == 0 else 0.0
        assert weights @ nodes**degree == pytest.approx(exact, abs=1e-14)
    assert (weights > 0).all()


@pytest.mark.parametrize(
    "options",
    [
        {"units": 0},
        {"units": 2.0},
        {"nodes": 33},
        {"nodes": 4},
        {"nodes": 2000},
        {"bound": 0.0},
        {"max_log_slope": 11.0},
    ],
)
def test_impossible_arguments(options):
    with pytest.raises(ConfigError):
        UnconstrainedMonotoneTransformer(**options)
