"""MADE: the Jacobian has exactly the allowed pattern, with nothing missing, for any order and any depth."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.func import jacrev

from pushforward.errors import ConfigError, InputError
from pushforward.networks import MADE

WIDE = 96  # each degree 0..7 gets many units, so no path can be missing by chance


def randomize(network: torch.nn.Module, seed: int = 0) -> None:
    """Weights far from 0, so that a path that exists shows in the Jacobian."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def make(features: int, hidden: tuple[int, ...], **options) -> MADE:
    network = MADE(features, 2, hidden, activation="tanh", input_bound=None, **options).double()
    randomize(network)
    for parameter in network.parameters():
        parameter.data.mul_(0.3)
    return network


def reach(network: MADE, wrt: str, context: Tensor | None = None) -> Tensor:
    """Which inputs each output depends on, ``(outputs, features, inputs)``, by autograd at several points."""
    seen = torch.zeros(())
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        x = torch.randn(network.features * network.copies, dtype=torch.float64, generator=generator)
        if wrt == "x":
            jacobian = jacrev(lambda t: network(t, context))(x)
        else:
            jacobian = jacrev(lambda c: network(x, c))(context)  # noqa: B023
        seen = seen + jacobian.abs()
    return seen > 0


def positions(features: int, order: tuple[int, ...] | None) -> Tensor:
    """The position of each coordinate in the order."""
    order = order or tuple(range(features))
    return torch.tensor([order.index(i) for i in range(features)])


def shuffled(features: int) -> tuple[int, ...]:
    return tuple(torch.randperm(features, generator=torch.Generator().manual_seed(features)).tolist())


@pytest.mark.parametrize("features", [1, 2, 5, 8])
@pytest.mark.parametrize("order", ["none", "reverse", "shuffled"])
@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize(
    ("hidden", "residual"),
    [
        ((), False),
        ((WIDE,), False),
        ((WIDE, WIDE), False),
        ((WIDE, 64, WIDE), False),
        ((WIDE,), True),
        ((64, 64), True),
    ],
)
def test_outputs_depend_on_exactly_the_coordinates_before(features, order, context, hidden, residual):
    sequence = {"none": None, "reverse": tuple(reversed(range(features))), "shuffled": shuffled(features)}[order]
    network = make(features, hidden, order=sequence, residual=residual, context=context)
    given = torch.randn(context, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) if context else None
    position = positions(features, sequence)
    allowed = position[:, None] > position[None, :]
    assert torch.equal(reach(network, "x", given), allowed.expand(2, features, features))
    if given is not None:
        assert reach(network, "context", given).all()


def test_copies_of_the_coordinates_keep_the_pattern():
    network = make(4, (WIDE,), order=(2, 0, 3, 1), copies=2)
    position = positions(4, (2, 0, 3, 1))
    allowed = (position[:, None] > position[None, :]).repeat(1, 2)
    assert torch.equal(reach(network, "x"), allowed.expand(2, 4, 8))


@pytest.mark.parametrize("hidden", [(), (8,), (8, 8)])
def test_one_feature_gives_free_constants(hidden):
    network = make(1, hidden)
    x = torch.randn(50, 1, dtype=torch.float64)
    out = network(x)
    assert out.shape == (2, 50, 1)
    assert (out == out[:, :1]).all()
    out.sum().backward()
    assert network.last.bias.grad is not None
    assert (network.last.bias.grad == 50).all()


@pytest.mark.parametrize("options", [{}, {"residual": True}, {"copies": 2}], ids=str)
def test_one_feature_costs_one_row_and_gives_what_all_rows_would(options):
    network = make(1, (8, 8), **options)
    rows: list[int] = []
    network.last.register_forward_hook(lambda module, given, out: rows.append(out.shape[:-1].numel()))
    parameters = list(network.parameters())
    for batch in [(), (1,), (7,), (0,), (2, 3)]:
        x = torch.randn(*batch, network.copies, dtype=torch.float64)
        upstream = torch.randn(2, *batch, 1, dtype=torch.float64)
        short, long = network(x), network._run(x, None)
        assert short.shape == long.shape == upstream.shape
        torch.testing.assert_close(short, long)
        for a, b in zip(
            torch.autograd.grad(short, parameters, upstream),
            torch.autograd.grad(long, parameters, upstream),
            strict=True,
        ):
            torch.testing.assert_close(a, b)
    assert rows[::2] == [1] * 5
    assert rows[1::2] == [1, 1, 7, 0, 6]


