"""A model's own log_prob of few rows runs in a program, with the numbers and the errors of many."""

from __future__ import annotations

import copy
import gc
import math
import weakref

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import pushforward as pf
from pushforward import distributions, models, transforms
from pushforward.errors import InputError, KindError
from pushforward.transforms import Chain

from .flows import NONE, PART, WHOLE, close, compiled, first, in_threads, made, plain, rows

pytestmark = pytest.mark.usefixtures("without_gradients")


@compiled
@pytest.mark.parametrize("build", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_few_rows_have_the_numbers_that_many_have(build, dtype, runs):
    model = made(build).to(dtype)
    for scale in (1.0, 30.0):
        x, context = rows(model, 40, scale)
        x, context = x.to(dtype), None if context is None else context.to(dtype)
        many = plain(model, x, context)
        assert not runs
        for count in (1, 2, 5, 16, 17, 40):  # with more than 16 weights are packed
            found = model.log_prob(x[:count], None if context is None else context[:count])
            assert runs.pop() == count
            close(found, many[:count], dtype)
        close(model(x[3], None if context is None else context[3]), many[3], dtype)
        assert runs.pop() == 1


@compiled
@pytest.mark.parametrize("name", ["maf wide", "nsf", "realnvp"])
def test_each_row_is_for_itself(name):
    model = made(WHOLE[name])
    x, _ = rows(model, 16)
    whole = model.log_prob(x)
    for low, high in ((0, 1), (7, 9), (3, 6), (1, 14)):
        torch.testing.assert_close(model.log_prob(x[low:high]), whole[low:high], rtol=1e-6, atol=1e-6)


@compiled
def test_odd_widths_and_the_last_numbers_of_a_matrix(runs):
    """Rows end within a vector, and the last one where its memory ends."""
    for width in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 40):
        for build in (lambda w=width: models.MAF(w, layers=2, hidden=(w + 2,)), lambda w=width: couplings_of(w)):
            model = made(build).double()
            x = torch.randn(21, *model.shape, dtype=torch.float64)
            close(model.log_prob(x[:5]), plain(model, x[:5]))
            close(model.log_prob(x), plain(model, x))
    assert runs == [5, 21] * 24


def couplings_of(width: int) -> models.Flow:
    return models.Flow(
        Chain(*(transforms.Coupling(width + 1, hidden=(width,), flip=flip) for flip in (False, True))),
        distributions.Normal(width + 1),
    )


@compiled
def test_neighbors_in_a_shuffled_order_see_different_units(runs):
    """Ranges that go up and down from row to row, equal ones with others between them."""
    for seed in range(4):
        order = tuple(torch.randperm(9, generator=torch.Generator().manual_seed(seed)).tolist())
        part = transforms.MaskedAutoregressive(9, order=order, hidden=(6, 14))
        model = made(lambda part=part: models.Flow(Chain(part), distributions.Normal(9))).double()
        for count in (1, 5, 21):
            x = torch.randn(count, 9, dtype=torch.float64)
            close(model.log_prob(x), plain(model, x))
    assert runs == [1, 5, 21] * 4


@compiled
def test_masked_weights_may_hold_anything(runs):
    """Those that a mask rules out are read by nobody, and torch's product gives NaN for them."""
    model = made(WHOLE["maf"])
    x, _ = rows(model, 2)
    expected = model.log_prob(x)
    for module in model.modules():
        if isinstance(module, nn.Linear) and hasattr(module, "mask"):
            module.weight.data[~module.mask] = math.nan
    runs.clear()
    assert torch.equal(model.log_prob(x), expected)
    torch.testing.assert_close(model.log_prob(x.repeat(10, 1)), expected.repeat(10))
    assert runs == [2, 20]


@compiled
def test_many_rows_go_to_torch_where_its_products_are_faster(runs):
    """Wide layers: torch takes all but a few rows. Narrow ones: it takes those beyond a hundred or more."""
    wide, narrow = (
        made(lambda: models.RealNVP(20, hidden=(512, 512), couplings=2)),
        made(lambda: models.MAF(4, hidden=(32,))),
    )
    for count in (16, 17, 600):
        for model in (wide, narrow):
            model.log_prob(rows(model, count)[0])
    assert runs == [16, 16, 17, 600]


