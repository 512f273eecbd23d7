"""The network of PixelCNN++: dependence of outputs, sides of any length, and sampling pixel by pixel."""

import math

import pytest
import torch
import torch.nn.functional as F

from pushforward.errors import ConfigError
from pushforward.networks.activations import concat_elu
from pushforward.networks.pixelcnn_plusplus import PixelCNNPlusPlus, ShiftedConv2d
from pushforward.networks.pixelcnn_plusplus_sampler import PixelCNNPlusPlusSampler

SHAPES = [(1, 5, 5), (3, 4, 6), (2, 1, 1), (1, 1, 6), (2, 5, 1), (1, 7, 4)]


def shaken(shape, outputs=3, spread=0.2, **more):
    torch.manual_seed(1)
    network = PixelCNNPlusPlus(shape, outputs, **({"filters": 8, "layers": 2} | more)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return network.eval()


def dependence(function, shape):
    """Whether an output of each pixel depends on a channel of each pixel, ``(pixels, pixels)``, for any and for all of them."""
    pixels = math.prod(shape[1:])
    seen = []
    for _ in range(3):
        x = torch.randn(1, *shape, dtype=torch.float64)
        slope = torch.autograd.functional.jacobian(function, x)[0, :, :, :, 0]
        seen.append(slope.permute(0, 3, 1, 2, 4, 5).reshape(-1, pixels, pixels) != 0)
    found = torch.stack(seen).any(0)
    return found.any(0), found.all(0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scales", [1, 3])
def test_outputs_depend_on_every_channel_of_all_earlier_pixels_and_nothing_else(shape, scales):
    some, every = dependence(shaken(shape, scales=scales), shape)
    earlier = torch.ones_like(some).tril(-1)
    assert torch.equal(some, earlier)
    assert torch.equal(every, earlier)


def test_a_strict_convolution_does_not_depend_on_its_own_row_or_column():
    x = torch.zeros(1, 1, 4, 5)
    x[0, 0, 1, 2] = 1.0
    for way, kernel in (("down", (2, 3)), ("right", (2, 2))):
        for strict in (False, True):
            conv = ShiftedConv2d(1, 1, kernel, way, strict=strict)
            torch.nn.init.ones_(conv.weight)
            seen = (conv(x) - conv(torch.zeros_like(x)))[0, 0]
            if way == "down":
                expected = {(r + strict, c) for r in (1, 2) for c in (1, 2, 3)}
            else:
                expected = {(r, c + strict) for r in (1, 2) for c in (2, 3)}
            assert {tuple(position) for position in (seen != 0).nonzero().tolist()} == expected


def test_concatenated_elu():
    x = torch.tensor([[1.0, -2.0]])
    torch.testing.assert_close(concat_elu(x), torch.tensor([[1.0, math.expm1(-2), math.expm1(-1), 2.0]]))


@pytest.mark.parametrize("shape", [*SHAPES, (1, 9, 10)], ids=str)
@pytest.mark.parametrize("scales", [1, 2, 4])
@torch.no_grad()
def test_pixel_by_pixel_the_outputs_are_those_of_the_whole(shape, scales):
    network = shaken(shape, spread=0.1, scales=scales, context=2)
    x, context = torch.randn(3, *shape, dtype=torch.float64), 12 * torch.randn(3, 2, dtype=torch.float64)
    whole = network(x, context)
    assert whole.std() > 0.1
    sampler = PixelCNNPlusPlusSampler(network, 3, context, x)
    for row in range(shape[1]):
        sampler.start_row()
        if row == 1:  # a row that is given
            sampler.end_row(x[:, :, row])
            continue
        for column in range(shape[2]):
            torch.testing.assert_close(sampler.pixel(column), whole[:, :, row, column], rtol=1e-9, atol=1e-9)
            for channel in range(shape[0]):
                sampler.put(column, channel, x[:, channel, row, column])
        sampler.end_row()


def test_the_block_is_that_of_the_paper():
    """x + a sigmoid(b), with the links after the first convolution and the context before the gate, written out."""
    network = shaken((1, 4, 4), context=2)
    block = network.block("up", 0, 0)
    above, left, skip_above, skip_left = torch.randn(4, 2, 8, 4, 4, dtype=torch.float64)
    context = torch.randn(2, 2, dtype=torch.float64)
    got = block((above, left), (skip_above, skip_left), context)

    def elu2(x):
        return torch.cat((F.elu(x), F.elu(-x)), 1)

    def conv(part, x, pad):
        return F.conv2d(F.pad(x, pad), part.weight, part.bias)

    def stream(part, x, others, pad):
        h = conv(part.first, elu2(x), pad)
        for link, other in zip(part.links, others, strict=True):
            h = h + F.conv2d(elu2(other), link.weight)
        a, b = (conv(part.second, elu2(h), pad) + part.context(context)[:, :, None, None]).chunk(2, 1)
        return x + a * torch.sigmoid(b)

    first = stream(block.above, above, [skip_above], (1, 1, 1, 0))
    torch.testing.assert_close(got[0], first)
    torch.testing.assert_close(got[1], stream(block.left, left, [first, skip_left], (1, 0, 1, 0)))


def test_every_weight_matters():
    network = shaken((2, 8, 8), context=1)
    network(
        torch.randn(4, 2, 8, 8, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64)
    ).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_dropout_is_used_only_in_training():
    network, x = shaken((1, 5, 5), dropout=0.5), torch.randn(2, 1, 5, 5, dtype=torch.float64)
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))


def test_far_contexts_are_bounded():
    network, x = shaken((1, 3, 3), context=1), torch.randn(1, 1, 3, 3, dtype=torch.float64)
    far = [network(x, torch.full((1, 1), value, dtype=torch.float64)) for value in (10.0, 1e20)]
    assert torch.equal(*far)


@pytest.mark.parametrize(
    "wrong",
    [{"filters": 0}, {"layers": 0}, {"scales": 0}, {"dropout": 1.0}, {"context": -1}, {"filters": 2.5}],
    ids=str,
)
def test_impossible_sizes(wrong):
    with pytest.raises(ConfigError):
        PixelCNNPlusPlus((1, 4, 4), 3, **wrong)
    with pytest.raises(ConfigError):
        PixelCNNPlusPlus((1, 4, 4), 0)
