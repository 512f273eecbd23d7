"""The contract of every base: mass, samples against density, guards, types, context, and compilation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Size

from pushforward.distributions import Distribution
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import REAL, Kind, Lebesgue

from .cases import DISTRIBUTIONS
from .tools import ROWS, TYPES, box_line, build, built, context_of, data_of, generator, line, one_of_each_class, same

WITH_CONTEXT = [case for case in DISTRIBUTIONS if built(case).context]
LEBESGUE = [
    case for case in DISTRIBUTIONS if case.measure is None
]  # the others have quadrature of their own, in tests/distributions
SMALL = [case for case in LEBESGUE if math.prod(built(case).shape) <= 2]
REAL_BASES = [case for case in LEBESGUE if built(case).support == REAL]


def axis(base: Distribution, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return line(0.0, 1.0, count) if base.support == REAL else box_line(base.support.low, base.support.high, count)


def one_context(base: Distribution) -> torch.Tensor | None:
    context = context_of(base)
    return None if context is None else context[:1]


def density(base: Distribution, count: int) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """Points of one axis, the weights of each axis, and the density on the whole grid."""
    points, weights = axis(base, count)
    size = math.prod(base.shape)
    grid = torch.cartesian_prod(*[points] * size).reshape(-1, *base.shape)
    context = one_context(base)
    with torch.no_grad():
        log_prob = base.log_prob(grid, None if context is None else context.expand(len(grid), -1))
    return points, [weights] * size, log_prob.exp().reshape([count] * size)


@pytest.mark.parametrize("case", DISTRIBUTIONS, ids=str)
def test_attributes(case):
    base = built(case)
    assert base.kind is Kind.EXACT
    assert base.measure == (case.measure or Lebesgue(math.prod(base.shape)))


@pytest.mark.parametrize("case", DISTRIBUTIONS, ids=str)
def test_another_event_shape_is_refused(case):
    base = built(case)
    z = data_of(case, base)
    wider = torch.cat((z, z[..., :1]), -1)
    for other in (wider, wider[..., :0], z.flatten(-len(base.shape))[..., 0]):
        with pytest.raises(InputError, match="reads data of shape"):
            base.log_prob(other, context_of(base))


@pytest.mark.parametrize("case", SMALL, ids=str)
@pytest.mark.parametrize("jolted", [0.0, 1.0], ids=["start", "moved"])
def test_mass_is_one(case, jolted):
    base = built(case, jolted=jolted)
    size = math.prod(base.shape)
    _, weights, values = density(base, 4000 if size == 1 else 500)
    for weight in weights:
        values = torch.tensordot(weight, values, dims=([0], [0]))
    assert values.item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_samples_follow_the_density(case):
    """Of each coordinate in turn: the probability integral transform, by quadrature, is uniform."""
    base = built(case)
    size = math.prod(base.shape)
    count = 4000 if size == 1 else 500
    points, weights, values = density(base, count)
    context = one_context(base)
    with torch.no_grad():
        x = base.sample(Size((4000,)), None if context is None else context.expand(4000, -1), generator=generator(6))
    assert x.shape == (4000, *base.shape)
    assert base.support.contains(x).all()
    for i, column in enumerate(x.reshape(4000, size).T):
        marginal = values if size == 1 else values.movedim(i, 0) @ weights[1 - i]
        mass = marginal * weights[i]
        edges = 0.5 * (points[1:] + points[:-1])
        cumulative = mass.cumsum(0)[:-1]
        uniform = np.interp(column.numpy(), edges.numpy(), cumulative.numpy())
        assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("case", LEBESGUE, ids=str)
def test_samples_and_density_agree_in_any_dimension(case):
    """E[q(x) / p(x)] = 1 over samples of p for every density q; a narrow normal keeps the ratio's variance finite."""
    base = built(case)
    context = one_context(base)
    count = 20_000
    wide = None if context is None else context.expand(count, -1)
    with torch.no_grad():
        x = base.sample(Size((count,)), wide, generator=generator(7)).flatten(1)
        center = x.quantile(0.5, dim=0)
        spread = 0.4 * (x.quantile(0.84, dim=0) - x.quantile(0.16, dim=0)) / 2
        q = torch.distributions.Normal(center, spread).log_prob(x).sum(-1)
        ratio = (q - base.log_prob(x.reshape(count, *base.shape), wide)).exp()
    if base.support != REAL:  # a normal leaks out of a box: only what lies inside counts
        inside = torch.distributions.Normal(center, spread)
        low, high = (torch.full_like(center, edge) for edge in (base.support.low, base.support.high))
        expected = (inside.cdf(high) - inside.cdf(low)).prod().item()
    else:
        expected = 1.0
    error = ratio.std() / math.sqrt(count)
    assert abs(ratio.mean().item() - expected) < 4 * error.item()
    assert error < 0.1  # else the test could not fail


