"""Rational-quadratic splines: knots, slopes, borders, gradients and the accuracy of the inverse."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.kernels import description, use_kernels
from pushforward.transforms import CircularSplineTransformer, SplineTransformer
from pushforward.transforms.splines.rational_quadratic import wrap

B, K = 3.0, 8
LINE, CIRCLE = SplineTransformer(bins=K, bound=B), CircularSplineTransformer(bins=K)
TURNS = 2 * math.pi


COMPILER = pytest.mark.skipif(not description()["installed"], reason="the native kernels are not installed")


@pytest.fixture(autouse=True, params=["plain", pytest.param("native", marks=COMPILER)])
def kernel(request):
    """Every test runs with both versions of the spline."""
    with use_kernels(request.param):
        yield request.param


def knots_by_hand(law, raw: torch.Tensor) -> tuple[list[float], list[float]]:
    """Knots of one spline, in plain Python."""
    bound = math.pi if isinstance(law, CircularSplineTransformer) else law.bound

    def ladder(values):
        top = max(values)
        sizes = [math.exp(v - top) for v in values]
        sizes = [law.min_bin + (1 - law.min_bin * law.bins) * s / sum(sizes) for s in sizes]
        return [-bound + 2 * bound * sum(sizes[:k]) for k in range(law.bins)] + [bound]

    values = raw.tolist()
    return ladder(values[: law.bins]), ladder(values[law.bins : 2 * law.bins])


def raw_of(law, count: int, scale: float = 1.0, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Raw parameters of one spline, for ``count`` points."""
    raw = scale * torch.randn(law.parameters, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return raw.to(dtype).expand(-1, count)


def reference(law, raw: torch.Tensor, x: float) -> float:
    """The spline at one point in plain Python, from Durkan et al. 2019, eq. 4, with knots built by hand."""
    xs, ys = knots_by_hand(law, raw[:, 0])
    raw = raw[:, 0].tolist()
    limit = -math.log(law.min_slope)
    inner = [math.exp(limit * math.tanh(v / limit)) for v in raw[2 * K : 3 * K]]
    slopes = [1.0, *inner[: K - 1], 1.0] if law is LINE else [*inner, inner[0]]
    if law is CIRCLE:
        x = (x + math.pi * math.tanh(raw[-1] / math.pi) + math.pi) % TURNS - math.pi
    k = max(i for i in range(K) if xs[i] <= x or i == 0)
    width, height = xs[k + 1] - xs[k], ys[k + 1] - ys[k]
    s, q = height / width, (x - xs[k]) / width
    top = height * (s * q**2 + slopes[k] * q * (1 - q))
    return ys[k] + top / (s + (slopes[k + 1] + slopes[k] - 2 * s) * q * (1 - q))


@pytest.mark.parametrize("law", [LINE, CIRCLE], ids=["line", "circle"])
@pytest.mark.parametrize("seed", range(3))
def test_values_are_those_of_the_paper(law, seed):
    x = torch.linspace(-2.99, 2.99, 101, dtype=torch.float64)
    raw = raw_of(law, 101, 2.0, seed)
    expected = torch.tensor([reference(law, raw, v) for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(law.forward(x, raw)[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("law", [LINE, CIRCLE], ids=["line", "circle"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_slope_is_the_derivative(law, scale):
    x = torch.linspace(-3.1, 3.1, 2001, dtype=torch.float64).requires_grad_()
    y, log_derivative = law.forward(x, raw_of(law, 2001, scale))
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope.log(), log_derivative.detach(), rtol=1e-10, atol=1e-10)


def at_knots(law, raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    xs, ys = knots_by_hand(law, raw[:, 0])
    return torch.tensor(xs, dtype=raw.dtype), torch.tensor(ys, dtype=raw.dtype)


@pytest.mark.parametrize("scale", [0.5, 3.0])
@pytest.mark.parametrize("seed", range(5))
def test_value_and_slope_are_continuous_at_every_knot_and_at_the_border(scale, seed):
    one = raw_of(LINE, 1, scale, seed)
    xs, ys = at_knots(LINE, one)
    raw = one.expand(-1, K + 1)
    step = 1e-9
    below, slope_below = LINE.forward(xs - step, raw)
    above, slope_above = LINE.forward(xs + step, raw)
    at, slope_at = LINE.forward(xs, raw)
    torch.testing.assert_close(at, ys, rtol=0, atol=1e-12)
    torch.testing.assert_close(below, ys, rtol=0, atol=3e-7)  # slopes reach 100: 1e-9 apart is 1e-7
    torch.testing.assert_close(above, ys, rtol=0, atol=3e-7)
    # The slope's own derivative is bounded by about slope^2 / smallest bin.
    torch.testing.assert_close(slope_below, slope_at, rtol=0, atol=2e-4)
    torch.testing.assert_close(slope_above, slope_at, rtol=0, atol=2e-4)
    assert slope_at[0] == slope_at[-1] == 0  # C1 into the identity outside


@pytest.mark.parametrize("seed", range(5))
def test_the_circle_closes(seed):
    one = raw_of(CIRCLE, 1, 2.0, seed)
    raw = one.expand(-1, 3)
    # pi and -pi are one point: value and slope agree there and on both sides.
    step = 1e-9
    x = torch.tensor([-math.pi, math.pi, -math.pi + step], dtype=torch.float64)
    y, slope = CIRCLE.forward(x, raw)
    distance = wrap(y - y[0])
    assert distance.abs().max() < 1e-6
    assert (slope - slope[0]).abs().max() < 2e-4
    other = CIRCLE.forward(torch.tensor([math.pi - step], dtype=torch.float64), one)[0]
    assert wrap(other - y[:1]).abs().max() < 1e-6
    # Where the turn of the phase ends, likewise.
    turn = math.pi * math.tanh(one[-1, 0].item() / math.pi)
    cut = wrap(torch.tensor([math.pi - turn - step, math.pi - turn + step], dtype=torch.float64))
    around, slopes = CIRCLE.forward(cut, one.expand(-1, 2))
    assert wrap(around[1] - around[0]).abs() < 1e-6
    assert (slopes[1] - slopes[0]).abs() < 2e-4


def test_the_circle_keeps_its_length():
    """The integral of the slope around the circle is one turn."""
    count = 200_000
    x = -math.pi + TURNS * (torch.arange(count, dtype=torch.float64) + 0.5) / count
    for seed in range(3):
        slope = CIRCLE.forward(x, raw_of(CIRCLE, count, 2.0, seed))[1].exp()
        assert (slope.mean() * TURNS).item() == pytest.approx(TURNS, abs=1e-6)


@pytest.mark.parametrize("scale", [1.0, 4.0, 20.0])
def test_it_is_increasing_on_a_fine_grid(scale):
    x = torch.linspace(-1.01 * B, 1.01 * B, 100_001, dtype=torch.float64)
    y = LINE.forward(x, raw_of(LINE, x.numel(), scale))[0]
    assert (y.diff() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [0.0, 1.0, 20.0, -20.0])
@pytest.mark.parametrize("law", [LINE, CIRCLE], ids=["line", "circle"])
def test_gradients_are_finite_everywhere(law, size, dtype):
    raw = raw_of(law, 1, abs(size), dtype=dtype)
    raw = raw.abs().neg() if size < 0 else raw
    edges = at_knots(law, raw)[0]
    x = torch.cat((edges, torch.tensor([-1e6, -B, B, 1e6, 0.0, math.pi, -math.pi, 1e20, -1e20], dtype=dtype)))
    for run in (law.forward, law.inverse):
        given = x.clone().requires_grad_()
        parameters = raw.expand(-1, x.numel()).clone().requires_grad_()
        y, log_derivative = run(given, parameters)
        assert torch.isfinite(y).all()
        assert torch.isfinite(log_derivative).all()
        for part in (y, log_derivative):
            for gradient in torch.autograd.grad(part.sum(), (given, parameters), retain_graph=True):
                assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("law", [LINE, CIRCLE], ids=["line", "circle"])
def test_identity_at_the_start(law, dtype):
    x = torch.linspace(-3.1, 3.1, 5001, dtype=dtype)
    raw = torch.zeros(law.parameters, 5001, dtype=dtype)
    y, log_derivative = law.forward(x, raw)
    assert (y - x).abs().max() < 1e-6
    assert log_derivative.abs().max() < 1e-5
    assert law.parameters == (3 * K - 1 if law is LINE else 3 * K + 1)


@pytest.mark.parametrize("scale", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("law", [LINE, CIRCLE], ids=["line", "circle"])
def test_inverse_is_as_exact_as_its_slope_allows(law, scale):
    """In float64 an error of eps in y is one of eps / slope in x, and slopes go down to about 1e-4."""
    x = torch.linspace(-3.1, 3.1, 4001, dtype=torch.float64)
    raw = raw_of(law, 4001, scale)
    y, log_derivative = law.forward(x, raw)
    error = (law.inverse(y, raw)[0] - x).abs()
    if law is CIRCLE:
        error = torch.minimum(error, TURNS - error)
    assert (error <= 64 * 2.3e-16 * B * (1 + torch.exp(-log_derivative))).all()


@pytest.mark.parametrize("law", [LINE, CIRCLE], ids=["line", "circle"])
def test_inverse_in_float32_at_moderate_parameters(law):
    x = torch.linspace(-3.1, 3.1, 4001)
    worst = 0.0
    for seed in range(5):
        raw = raw_of(law, 4001, 1.0, seed, torch.float32)
        error = (law.inverse(law.forward(x, raw)[0], raw)[0] - x).abs()
        worst = max(worst, torch.minimum(error, TURNS - error).max().item())
    assert worst < 1e-4


def test_outside_it_is_the_identity():
    x = torch.tensor([-1e6, -B, B, B + 1e-6, 1e20], dtype=torch.float64)
    for run in (LINE.forward, LINE.inverse):
        y, log_derivative = run(x, raw_of(LINE, 5, 3.0))
        assert torch.equal(y, x)
        assert (log_derivative == 0).all()


def test_slopes_are_bounded():
    """A knot's slope lies within [min_slope, 1 / min_slope], for any raw value."""
    law = SplineTransformer(bins=4, bound=1.0, min_slope=0.1)
    raw = 1e3 * raw_of(law, 1, 1.0, 3)
    xs, _ = at_knots(law, raw)
    _, log_slopes = law.forward(xs[:-1], raw.expand(-1, 4))
    assert (log_slopes.abs() <= -math.log(0.1) + 1e-12).all()
    assert log_slopes[1:].abs().max() > 2.0  # the bound is reached


def test_the_linear_piece_has_no_quadratic_term():
    """With all slopes 1 the inverse's quadratic degenerates: a = 0, and the root formula must still hold."""
    law = SplineTransformer(bins=2, bound=1.0)
    x = torch.linspace(-1, 1, 11, dtype=torch.float64)
    raw = torch.zeros(law.parameters, 11, dtype=torch.float64)
    torch.testing.assert_close(law.inverse(x, raw)[0], x, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("law", "options"),
    [
        (SplineTransformer, {"bins": 1}),
        (SplineTransformer, {"bins": 2.0}),
        (SplineTransformer, {"bins": True}),
        (SplineTransformer, {"bound": 0.0}),
        (SplineTransformer, {"bound": math.inf}),
        (SplineTransformer, {"min_bin": 0.0}),
        (SplineTransformer, {"bins": 10, "min_bin": 0.1}),
        (SplineTransformer, {"min_slope": 0.0}),
        (SplineTransformer, {"min_slope": 1.0}),
        (CircularSplineTransformer, {"bins": 1}),
        (CircularSplineTransformer, {"min_slope": -1.0}),
    ],
)
def test_impossible_splines(law, options):
    with pytest.raises(ConfigError):
        law(**options)
