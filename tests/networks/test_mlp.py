"""MLP: shapes, what its options promise, and errors."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.networks import MLP
from pushforward.networks.activations import activation


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
@pytest.mark.parametrize("residual", [False, True])
def test_shapes(shape, residual):
    network = MLP(4, 2, (16, 16), residual=residual)
    assert network(torch.zeros(*shape, 4)).shape == (*shape, 2)
    assert network.trunk(torch.zeros(*shape, 4)).shape == (*shape, 16)


def test_without_hidden_layers_it_is_linear():
    network = MLP(3, 2, ()).double()
    x, y = torch.randn(2, 5, 3, dtype=torch.float64).unbind()
    torch.testing.assert_close(network(x + y) + network(torch.zeros_like(x)), network(x) + network(y))


@pytest.mark.parametrize("residual", [False, True])
def test_every_output_depends_on_every_input(residual):
    network = MLP(5, 3, (32, 32), residual=residual, activation="tanh").double()
    jacobian = torch.func.jacrev(network)(torch.randn(5, dtype=torch.float64))
    assert (jacobian != 0).all()


def test_plain_network_has_its_stated_layers():
    network = MLP(3, 2, (4, 5), activation="tanh").double()
    first, _, second, _ = network.body
    x = torch.randn(6, 3, dtype=torch.float64)
    h = torch.tanh(x @ first.weight.T + first.bias)
    h = torch.tanh(h @ second.weight.T + second.bias)
    torch.testing.assert_close(network(x), h @ network.last.weight.T + network.last.bias)


def test_residual_network_has_its_stated_layers():
    network = MLP(3, 2, (4, 4), residual=True, activation="silu").double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    x = torch.randn(6, 3, dtype=torch.float64)

    def silu(t):
        return t / (1 + torch.exp(-t))

    h = x @ network.body[0].weight.T + network.body[0].bias
    for block in network.body[1:]:
        inner = silu(h) @ block.first.weight.T + block.first.bias
        h = h + silu(inner) @ block.second.weight.T + block.second.bias
    torch.testing.assert_close(network(x), h @ network.last.weight.T + network.last.bias)


def test_residual_blocks_start_near_the_identity():
    network = MLP(3, 2, (32, 32), residual=True)
    for block in network.body[1:]:
        h = torch.randn(10, 32)
        assert (block(h) - h).abs().max() < 0.2


@pytest.mark.parametrize("residual", [False, True])
def test_output_gain_zero_starts_at_zero(residual):
    network = MLP(3, 2, (16,), residual=residual, output_gain=0.0)
    assert (network(torch.randn(7, 3)) == 0).all()


def test_output_is_bounded_far_from_the_data():
    network = MLP(2, 2, (16,), input_bound=5.0)
    edge = network(torch.full((1, 2), -5.0))
    for far in (-1e3, -1e20, -math.inf):
        assert torch.equal(network(torch.full((1, 2), far)), edge)


@pytest.mark.parametrize("residual", [False, True])
def test_dropout_acts_in_training_only(residual):
    network = MLP(3, 2, (64, 64), dropout=0.5, residual=residual)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(4, 3)
    torch.manual_seed(0)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


@pytest.mark.parametrize(
    ("name", "at_one"),
    [
        ("relu", 1.0),
        ("tanh", math.tanh(1.0)),
        ("elu", 1.0),
        ("silu", 1 / (1 + math.exp(-1))),
        ("gelu", 0.5 * (1 + math.erf(math.sqrt(0.5)))),
        ("softplus", math.log1p(math.e)),
        ("leaky_relu", 1.0),
    ],
)
def test_activations(name, at_one):
    assert activation(name)(torch.ones((), dtype=torch.float64)).item() == pytest.approx(at_one, abs=1e-12)
    assert MLP(1, 1, (4,), activation=name)(torch.zeros(2, 1)).shape == (2, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"inputs": 0},
        {"outputs": 0},
        {"hidden": (8, 0)},
        {"hidden": (8, -1)},
        {"hidden": (8, 4), "residual": True},
        {"hidden": (), "residual": True},
        {"activation": "RELU"},
        {"activation": None},
    ],
)
def test_impossible_arguments(options):
    with pytest.raises(ConfigError):
        MLP(**{"inputs": 3, "outputs": 2, "hidden": (8,), **options})


def test_the_error_lists_the_activations():
    with pytest.raises(ConfigError, match="'relu', 'tanh'"):
        activation("nothing")


def test_hooks_of_activations_are_called():
    network, seen = MLP(3, 2, (4, 4)), []
    for part in network.body:
        part.register_forward_hook(lambda part, _, out: seen.append((type(part).__name__, bool(out.min() >= 0))))
    network(torch.randn(100, 3))
    assert seen == [("Linear", False), ("ReLU", True)] * 2
