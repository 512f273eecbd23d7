"""A model's own log_prob of few rows runs in a program, and no change to the model goes unseen."""

from __future__ import annotations

import copy
import gc
import io
import math
import pickle
import threading
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import pushforward as pf
from pushforward import bases, maps, models
from pushforward.errors import InputError, KindError
from pushforward.kernels import Program
from pushforward.maps import Chain
from pushforward.networks import MADE
from pushforward.programs import Unwritten, few_rows, write

from .flows import NONE, PART, WHOLE, close, compiled, made, rows


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def runs(monkeypatch) -> list[int]:
    """The number of rows of each run of a program."""
    found: list[int] = []
    run = Program.run

    def counted(self, x, context=None):
        found.append(len(x))
        return run(self, x, context)

    monkeypatch.setattr(Program, "run", counted)
    return found


@pytest.fixture
def writings(monkeypatch) -> list[int]:
    """One entry for each program that is written."""
    found: list[int] = []

    def counted(*given, **options):
        found.append(1)
        return write(*given, **options)

    monkeypatch.setattr(few_rows, "write", counted)
    return found


def plain(model: models.Model, x: Tensor, context: Tensor | None = None) -> Tensor:
    with pf.use_kernels("plain"):
        return model.log_prob(x, context)


def agrees(model: models.Model, runs: list[int], count: int = 3) -> None:
    """The model's number is torch's, and came from a program."""
    x, context = rows(model, count)
    runs.clear()
    found = model.log_prob(x, context)
    assert runs == [count]
    close(found, plain(model, x, context), model.latent_dtype)


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
def test_odd_widths_and_the_last_numbers_of_a_matrix():
    """Rows end within a vector, and the last one where its memory ends."""
    for width in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 40):
        for build in (lambda w=width: models.MAF(w, layers=2, hidden=(w + 2,)), lambda w=width: couplings_of(w)):
            model = made(build).double()
            x = torch.randn(21, *model.shape, dtype=torch.float64)
            close(model.log_prob(x[:5]), plain(model, x[:5]))
            close(model.log_prob(x), plain(model, x))


def couplings_of(width: int) -> models.Flow:
    return models.Flow(
        Chain(*(maps.Coupling(width + 1, hidden=(width,), flip=flip) for flip in (False, True))),
        bases.Normal(width + 1),
    )


@compiled
def test_neighbours_in_a_shuffled_order_see_different_units():
    """Ranges that go up and down from row to row, equal ones with others between them."""
    for seed in range(4):
        order = tuple(torch.randperm(9, generator=torch.Generator().manual_seed(seed)).tolist())
        part = maps.MaskedAutoregressive(9, order=order, hidden=(6, 14))
        model = made(lambda part=part: models.Flow(Chain(part), bases.Normal(9))).double()
        for count in (1, 5, 21):
            x = torch.randn(count, 9, dtype=torch.float64)
            close(model.log_prob(x), plain(model, x))


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


def first(model: models.Model, kind: type) -> nn.Module:
    return next(module for module in model.modules() if isinstance(module, kind))


def step(model: models.Model) -> None:
    with torch.enable_grad():
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
        model.loss(rows(model, 50)[0]).backward()
        optimizer.step()


def replaced(model: models.Model) -> None:
    layer = first(model, nn.Linear)
    layer.weight = nn.Parameter(layer.weight + 0.1)


def swapped(model: models.Model) -> None:
    layer = first(model, nn.Linear)
    layer.weight.data = layer.weight + 0.1


def transposed(model: models.Model) -> None:
    layer = next(m for m in model.modules() if isinstance(m, nn.Linear) and m.in_features == m.out_features)
    layer.weight.mul_(1.5)
    layer.weight.data = layer.weight.data.t()


def cut(model: models.Model) -> None:
    layer = next(m for m in model.modules() if isinstance(m, nn.Linear) and m.in_features == m.out_features)
    layer.weight.data = layer.weight.data[:-1]


def in_place(model: models.Model) -> None:
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))


def loaded(model: models.Model) -> None:
    model.load_state_dict(
        {key: value + 0.1 if value.is_floating_point() else value for key, value in model.state_dict().items()}
    )


def of_another_law(model: models.Model) -> None:
    first(model, maps.MaskedAutoregressive).transformer = maps.AffineTransformer(0.1)