def test_one_feature_with_dropout_drops_for_each_row():
    network = make(1, (32, 32), dropout=0.5)
    x = torch.zeros(40, 1, dtype=torch.float64)
    assert network(x)[0].unique().numel() > 20
    network.eval()
    assert network(x)[0].unique().numel() == 1


@pytest.mark.parametrize("hidden", [(), (16,), (16, 16)])
@pytest.mark.parametrize("features", [1, 3])
def test_the_first_coordinate_depends_on_the_context_nonlinearly(features, hidden):
    network = make(features, hidden, context=2)
    x = torch.zeros(features, dtype=torch.float64)
    c = torch.randn(2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    middle = network(x, c)[:, 0]
    ends = 0.5 * (network(x, c + 1)[:, 0] + network(x, c - 1)[:, 0])
    assert (middle - ends).abs().min() > 1e-9  # a linear network gives 1e-16


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
def test_shapes(shape):
    network = MADE(4, 3, (16,), context=2)
    assert network(torch.zeros(*shape, 4), torch.zeros(*shape, 2)).shape == (3, *shape, 4)


def test_each_output_of_one_coordinate_is_its_own():
    network = make(3, (WIDE,))
    out = network(torch.randn(10, 3, dtype=torch.float64))
    assert not torch.allclose(out[0, :, 2], out[1, :, 2], atol=0.05)


@pytest.mark.parametrize("residual", [False, True])
def test_output_is_bounded_far_from_the_data(residual):
    network = MADE(3, 2, (16, 16), residual=residual, context=1, input_bound=10.0)
    edge = network(torch.full((1, 3), 10.0), torch.full((1, 1), 10.0))
    for far in (1e3, 1e20, math.inf):
        assert torch.equal(network(torch.full((1, 3), far), torch.full((1, 1), far)), edge)


def test_start_is_small():
    network = MADE(3, 2, (32,), output_gain=0.0, context=2)
    assert (network(torch.randn(20, 3), torch.randn(20, 2)) == 0).all()


def test_dropout_acts_in_training_only():
    network = MADE(3, 2, (64, 64), dropout=0.5)
    x = torch.randn(4, 3)
    torch.manual_seed(0)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_masks_are_saved_with_the_weights():
    network = MADE(3, 2, (8,), order=(2, 0, 1))
    masks = {name for name in network.state_dict() if name.endswith("mask")}
    assert masks == {"layers.0.mask", "last.mask"}
    other = MADE(3, 2, (8,))
    other.load_state_dict(network.state_dict())
    x = torch.randn(5, 3)
    assert torch.equal(other(x), network(x))


@pytest.mark.parametrize(
    "options",
    [
        {"order": (0, 1)},
        {"order": (0, 0, 1)},
        {"order": (1, 2, 3)},
        {"hidden": (0,)},
        {"hidden": (8, 4), "residual": True},
        {"hidden": (), "residual": True},
        {"hidden": (8.0,)},
        {"activation": "nothing"},
        {"copies": 0},
        {"copies": 2.5},
    ],
)
def test_impossible_arguments(options):
    with pytest.raises(ConfigError):
        MADE(**{"features": 3, "outputs": 2, "hidden": (8,), **options})


def test_a_missing_or_wrong_context_is_an_error():
    network = MADE(3, 2, (8,), context=2)
    with pytest.raises(InputError, match="context"):
        network(torch.zeros(5, 3))
    with pytest.raises(InputError, match="width 2"):
        network(torch.zeros(5, 3), torch.zeros(5, 1))


@pytest.mark.parametrize("hidden", [(WIDE,), (WIDE, WIDE)])
@pytest.mark.parametrize("residual", [False, True])
def test_the_context_goes_through_the_hidden_layers_to_the_first_coordinate_too(hidden, residual):
    """Hidden units of degree 0 depend on no coordinate, so the first output may use them."""
    network = make(3, hidden, context=2, residual=residual)
    with torch.no_grad():
        network.context_last.weight.zero_()
    assert reach(network, "context", torch.randn(2, dtype=torch.float64)).all()
