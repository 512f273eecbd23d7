"""What every scalar law keeps beyond the contract: distance, the implicit function theorem, vmap, and learning."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pushforward.distributions import Normal
from pushforward.models import Flow
from pushforward.transforms import (
    BernsteinTransformer,
    CubicSplineTransformer,
    LinearSplineTransformer,
    MaskedAutoregressive,
    MixtureCDFTransformer,
    Monotone,
    QuadraticSplineTransformer,
    SigmoidalTransformer,
    SumOfSquaresTransformer,
    UnconstrainedMonotoneTransformer,
)

LAWS = [
    LinearSplineTransformer(bins=8, bound=3.0),
    QuadraticSplineTransformer(bins=8, bound=3.0),
    CubicSplineTransformer(bins=8, bound=3.0),
    MixtureCDFTransformer(components=3),
    SigmoidalTransformer(layers=2, units=4),
    UnconstrainedMonotoneTransformer(units=4, nodes=48),
    SumOfSquaresTransformer(polynomials=2, degree=4),
    BernsteinTransformer(degree=12),
]
every = pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)


def raw_of(law, count: int, scale: float = 1.0, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Raw parameters, other ones for each of ``count`` points."""
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(law.parameters, count, generator=generator, dtype=torch.float64)).to(dtype)


@every
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_round_trip_up_to_a_thousand(law, scale):
    sizes = torch.logspace(-3, 3, 100, dtype=torch.float64)
    x = torch.cat((-sizes, sizes))
    raw = raw_of(law, 200, scale)
    back = law.inverse(law.forward(x, raw)[0], raw)[0]
    torch.testing.assert_close(back, x, rtol=1e-6, atol=1e-9)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_far_away_it_comes_back_within_rounding(law, dtype):
    """50 as 50, 1e6 as 1e6 and 1e20 as 1e20; the law is a line there, so its slope magnifies nothing."""
    x = torch.tensor([50.0, -50.0, 1e6, -1e6, 1e20, -1e20], dtype=dtype)
    for seed in range(5):
        raw = raw_of(law, 1, 1.0, seed, dtype).expand(-1, 6)
        y, log_slope = law.forward(x, raw)
        assert torch.isfinite(y).all()
        assert torch.isfinite(log_slope).all()
        eps = torch.finfo(dtype).eps
        back, again = law.inverse(y, raw)
        # An error of eps |y| in y is one of eps |y| / f' in x; for a line |y| / f' is |x| plus what is fixed.
        torch.testing.assert_close(back, x, rtol=32 * eps, atol=200 * eps)
        torch.testing.assert_close(again, log_slope, rtol=0, atol=1e3 * eps)


@every
def test_gradients_of_the_inverse_are_those_of_the_implicit_function(law):
    """dx/dy = 1 / f' and dx/draw = -(df/draw) / f', with f' and df/draw from the forward pass."""
    x = torch.tensor([-8.0, -2.1, -0.3, 0.4, 1.7, 2.9, 5.0], dtype=torch.float64, requires_grad=True)
    raw = raw_of(law, 7, 0.8).requires_grad_()
    y, _ = law.forward(x, raw)
    slope, by_raw = torch.autograd.grad(y.sum(), (x, raw))
    target = y.detach().requires_grad_()
    root, _ = law.inverse(target, raw)
    found_slope, found = torch.autograd.grad(root.sum(), (target, raw))
    torch.testing.assert_close(found_slope, 1 / slope, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found, -by_raw / slope, rtol=1e-8, atol=1e-9)


@every
def test_under_vmap(law):
    x, raw = torch.linspace(-6, 6, 12, dtype=torch.float64), raw_of(law, 12)
    for run in (law.forward, law.inverse):
        for found, expected in zip(torch.vmap(run, in_dims=(0, 1))(x, raw), run(x, raw), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@every
def test_the_slope_integrates_to_the_value(law):
    """By the midpoint rule over cells so small that a jump of the slope weighs nothing."""
    count = 400_000 if isinstance(law, LinearSplineTransformer) else 20_000
    step = 12.0 / count
    middle = -6.0 + step * (torch.arange(count, dtype=torch.float64) + 0.5)
    raw = raw_of(law, 1, 1.0, seed=4)
    slope = law.forward(middle, raw.expand(-1, count))[1].exp()
    ends = law.forward(torch.tensor([-6.0, 6.0], dtype=torch.float64), raw.expand(-1, 2))[0]
    assert (step * slope.sum()).item() == pytest.approx((ends[1] - ends[0]).item(), rel=1e-5)


@every
@pytest.mark.parametrize("features", [1, 2])
def test_mass_is_one(law, features):
    """Of an autoregressive flow with moved weights, by the midpoint rule in t for x = sinh(t), far beyond the data."""
    if features == 2 and isinstance(law, UnconstrainedMonotoneTransformer):
        law = UnconstrainedMonotoneTransformer(units=4, nodes=16)  # for speed: the grid is no better
    model = Flow(MaskedAutoregressive(features, law, hidden=(8,)), Normal(features)).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    count = 20_000 if features == 1 else 400
    step = 16.0 / count
    t = -8.0 + step * (torch.arange(count, dtype=torch.float64) + 0.5)
    points, sizes = torch.sinh(t), step * torch.cosh(t)
    if isinstance(law, LinearSplineTransformer):  # the identity outside; inside, cells that end where the density jumps
        step = 6.0 / (8 * 40)
        points = -9.0 + step * (torch.arange(round(18 / step), dtype=torch.float64) + 0.5)
        sizes = torch.full_like(points, step)
    x = torch.cartesian_prod(*[points] * features).reshape(-1, features)
    weights = torch.cartesian_prod(*[sizes] * features).reshape(-1, features).prod(1)
    with torch.no_grad():
        mass = sum(
            (model.log_prob(a).exp() * b).sum() for a, b in zip(x.split(30_000), weights.split(30_000), strict=True)
        )
    assert float(mass) == pytest.approx(1.0, abs=1e-4 if features == 1 else 1e-3)


@every
def test_free_parameters_leave_the_identity_and_learn_two_modes(law):
    """Equal mixture of N(-1.5, 0.4^2) and N(1.5, 0.4^2): the best Gaussian is 0.66 nats from the truth."""
    generator = torch.Generator().manual_seed(0)
    side = 2 * torch.randint(2, (3000, 1), generator=generator) - 1
    x = (1.5 * side + 0.4 * torch.randn(3000, 1, generator=generator)).double()
    model = Flow(Monotone(1, law), Normal(1)).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-2)
    for _ in range(300):
        optimizer.zero_grad()
        model.loss(x[:1000]).backward()
        optimizer.step()

    def truth(x: Tensor) -> Tensor:
        a, b = (torch.distributions.Normal(m, 0.4).log_prob(x) for m in (-1.5, 1.5))
        return torch.logaddexp(a, b)[:, 0] - math.log(2.0)

    test = x[2000:]
    with torch.no_grad():
        reached = model.log_prob(test)
    gaussian = torch.distributions.Normal(0.0, math.sqrt(1.5**2 + 0.4**2)).log_prob(test)[:, 0]
    gap = (truth(test) - gaussian).mean()
    assert gap > 0.6
    assert (truth(test) - reached).mean() < 0.2 * gap