def of_another_activation(model: models.Model) -> None:
    first(model, MADE).act = nn.Tanh()


def of_another_bound(model: models.Model) -> None:
    first(model, MADE).input_bound = 0.1


def one_map_more(model: models.Model) -> None:
    model.chain.maps.append(maps.Affine(*model.shape, scale=2.0))


def one_map_exchanged(model: models.Model) -> None:
    model.chain.maps[0] = maps.Affine(*model.shape, scale=2.0)


def another_base(model: models.Model) -> None:
    model.base = bases.Logistic(*model.shape)


def another_mask(model: models.Model) -> None:
    network = first(model, MADE)
    network.layers[1].mask[:, :9] = False


def another_type(model: models.Model) -> None:
    model.double()


def back_and_forth(model: models.Model) -> None:
    model.double()
    model.log_prob(rows(model, 2)[0])
    in_place(model)
    model.float()


CHANGES: list[Callable[[models.Model], None]] = [
    step, replaced, swapped, transposed, in_place, loaded, of_another_law, of_another_activation, of_another_bound,
    one_map_more, one_map_exchanged, another_base, another_mask, another_type, back_and_forth,
]  # fmt: skip


@compiled
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changes_of_the_model_are_followed(change, runs):
    model = made(lambda: models.MAF(5, hidden=(24, 24)))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.mul_(3)
    agrees(model, runs)
    x, _ = rows(model, 3)
    before = model.log_prob(x)
    for _ in range(2):
        change(model)
        x = x.to(model.dtype)
        if change is not another_type:
            assert not torch.allclose(plain(model, x), before, rtol=1e-3, atol=1e-3)
        close(model.log_prob(x), plain(model, x), model.dtype)
        many = torch.cat([x] * 10)
        close(model.eval().log_prob(many), plain(model, many), model.dtype)
    if change is not transposed:  # which a compiled function does not read
        agrees(model, runs)


@compiled
def test_a_matrix_of_another_shape_is_not_read_as_the_old_one():
    model = made(lambda: models.MAF(5, hidden=(24, 24)))
    x, _ = rows(model, 2)
    model.log_prob(x)
    cut(model)
    with pytest.raises(RuntimeError, match="size of tensor"):
        model.log_prob(x)


@compiled
@pytest.mark.parametrize("name", ["realnvp", "nsf", "householder", "realnvp context"])
def test_every_number_of_a_model_is_followed(name):
    """Each parameter and each statistic for itself: a change of it changes what torch gives, and what the program gives."""
    model = made(WHOLE[name])
    x, context = rows(model, 3)
    model.log_prob(x, context)
    seen = 0
    for tensor in (*model.parameters(), *model.buffers()):
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        before = plain(model, x, context)
        tensor.mul_(1.25).add_(0.1)
        after = plain(model, x, context)
        close(model.log_prob(x, context), after)
        seen += not torch.allclose(before, after)
    assert seen > 5


@compiled
def test_a_permutation_is_followed():
    model = made(
        lambda: models.Flow(Chain(maps.Permutation(4, seed=1), maps.Coupling(4, hidden=(8,))), bases.Normal(4))
    )
    x = torch.randn(2, 4)
    before = model.log_prob(x)
    buffer = first(model, maps.Permutation).permutation
    buffer.copy_(buffer.flip(0))
    after = model.log_prob(x)
    assert not torch.allclose(before, after)
    close(after, plain(model, x))


@compiled
def test_nothing_is_written_anew_while_the_model_stays(writings):
    model = made(WHOLE["nsf"])
    x, _ = rows(model, 1500)
    for part in x.split(150):
        model.log_prob(part[:10])
        model.log_prob(part[:40])
        model.log_prob(x)
        model.sample(3, seed=0)
        model.evaluate(part)
        with torch.enable_grad():
            model.log_prob(part)
    assert len(writings) == 1


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
def test_layers_are_read_in_place_while_they_are_trained(writings):
    """A plain MAF holds nothing of which a program would keep a copy."""
    model = made(lambda: models.MAF(5, hidden=(24, 24)))
    for _ in range(3):
        step(model)
        x, _ = rows(model, 3)
        close(model.log_prob(x), plain(model, x))
    assert len(writings) == 1


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
def test_weights_that_are_lent_for_one_call_are_read(runs):
    model = made(WHOLE["maf"])
    x, _ = rows(model, 3)
    before = model.log_prob(x)
    lent = {name: value + 0.1 for name, value in model.named_parameters()}
    found = torch.func.functional_call(model, lent, x)
    assert not torch.allclose(found, before)
    torch.testing.assert_close(model.log_prob(x), before, rtol=0, atol=0)
    model.load_state_dict(lent, strict=False)
    close(found, plain(model, x))