@pytest.mark.parametrize("case", DISTRIBUTIONS, ids=str)
def test_sampling_is_seeded(case):
    base = built(case)
    context = context_of(base)
    batch = Size((ROWS,))
    first = base.sample(batch, context, generator=generator(1))
    assert torch.equal(first, base.sample(batch, context, generator=generator(1)))
    assert not torch.equal(first, base.sample(batch, context, generator=generator(2)))


@pytest.mark.parametrize("case", DISTRIBUTIONS, ids=str)
def test_batch_shapes_agree(case):
    base = built(case)
    z, context = data_of(case, base), context_of(base)
    whole = base.log_prob(z, context)
    assert whole.shape == (ROWS,)
    for shape in ((), (1,), (2, 3), (0,), (3, 1, 2)):
        count = math.prod(shape)
        c = None if context is None else context[:count].reshape(*shape, -1) if count else context[:0]
        same(base.log_prob(z[:count].reshape(*shape, *base.shape), c), whole[:count].reshape(shape), 1e-13)
        assert base.sample(Size(shape), c, generator=generator()).shape == (*shape, *base.shape)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", DISTRIBUTIONS, ids=str)
def test_type_is_kept(case, dtype):
    base = built(case, dtype)
    z, context = data_of(case, base, dtype=dtype), context_of(base, dtype=dtype)
    assert base.log_prob(z, context).dtype is dtype
    assert base.sample(Size((ROWS,)), context, generator=generator()).dtype is dtype