@compiled
@pytest.mark.parametrize("build", [*PART.values(), *NONE.values()], ids=[*PART, *NONE])
def test_a_model_without_a_program_is_tried_once(build, writings):
    model = made(build)
    x, context = rows(model, 2)
    for _ in range(3):
        model(x, context)
    assert len(writings) <= 2 * (1 + 3)  # members of an ensemble are models of their own


@compiled
def test_what_wants_torch_gets_torch(runs):
    model = made(WHOLE["maf"])
    x, _ = rows(model, 3)
    with torch.enable_grad():
        assert model.log_prob(x).requires_grad
    with FlopCounterMode(display=False) as counter:
        model.log_prob(x)
    assert counter.get_total_flops() > 0
    with torch.autocast("cpu"):
        model.log_prob(x)
    with torch.device("cpu"):
        model.log_prob(x)
    model.log_prob(rows(model, 1025)[0])
    model.log_prob(x[:0])
    model.log_prob(x.expand(2, 3, 5))
    with pf.use_kernels("plain"):
        model.log_prob(x)
    model.train()
    model.log_prob(x)
    first(model.eval(), nn.Dropout).train()
    model.log_prob(x)
    assert not runs
    model.eval().log_prob(x)
    with torch.inference_mode():
        model.log_prob(x)
    assert runs == [3, 3]


@compiled
def test_a_model_goes_when_nobody_needs_it(runs):
    gc.collect()
    gc.disable()
    try:
        model = made(WHOLE["realnvp context"])
        model.log_prob(*rows(model, 2))
        weight = weakref.ref(first(model, nn.Linear).weight)
        del model
        assert runs
        assert weight() is None
    finally:
        gc.enable()


@compiled
def test_numbers_behind_a_sign_are_read_with_it():
    model = made(WHOLE["maf"])
    x = torch._neg_view(torch.randn(3, 5))
    assert x.is_neg()
    assert not torch.allclose(plain(model, x), plain(model, -x))
    close(model.log_prob(x), plain(model, x))
    close(pf.compile_scorer(model)(x), plain(model, x))


@compiled
def test_bad_and_far_input_is_met_as_with_many_rows():
    model = made(WHOLE["realnvp context"])
    x, context = rows(model, 4)
    model.log_prob(x, context)
    for wrong in (x[:, :3], x.to(torch.complex64), [[1.0]], torch.full_like(x, math.nan)):
        with pytest.raises(InputError):
            model.log_prob(wrong, context)
    for wrong in (None, context[:, :2], context[:3], context * math.nan, [1.0]):
        with pytest.raises((InputError, AttributeError)):
            model.log_prob(x, wrong)
    close(model.log_prob(x, context[0]), plain(model, x, context[0]))
    far = x.clone()
    far[0, 0], far[1, 1] = math.inf, 1e20
    torch.testing.assert_close(model.log_prob(far, context), plain(model, far, context), rtol=1e-5, atol=1e-4)
    assert model.log_prob(far, context)[0] == -math.inf
    close(model.log_prob((10 * x).int(), context), plain(model, (10 * x).int(), context))
    close(model.log_prob(x.double(), context), plain(model, x.double(), context))
    close(model.log_prob(x.t().contiguous().t(), context), plain(model, x, context))


@compiled
def test_a_bound_is_not_called_log_prob():
    model = models.Flow(
        Chain(transforms.UniformDequantize(3), transforms.Coupling(3, hidden=(4,))), distributions.Normal(3)
    ).eval()
    with pytest.raises(KindError):
        model.log_prob(torch.zeros(1, 3))


@compiled
def test_threads_may_share_a_model():
    model = made(WHOLE["nsf"])
    parts = rows(model, 64)[0].split(4)
    expected = torch.cat([model.log_prob(part) for part in parts])
    model = copy.deepcopy(model)  # the first calls of all threads write it
    assert all(torch.equal(one, expected) for one in in_threads(lambda: torch.cat([model.log_prob(p) for p in parts])))