@compiled
def test_hooks_are_called(runs):
    model = made(WHOLE["maf"])
    x, _ = rows(model, 3)
    model.log_prob(x)
    seen: list[str] = []
    layer = first(model, nn.Linear)
    for register, name in ((layer.register_forward_hook, "after"), (layer.register_forward_pre_hook, "before")):
        handle = register(lambda *given, name=name: seen.append(name))
        model.log_prob(x)
        handle.remove()
    handle = nn.modules.module.register_module_forward_hook(lambda *given: seen.append("all"))
    model.log_prob(x)
    handle.remove()
    assert seen[:2] == ["after", "before"]
    assert "all" in seen
    assert runs == [3]
    agrees(model, runs)


@compiled
def test_a_parametrised_layer_is_left_to_torch(runs):
    model = made(WHOLE["realnvp"])
    x, _ = rows(model, 3)
    model.log_prob(x)
    nn.utils.parametrizations.weight_norm(next(m for m in model.modules() if type(m) is nn.Linear))
    runs.clear()
    close(model.log_prob(x), plain(model, x))
    assert not runs


class Shifted(maps.Coupling):
    """Not what its parent does."""

    def encode(self, x, context=None, *, noise=None):
        return super().encode(x + 1, context, noise=noise)


@compiled
def test_a_subclass_is_not_taken_for_its_parent():
    model = models.Flow(Chain(Shifted(4, hidden=(8,))), bases.Normal(4)).eval()
    x = torch.randn(2, 4)
    close(model.log_prob(x), plain(model, x))
    with pytest.warns(pf.errors.PushforwardWarning, match="no native version of Shifted"):
        close(pf.freeze(model)(x), plain(model, x))
    with pytest.raises(Unwritten, match="Shifted"):
        write(list(model.chain), model.base, 4, 0)


class Noisy(nn.Dropout):
    """Drops in evaluation mode too."""

    def forward(self, h):
        return nn.functional.dropout(h, self.p, True)


class Tanh(nn.Module):
    """Has the name of another."""

    def forward(self, h):
        return 1.7 * torch.tanh(h)


class Doubled(nn.Linear):
    def forward(self, h):
        return 2 * super().forward(h)


class Added(maps.Chain):
    def encode(self, x, context=None, *, noise=None):
        step = super().encode(x, context, noise=noise)
        return maps.Step(step.z, step.contribution + 1)


