"""Elementwise transforms: formulas against autograd and scipy, saturation, borders."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from pushforward.distributions import Product, Uniform
from pushforward.errors import ConfigError, KindWarning
from pushforward.likelihood import REAL, UNIT, Kind, Support
from pushforward.models import Flow
from pushforward.transforms import (
    Affine,
    Bounds,
    Chain,
    Exp,
    Inverse,
    Logit,
    Sigmoid,
    Softplus,
    SoftTail,
    StickBreaking,
    Tanh,
)

REALS = {
    "affine": lambda: Affine(3, shift=(1.0, 2.0, 3.0), scale=(-2.0, 0.5, 7.0)),
    "affine-trainable": lambda: Affine(3, shift=1.0, scale=-2.0, trainable=True),
    "affine-multiplier": lambda: Affine(
        3, shift=1.0, scale=(-2.0, 0.5, 7.0), trainable=True, learning_rate_multiplier=10.0
    ),
    "softtail": lambda: SoftTail(3, width=2.0),
}
BOXED = {
    "sigmoid": lambda: Sigmoid(3),
    "tanh": lambda: Tanh(3),
    "softplus": lambda: Softplus(3),
    "exp": lambda: Exp(3),
}


@pytest.mark.parametrize("make", [*REALS.values(), *BOXED.values()], ids=[*REALS, *BOXED])
def test_contribution_shapes_compile(make, check):
    transform = make().double()
    check.contribution(transform, check.normal(8, 3, spread=3.0))
    check.decode_contribution(transform, transform.encode(check.normal(8, 3, spread=2.0)).z, 1e-8)
    check.shapes(make())
    check.compiles(make(), check.normal(4, 3, dtype=torch.float32))


@pytest.mark.parametrize("make", [*REALS.values(), *BOXED.values()], ids=[*REALS, *BOXED])
def test_inverse_contribution_against_autograd(make, check):
    transform = Inverse(make().double())
    inside = make().double().encode(check.normal(8, 3, spread=2.0)).z
    check.contribution(transform, inside, 1e-7)
    check.shapes(Inverse(make()))


@pytest.mark.parametrize("spread", [1.0, 5.0, 1e3])
@pytest.mark.parametrize("make", REALS.values(), ids=REALS)
def test_round_trip_on_the_reals(make, spread, check):
    x = check.normal(100, 3, spread=spread)
    check.round_trip(make().double(), x, 1e-10)
    check.round_trip(make(), x.float(), 1e-5)


@pytest.mark.parametrize("name", BOXED)
def test_round_trip_from_the_box(name, check):
    # The box itself is the well conditioned side: x is recovered from z only as well as z's digits allow.
    transform = BOXED[name]().double()
    z = transform.encode(check.normal(100, 3, spread=5.0)).z
    torch.testing.assert_close(transform.encode(transform.decode(z)).z, z, atol=1e-13, rtol=1e-12)


@pytest.mark.parametrize("make", [*REALS.values(), lambda: Sigmoid(3), lambda: Tanh(3), lambda: Softplus(3)])
def test_extremes(make, check):
    check.extremes(make())


def test_exp_is_bounded_and_keeps_its_log_slope():
    x = torch.tensor([[-1e20], [-200.0], [200.0], [1e20]], requires_grad=True)
    step = Exp(1).encode(x)
    assert torch.isfinite(step.z).all()
    assert (step.z > 0).all()
    torch.testing.assert_close(step.contribution, x[:, 0])
    (gradient,) = torch.autograd.grad(step.contribution.sum() + step.z.sum(), x)
    assert torch.isfinite(gradient).all()


def test_values_against_scipy():
    x = np.linspace(-30, 30, 41)
    rows = torch.tensor(x).reshape(-1, 1)
    for transform, z, log_slope in (
        (Sigmoid(1), scipy.special.expit(x), scipy.stats.logistic.logpdf(x)),
        (Tanh(1), np.tanh(x), np.log(2) + scipy.stats.logistic.logpdf(2 * x) + np.log(2)),
        (Softplus(1), np.logaddexp(0, x), scipy.special.log_expit(x)),
        (SoftTail(1, width=2.0), 2 * np.arcsinh(x / 2), -0.5 * np.log1p((x / 2) ** 2)),
    ):
        step = transform.double().encode(rows)
        np.testing.assert_allclose(step.z[:, 0].numpy(), z, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(step.contribution.numpy(), log_slope, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("x", [-500.0, -50.0, 50.0, 500.0])
def test_log_slope_stays_accurate_where_float32_saturates(x):
    row = torch.tensor([[x]])
    assert Sigmoid(1).encode(row).contribution.item() == pytest.approx(-abs(x), rel=1e-6)
    assert Tanh(1).encode(row).contribution.item() == pytest.approx(2 * math.log(2) - 2 * abs(x), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("transform", [Sigmoid(1), Tanh(1), Softplus(1), Exp(1)], ids=lambda m: type(m).__name__)
def test_image_stays_strictly_inside(transform, dtype):
    x = torch.tensor([-1e30, -1e4, -30.0, 0.0, 30.0, 1e4, 1e30], dtype=dtype).reshape(-1, 1).requires_grad_()
    z = transform.encode(x).z
    assert (z > transform.codomain.low).all()
    assert (z < transform.codomain.high).all()
    step = Inverse(transform).encode(z)
    assert torch.isfinite(step.z).all()
    assert torch.isfinite(step.contribution).all()
    (gradient,) = torch.autograd.grad(step.z.sum() + step.contribution.sum(), x)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("transform", "inside", "illegal"),
    [
        (Logit(2), 0.5, (-0.1, 1.1)),
        (Logit(2, alpha=0.05), 0.5, (-0.1, 1.1)),
        (Inverse(Sigmoid(2)), 0.5, (-1e20, 1.0001)),
        (Inverse(Tanh(2)), 0.5, (-1.5, 1.5)),
        (Inverse(Softplus(2)), 0.5, (-0.1, -1e20)),
        (Inverse(Exp(2)), 0.5, (-0.1, -1e20)),
    ],
)
def test_outside_the_domain(transform, inside, illegal):
    for bad in illegal:
        x = torch.tensor([[inside, inside], [inside, bad]], requires_grad=True)
        step = transform.encode(x)
        assert step.contribution[1] == -math.inf
        assert torch.isfinite(step.contribution[0])
        assert torch.isfinite(step.z).all()
        (gradient,) = torch.autograd.grad(step.contribution[0] + step.z.sum(), x)
        assert torch.isfinite(gradient).all()
    alone = transform.encode(torch.tensor([[inside, inside]]))
    torch.testing.assert_close(alone.contribution, step.contribution[:1])


@pytest.mark.parametrize("transform", [Sigmoid(1), Tanh(1), Softplus(1), Exp(1), Logit(1, alpha=0.1)], ids=str)
def test_decode_moves_into_the_codomain(transform):
    back = transform.decode(torch.tensor([[-1e20], [1e20]]))
    assert torch.isfinite(back).all()
    assert back[0] < back[1]


@pytest.mark.parametrize("alpha", [0.0, 1e-6, 0.05, 0.4])
def test_logit(alpha, check):
    transform = Logit(2, alpha=alpha).double()
    x = torch.rand(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = scipy.special.logit(alpha + (1 - 2 * alpha) * x.numpy())
    np.testing.assert_allclose(transform.encode(x).z.numpy(), expected, rtol=1e-12, atol=1e-12)
    check.round_trip(transform, x, 1e-14)
    check.contribution(transform, x[:8])
    check.decode_contribution(transform, transform.encode(x).z, 1e-8)
    check.shapes(Logit(2, alpha=alpha))
    check.compiles(Logit(2, alpha=alpha), x.float())
    borders = transform.encode(torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    assert torch.isfinite(borders.z).all()
    assert torch.isfinite(borders.contribution).all()


def test_logit_with_a_logistic_is_uniform_up_to_the_border():
    # With alpha 0 the logistic density pulls back to the uniform one: log density 0 everywhere on [0, 1].
    x = torch.tensor([0.0, 1e-30, 1e-8, 0.3, 1 - 1e-6, 1.0]).reshape(-1, 1)
    step = Logit(1).encode(x)
    z = step.z[:, 0]
    log_density = step.contribution - torch.nn.functional.softplus(z) - torch.nn.functional.softplus(-z)
    torch.testing.assert_close(log_density, torch.zeros(6), atol=1e-5, rtol=0)


def test_logit_codomain_contains_the_image():
    assert Logit(1).codomain == REAL
    edge = math.log(0.95 / 0.05)
    box = Logit(1, alpha=0.05).codomain
    assert box.low == pytest.approx(-edge)
    assert box.high == pytest.approx(edge)
    with pytest.warns(KindWarning, match="Logit lands in"):
        assert Chain(Logit(1, alpha=0.05), SoftTail(1)).kind is Kind.LOWER_BOUND
    assert Chain(Logit(1), SoftTail(1)).kind is Kind.EXACT


def test_supports():
    assert Sigmoid(1).codomain == UNIT
    assert Tanh(1).codomain == Support(-1.0, 1.0)
    assert Softplus(1).codomain == Exp(1).codomain == Support(0.0, math.inf)
    assert all(
        transform.domain == REAL for transform in (Sigmoid(1), Tanh(1), Softplus(1), Exp(1), SoftTail(1), Affine(1))
    )


def test_soft_tail_is_identity_in_the_middle_and_bounded_far_out(check):
    transform = SoftTail(1, width=3.0).double()
    x = torch.tensor([[1e-4]], dtype=torch.float64)
    assert transform.encode(x).z.item() == pytest.approx(1e-4, rel=1e-9)
    for dtype in (torch.float32, torch.float64):
        far = torch.tensor([[-1e30], [1e20], [1e30]], dtype=dtype)
        check.round_trip(SoftTail(1, width=3.0), far, 1e-4)
        assert torch.isfinite(SoftTail(1).decode(torch.tensor([[-1e30], [1e30]], dtype=dtype))).all()


@pytest.mark.parametrize(
    "transform",
    [Sigmoid(1), Tanh(1), Softplus(1), Exp(1), Inverse(Exp(1)), Inverse(Softplus(1)), Logit(1), Bounds(1, (0.0,), (1.0,)),
     Bounds(1, (0.0,), (None,)), Bounds(1, (None,), (1.0,)), StickBreaking(1)],
    ids=lambda transform: type(transform).__name__,
)  # fmt: skip
def test_half_precision_agrees_with_single(transform):
    """The smallest normal number of float16 is 6e-5: 1,024 of it would be a large part of the unit interval."""
    x = torch.linspace(-7, 7, 29).half().float()[:, None]
    if transform.domain is not None and transform.domain != REAL:
        x = torch.sigmoid(x).half().float()
    step, expected = transform.encode(x.half()), transform.encode(x)
    torch.testing.assert_close(step.z.float(), expected.z, rtol=3e-3, atol=5e-3)
    torch.testing.assert_close(step.contribution.float(), expected.contribution, rtol=3e-3, atol=1e-2)
    back = transform.decode(step.z).float()
    torch.testing.assert_close(back, transform.decode(step.z.float()), rtol=1e-2, atol=1e-2)


def test_affine_signs_and_parameters(check):
    fixed = Affine(2, shift=0.5, scale=(-2.0, 4.0)).double()
    learned = Affine(2, shift=0.5, scale=(-2.0, 4.0), trainable=True).double()
    x = check.normal(5, 2)
    expected = x * torch.tensor([-2.0, 4.0], dtype=torch.float64) + 0.5
    torch.testing.assert_close(fixed.encode(x).z, expected, atol=0, rtol=0)
    torch.testing.assert_close(learned.encode(x).z, expected, atol=1e-6, rtol=1e-6)
    assert not list(fixed.parameters())
    assert {name for name, _ in learned.named_parameters()} == {"offset", "log_factor"}
    assert "sign" in learned.state_dict()


def test_affine_per_channel():
    transform = Affine((2, 1, 3), scale=(((2.0,),), ((4.0,),)))
    z, contribution = transform(torch.ones(5, 2, 1, 3))
    assert z[0, :, 0, 0].tolist() == [2.0, 4.0]
    assert contribution[0].item() == pytest.approx(3 * math.log(8.0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Affine(2, scale=0.0),
        lambda: Affine(2, scale=(1.0, 0.0)),
        lambda: Affine(2, scale=math.inf),
        lambda: Affine(2, shift=(1.0, 2.0, 3.0)),
        lambda: Affine(2, shift="x"),
        lambda: Affine(2, scale=1e-50),  # 0 in float32
        lambda: Affine(2, scale=(1.0, -1e-50)),
        lambda: Affine(2, shift=1e50),  # infinite in float32
        lambda: Affine(2, scale=np.ones(2)),  # an array could be changed later
        lambda: Affine(2, shift=torch.ones(2)),
        lambda: Affine(2, scale=((1.0, 2.0), (3.0, 4.0))),
        lambda: Logit(2, alpha=0.5),
        lambda: Logit(2, alpha=-0.1),
        lambda: SoftTail(2, width=0.0),
        lambda: SoftTail(2, width=math.nan),
        lambda: Sigmoid(0),
    ],
)
def test_refusals(make):
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize("make", [*REALS.values(), *BOXED.values(), lambda: Logit(3)])
def test_terms_add_up(make):
    x = torch.tensor([[0.2, 0.5, 0.9]])
    z, terms = make().encode_terms(x)
    step = make().encode(x)
    assert terms.shape == x.shape
    torch.testing.assert_close(terms.sum(-1), step.contribution)
    torch.testing.assert_close(z, step.z)


def test_a_fixed_affine_transform_maps_bounds():
    """A logistic squeezed to (-1, 1) under a uniform base there: exact, without a warning; under a wider one a bound."""
    squeeze = Chain(Sigmoid(1), Affine(1, shift=1.0, scale=-2.0))
    assert squeeze.codomain == Support(-1.0, 1.0)
    exact = Flow(squeeze, Uniform(1, -1.0, 1.0))
    assert exact.kind is Kind.EXACT
    x = torch.linspace(-30, 30, 20_001, dtype=torch.float64)[:, None]
    assert torch.trapezoid(exact.double().log_prob(x).exp(), x[:, 0]).item() == pytest.approx(1.0, abs=1e-6)
    with pytest.warns(KindWarning, match=r"lands in \(-1, 1\)"):
        assert Flow(squeeze, Uniform(1, -1.0, 1.5)).kind is Kind.LOWER_BOUND
    # Each feature has ends of its own, and all of them must reach the mass.
    both = Chain(Sigmoid(2), Affine(2, scale=(1.0, 3.0)))
    assert both.codomain == Support(0.0, 3.0, ends=((0.0, 1.0), (0.0, 3.0)))
    assert Flow(both, Product(Uniform(1, 0.0, 1.0), Uniform(1, 0.0, 3.0))).kind is Kind.EXACT
    with pytest.warns(KindWarning, match=r"lands in \(0, 1\) or \(0, 3\), by coordinate but Uniform has mass"):
        assert Flow(both, Uniform(2, 0.0, 2.0)).kind is Kind.LOWER_BOUND
    apart = Chain(
        Sigmoid((1, 1, 2)), Affine((1, 1, 2), shift=(((0.0, 5.0),),))
    )  # an image: nothing is known but the hull
    assert (apart.codomain.low, apart.codomain.high) == (1.0, 5.0)
    assert apart.codomain.within
    with pytest.warns(KindWarning, match="Sigmoid lands in"):
        assert Chain(Sigmoid(1), Affine(1, trainable=True)).kind is Kind.LOWER_BOUND
