"""No change to a model goes unseen by the program of its few rows, and no part is taken for another."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from pushforward.compiled_programs_gone import NotLowerable, write
from torch import nn

import pushforward as pf
from pushforward import distributions, models, transforms
from pushforward.networks import MADE
from pushforward.transforms import Chain

from .flows import WHOLE, agrees, close, compiled, first, made, plain, rows

pytestmark = pytest.mark.usefixtures("without_gradients")


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
    first(model, transforms.MaskedAutoregressive).transformer = transforms.AffineTransformer(0.1)


def of_another_activation(model: models.Model) -> None:
    first(model, MADE).act = nn.Tanh()


def of_another_bound(model: models.Model) -> None:
    first(model, MADE).input_bound = 0.1


def one_map_more(model: models.Model) -> None:
    model.chain.transforms.append(transforms.Affine(*model.shape, scale=2.0))


def one_map_exchanged(model: models.Model) -> None:
    model.chain.transforms[0] = transforms.Affine(*model.shape, scale=2.0)


def another_base(model: models.Model) -> None:
    model.base = distributions.Logistic(*model.shape)


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
        lambda: models.Flow(
            Chain(transforms.Permutation(4, seed=1), transforms.Coupling(4, hidden=(8,))), distributions.Normal(4)
        )
    )
    x = torch.randn(2, 4)
    before = model.log_prob(x)
    buffer = first(model, transforms.Permutation).permutation
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
def test_layers_are_read_in_place_while_they_are_trained(writings):
    """A plain MAF holds nothing of which a program would keep a copy."""
    model = made(lambda: models.MAF(5, hidden=(24, 24)))
    for _ in range(3):
        step(model)
        x, _ = rows(model, 3)
        close(model.log_prob(x), plain(model, x))
    assert len(writings) == 1


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
def test_a_parametrized_layer_is_left_to_torch(runs):
    model = made(WHOLE["realnvp"])
    x, _ = rows(model, 3)
    model.log_prob(x)
    nn.utils.parametrizations.weight_norm(next(m for m in model.modules() if type(m) is nn.Linear))
    runs.clear()
    close(model.log_prob(x), plain(model, x))
    assert not runs


class Shifted(transforms.Coupling):
    """Not what its parent does."""

    def encode(self, x, context=None, *, noise=None):
        return super().encode(x + 1, context, noise=noise)


@compiled
def test_a_subclass_is_not_taken_for_its_parent():
    model = models.Flow(Chain(Shifted(4, hidden=(8,))), distributions.Normal(4)).eval()
    x = torch.randn(2, 4)
    close(model.log_prob(x), plain(model, x))
    with pytest.warns(pf.errors.PushforwardWarning, match="no native version of Shifted"):
        close(pf.compile_scorer(model)(x), plain(model, x))
    with pytest.raises(NotLowerable, match="Shifted"):
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


class Added(transforms.Chain):
    def encode(self, x, context=None, *, noise=None):
        step = super().encode(x, context, noise=noise)
        return transforms.Step(step.z, step.contribution + 1)


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
def test_attributes_that_come_and_go_are_seen(writings):
    model = made(WHOLE["maf"])
    x, _ = rows(model, 2)
    before = model.log_prob(x)
    part = first(model, transforms.MaskedAutoregressive)
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
    model = models.Flow(Added(transforms.Coupling(5, hidden=(8,))), distributions.Normal(5)).eval()
    x = torch.randn(2, 5)
    close(model.log_prob(x), plain(model, x))
    with pytest.warns(pf.errors.PushforwardWarning, match="no native version of Added"):
        close(pf.compile_scorer(model)(x), plain(model, x))


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
