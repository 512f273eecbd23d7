"""Properties over inputs that hypothesis chooses: ordinary, extreme and special numbers side by side."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pushforward.errors import InputError
from pushforward.likelihood import REAL
from pushforward.numerics import RowNoise, log1mexp, log1p_square, logmeanexp, soft_clamp
from pushforward.transforms import Transform

from .cases import MODELS, TRANSFORMS
from .tools import built, context_of, same

few = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

SPECIAL = [0.0, -0.0, 1e-45, -1e-45, 1e-30, 1.0, -1.0, math.pi, -math.pi, 1e6, -1e6, 1e20, -1e20]
ordinary = st.floats(-1e6, 1e6, width=32)
anything = st.one_of(ordinary, st.sampled_from([*SPECIAL, math.inf, -math.inf]))

PICKED_MODELS = [case for case in MODELS if built(case).shape == (2,)]
PICKED_MAPS = [
    case
    for case in TRANSFORMS
    if case.bijective and not case.casts and built(case).in_shape == (2,) and built(case).domain in (None, REAL)
]


def tables(values: st.SearchStrategy[float], rows: int = 4) -> st.SearchStrategy[list[list[float]]]:
    return st.lists(st.lists(values, min_size=2, max_size=2), min_size=1, max_size=rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", PICKED_MODELS, ids=str)
@few
@given(rows=tables(anything))
@example(rows=[[math.inf, 0.0], [0.0, 0.0]])
@example(rows=[[1e20, -1e20], [-1e20, 1e20], [0.0, -0.0]])
def test_a_score_is_a_number_and_falls_to_minus_infinity_only(case, dtype, rows):
    model = built(case, dtype)
    x = torch.tensor(rows, dtype=dtype)
    context = context_of(model, 1, dtype=dtype)
    value = model.evaluate(x, context).value
    assert value.dtype is dtype
    assert not torch.isnan(value).any()
    assert (value < math.inf).all()
    assert (value[torch.isinf(x).any(-1)] == -math.inf).all()
    # Each row's score is its own.
    for i in range(len(rows)):
        alone = model.evaluate(x[i : i + 1], context).value
        same(alone, value[i : i + 1], 1e-4 if dtype is torch.float32 else 1e-9)


@pytest.mark.parametrize("case", PICKED_MODELS, ids=str)
@few
@given(rows=tables(anything), place=st.tuples(st.integers(0, 3), st.integers(0, 1)))
def test_nan_is_always_refused_with_its_index(case, rows, place):
    model = built(case)
    x = torch.tensor(rows, dtype=torch.float64)
    row = min(place[0], len(rows) - 1)
    x[row, place[1]] = math.nan
    with pytest.raises(InputError, match=rf"\({row}, {place[1]}\)"):
        model.evaluate(x, context_of(model, 1))


@pytest.mark.parametrize("case", PICKED_MAPS, ids=str)
@few
@given(rows=tables(ordinary))
@example(rows=[[0.0, 0.0], [-0.0, 1e-30], [3.0, -3.0], [1e6, -1e6]])
def test_transforms_are_finite_and_invertible(case, rows):
    transform: Transform = built(case)
    x = torch.tensor(rows, dtype=torch.float64)
    reach = case.reach.get(torch.float64, math.inf)
    x = x.clamp(-reach, reach)
    context = context_of(transform, len(rows))
    step = transform.encode(x, context)
    assert torch.isfinite(step.z).all()
    assert torch.isfinite(step.contribution).all()
    back, contribution = transform.decode_with_contribution(step.z, context)
    assert torch.isfinite(back).all()
    if transform.codomain in (None, REAL):  # where the transform cannot saturate, nothing is lost
        error = (back - x).abs().amax(-1)
        assert (error <= 1e-7 * (1 + x.abs().amax(-1))).all()
        same(contribution, step.contribution, 1e-5)


@few
@given(x=st.floats(-1e30, 1e30), bound=st.floats(1e-3, 1e3))
def test_soft_clamp_stays_inside_and_is_odd(x, bound):
    y = soft_clamp(torch.tensor(x, dtype=torch.float64), bound).item()
    assert abs(y) <= bound
    assert abs(y) <= abs(x) * (1 + 1e-15) + 1e-300  # subnormal numbers have few digits
    assert soft_clamp(torch.tensor(-x, dtype=torch.float64), bound).item() == -y


@few
@given(x=st.floats(1e-300, 700.0))
def test_log1mexp_completes_exp(x):
    y = log1mexp(torch.tensor(x, dtype=torch.float64)).item()
    assert math.exp(y) == pytest.approx(-math.expm1(-x), rel=1e-12)


@few
@given(x=st.floats(-1e150, 1e150))
def test_log1p_square(x):
    assert log1p_square(torch.tensor(x, dtype=torch.float64)).item() == pytest.approx(math.log1p(x * x), rel=1e-12)


@few
@given(
    values=st.lists(st.one_of(st.floats(-1e4, 1e4), st.just(-math.inf)), min_size=1, max_size=6),
    shift=st.floats(-1e3, 1e3),
)
def test_logmeanexp_lies_between_and_moves_with_its_terms(values, shift):
    x = torch.tensor(values, dtype=torch.float64)
    y = logmeanexp(x, 0).item()
    assert min(values) - 1e-9 <= y <= max(values) + 1e-9 or y == max(values)
    assert logmeanexp(x + shift, 0).item() == pytest.approx(y + shift, abs=1e-8)


@few
@given(rows=tables(anything, 6), seed=st.integers(-(2**70), 2**70), draw=st.integers(0, 2**40))
def test_row_noise_is_in_the_unit_interval_and_depends_on_its_row(rows, seed, draw):
    x = torch.tensor(rows, dtype=torch.float64)
    noise = RowNoise(seed, draw)
    u = noise.uniform(x, 1)
    assert ((u >= 0) & (u < 1)).all()
    for i in range(len(rows)):
        for j in range(i):
            assert torch.equal(u[i], u[j]) == torch.equal(x[i], x[j])
