"""Masked convolutions and the gated PixelCNN: each output depends on exactly the earlier inputs."""

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.networks.masked_conv import MaskedConv2d
from pushforward.networks.pixelcnn import GatedPixelCNN
from pushforward.networks.pixelcnn_sampler import PixelCNNSampler


def dependence(function, shape):
    """Which inputs each output depends on, ``(*out, *in)``, by autograd at some random points."""
    points = [torch.randn(1, *shape, dtype=torch.float64) for _ in range(4)]
    seen = [torch.autograd.functional.jacobian(function, x)[0, ..., 0, :, :, :] != 0 for x in points]
    return torch.stack(seen).any(0)


def rank(channels, height, width, colors):
    """Rank of each (channel, row, column): raster order, and its group inside the pixel."""
    pixel = torch.arange(height * width).reshape(1, height, width)
    group = (torch.arange(channels) * colors // channels).reshape(-1, 1, 1)
    return pixel * colors + group


@pytest.mark.parametrize("kind", ["A", "B"])
@pytest.mark.parametrize("colors", [1, 3])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_masked_convolution_depends_on_what_its_mask_allows(kind, colors, parts):
    """A kernel as large as the image: all that comes before, of any color, and nothing else."""
    torch.manual_seed(0)
    conv = MaskedConv2d(6, 6 * parts, (9, 9), kind, colors, parts).double()
    seen = dependence(conv, (6, 5, 4))
    inner, outer = rank(6, 5, 4, colors), rank(6, 5, 4, colors).repeat(parts, 1, 1)
    expected = inner < outer[..., None, None, None] if kind == "A" else inner <= outer[..., None, None, None]
    assert torch.equal(seen, expected)


def shaken(shape, outputs, **more):
    torch.manual_seed(1)
    network = GatedPixelCNN(shape, outputs, **more).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("shape", [(1, 5, 5), (3, 3, 4), (2, 1, 1), (1, 1, 4), (2, 4, 1)], ids=str)
@pytest.mark.parametrize("ordered", [False, True])
def test_outputs_depend_on_all_earlier_pixels_and_nothing_else(shape, ordered):
    """Enough layers to span the image, so that a blind spot would show."""
    channels = shape[0]
    network = shaken(shape, 2 * channels, ordered=ordered, filters=24, layers=5, first_kernel_size=3)
    seen = dependence(network, shape)
    colors = channels if ordered else 1
    expected = rank(channels, *shape[1:], colors) < rank(2 * channels, *shape[1:], colors)[..., None, None, None]
    assert torch.equal(seen, expected)


def test_each_layer_widens_the_view_upwards_without_a_blind_spot():
    """One first layer of kernel 3 and one of kernel 3: two rows up, two columns to each side, as a plain cone."""
    network = shaken((1, 5, 7), 1, filters=4, layers=2, first_kernel_size=3)
    seen = dependence(network, (1, 5, 7))[0, 4, 3, 0]
    expected = torch.zeros(5, 7, dtype=torch.bool)
    expected[2:4, 1:6] = True  # two rows above, two columns to each side
    expected[4, 1:3] = True
    assert torch.equal(seen, expected)


def test_padding_is_distinguished_from_a_gray_value():
    """An image of the value that zero padding has gives other outputs at the border than inside."""
    network = shaken((1, 7, 7), 1, filters=4, layers=1, first_kernel_size=3)
    out = network(torch.zeros(1, 1, 7, 7, dtype=torch.float64))[0, 0]
    assert torch.allclose(out[2:, 2:-2], out[3, 3].expand(5, 3))
    assert (out[0, 0] - out[3, 3]).abs() > 1e-6
    assert (out[3, 0] - out[3, 3]).abs() > 1e-6


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("shape", [(1, 6, 5), (2, 3, 4), (2, 1, 1), (1, 1, 7), (1, 7, 1)], ids=str)
def test_the_sampler_gives_the_outputs_of_the_whole_network(shape, ordered, context):
    channels, height, width = shape
    network = shaken(
        shape, 3 * channels, ordered=ordered, filters=4, layers=3, kernel_size=5, first_kernel_size=5, context=context
    )
    x = torch.rand(3, *shape, dtype=torch.float64) * 2 - 1
    given = torch.randn(3, context, dtype=torch.float64) if context else None
    with torch.no_grad():
        whole = network(x, given)
        sampler = PixelCNNSampler(network, 3, given, x)
        for row in range(height):
            sampler.start_row()
            for column in range(width):
                if not ordered:
                    torch.testing.assert_close(sampler.pixel(column), whole[:, :, row, column], rtol=1e-11, atol=1e-11)
                for c in range(channels):
                    if ordered:  # what comes later is not there yet, and must not matter
                        part = sampler.pixel(column).chunk(channels, 1)[c]
                        expected = whole[:, :, row, column].chunk(channels, 1)[c]
                        torch.testing.assert_close(part, expected, rtol=1e-11, atol=1e-11)
                    sampler.put(column, c, x[:, c, row, column])
            sampler.end_row()


def test_the_context_reaches_every_output():
    network = shaken((2, 3, 3), 4, ordered=True, filters=24, layers=1, context=2)
    x, c = torch.zeros(1, 2, 3, 3, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda c: network(x, c), c)
    assert (jacobian != 0).all()


@pytest.mark.parametrize(
    "make",
    [lambda: MaskedConv2d(3, 3, (2, 3), "A"), lambda: MaskedConv2d(3, 4, (3, 3), "A", 3),
     lambda: MaskedConv2d(3, 3, (3, 3), "C"), lambda: GatedPixelCNN((3, 4, 4), 3, ordered=True, filters=4),
     lambda: GatedPixelCNN((1, 4, 4), 3, layers=0), lambda: GatedPixelCNN((1, 4, 4), 3, kernel_size=4),
     lambda: GatedPixelCNN((1, 4, 4), 3, first_kernel_size=1)],
)  # fmt: skip
def test_impossible_arguments(make):
    with pytest.raises(ConfigError):
        make()
