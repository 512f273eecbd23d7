"""The contract of every transform: inverse, contribution, shapes, types, guards, and compilation."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import REAL, Kind, Lebesgue
from pushforward.numerics import RowNoise
from pushforward.transforms import Chain, Inverse, Transform

from .cases import TRANSFORMS, TransformCase
from .tools import (
    ROWS,
    TYPES,
    attainable,
    build,
    built,
    context_of,
    data_of,
    dense_jacobian,
    generator,
    one_of_each_class,
    same,
)

BIJECTIVE = [case for case in TRANSFORMS if case.bijective]
DISCRETE = [case for case in TRANSFORMS if not case.bijective]
WITH_CONTEXT = [case for case in TRANSFORMS if built(case).context]
ORDERED = [case for case in TRANSFORMS if built(case).autoregressive_order != "mixed"]


def dims(transform: Transform) -> int:
    return len(transform.in_shape)


def scalable(transform: Transform) -> bool:
    """Whether data may be multiplied by a positive number and stay legal."""
    return transform.domain in (None, REAL) or (
        transform.domain.low in (0, -math.inf)
        and transform.domain.high == math.inf
        and transform.domain.within in ("", "increasing")
        and not transform.domain.ends
    )


def carries(transform: Transform) -> bool:
    """Whether it and all transforms within say that float64 coordinates pass."""
    return all(part.supports_float64 for part in transform.modules() if isinstance(part, Transform))


UNBOUNDED = [case for case in BIJECTIVE if scalable(built(case))]


def scaled(case: TransformCase, transform: Transform, scale: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    x = scale * data_of(case, transform)
    reach = case.reach.get(dtype, math.inf)
    return x.clamp(-reach, reach).to(dtype)


@pytest.mark.parametrize("case", TRANSFORMS, ids=str)
def test_another_event_shape_is_refused_by_calls_and_chains(case):
    transform = built(case)
    x = data_of(case, transform)
    for other in (torch.cat((x, x[..., :1]), -1), x[..., :0]):
        for refuse in (transform, Chain(transform).encode):
            with pytest.raises(InputError, match="reads data of shape"):
                refuse(other, context_of(transform))


@pytest.mark.parametrize("case", TRANSFORMS, ids=str)
def test_attributes(case):
    transform = built(case)
    assert transform.kind is case.kind
    latent = case.latent_measure or Lebesgue(math.prod(transform.in_shape))
    assert transform.measure(latent) == (case.data_measure or latent)
    assert transform.encode_passes >= 1
    assert transform.decode_passes >= 1


@pytest.mark.parametrize("case", BIJECTIVE, ids=str)
def test_round_trip_to_nine_digits(case):
    transform, context = built(case), context_of(built(case))
    x = data_of(case, transform)
    z = transform.encode(x, context).z
    assert z.shape == (ROWS, *transform.out_shape)
    tolerance = 1e-6 if case.casts else 1e-9
    torch.testing.assert_close(transform.decode(z, context).double(), x, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", BIJECTIVE, ids=str)
def test_round_trip_from_the_noise_side(case):
    transform, context = built(case), context_of(built(case))
    z = transform.encode(data_of(case, transform, seed=11), context).z
    again = transform.encode(transform.decode(z, context), context).z
    tolerance = 1e-6 if case.casts else 1e-9
    torch.testing.assert_close(again, z, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", UNBOUNDED, ids=str)
def test_round_trip_on_wide_inputs(case, dtype):
    """Up to what rounding explains: the error of z, one part in 2^24 or 2^53, times the slope of the inverse."""
    transform, exact = built(case, dtype), built(case)
    context = context_of(transform, dtype=dtype)
    for scale in (1.0, 5.0, 1e3, 1e6):
        x = scaled(case, transform, scale, dtype)
        wide = x.double()
        wide_context = None if context is None else context.double()
        jacobian = dense_jacobian(lambda t, c=wide_context: exact.encode(t, c).z, wide, dims(transform))
        z = transform.encode(x, context).z
        error = (transform.decode(z, context) - x).double().flatten(1).abs().amax(-1)
        coarse = torch.float32 if case.casts else dtype
        allowed = attainable(jacobian, wide, z.double(), coarse)
        assert (error <= allowed).all(), f"x{scale:g}: errors {error.tolist()}, rounding explains {allowed.tolist()}"


@pytest.mark.parametrize("case", [case for case in TRANSFORMS if carries(built(case))], ids=str)
def test_float64_coordinates_through_float32_weights(case):
    """They stay float64, and a bijection brings them back to what float64's rounding explains."""
    transform = built(case, torch.float32)
    x, context = data_of(case, transform).float().double(), context_of(transform, dtype=torch.float32)
    z = transform.encode(x, context).z
    back = transform.decode(z, context)
    assert z.dtype is back.dtype is torch.float64
    if case.bijective:
        jacobian = dense_jacobian(lambda t: transform.encode(t, context).z, x, dims(transform))
        error = (back - x).flatten(1).abs().amax(-1)
        allowed = attainable(jacobian, x, z.detach(), torch.float64)
        assert (error <= allowed).all(), f"errors {error.tolist()}, rounding explains {allowed.tolist()}"