@pytest.mark.parametrize("case", DISTRIBUTIONS, ids=str)
def test_float32_agrees_with_float64(case):
    single, double = build(case, torch.float32), built(case)
    single.load_state_dict(double.state_dict())
    z, context = data_of(case, double, dtype=torch.float32), context_of(double, dtype=torch.float32)
    high = double.log_prob(z.double(), None if context is None else context.double())
    torch.testing.assert_close(single.log_prob(z, context).double(), high, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("case", DISTRIBUTIONS, ids=str)
def test_infinitely_far_is_impossible_and_changes_no_other_row(case):
    base = build(case)
    z, context = data_of(case, base), context_of(base)
    clean = z.clone().requires_grad_()
    base.log_prob(clean, context).sum().backward()
    for value in (math.inf, -math.inf):
        far = z.clone().flatten(1)
        far[1, -1] = value
        far[3] = value
        y = far.reshape(z.shape).requires_grad_()
        got = base.log_prob(y, context)
        assert got[1] == -math.inf
        assert got[3] == -math.inf
        keep = [0, 2, 4, 5]
        same(got[keep], base.log_prob(z, context)[keep], 1e-13)
        got[keep].sum().backward()
        assert y.grad is not None
        assert clean.grad is not None
        same(y.grad[keep], clean.grad[keep], 1e-13)
        for parameter in base.parameters():
            assert parameter.grad is None or torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", REAL_BASES, ids=str)
def test_far_out_it_is_finite_and_falls(case, dtype):
    base = build(case, dtype)
    context = context_of(base, dtype=dtype)
    last = base.log_prob(data_of(case, base, dtype=dtype), context).detach()
    for value in (1e2, 1e4, 1e6):
        z = torch.full((ROWS, *base.shape), value, dtype=dtype).requires_grad_()
        got = base.log_prob(z, context)
        assert torch.isfinite(got).all()
        assert (got < last).all()
        last = got.detach()
        got.sum().backward()
        assert z.grad is not None
        for gradient in (z.grad, *(p.grad for p in base.parameters() if p.grad is not None)):
            assert torch.isfinite(gradient).all()
    # Transforms in front of a base hold up to 1e20; the simple distributions themselves to the end of the type.
    for value in (1e20, -1e20, *([] if case.name == "models.Ensemble" else [3e38])):
        z = torch.full((ROWS, *base.shape), value, dtype=dtype).requires_grad_()
        got = base.log_prob(z, context)
        assert not torch.isnan(got).any()
        assert (got < last).all()
        (gradient,) = torch.autograd.grad(got.sum(), z)
        assert not torch.isnan(gradient).any()


@pytest.mark.parametrize("case", [case for case in LEBESGUE if built(case).support != REAL], ids=str)
def test_the_density_outside_the_support_is_zero(case):
    base = built(case)
    z, context = data_of(case, base), context_of(base)
    for value in (base.support.low - 1e-6, base.support.high + 1e-6, 1e20):
        out = z.clone().flatten(1)
        out[2, 0] = value
        got = base.log_prob(out.reshape(z.shape), context)
        assert got[2] == -math.inf
        assert torch.isfinite(got[[0, 1, 3, 4, 5]]).all()
    for edge in (base.support.low, base.support.high):
        assert torch.isfinite(base.log_prob(torch.full_like(z, edge), context)).all()


@pytest.mark.parametrize("case", DISTRIBUTIONS, ids=str)
def test_terms_add_up_where_coordinates_have_an_order(case):
    base = built(case)
    z, context = data_of(case, base), context_of(base)
    try:
        terms = base.log_prob_terms(z, context)
    except KindError:
        return
    assert terms.shape == z.shape
    same(terms.flatten(1).sum(-1), base.log_prob(z, context), 1e-13)
    if not case.bounded:  # the last coordinate, or where there is no order any, changes its own term alone
        y, last = z.clone().flatten(1), 0 if base.autoregressive_order == "any" else base.autoregressive_order[-1]
        y[:, last] = y[:, last] * 0.5
        changed = base.log_prob_terms(y.reshape(z.shape), context).flatten(1) != terms.flatten(1)
        assert changed.any(0).nonzero().flatten().tolist() == [last]


@pytest.mark.parametrize("case", DISTRIBUTIONS, ids=str)
def test_gradients_are_right(case):
    base = built(case)
    z, context = data_of(case, base), context_of(base)
    inputs = (z[:3].clone().requires_grad_(),)
    assert torch.autograd.gradcheck(lambda t: base.log_prob(t, None if context is None else context[:3]), inputs)


@pytest.mark.parametrize("case", DISTRIBUTIONS, ids=str)
def test_samples_have_gradients_if_has_rsample(case):
    base = build(case)
    context = context_of(base)
    if context is not None:
        context.requires_grad_()
    x = base.sample(Size((ROWS,)), context, generator=generator(3))
    learned = list(base.parameters()) + ([] if context is None else [context])
    if not base.has_rsample or not learned:
        assert not x.requires_grad
        return
    x.sum().backward()
    assert any(t.grad is not None and t.grad.abs().sum() > 0 for t in learned)


@pytest.mark.parametrize("case", WITH_CONTEXT, ids=str)
def test_context_matters_and_is_required(case):
    base = built(case)
    z, context = data_of(case, base), context_of(base)
    assert context is not None
    assert (base.log_prob(z, context) != base.log_prob(z, context + 0.5)).all()
    a = base.sample(Size((ROWS,)), context, generator=generator(1))
    b = base.sample(Size((ROWS,)), context + 0.5, generator=generator(1))
    assert (a != b).any(0).all()
    if case.name == "models.Ensemble":
        return  # its members are called inside a model, which has checked the context
    with pytest.raises(InputError, match="context"):
        base.log_prob(z)
    with pytest.raises(InputError, match=f"width {base.context}"):
        base.log_prob(z, torch.zeros(ROWS, base.context + 1, dtype=torch.float64))
    with pytest.raises(InputError, match="context"):
        base.sample(Size((ROWS,)), generator=generator())


@pytest.mark.parametrize("case", DISTRIBUTIONS, ids=str)
def test_rows_do_not_depend_on_each_other(case):
    base = built(case)
    z, context = data_of(case, base), context_of(base)
    whole = base.log_prob(z, context)
    for i in range(ROWS):
        same(base.log_prob(z[i : i + 1], None if context is None else context[i : i + 1]), whole[i : i + 1], 1e-13)


@pytest.mark.parametrize("case", one_of_each_class(DISTRIBUTIONS), ids=str)
def test_it_compiles_whole(case):
    torch._dynamo.reset()
    base = built(case)
    z, context = data_of(case, base), context_of(base)
    compiled = torch.compile(base.log_prob, fullgraph=True, backend="eager")
    same(compiled(z, context), base.log_prob(z, context))


@pytest.mark.parametrize("name", sorted({case.name for case in DISTRIBUTIONS} - {"models.Ensemble"}))
@pytest.mark.parametrize("features", [0, -1, (2, 0), 2.5, "two", True, None])
def test_impossible_widths(name, features):
    import pushforward

    more = {"ConditionalNormal": {"context": 1}}.get(name.split(".")[1], {})
    with pytest.raises(ConfigError):
        getattr(pushforward.distributions, name.split(".")[1])(features, **more)
