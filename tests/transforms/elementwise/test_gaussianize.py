"""Gaussianization of marginals: exact tails against fifty digits, bounds of the quantile, and the initialization from data."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch

from pushforward.errors import ConfigError, InputError
from pushforward.transforms import Gaussianize, Inverse
from pushforward.transforms.elementwise.gaussianize import log_mills, upper_quantile

mpmath = pytest.importorskip("mpmath")  # comes with torch, through sympy


@pytest.mark.parametrize("width", [1, 3])
def test_contract(width, check):
    transform = check.perturb(Gaussianize(width, components=4)).double()
    for spread in (1.0, 50.0, 1e6, 1e20):
        check.round_trip(transform, check.normal(50, width, spread=spread), 1e-12)
    check.contribution(transform, check.normal(5, width))
    check.contribution(transform, check.normal(5, width, spread=1e4))
    check.contribution(Inverse(transform), check.normal(5, width))
    check.decode_contribution(transform, check.normal(5, width))
    check.decode_gradients(transform, check.normal(2, width))
    check.shapes(transform.float())
    check.extremes(transform)


@pytest.mark.parametrize("x", [-1e6, -300.0, -7.0, -0.2, 0.0, 0.4, 5.0, 45.0, 2000.0])
def test_value_and_slope_against_fifty_digits(x, check):
    transform = check.perturb(Gaussianize(1, components=3)).double()
    with mpmath.workdps(50):
        raw = [[mpmath.mpf(v.item()) for v in t[:, 0]] for t in (transform.loc, transform.log_scale, transform.logits)]
        scales = [mpmath.exp(6 * mpmath.tanh(v / 6)) for v in raw[1]] + [mpmath.mpf(1)]
        total = sum(mpmath.exp(v) for v in raw[2])
        weights = [mpmath.mpf("0.98") * mpmath.exp(v) / total for v in raw[2]] + [mpmath.mpf("0.02")]
        u = [(mpmath.mpf(x) - m) / s for m, s in zip([*raw[0], mpmath.mpf(0)], scales, strict=True)]
        sign = -1 if x < 0 else 1  # from the nearer tail
        tail = sum(w / (1 + mpmath.exp(sign * v)) for w, v in zip(weights, u, strict=True))
        density = sum(w / s / (2 * mpmath.cosh(v / 2)) ** 2 for w, s, v in zip(weights, scales, u, strict=True))
        found = transform.encode(torch.tensor([[x]], dtype=torch.float64))
        z = mpmath.mpf(found.z.item())
        # log of the tail beyond z, by the asymptotic-free incomplete gamma function of mpmath
        error = mpmath.log(mpmath.erfc(sign * z / mpmath.sqrt(2)) / 2) - mpmath.log(tail)
        assert abs(error) < 1e-13 * max(1, abs(mpmath.log(tail)))
        slope = mpmath.log(density) + z * z / 2 + mpmath.log(2 * mpmath.pi) / 2
        # z carries a rounding, which the square of z magnifies; the code's own form does not have it.
        assert abs(slope - found.contribution.item()) < 1e-14 * (10 + float(z * z))


@pytest.mark.parametrize("r", [0.0, 0.3, 2.0, 8.0, 49.9, 50.1, 1e3, 1e8])
def test_log_mills_and_its_derivative(r):
    x = torch.tensor(r, dtype=torch.float64, requires_grad=True)
    value = log_mills(x)
    (slope,) = torch.autograd.grad(value, x)
    with mpmath.workdps(50):
        # The continued fraction (r large) or erfc (r small).
        exact = mpmath.erfc(mpmath.mpf(r) / mpmath.sqrt(2)) / 2 * mpmath.sqrt(2 * mpmath.pi) * mpmath.exp(
            mpmath.mpf(r) ** 2 / 2
        ) if r < 1e4 else 1 / (mpmath.mpf(r) + 1 / mpmath.mpf(r))  # fmt: skip
        assert value.item() == pytest.approx(float(mpmath.log(exact)), abs=1e-13)
        assert slope.item() == pytest.approx(float(mpmath.mpf(r) - 1 / exact), rel=1e-6, abs=1e-11)


def test_the_quantile_over_the_whole_range():
    log_tail = -torch.logspace(math.log10(math.log(2)), 30, 400, dtype=torch.float64)
    r = upper_quantile(log_tail)
    torch.testing.assert_close(torch.special.log_ndtr(-r), log_tail, rtol=1e-13, atol=1e-13)
    assert (r.diff() > 0).all()
    inner = log_tail[log_tail > -700]
    expected = torch.from_numpy(scipy.stats.norm.isf(inner.exp().numpy()))
    torch.testing.assert_close(upper_quantile(inner), expected, rtol=1e-9, atol=1e-9)


def test_the_quantile_in_float32_over_its_whole_range():
    log_tail = -torch.logspace(0, 37, 2000)
    torch.testing.assert_close(
        upper_quantile(log_tail), upper_quantile(log_tail.double()).float(), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_gap_between_narrow_components_keeps_the_inverse_accurate(dtype):
    transform = Gaussianize(1, components=2).to(dtype)
    with torch.no_grad():
        transform.loc.copy_(torch.tensor([[-2.0], [2.0]]))
        transform.log_scale.fill_(-6.0)
    x = torch.linspace(-3, 3, 101, dtype=dtype).unsqueeze(-1)
    step = transform.encode(x)
    assert (step.contribution > -6).all()
    error = (transform.decode(step.z) - x).abs().amax(-1)
    # What rounding of z explains, at the slope of the inverse.
    allowed = 20 * torch.finfo(dtype).eps * (1 + (1 + step.z.abs().amax(-1)) * torch.exp(-step.contribution))
    assert (error < allowed).all()


def test_initialization_makes_marginals_nearly_normal():
    generator = torch.Generator().manual_seed(0)
    draws = [
        torch.rand(2000, generator=generator),
        torch.randn(2000, generator=generator).exp(),
        torch.randint(2, (2000,), generator=generator) * 8.0 + torch.randn(2000, generator=generator),
    ]
    x = torch.stack(draws, -1).double() * 1e3 + 5e4
    transform = Gaussianize(3, components=20).double()
    z = transform.initialize(x)
    for column in z.T:
        distance = scipy.stats.kstest(column.numpy(), "norm").statistic
        assert distance < 0.04  # a standardized bimodal column has 0.2
    torch.testing.assert_close(transform.decode(z), x)
    state = transform.loc.clone()
    transform.initialize(2 * x)
    assert torch.equal(transform.loc, state)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_few_or_constant_rows_start_it_too(rows):
    x = torch.full((rows, 2), 3.0)
    x[:, 1] = torch.arange(rows)
    transform = Gaussianize(2)
    z = transform.initialize(x)
    assert torch.isfinite(z).all()
    torch.testing.assert_close(transform.decode(z), x, atol=1e-4, rtol=1e-4)


def test_impossible_arguments_are_refused():
    with pytest.raises(ConfigError, match="components"):
        Gaussianize(2, components=0)
    with pytest.raises(InputError, match="at least one row"):
        Gaussianize(2).initialize(torch.empty(0, 2))


def test_the_derivative_of_the_quantile_is_exact():
    """dr/d log_tail = -1 / hazard, with the hazard from fifty digits."""
    for r in (0.05, 1.0, 2.2, 3.0, 8.0, 30.0):
        with mpmath.workdps(50):
            tail = mpmath.erfc(mpmath.mpf(r) / mpmath.sqrt(2)) / 2
            phi = mpmath.exp(-(mpmath.mpf(r) ** 2) / 2) / mpmath.sqrt(2 * mpmath.pi)
            log_tail = torch.tensor(float(mpmath.log(tail)), dtype=torch.float64, requires_grad=True)
            expected = float(-tail / phi)
        (slope,) = torch.autograd.grad(upper_quantile(log_tail), log_tail)
        assert slope.item() == pytest.approx(expected, rel=1e-12)