def exchange(model: models.Model, kind: type, make: Callable[[], nn.Module]) -> None:
    """Put other modules in the place of all of a kind."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is kind:
                setattr(module, name, make())
    model.eval()


FLOWS = [
    lambda: models.MAF(5, hidden=(24,), layers=2, dropout=0.3),
    lambda: models.MAF(5, hidden=(24, 24), layers=2, dropout=0.3, residual=True),
    lambda: models.RealNVP(5, hidden=(24,), couplings=2, dropout=0.3),
    lambda: models.NSF(5, hidden_features=24, flow_layers=2, dropout=0.3),
]


@compiled
@pytest.mark.parametrize("build", FLOWS, ids=["maf", "maf residual", "realnvp", "nsf"])
@pytest.mark.parametrize(
    "make",
    [lambda: nn.LeakyReLU(0.5), lambda: nn.ELU(2.0), lambda: nn.Softplus(3.0), lambda: nn.GELU("tanh"), Tanh],
    ids=["slope", "alpha", "beta", "approximate", "name"],
)
@pytest.mark.parametrize("used", [False, True])
def test_an_activation_of_other_options_is_not_taken_for_the_usual_one(build, make, used):
    model = made(build)
    x, _ = rows(model, 2)
    if used:
        model.log_prob(x)
    before = plain(model, x)
    exchange(model, nn.ReLU, make)
    close(model.log_prob(x), plain(model, x))
    assert not torch.allclose(before, plain(model, x))


@compiled
def test_an_option_of_an_activation_is_followed(runs):
    model = made(lambda: models.MAF(5, hidden=(24,), activation="leaky_relu"))
    x, _ = rows(model, 2)
    model.log_prob(x)
    for module in model.modules():
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.6
    runs.clear()
    close(model.log_prob(x), plain(model, x))
    assert not runs


@compiled
@pytest.mark.parametrize("build", FLOWS, ids=["maf", "maf residual", "realnvp", "nsf"])
def test_dropout_that_stays_is_left_to_torch(build, runs):
    model = made(build)
    exchange(model, nn.Dropout, lambda: Noisy(0.3))
    x, _ = rows(model, 2)
    assert not torch.equal(model.log_prob(x), model.log_prob(x))
    assert not runs


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
def test_attributes_that_come_and_go_are_seen(writings):
    model = made(WHOLE["maf"])
    x, _ = rows(model, 2)
    before = model.log_prob(x)
    part = first(model, maps.MaskedAutoregressive)
    kept = part.__dict__.pop("decode_passes")  # which encoding does not need
    part.of_mine = 1
    assert torch.equal(model.log_prob(x), before)
    assert len(writings) == 2
    part.decode_passes = kept
    assert torch.equal(model.log_prob(x), before)
    assert torch.equal(model.log_prob(x), before)
    assert len(writings) == 3


@compiled
def test_a_layer_that_becomes_another_is_seen():
    for change in (
        lambda layer: setattr(layer, "__class__", Doubled),
        lambda layer: setattr(layer, "forward", lambda h: 2 * nn.functional.linear(h, layer.weight, layer.bias)),
    ):
        model = made(WHOLE["realnvp"])
        x, _ = rows(model, 2)
        before = model.log_prob(x)
        change(next(m for m in model.modules() if type(m) is nn.Linear))
        close(model.log_prob(x), plain(model, x))
        assert not torch.allclose(before, plain(model, x))


@compiled
def test_another_chain_is_not_taken_for_the_usual_one():
    model = models.Flow(Added(maps.Coupling(5, hidden=(8,))), bases.Normal(5)).eval()
    x = torch.randn(2, 5)
    close(model.log_prob(x), plain(model, x))
    with pytest.warns(pf.errors.PushforwardWarning, match="no native version of Added"):
        close(pf.freeze(model)(x), plain(model, x))


@compiled
def test_numbers_behind_a_sign_are_read_with_it():
    model = made(WHOLE["maf"])
    x = torch._neg_view(torch.randn(3, 5))
    close(model.log_prob(x), plain(model, x))
    close(pf.freeze(model)(x), plain(model, x))


@compiled
def test_a_method_of_one_object_is_seen(runs):
    model = made(WHOLE["maf"])
    x, _ = rows(model, 2)
    model.log_prob(x)
    part = next(iter(model.chain))
    encode = part.encode
    part.encode = lambda x, context=None, *, noise=None: encode(x + 1, context, noise=noise)
    close(model.log_prob(x), plain(model, x))
    assert not torch.allclose(plain(model, x), made(WHOLE["maf"]).log_prob(x))


def through_a_file(model: models.Model) -> models.Model:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@compiled
@pytest.mark.parametrize(
    "move",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), through_a_file],
    ids=["copy", "pickle", "file"],
)
def test_copies_are_for_themselves(move, runs):
    model = made(WHOLE["nsf"])
    x, _ = rows(model, 3)
    before = model.log_prob(x)
    other = move(model)
    in_place(other)
    assert torch.equal(model.log_prob(x), before)
    close(other.log_prob(x), plain(other, x))
    del model
    gc.collect()
    agrees(other, runs)


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
    model = models.Flow(Chain(maps.UniformDequantize(3), maps.Coupling(3, hidden=(4,))), bases.Normal(3)).eval()
    with pytest.raises(KindError):
        model.log_prob(torch.zeros(1, 3))


@compiled
def test_threads_may_share_a_model():
    model = made(WHOLE["nsf"])
    x = rows(model, 64)[0]
    parts = x.split(4)
    expected, found = torch.cat([model.log_prob(part) for part in parts]), [None] * 8
    model = copy.deepcopy(model)  # the first calls of all threads write it

    def work(k: int) -> None:
        with torch.no_grad():
            for _ in range(20):
                found[k] = torch.cat([model.log_prob(part) for part in parts])

    workers = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(torch.equal(one, expected) for one in found)