@pytest.mark.parametrize("case", BIJECTIVE, ids=str)
def test_contribution_is_the_log_determinant(case):
    transform, context = built(case), context_of(built(case))
    x = data_of(case, transform)
    step = transform.encode(x, context)
    expected = torch.linalg.slogdet(
        dense_jacobian(lambda t: transform.encode(t, context).z, x, dims(transform)).double()
    )[1]
    assert step.contribution.shape == (ROWS,)
    same(step.contribution.double(), expected, 1e-6 if case.casts else 1e-9)


@pytest.mark.parametrize("case", UNBOUNDED, ids=str)
def test_contribution_far_out(case):
    """At 5 and 1000 spreads, as far as autograd itself still has digits."""
    transform, context = built(case), context_of(built(case))
    for scale in (5.0, 1e3):
        x = scaled(case, transform, scale)
        step = transform.encode(x, context)
        jacobian = dense_jacobian(lambda t: transform.encode(t, context).z, x, dims(transform)).double()
        expected = torch.linalg.slogdet(jacobian)[1]
        allowed = attainable(jacobian, torch.zeros_like(x), step.z.double(), torch.float64)
        trusted = allowed < 1e-3
        error = (step.contribution - expected).abs()
        bound = (1e-6 if case.casts else 1e-9) * (1 + expected.abs()) + allowed
        assert (error <= bound)[trusted].all(), (scale, error, bound)
        assert torch.isfinite(step.contribution).all()


@pytest.mark.parametrize("case", BIJECTIVE, ids=str)
def test_decode_with_contribution_agrees(case):
    transform, context = built(case), context_of(built(case))
    step = transform.encode(data_of(case, transform), context)
    x, contribution = transform.decode_with_contribution(step.z, context)
    assert torch.equal(x, transform.decode(step.z, context))
    tolerance = 1e-6 if case.casts else 1e-9
    same(contribution.double(), step.contribution.double(), tolerance)
    same(contribution.double(), transform.encode(x, context).contribution.double(), tolerance)


@pytest.mark.parametrize("case", BIJECTIVE, ids=str)
def test_inverse_exchanges_encode_and_decode(case):
    transform, context = built(case), context_of(built(case))
    step = transform.encode(data_of(case, transform), context)
    inverse = Inverse(transform)
    assert (inverse.in_shape, inverse.out_shape) == (transform.out_shape, transform.in_shape)
    assert (inverse.domain, inverse.codomain) == (transform.codomain, transform.domain)
    back = inverse.encode(step.z, context)
    tolerance = 1e-6 if case.casts else 1e-9
    same(back.contribution.double(), -step.contribution.double(), tolerance)
    assert torch.equal(back.z, transform.decode(step.z, context))
    assert torch.equal(inverse.decode(back.z, context), transform.encode(back.z, context).z)


@pytest.mark.parametrize("case", DISCRETE, ids=str)
def test_stochastic_transforms_have_no_inverse(case):
    with pytest.raises(KindError, match="not a bijection"):
        Inverse(built(case))


