"""Masked layers: the blocks give what the whole masked product gives, with gradients, and never from old weights."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.kernels import tuning
from pushforward.networks import MADE
from pushforward.networks.masked import BlockLinear, MaskedLinear, row_blocks


@pytest.fixture
def small(monkeypatch):
    """Blocks at any size, so that tests can be small."""
    for name in ("MASKED_FROM_UNITS", "MASKED_FROM_INPUTS", "MASKED_FROM_ROWS"):
        monkeypatch.setattr(tuning, name, 1)


def staircase(outputs: int, inputs: int, groups: int = 1, order: str = "rising") -> Tensor:
    seen = torch.arange(inputs) * outputs < (torch.arange(outputs)[:, None] + 1) * inputs
    seen = {"rising": seen, "falling": seen.flip(0), "from the right": seen.flip(1)}[order]
    return seen.repeat(groups, 1)


def plain(layer: MaskedLinear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight * layer.mask, layer.bias)


MASKS = {
    "rising": (staircase(20, 12), 1),
    "falling, in groups": (staircase(10, 24, 3, "falling"), 3),
    "from the right": (staircase(16, 16, 1, "from the right"), 1),
    "fewer rows than blocks": (staircase(3, 9), 1),
    "with an empty row": (staircase(8, 8).roll(1, 0) & staircase(8, 8), 1),
    "nothing seen": (torch.zeros(8, 8, dtype=torch.bool), 1),
    "holes": (staircase(24, 24) & (torch.rand(24, 24, generator=torch.Generator().manual_seed(0)) > 0.2), 1),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("shape", [(7,), (), (0,), (2, 3)], ids=str)
def test_blocks_give_the_whole_product_and_its_gradients(name, shape):
    layer = MaskedLinear(*MASKS[name]).double()
    x = torch.randn(*shape, layer.in_features, dtype=torch.float64, requires_grad=True)
    if x.numel() >= layer.in_features:
        assert layer._blocks(x)
    leaves = (x, layer.weight, layer.bias)
    y, z = layer(x), plain(layer, x)
    torch.testing.assert_close(y, z)
    toward = torch.randn_like(y)
    for again in (True, False):
        gradients = (torch.autograd.grad(out, leaves, toward, retain_graph=again, create_graph=again) for out in (y, z))
        for got, wanted in zip(*gradients, strict=True):
            torch.testing.assert_close(got, wanted)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), z)


def test_masks_with_nothing_to_skip_are_not_cut():
    assert row_blocks(torch.ones(16, 16, dtype=torch.bool), 1) == ()
    assert row_blocks(torch.rand(64, 64, generator=torch.Generator().manual_seed(0)) > 0.5, 1) == ()
    assert len(row_blocks(staircase(64, 64), 1)) == 4


def test_first_and_second_derivatives():
    mask = staircase(8, 8)
    blocks = row_blocks(mask, 1)
    x, weight, bias = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((3, 8), (8, 8), (8,)))

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.tanh(BlockLinear.apply(x, weight, bias, mask, blocks))

    assert torch.autograd.gradcheck(run, (x, weight, bias))
    assert torch.autograd.gradgradcheck(run, (x, weight, bias))


@pytest.mark.usefixtures("small")
def test_several_gradients_in_one_backward_pass():
    layer = MaskedLinear(staircase(16, 16)).double()
    x = torch.randn(4, 16, dtype=torch.float64, requires_grad=True)
    assert layer._blocks(x)
    y, leaves, unit = layer(x).sum(0), (x, layer.weight, layer.bias), torch.eye(16, dtype=torch.float64)

    def by(v: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(y, leaves, v, retain_graph=True)

    each = [torch.stack(parts) for parts in zip(*map(by, unit), strict=True)]
    together = torch.autograd.grad(y, leaves, unit, is_grads_batched=True, retain_graph=True)
    for found in (together, torch.func.vmap(by)(unit)):
        torch.testing.assert_close(list(found), each)


def test_a_call_in_inference_mode_leaves_a_layer_that_can_be_trained():
    layer = MaskedLinear(staircase(16, 16))
    x = torch.randn(4, 16, requires_grad=True)
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    assert x.grad is not None


@pytest.mark.usefixtures("small")
def test_frozen_parts_have_no_gradient():
    layer = MaskedLinear(staircase(16, 16))
    x = torch.randn(4, 16)
    layer.bias.requires_grad_(False)
    layer(x).sum().backward()
    assert x.grad is None
    assert layer.bias.grad is None
    torch.testing.assert_close(layer.weight.grad, layer.mask * x.sum(0))


@pytest.mark.parametrize("order", [None, "reverse", "shuffled"])
@pytest.mark.parametrize("residual", [False, True])
def test_wide_networks_are_cut_where_units_are_sorted(order, residual):
    orders = {None: None, "reverse": tuple(range(399, -1, -1)), "shuffled": tuple(torch.randperm(400).tolist())}
    network = MADE(400, 2, (512, 512), order=orders[order], residual=residual)
    x = torch.randn(256, 400)
    layers = [layer for layer in network.modules() if isinstance(layer, MaskedLinear)]
    cut = [bool(layer._blocks(torch.zeros(256, layer.in_features))) for layer in layers]
    assert cut == [order != "shuffled", *[True] * (len(layers) - 2), False]  # 400 outputs a group are too few
    assert not any(layer._blocks(torch.zeros(255, layer.in_features)) for layer in layers)
    found = network(x)
    for layer in layers:
        layer.forward = plain.__get__(layer)
    torch.testing.assert_close(found, network(x), rtol=1e-4, atol=1e-4)


def fused_adam(layer: MaskedLinear) -> MaskedLinear:
    """Changes weights without raising their version, in some releases of PyTorch."""
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, fused=True)
    plain(layer, torch.ones(2, layer.in_features)).square().sum().backward()
    optimizer.step()
    return layer


def loaded(layer: MaskedLinear, **options) -> MaskedLinear:
    other = MaskedLinear(layer.mask.roll(1, 0) & layer.mask)
    layer.load_state_dict(other.state_dict(), **options)
    return layer


def from_file(layer: MaskedLinear) -> MaskedLinear:
    data = safetensors.torch.save({k: v.clone() for k, v in MaskedLinear(layer.mask).state_dict().items()})
    layer.load_state_dict(safetensors.torch.load(data), assign=True)
    return layer


def applied(layer: MaskedLinear) -> MaskedLinear:
    def change(module: nn.Module) -> None:
        for parameter in module.parameters():
            nn.init.normal_(parameter)

    return layer.apply(change)


def with_data(change) -> MaskedLinear:
    def run(layer: MaskedLinear) -> MaskedLinear:
        for parameter in layer.parameters():
            change(parameter)
        return layer

    return run


def copied(layer: MaskedLinear) -> MaskedLinear:
    other = copy.deepcopy(layer)
    other.weight.data.mul_(3)
    other.mask.copy_(other.mask.roll(1, 0) & other.mask)
    return other


def pickled(layer: MaskedLinear) -> MaskedLinear:
    other = pickle.loads(pickle.dumps(layer))
    other.weight.data.mul_(3)
    return other


def saved_whole(layer: MaskedLinear) -> MaskedLinear:
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    other = torch.load(buffer, weights_only=False)
    other.weight.data.mul_(3)
    return other


def another_mask(layer: MaskedLinear) -> MaskedLinear:
    layer.mask = staircase(*layer.mask.shape, order="falling")
    return layer


TRAPS = {
    "fused Adam": fused_adam,
    "load_state_dict": loaded,
    "load_state_dict, assign": lambda layer: loaded(layer, assign=True),
    "a file, assigned": from_file,
    "data.mul_": with_data(lambda p: p.data.mul_(1.5)),
    "data =": with_data(lambda p: setattr(p, "data", torch.randn_like(p))),
    "detach().add_": with_data(lambda p: p.detach().add_(1.0)),
    "numpy": with_data(lambda p: p.detach().numpy().__imul__(2)),
    "double": lambda layer: layer.double(),
    "to": lambda layer: layer.to(torch.float64),
    "apply": applied,
    "deepcopy": copied,
    "pickle": pickled,
    "torch.save": saved_whole,
    "share_memory": lambda layer: with_data(lambda p: p.data.add_(0.5))(layer.share_memory()),
    "another mask": another_mask,
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("grad", [False, True], ids=["no gradient", "gradient"])
def test_a_call_never_uses_old_weights(trap, grad):
    layer = MaskedLinear(staircase(16, 16))
    x = torch.randn(5, 16)
    with torch.set_grad_enabled(grad):
        before = layer(x)
    layer = TRAPS[trap](layer)
    x = x.to(layer.weight.dtype)
    with torch.set_grad_enabled(grad):
        assert layer._blocks(x)
        torch.testing.assert_close(layer(x), plain(layer, x))
        changed = (layer(x) - before).abs().max() > 1e-4
    assert changed or trap in ("double", "to")


@pytest.mark.usefixtures("small")
def test_nothing_is_cut_where_python_may_not_branch_or_types_differ():
    layer = MaskedLinear(staircase(16, 16))
    x = torch.randn(5, 16)
    wanted = plain(layer, x)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="eager")(x), wanted)
    torch.testing.assert_close(torch.func.vmap(layer)(x), wanted)
    jacobian = torch.func.jacrev(layer)(x[0])
    torch.testing.assert_close(jacobian, layer.weight * layer.mask)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype is torch.bfloat16
    with torch.inference_mode():
        born = MaskedLinear(staircase(16, 16))
        torch.testing.assert_close(born(x), plain(born, x))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(layer(dual)).tangent
    torch.testing.assert_close(tangent, (layer.weight * layer.mask).sum(1).expand(5, -1))
