"""The contract of every model: kind, guards, types, context, determinism, saving, compilation and export."""

from __future__ import annotations

import io
import math
import shutil

import pytest
import torch
from torch.export import Dim, export

import pushforward as pf
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import REAL, Kind, Lebesgue
from pushforward.models import Flow, Model

from .cases import MODELS
from .tools import ROWS, TYPES, attainable_by_parts, build, built, context_of, data_of, dense_jacobian, generator, same

EXACT = [case for case in MODELS if case.has_log_prob]
BOUNDS = [case for case in MODELS if not case.has_log_prob]
WITH_CONTEXT = [case for case in MODELS if built(case).context_features]


def support(model: Model):
    return model.base.support if model.chain.domain is None else model.chain.domain


UNBOUNDED = [case for case in MODELS if support(built(case)) == REAL]
NO_DEQUANTIZATION = [case for case in UNBOUNDED if case.kind is Kind.EXACT]


def value(model: Model, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
    """Log-likelihood, with gradients, whatever its kind."""
    return model.evaluate(x, context).value


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_kind(case):
    model = built(case)
    measure = case.measure or Lebesgue(math.prod(model.shape))
    result = model.evaluate(data_of(case, model), context_of(model))
    assert (model.kind, model.measure) == (case.kind, measure)
    assert (result.kind, result.measure) == (case.kind, measure)
    assert model.fast == case.fast
    assert f"fast='{case.fast}'" in repr(model)
    assert str(measure) in repr(model)
    assert case.kind.value in repr(model)


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_terms_add_up_to_the_value(case):
    model = built(case)
    result = model.evaluate(data_of(case, model), context_of(model))
    assert len(result.terms) == len(model.chain) + 1
    same(torch.stack(list(result.terms.values())).sum(0), result.value, 1e-12)


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_log_prob_is_the_value(case):
    model = built(case)
    x, context = data_of(case, model), context_of(model)
    result = model.evaluate(x, context)
    same(model.log_prob(x, context), result.value)
    same(result.require_log_prob(), result.value)
    same(model(x, context), result.value)
    same(model.loss(x, context), -result.value.mean())
    # More draws or another seed change nothing: there is no noise.
    assert torch.equal(model.evaluate(x, context, samples=5, seed=9).value, result.value)
    assert result.stderr is None


@pytest.mark.parametrize("case", BOUNDS, ids=str)
def test_bounds_refuse_to_be_called_log_prob(case):
    model = built(case)
    x, context = data_of(case, model), context_of(model)
    with pytest.raises(KindError, match="evaluate"):
        model.log_prob(x, context)
    with pytest.raises(KindError, match="evaluate"):
        model.sample_and_log_prob(3, context, seed=0)
    with pytest.raises(KindError, match="evaluate"):
        model.evaluate(x, context).require_log_prob()
    with pytest.raises(KindError, match="evaluate"):
        model.distribution(context).log_prob(x)
    same(model(x, context), value(model, x, context))  # forward is the evaluation with seed 0


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_change_of_variables(case):
    """Against the dense autograd Jacobian of encode: log p(x) = log p_base(z) + log abs det dz/dx."""
    model = built(case)
    if case.kind is not Kind.EXACT or model.measure.name != "Lebesgue" or not case.invertible:
        return  # what a surjection drops is in no Jacobian: its mass is tested, and its density in tests/transforms
    x, context = data_of(case, model), context_of(model)
    z = model.encode(x, context)
    log_det = torch.linalg.slogdet(dense_jacobian(lambda t: model.encode(t, context), x, len(model.shape)))[1]
    seen = None
    if context is not None:
        seen = (context - model.context_mean) / model.context_scale
    same(model.log_prob(x, context), model.base.log_prob(z, seen) + log_det, 1e-9)


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_encode_and_decode_are_inverse(case):
    if not case.invertible:
        return
    model = built(case)
    x, context = data_of(case, model, 20), context_of(model, 20)
    z = model.encode(x, context)
    assert z.shape == (20, *model.base.shape)
    same(model.decode(z, context), x, 1e-9)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", [case for case in NO_DEQUANTIZATION if case.invertible], ids=str)
def test_round_trip_on_wide_inputs(case, dtype):
    """Up to what rounding explains, in each layer."""
    model, exact = built(case, dtype), built(case)
    context = context_of(model, dtype=dtype)
    seen = None if context is None else (context.double() - exact.context_mean) / exact.context_scale
    for scale in (1.0, 5.0, 1e3, 1e6):
        x = (scale * data_of(case, model)).to(dtype)
        error = (model.decode(model.encode(x, context), context) - x).double().abs().flatten(1).amax(-1)
        allowed = attainable_by_parts(list(exact.chain), x.double(), seen, dtype)
        assert (error <= allowed).all(), f"x{scale:g}: errors {error.tolist()}, rounding explains {allowed.tolist()}"


ELSEWHERE = {
    "BlockAutoregressive", "Continuous", "InvertibleResidual", "MaskedAutoregressive", "ModuloAutoregressive", "TokenAutoregressive",
}  # fmt: skip
"""Transforms whose inverse evaluates the network at other points, in a sequence or an iteration."""


@pytest.mark.parametrize("case", [case for case in MODELS if case.invertible], ids=str)
def test_float64_coordinates_through_float32_weights(case):
    """Data come back to float64's rounding, or the model says which transform cannot do that; float64 weights need nothing."""
    model = built(case, torch.float32)
    x, context = data_of(case, model, dtype=torch.float32), context_of(model, dtype=torch.float32)
    if ELSEWHERE & {type(part).__name__ for part in model.chain.modules()}:
        for run in (model.encode, model.decode):
            given = x if run == model.encode else model.encode(x, context)
            with pytest.raises(KindError, match=r"model\.double"):
                run(given, context, float64=True)
    else:
        z = model.encode(x, context, float64=True)
        back = model.decode(z, context, float64=True)
        assert z.dtype is back.dtype is torch.float64
        same(back, x.double(), 1e-11)
        torch.testing.assert_close(z.float(), model.encode(x, context), rtol=1e-3, atol=1e-3)
    exact = built(case)
    z = exact.encode(x, context)
    assert torch.equal(exact.encode(x, context, float64=True), z)
    assert torch.equal(exact.decode(z, context, float64=True), exact.decode(z, context))


@pytest.mark.parametrize("case", [case for case in MODELS if not case.invertible], ids=str)
def test_models_that_drop_something_refuse_float64_coordinates(case):
    model = built(case, torch.float32)
    if model.chain.invertible or "augment" in str(case):  # what is added can be dropped again without a loss
        return
    with pytest.raises(KindError, match="drops"):
        model.encode(data_of(case, model), context_of(model), float64=True)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", MODELS, ids=str)
def test_type_of_the_weights_is_the_type_of_the_result(case, dtype):
    model = built(case, dtype)
    for given in TYPES:  # data of any type are cast
        x, context = data_of(case, model, dtype=given), context_of(model, dtype=given)
        assert value(model, x, context).dtype is dtype
        assert model.encode(x, context).dtype is dtype
        assert model.decode(model.encode(x, context).to(given), context).dtype is dtype
    assert model.sample(3, context, seed=0).dtype is dtype
    assert model.dtype is dtype
    assert model.latent_dtype is dtype


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_integers_and_halves_are_read(case):
    model = built(case)
    context = context_of(model)
    whole = torch.ones(ROWS, *model.shape, dtype=torch.int64)
    for given in (torch.uint8, torch.int32, torch.bool, torch.float16, torch.bfloat16):
        same(value(model, whole.to(given), context), value(model, whole.double(), context))


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_float32_agrees_with_float64(case):
    single, double = build(case, torch.float32), built(case)
    single.load_state_dict(double.state_dict())
    x, context = data_of(case, double, dtype=torch.float32), context_of(double, dtype=torch.float32)
    if case.kind is not Kind.EXACT and case.noisy and "margin" not in case.label:
        return  # the two types round the noise differently, so the draws differ in their last digits
    high = value(double, x.double(), None if context is None else context.double())
    torch.testing.assert_close(value(single, x, context).double(), high, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_batch_shapes_agree(case):
    model = built(case)
    x, context = data_of(case, model), context_of(model)
    whole = value(model, x, context)
    for shape in ((), (1,), (2, 3), (3, 1, 2)):
        count = math.prod(shape)
        c = None if context is None else context[:count].reshape(*shape, -1)
        same(value(model, x[:count].reshape(*shape, *model.shape), c), whole[:count].reshape(shape))
        z = model.encode(x[:count].reshape(*shape, *model.shape), c)
        assert z.shape == (*shape, *model.base.shape)
        assert model.decode(z, c).shape == (*shape, *model.shape)


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_empty_batch(case):
    model = built(case)
    x, context = data_of(case, model)[:0], context_of(model)
    context = None if context is None else context[:0]
    assert value(model, x, context).shape == (0,)
    assert model(x, context).shape == (0,)
    assert model.encode(x, context).shape == (0, *model.base.shape)
    assert model.decode(model.encode(x, context), context).shape == x.shape
    assert model.sample(0, None if context is None else context_of(model)[0], seed=0).shape == x.shape


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_sample_shapes(case):
    model = built(case)
    context = context_of(model, 4)
    batch = () if context is None else (4,)
    for asked, shape in (((), ()), (3, (3,)), ((2, 3), (2, 3))):
        x = model.sample(asked, context, seed=1)
        assert x.shape == (*shape, *batch, *model.shape)
        assert not x.requires_grad
        if case.has_log_prob:
            y, log_prob = model.sample_and_log_prob(asked, context, seed=1)
            same(y.detach(), x)
            assert log_prob.shape == (*shape, *batch)
            same(log_prob, model.log_prob(y.detach(), context), 1e-9)
    noise = model.base.sample(torch.Size((5, *batch)), context, generator=generator())
    if case.draws:
        assert model.sample(noise=noise, context=context, sample_shape=5, seed=0).shape == (5, *batch, *model.shape)
        return
    same(model.sample(noise=noise, context=context, sample_shape=5, seed=0), model.decode(noise, context))


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_determinism(case):
    model = built(case)
    x, context = data_of(case, model), context_of(model)
    assert torch.equal(value(model, x, context), value(model, x, context))
    first = model.sample(4, context, seed=5)
    assert torch.equal(first, model.sample(4, context, seed=5))
    assert torch.equal(first, model.sample(4, context, generator=generator(5)))
    other = model.sample(40, context, seed=6)
    assert not torch.equal(other, model.sample(40, context, seed=5))
    torch.manual_seed(3)
    unseeded = model.sample(4, context)
    torch.manual_seed(3)
    assert torch.equal(unseeded, model.sample(4, context))
    with pytest.raises(ConfigError, match="not both"):
        model.sample(4, context, seed=5, generator=generator(5))
    if case.kind is not Kind.EXACT and case.noisy and "margin" not in case.label:
        assert torch.equal(
            model.evaluate(x, context, samples=3, seed=5).value, model.evaluate(x, context, samples=3, seed=5).value
        )
        wide, wide_context = data_of(case, model, 40), context_of(model, 40)
        assert not torch.equal(
            model.evaluate(wide, wide_context, seed=5).value, model.evaluate(wide, wide_context, seed=6).value
        )


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_rows_do_not_depend_on_each_other(case):
    """Also the noise of a dequantized row is its own. Not bitwise: matrix products add in another order."""
    model = built(case)
    x, context = data_of(case, model, 40), context_of(model, 40)
    whole = value(model, x, context)
    for i in (0, 7, 39):
        c = None if context is None else context[i : i + 1]
        same(value(model, x[i : i + 1], c), whole[i : i + 1], 1e-11)
    order = torch.randperm(40, generator=generator(1))
    same(value(model, x[order], None if context is None else context[order]), whole[order], 1e-11)


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_infinitely_far_is_impossible_and_changes_no_other_row(case):
    model = build(case)
    x, context = data_of(case, model), context_of(model)
    clean = x.clone().requires_grad_()
    value(model, clean, context).sum().backward()
    weights = [p.grad for p in model.parameters()]
    model.zero_grad()
    for infinity in (math.inf, -math.inf):
        far = x.clone().flatten(1)
        far[1, -1] = infinity
        far[3] = infinity
        y = far.reshape(x.shape).requires_grad_()
        got = value(model, y, context)
        keep = [0, 2, 4, 5]
        assert (got[[1, 3]] == -math.inf).all()
        same(got[keep], value(model, x, context)[keep])
        got.sum().backward()
        if clean.grad is not None and y.grad is not None:
            same(y.grad[keep], clean.grad[keep])
            assert torch.isfinite(y.grad).all()
        for parameter, before in zip(model.parameters(), weights, strict=True):
            assert (parameter.grad is None) == (before is None)
            assert parameter.grad is None or torch.isfinite(parameter.grad).all()
        assert model.loss(y, context) == math.inf  # a training row that is infinitely far cannot pass unseen


@pytest.mark.parametrize("case", NO_DEQUANTIZATION, ids=str)
def test_a_graph_of_the_gradients_does_not_change_them(case):
    """Score matching and gradient penalties differentiate a gradient; one that PyTorch cannot differentiate is an error."""
    model, context = build(case), context_of(built(case))
    x = data_of(case, model).requires_grad_()
    leaves = [x, *(p for p in model.parameters() if p.requires_grad)]
    plain = torch.autograd.grad(value(model, x, context).sum(), leaves, allow_unused=True)
    found = torch.autograd.grad(value(model, x, context).sum(), leaves, allow_unused=True, create_graph=True)
    for one, other in zip(found, plain, strict=True):
        assert (one is None) == (other is None)
        if other is not None:
            same(one, other, 1e-9)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", UNBOUNDED, ids=str)
def test_wide_inputs_have_finite_values_and_gradients(case, dtype):
    model = build(case, dtype)
    context = context_of(model, dtype=dtype)
    for scale in (1.0, 1e3, 1e6):
        x = (scale * data_of(case, model)).to(dtype).requires_grad_()
        got = value(model, x, context)
        assert torch.isfinite(got).all()
        model.zero_grad()
        got.sum().backward()
        assert x.grad is not None
        for gradient in (x.grad, *(p.grad for p in model.parameters() if p.grad is not None)):
            assert torch.isfinite(gradient).all(), f"x{scale:g}"


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", MODELS, ids=str)
def test_enormous_inputs_give_no_nan(case, dtype):
    model = build(case, dtype)
    context = context_of(model, dtype=dtype)
    x = data_of(case, model, dtype=dtype).flatten(1)
    x[0], x[1], x[2, 0], x[3, -1] = 1e20, -1e20, 1e20, -1e20
    y = x.reshape(ROWS, *model.shape).requires_grad_()
    got = value(model, y, context)
    assert not torch.isnan(got).any()
    assert torch.isfinite(got[4:]).all()
    typical = got[4:].min().item()
    if case.surface:
        assert (model.evaluate(y).residual[:4] > 1e30).all()  # the projection may lie anywhere, but it is far away
    elif "missing" not in case.label:  # there the first column is not read where its indicator says so
        assert (got[:4] < typical).all()
    # The square of an enormous row leaves float32, so its own gradient means nothing; that of the others stays.
    got[4:].sum().backward()
    for gradient in (y.grad, *(p.grad for p in model.parameters())):
        assert gradient is None or torch.isfinite(gradient).all()
    same(got[4:].detach(), value(model, data_of(case, model, dtype=dtype), context)[4:].detach(), 1e-5)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", MODELS, ids=str)
def test_the_largest_numbers_give_no_nan(case, dtype):
    if case.surface or case.label == "householder":
        pytest.skip("the projection may lie anywhere; and without standardization sums of such numbers overflow")
    model = build(case, dtype)
    x = data_of(case, model, dtype=dtype).flatten(1)
    most = torch.finfo(dtype).max
    x[0], x[1], x[2, 0], x[3, -1] = most, -most, most, -most
    got = value(model, x.reshape(ROWS, *model.shape), context_of(model, dtype=dtype)).detach()
    assert not torch.isnan(got).any()
    assert (got < math.inf).all()
    assert torch.isfinite(got[4:]).all()


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_inputs_that_are_not_data_are_refused(case):
    model = built(case)
    x, context = data_of(case, model), context_of(model)
    holed = x.clone().flatten(1)
    holed[4, -1] = math.nan
    for run in (model.evaluate, model.encode, model, model.loss):
        with pytest.raises(InputError, match="row 4"):
            run(holed.reshape(x.shape), context)
    with pytest.raises(InputError, match="torch tensors"):
        model.evaluate(x.tolist(), context)
    with pytest.raises(InputError, match="real numbers"):
        model.evaluate(x.to(torch.complex64), context)
    for wrong in (torch.zeros(3, 99), torch.zeros(()), torch.zeros(3, *model.shape, 7)):
        with pytest.raises(InputError, match="shape"):
            model.evaluate(wrong, context)
    with pytest.raises(ConfigError, match="samples"):
        model.evaluate(x, context, samples=0)


@pytest.mark.parametrize("case", WITH_CONTEXT, ids=str)
def test_context_reaches_every_coordinate(case):
    model = built(case)
    x, context = data_of(case, model), context_of(model)
    assert context is not None
    # A dequantized value near its border may lie where a spline is the identity.
    assert (value(model, x, context + 2.0) != value(model, x, context)).double().mean() > 0.5
    many = model.sample(50, context, seed=1) != model.sample(50, context + 2.0, seed=1)
    assert many.flatten(2).flatten(0, 1).any(0).all()
    if model.chain.context and case.name != "models.Flow":
        z = dense_jacobian(lambda c: model.encode(x, c), context, 1)
        assert (z.abs() > 0).any(0).any(-1).all()


@pytest.mark.parametrize("case", WITH_CONTEXT, ids=str)
def test_context_is_standardized_once_and_everywhere(case):
    """Other units of the context make no difference once the model has seen them."""
    torch.manual_seed(0)
    model = build(case)
    other = build(case)
    x, context = data_of(case, model), context_of(model)
    assert context is not None
    width = model.context_features
    factor = torch.logspace(-3, 3, width, dtype=torch.float64)
    seen = context_of(model, 200, 5)
    assert seen is not None
    other.context_mean.copy_((factor * seen - 7).mean(0))
    other.context_scale.copy_((factor * seen - 7).std(0, correction=0))
    for run, again in ((model.evaluate, other.evaluate), (model, other), (model.loss, other.loss)):
        a, b = run(x, context), again(x, factor * context - 7)
        same(getattr(a, "value", a), getattr(b, "value", b), 1e-9)
    same(model.encode(x, context), other.encode(x, factor * context - 7), 1e-9)
    same(model.sample(3, context, seed=0), other.sample(3, factor * context - 7, seed=0), 1e-9)


@pytest.mark.parametrize("case", WITH_CONTEXT, ids=str)
def test_one_context_serves_many_rows(case):
    model = built(case)
    x, context = data_of(case, model), context_of(model)
    assert context is not None
    same(value(model, x, context[0]), value(model, x, context[:1].expand(ROWS, -1)))
    same(value(model, x, context[:1]), value(model, x, context[:1].expand(ROWS, -1)))


@pytest.mark.parametrize("case", WITH_CONTEXT, ids=str)
def test_a_missing_or_wrong_context_is_an_error(case):
    model = built(case)
    x = data_of(case, model)
    z = torch.zeros(ROWS, *model.base.shape)
    width = model.context_features
    for run, given in ((model.evaluate, x), (model.encode, x), (model, x), (model.loss, x), (model.decode, z)):
        with pytest.raises(InputError, match="context"):
            run(given)
        with pytest.raises(InputError, match=f"width {width}"):
            run(given, torch.zeros(ROWS, width + 1))
        with pytest.raises(InputError, match="broadcast"):
            run(given, torch.zeros(ROWS + 1, width))
        with pytest.raises(InputError, match="NaN"):
            run(given, torch.full((ROWS, width), math.nan))
    with pytest.raises(InputError, match="context"):
        model.sample(3, seed=0)
    with pytest.raises(InputError, match="context"):
        model.distribution()


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_terms_of_the_chain_rule(case):
    model = built(case)
    x, context = data_of(case, model), context_of(model)
    try:
        terms = model.conditional_log_prob(x, context)
    except KindError as error:
        assert "order" in str(error) or "not autoregressive" in str(error)  # noqa: PT017
        return
    assert terms.shape == x.shape
    same(terms.flatten(1).sum(-1), value(model, x, context), 1e-11)


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_as_a_torch_distribution(case):
    model = built(case)
    x, context = data_of(case, model), context_of(model)
    distribution = model.distribution(context)
    batch = () if context is None else (ROWS,)
    assert distribution.batch_shape == batch
    assert distribution.event_shape == model.shape
    torch.manual_seed(4)
    sample = distribution.sample((3,))
    assert sample.shape == (3, *batch, *model.shape)
    if case.has_log_prob:
        same(distribution.log_prob(x), model.log_prob(x, context))


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_save_and_load(case, tmp_path):
    model = built(case)
    x, context = data_of(case, model), context_of(model)
    pf.save(model, tmp_path / "m.safetensors")
    again = pf.load(tmp_path / "m.safetensors")
    assert type(again) is type(model)
    assert not again.training
    assert torch.equal(value(again, x, context), value(model, x, context))
    assert torch.equal(again.sample(3, context, seed=0), model.sample(3, context, seed=0))


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_state_dict_goes_through_torch_too(case):
    model = built(case)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = case.make().double().eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    x, context = data_of(case, model), context_of(model)
    assert torch.equal(value(other, x, context), value(model, x, context))


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_the_loss_reaches_every_weight(case):
    model = build(case)
    if not list(model.parameters()):
        return
    x, context = data_of(case, model, 64), context_of(model, 64)
    model.train()
    model.loss(x, context, generator=generator()).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert not idle
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def some_slow(cases: list) -> list:
    """One case of each class with most of its options is quick enough for every run; the rest runs with the slow ones."""
    chosen = {"NICE[normal prior, context]", "RealNVP[batch norm]", "MAF[context, residual]", "IAF[context]",
              "NSF[coupling, context]", "NSF[circular, autoregressive, context]", "NSF[context, D=1]",
              "Flow[ensemble, context]", "Flow[dequantized]", "Flow[missing values]", "MAF[mixture base]",
              "Flow[bounded data]"}  # fmt: skip
    assert chosen <= {str(case) for case in cases}
    return [case if str(case) in chosen else pytest.param(case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize("case", some_slow(MODELS), ids=str)
def test_it_compiles_whole(case):
    torch._dynamo.reset()
    model = built(case)
    x, context = data_of(case, model), context_of(model)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    same(compiled(x, context), model(x, context))
    if case.has_log_prob:
        log_prob = torch.compile(model.log_prob, fullgraph=True, backend="eager")
        same(log_prob(x, context), model.log_prob(x, context))


@pytest.mark.parametrize("case", some_slow([case for case in MODELS if case.exports]), ids=str)
def test_it_exports(case):
    model = built(case)
    x, context = data_of(case, model), context_of(model)
    rows = Dim("rows", min=2)
    inputs = (x,) if context is None else (x, context)
    program = export(model, inputs, dynamic_shapes=tuple({0: rows} for _ in inputs)).module()
    for count in (2, ROWS, 33):
        y, c = data_of(case, model, count, seed=8), context_of(model, count, 9)
        given = (y,) if c is None else (y, c)
        same(program(*given), model(*given))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch's own compiler
@pytest.mark.parametrize(
    "case", [case for case in MODELS if str(case) in ("NSF[coupling, D=5]", "MAF[D=5]", "Flow[dequantized]")], ids=str
)
def test_it_compiles_to_machine_code(case):
    torch._dynamo.reset()
    model = built(case, torch.float32)
    x, context = data_of(case, model, 64, dtype=torch.float32), context_of(model, 64, dtype=torch.float32)
    compiled = torch.compile(model, fullgraph=True)
    same(compiled(x, context), model(x, context), 1e-4)


def test_parts_of_different_shapes():
    with pytest.raises(ConfigError, match="shape"):
        Flow(pf.transforms.Affine(2), pf.distributions.Normal(3))
    with pytest.raises(ConfigError, match="context"):
        Flow(pf.transforms.Monotone(2, context=3), pf.distributions.ConditionalNormal(2, context=2))