@pytest.mark.parametrize("case", [case for case in DISCRETE if "Dequantize" in case.name], ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_dequantized_data_are_decoded_exactly(case, dtype):
    transform = built(case, dtype)
    x = data_of(case, transform, 500, dtype=dtype)
    for noise in (None, RowNoise(7), generator(5)):
        z = transform.encode(x, noise=noise).z
        assert torch.equal(transform.decode(z), x)
        assert z.dtype is dtype


@pytest.mark.parametrize("case", [case for case in DISCRETE if case.kind is not Kind.EXACT and case.noisy], ids=str)
def test_row_noise_is_fixed_by_its_seed_and_the_row(case):
    transform = built(case)
    x, c = data_of(case, transform, 40), context_of(transform, 40)
    z = transform.encode(x, c, noise=RowNoise(3)).z
    assert torch.equal(transform.encode(x, c, noise=RowNoise(3)).z, z)
    assert not torch.equal(transform.encode(x, c, noise=RowNoise(4)).z, z)
    if "Binarize" in case.name:  # all draws of an evaluation share the binary image
        assert torch.equal(transform.encode(x, c, noise=RowNoise(3, 1)).z, z)
    else:
        assert not torch.equal(transform.encode(x, c, noise=RowNoise(3, 1)).z, z)
    # Matrix products add in another order for another batch size; without any, it is bitwise.
    tolerance = 1e-13 if list(transform.parameters()) else 0.0
    same(transform.encode(x[5:6], None if c is None else c[5:6], noise=RowNoise(3)).z, z[5:6], tolerance)
    same(transform.encode(x.flip(0), None if c is None else c.flip(0), noise=RowNoise(3)).z, z.flip(0), tolerance)


@pytest.mark.parametrize("case", TRANSFORMS, ids=str)
def test_batch_shapes_agree(case):
    transform = built(case)
    x, context = data_of(case, transform), context_of(transform)
    step = transform.encode(x, context)
    back = transform.decode(step.z, context)
    for shape in ((), (1,), (2, 3), (3, 1, 2)):
        count = math.prod(shape)
        c = None if context is None else context[:count].reshape(*shape, -1)
        other = transform.encode(x[:count].reshape(*shape, *transform.in_shape), c)
        assert other.z.shape == (*shape, *transform.out_shape)
        assert other.contribution.shape == shape
        same(other.z, step.z[:count].reshape(other.z.shape))
        same(other.contribution, step.contribution[:count].reshape(shape))
        decoded, contribution = transform.decode_with_contribution(other.z, c)
        assert contribution.shape == shape
        same(decoded, back[:count].reshape(*shape, *transform.in_shape), 1e-9)


@pytest.mark.parametrize("case", TRANSFORMS, ids=str)
def test_empty_batch(case):
    transform = built(case)
    x, context = data_of(case, transform)[:0], context_of(transform)
    context = None if context is None else context[:0]
    step = transform.encode(x, context)
    assert step.z.shape == (0, *transform.out_shape)
    assert step.contribution.shape == (0,)
    back, contribution = transform.decode_with_contribution(step.z, context)
    assert back.shape == x.shape
    assert contribution.shape == (0,)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", [case for case in TRANSFORMS if not case.casts], ids=str)
def test_type_is_kept(case, dtype):
    transform = built(case, dtype)
    x, context = data_of(case, transform, dtype=dtype), context_of(transform, dtype=dtype)
    step = transform.encode(x, context)
    back, contribution = transform.decode_with_contribution(step.z, context)
    assert {t.dtype for t in (step.z, step.contribution, back, contribution)} == {dtype}


@pytest.mark.parametrize("case", [case for case in TRANSFORMS if not case.casts], ids=str)
def test_float32_agrees_with_float64(case):
    single, double = built(case, torch.float32), built(case)
    single.load_state_dict(double.state_dict())
    x, context = data_of(case, double, dtype=torch.float32), context_of(double, dtype=torch.float32)
    low = single.encode(x, context)
    high = double.encode(x.double(), None if context is None else context.double())
    torch.testing.assert_close(low.z.double(), high.z, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(low.contribution.double(), high.contribution, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("case", TRANSFORMS, ids=str)
def test_rows_do_not_depend_on_each_other(case):
    transform = built(case)
    x, context = data_of(case, transform), context_of(transform)
    step = transform.encode(x, context)
    for i in range(ROWS):
        one = transform.encode(x[i : i + 1], None if context is None else context[i : i + 1])
        # Matrix products add in another order for another batch size, so not bitwise.
        same(one.z, step.z[i : i + 1], 1e-13 if x.dtype is step.z.dtype else 1e-6)
        same(one.contribution, step.contribution[i : i + 1], 1e-13)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    other = transform.encode(x[order], None if context is None else context[order])
    same(other.z, step.z[order], 1e-13)
    same(other.contribution, step.contribution[order], 1e-13)


@pytest.mark.parametrize("direction", ["encode", "decode"])
@pytest.mark.parametrize("case", BIJECTIVE, ids=str)
def test_gradients_can_be_differentiated(case, direction):
    """``create_graph=True`` changes no gradient, also where parameters are computed from x, and its derivative is right."""
    if case.casts or "Modulo" in case.name:
        pytest.skip("differences need the digits of float64 and a transform that is not discrete.")
    transform, context = build(case), context_of(built(case))
    x = data_of(case, transform, seed=5)
    if direction == "decode":
        x = transform.encode(x, context).z.detach()
    weights = torch.linspace(0.5, 1.5, x[0].numel(), dtype=torch.float64)

    def value(x):
        if direction == "encode":
            step = transform.encode(x, context)
            return (step.z.flatten(1) * weights).sin().sum() + step.contribution.sum()
        return (transform.decode(x, context).flatten(1) * weights).sin().sum()

    parameters = [p for p in transform.parameters() if p.requires_grad]

    def gradients(x, **options):
        leaves = [x.detach().requires_grad_(), *parameters]
        return leaves, torch.autograd.grad(value(leaves[0]), leaves, allow_unused=True, **options)

    _, plain = gradients(x)
    with sdpa_kernel(SDPBackend.MATH):  # PyTorch has no second derivative of its fast attention, and raises an error
        leaves, found = gradients(x, create_graph=True)
    for one, other in zip(found, plain, strict=True):
        assert (one is None) == (other is None)
        if other is not None:
            same(one, other, 1e-9)
    along = torch.randn(x.shape, generator=generator(7), dtype=torch.float64) * x.std().clamp(min=1e-3)
    total = (found[0] * along).sum()
    if not total.requires_grad:  # linear in x, and in the weights
        total = total + 0 * leaves[0].sum()
    (product,) = torch.autograd.grad(total, leaves[0], allow_unused=True, materialize_grads=True)
    h = 1e-5
    expected = (gradients(x + h * along)[1][0] - gradients(x - h * along)[1][0]) / (2 * h)
    same(product, expected, 1e-5)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", UNBOUNDED, ids=str)
def test_second_derivatives_are_finite_on_wide_inputs(case, dtype):
    transform = build(case, dtype)
    context = context_of(transform, dtype=dtype)
    for scale in (3.0, 30.0, 1e4):
        x = (scale * data_of(case, transform)).to(dtype).requires_grad_()
        with sdpa_kernel(SDPBackend.MATH):
            step = transform.encode(x, context)
            (slope,) = torch.autograd.grad(step.z.sum() + step.contribution.sum(), x, create_graph=True)
            if slope.requires_grad:
                leaves = [x, *(p for p in transform.parameters() if p.requires_grad)]
                for bend in torch.autograd.grad(slope.sum(), leaves, allow_unused=True):
                    assert bend is None or torch.isfinite(bend).all(), f"x{scale:g}"


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", UNBOUNDED, ids=str)
def test_gradients_are_finite_on_wide_inputs(case, dtype):
    transform = build(case, dtype)
    context = context_of(transform, dtype=dtype)
    for scale in (0.0, 1.0, 1e3, 1e6):
        if scale == 0.0 and transform.domain not in (None, REAL):
            continue
        x = (scale * data_of(case, transform)).to(dtype).requires_grad_()
        step = transform.encode(x, context)
        assert torch.isfinite(step.z).all()
        assert torch.isfinite(step.contribution).all()
        (step.z.sum() + step.contribution.sum()).backward()
        assert x.grad is not None
        for gradient in (x.grad, *(p.grad for p in transform.parameters() if p.grad is not None)):
            assert torch.isfinite(gradient).all(), f"x{scale:g}"


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", [case for case in BIJECTIVE if built(case).codomain in (None, REAL)], ids=str)
def test_decoding_has_finite_gradients_on_wide_noise(case, dtype):
    transform = build(case, dtype)
    context = context_of(transform, dtype=dtype)
    for scale in (0.0, 1.0, 30.0, 1e6):
        noise = torch.randn(ROWS, *transform.out_shape, generator=generator(9), dtype=torch.float64)
        z = (scale * noise).to(next(iter(transform.parameters()), noise.to(dtype)).dtype).requires_grad_()
        x, contribution = transform.decode_with_contribution(z, context)
        assert torch.isfinite(x).all()
        if transform.domain in (None, REAL):  # else x may sit on the border, where the contribution may be infinite
            assert torch.isfinite(contribution).all()
        x.sum().backward()
        assert z.grad is not None
        for gradient in (z.grad, *(p.grad for p in transform.parameters() if p.grad is not None)):
            assert torch.isfinite(gradient).all(), f"z{scale:g}"


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", UNBOUNDED, ids=str)
def test_enormous_inputs_give_no_nan(case, dtype):
    transform = built(case, dtype)
    context = context_of(transform, dtype=dtype)
    x = data_of(case, transform, dtype=dtype)
    for value in (1e20, -1e20):
        if value < 0 and transform.domain not in (None, REAL):
            continue
        mixed = x.clone().flatten(1)
        mixed[0] = value
        mixed[1, 0] = value
        step = transform.encode(mixed.reshape(x.shape), context)
        assert not torch.isnan(step.z).any()
        assert not torch.isnan(step.contribution).any()
        assert not torch.isnan(transform.decode(step.z, context)).any()
        same(step.z[2:], transform.encode(x, context).z[2:], 1e-5)


BOXED = [case for case in TRANSFORMS if (box := built(case).domain) not in (None, REAL) and not box.within]


@pytest.mark.parametrize("case", BOXED, ids=str)
def test_outside_the_domain_is_impossible_and_gradients_are_finite(case):
    transform = build(case)
    x, context = data_of(case, transform), context_of(transform)
    inside = transform.encode(x, context).contribution
    beyond = x.clone().flatten(1)
    ends = transform.domain.ends or ((transform.domain.low, transform.domain.high),)
    column = next(k for k, end in enumerate(ends) if any(map(math.isfinite, end)))
    sides = [side for side in (ends[column][0] - 0.5, ends[column][1] + 0.5) if math.isfinite(side)]
    for side in sides:
        beyond[0, column] = side
        y = beyond.reshape(x.shape).requires_grad_()
        step = transform.encode(y, context)
        assert step.contribution[0] == -math.inf
        assert not torch.isnan(step.z).any()
        same(step.contribution[1:], inside[1:])
        if y.grad is None and step.contribution.requires_grad:
            (step.contribution[1:].sum() + step.z[1:].sum()).backward()
            assert y.grad is not None
            assert torch.isfinite(y.grad).all()
    on_border = x.clone().flatten(1)
    on_border[0, column] = next(end for end in ends[column] if math.isfinite(end))
    assert not torch.isnan(transform.encode(on_border.reshape(x.shape), context).contribution).any()


@pytest.mark.parametrize("case", WITH_CONTEXT, ids=str)
def test_context_reaches_every_coordinate_that_moves(case):
    transform = built(case)
    x, context = data_of(case, transform), context_of(transform)
    assert context is not None
    jacobian = dense_jacobian(lambda c: transform.encode(x, c).z, context, 1)
    seen = (jacobian.abs() > 0).any(0).any(-1)
    moved = torch.ones_like(seen)
    if hasattr(transform, "transformed"):  # a coupling leaves half of the coordinates as they are
        moved = torch.zeros_like(seen).index_fill(0, transform.transformed, True)
    assert torch.equal(seen, moved)


@pytest.mark.parametrize("case", WITH_CONTEXT, ids=str)
def test_a_missing_or_wrong_context_is_an_error(case):
    transform = built(case)
    x = data_of(case, transform)
    wrong = torch.zeros(ROWS, transform.context + 1, dtype=torch.float64)
    for run in (transform.encode, transform.decode, transform.decode_with_contribution):
        with pytest.raises(InputError, match="context"):
            run(x)
        with pytest.raises(InputError, match=f"width {transform.context}"):
            run(x, wrong)


@pytest.mark.parametrize("case", [case for case in TRANSFORMS if not built(case).context], ids=str)
def test_a_context_that_is_not_read_is_ignored(case):
    transform = built(case)
    x = data_of(case, transform)
    assert torch.equal(transform.encode(x, torch.ones(ROWS, 7, dtype=torch.float64)).z, transform.encode(x).z)


@pytest.mark.parametrize("case", ORDERED, ids=str)
def test_terms_add_up_and_respect_the_order(case):
    transform = built(case)
    x, context = data_of(case, transform), context_of(transform)
    step = transform.encode(x, context)
    z, terms = transform.encode_terms(x, context)
    assert terms.shape == (ROWS, *transform.in_shape)
    assert torch.equal(z, step.z)
    same(terms.flatten(1).sum(-1), step.contribution)
    if not case.bijective:
        return
    size = math.prod(transform.in_shape)
    order = range(size) if transform.autoregressive_order == "any" else transform.autoregressive_order
    place = torch.empty(size, dtype=torch.int64)
    place[torch.tensor(list(order))] = torch.arange(size)
    allowed = (
        torch.eye(size, dtype=torch.bool)
        if transform.autoregressive_order == "any"
        else place[:, None] >= place[None, :]
    )
    for values in (lambda t: transform.encode_terms(t, context)[0], lambda t: transform.encode_terms(t, context)[1]):
        if not values(x.requires_grad_()).requires_grad:
            continue
        jacobian = dense_jacobian(values, x, dims(transform))
        assert (jacobian[:, ~allowed] == 0).all()
    log_diagonal = dense_jacobian(lambda t: transform.encode(t, context).z, x, dims(transform)).diagonal(dim1=1, dim2=2)
    same(terms.detach().flatten(1).double(), log_diagonal.abs().log().double(), 1e-6 if case.casts else 1e-9)


@pytest.mark.parametrize("case", [case for case in TRANSFORMS if case not in ORDERED], ids=str)
def test_transforms_without_an_order_have_no_terms(case):
    with pytest.raises(KindError, match="has no encode_terms"):
        built(case).encode_terms(data_of(case, built(case)))


@pytest.mark.parametrize("case", [case for case in TRANSFORMS if case.kind is Kind.EXACT], ids=str)
def test_exact_transforms_draw_nothing_when_scoring(case):
    transform = built(case)
    x, context = data_of(case, transform), context_of(transform)
    assert torch.equal(
        transform.encode(x, context, noise=RowNoise(1)).z, transform.encode(x, context, noise=RowNoise(2)).z
    )


@pytest.mark.parametrize("case", TRANSFORMS, ids=str)
def test_initializing_twice_changes_nothing(case):
    transform = build(case)
    state = {name: value.clone() for name, value in transform.state_dict().items()}
    if "BatchNorm" in case.name:
        return  # its statistics follow the data each time, by design: refresh and initialize are one
    transform.initialize(7 * data_of(case, transform, 30, seed=8), context_of(transform, 30, seed=9))
    assert all(torch.equal(value, state[name]) for name, value in transform.state_dict().items())


ROOTS = (
    "Planar",
    "Sylvester",
    "BlockAutoregressive",
    "Gaussianize",
    "Mobius",
    "cubic",
    "mixture CDF",
    "sum of squares",
)


def some_slow(cases: list[TransformCase]) -> list:
    """One case of each class; decoding by root finding unrolls a hundred iterations, so of those one case in all."""
    slow = [case for case in cases if any(name in str(case) for name in ROOTS)]
    always = [case for case in one_of_each_class(cases) if isinstance(case, TransformCase) and case not in slow]
    return [case if case in [*always, slow[0]] else pytest.param(case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize("case", some_slow(TRANSFORMS), ids=str)
def test_it_compiles_whole(case):
    torch._dynamo.reset()
    transform = built(case)
    x, context = data_of(case, transform), context_of(transform)
    step = transform.encode(x, context)
    z, contribution = torch.compile(transform, fullgraph=True, backend="eager")(x, context)
    same(z, step.z)
    same(contribution, step.contribution)
    decode = torch.compile(transform.decode, fullgraph=True, backend="eager")
    z = step.z.detach()
    same(decode(z, context), transform.decode(z, context))


@pytest.mark.parametrize("name", sorted({case.name for case in TRANSFORMS}))
@pytest.mark.parametrize("features", [0, -1, (2, 0), 2.5, "two", True, None])
def test_impossible_widths(name, features):
    room, cls = name.split(".")
    assert room == "transforms"
    if cls in ("Chain", "ConformalEmbedding", "EmbedContext", "Injective", "Inverse"):
        return  # they take transforms, not widths
    import pushforward

    more = {
        "FreeFormEmbedding": {"latent": 1},
        "Pad": {"latent": 1},
        "Sylvester": {"rank": 1},
        "LatticeDequantize": {"columns": (0,)},
        "AugmentMissing": {"columns": (0,), "indicators": (1,)},
        "Regression": {"context": 1},
        "Bounds": {"low": (0.0,), "high": (1.0,)},
    }.get(cls, {})
    with pytest.raises(ConfigError):
        getattr(pushforward.transforms, cls)(features, **more)
