"""Block autoregressive transform: positive blocks, the log-matmul, the bound that makes it onto, and exact decoding."""

from __future__ import annotations

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.networks.blocks import BlockLayer, BlockNetwork, log_matmul, log_tanh_slope
from pushforward.transforms import BlockAutoregressive, Inverse


def made(width: int, *hidden: int, size: float = 0.5, check, context: int = 0) -> BlockAutoregressive:
    torch.manual_seed(0)
    return check.perturb(BlockAutoregressive(width, hidden=hidden, context=context), size=size).double()


@pytest.mark.parametrize(("width", "hidden"), [(1, (6,)), (2, (3, 2))])
def test_contract(width, hidden, check):
    transform = made(width, *hidden, size=1.0, check=check)
    for spread in (1.0, 50.0, 1e6):
        check.round_trip(transform, check.normal(20, width, spread=spread), 1e-10)
    check.contribution(transform, check.normal(5, width))
    check.contribution(Inverse(transform), check.normal(5, width))
    check.decode_contribution(transform, check.normal(5, width))
    check.decode_gradients(transform, check.normal(2, width))
    check.shapes(transform.float())
    check.extremes(transform)


def test_one_layer_by_hand(check):
    """Two coordinates, one hidden layer of two units each, written out with exp, rows of length exp(gain) and tanh."""
    transform = made(2, 2, check=check)
    x = torch.tensor([0.3, -1.2], dtype=torch.float64)

    def dense(layer: BlockLayer) -> torch.Tensor:
        rows = []
        for i in range(2):
            for o in range(layer.outputs):
                row = [
                    torch.exp(5 * torch.tanh(layer.raw[i, o, j, k] / 5)) if i == j else layer.raw[i, o, j, k] * (j < i)
                    for j in range(2)
                    for k in range(layer.inputs)
                ]
                row = torch.stack(row)
                rows.append(torch.exp(5 * torch.tanh(layer.gain[i, o] / 5)) * row / row.norm())
        return torch.stack(rows)

    first, last = transform.network.layers
    h = torch.tanh(dense(first) @ x + first.bias.flatten())
    y = dense(last) @ h + last.bias.flatten()
    gate = torch.sigmoid(4 * torch.tanh(transform.gate / 4))
    torch.testing.assert_close(transform.encode(x).z, gate * x + (1 - gate) * y)


def test_it_is_onto_the_reals_with_bounded_slopes(check):
    """Far from 0 each coordinate has the gate's slope for any weights; elsewhere slopes are at least that."""
    transform = made(2, 8, 8, size=3.0, check=check)
    x = torch.tensor([[1e8, 1e8], [-1e8, -1e8], [1e8, -1e8], [0.0, 0.0]], dtype=torch.float64)
    step = transform.encode_terms(x)
    gate_slope = torch.sigmoid(4 * torch.tanh(transform.gate / 4))
    torch.testing.assert_close(step[1][:3], gate_slope.log().expand(3, 2))
    assert ((step[0] - gate_slope * x).abs() < 1e3).all()  # the distance to a line is at most the bounded network
    many = transform.encode_terms(check.normal(2000, 2, spread=3.0))[1]
    assert (many >= gate_slope.log() - 1e-12).all()


@pytest.mark.parametrize("size", [1.0, 5.0])
def test_decoding_is_accurate_with_steep_weights(size, check):
    transform = made(3, 10, 10, size=size, check=check)
    z = check.normal(200, 3, spread=4.0)
    torch.testing.assert_close(transform.encode(transform.decode(z)).z, z, atol=1e-9, rtol=1e-9)


def test_the_context_is_read_by_every_coordinate(check):
    transform = made(3, 4, check=check, context=2)
    x, context = check.normal(5, 3), check.normal(5, 2, seed=1)
    assert (transform.encode(x, context).z != transform.encode(x, context + 1).z).all()
    torch.testing.assert_close(transform.decode(transform.encode(x, context).z, context), x)
    far = transform.encode(x, 1e20 * context)
    assert torch.isfinite(far.z).all()


def test_log_matmul_and_the_slope_of_tanh(check):
    weight, slope = check.normal(3, 4, 5), check.normal(6, 3, 5, seed=1)
    expected = torch.logsumexp(weight + slope.unsqueeze(-2), -1)
    torch.testing.assert_close(log_matmul(weight, slope), expected)
    assert torch.isfinite(log_matmul(weight, slope - 1e20)).all()
    x = torch.linspace(-8, 8, 50, dtype=torch.float64)
    torch.testing.assert_close(log_tanh_slope(x), -2 * torch.cosh(x).log())
    x = torch.tensor([-1e20, -1e3, 1e3, 1e20], dtype=torch.float64)
    torch.testing.assert_close(log_tanh_slope(x), 2 * torch.log(torch.tensor(2.0).double()) - 2 * x.abs())


def test_impossible_arguments_are_refused():
    with pytest.raises(ConfigError, match="at least one layer"):
        BlockAutoregressive(2, hidden=())
    with pytest.raises(ConfigError, match="vectors"):
        BlockAutoregressive((1, 2, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("width", "hidden", "context"), [(1, (4,), 0), (2, (10, 10), 0), (2, (40, 40), 3), (12, (8, 8), 0)]
)
@pytest.mark.parametrize("seed", range(3))
def test_a_new_transform_keeps_a_standard_normal_near_mean_0_and_variance_1(width, hidden, context, seed):
    torch.manual_seed(seed)
    transform = BlockAutoregressive(width, hidden=hidden, context=context)
    x = torch.randn(4000, width)
    z = transform.encode(x, torch.zeros(4000, context) if context else None).z
    assert z.mean(0).abs().max() < 0.15
    assert z.var(0).min() > 0.8
    assert z.var(0).max() < 1.2


def test_making_one_takes_no_numbers_from_the_global_generator_beyond_its_weights():
    torch.manual_seed(0)
    transform = BlockAutoregressive(3, hidden=(4,))
    after = torch.rand(1)
    torch.manual_seed(0)
    BlockNetwork(3, (4,))
    assert torch.equal(after, torch.rand(1))
    assert all(parameter.requires_grad for parameter in transform.parameters())
