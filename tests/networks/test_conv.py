"""ConvNet: its layers, its reach, its bounded output."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pushforward.errors import ConfigError
from pushforward.networks import ConvNet


def kernels(network: nn.Module) -> list[int]:
    return [part.kernel_size[0] for part in network.modules() if isinstance(part, nn.Conv2d)]


def reach(network: ConvNet, side: int = 9) -> int:
    """How far, in pixels, the output in the middle sees."""
    x = torch.randn(1, network.inputs, side, side, requires_grad=True)
    middle = side // 2
    network(x)[0, :, middle, middle].sum().backward()
    return max((place - middle).abs().max().item() for place in x.grad.abs().sum((0, 1)).nonzero())


def test_plain_is_three_one_three():
    network = ConvNet(2, 4, (8, 6), output_gain=1.0)
    assert kernels(network) == [3, 1, 3]
    assert reach(network) == 2
    assert kernels(ConvNet(2, 4, ())) == [3]


def test_residual_has_two_convolutions_a_block():
    network = ConvNet(2, 4, (8, 8), residual=True, output_gain=1.0, dropout=0.1).eval()
    assert kernels(network) == [3, 3, 3, 3, 3, 3]
    assert reach(network, 15) == 6


def test_starts_at_zero_and_output_is_bounded():
    network = ConvNet(2, 3, (8,), input_bound=2.0)
    assert (network(torch.randn(4, 2, 5, 5)) == 0).all()
    with torch.no_grad():
        network.last.weight.normal_()
    x = torch.full((1, 2, 5, 5), 1e30)
    assert torch.equal(network(x), network(torch.full_like(x, 2.0)))


def test_an_image_does_not_see_its_neighbours():
    network = ConvNet(2, 3, (8, 8), residual=True, output_gain=1.0).double()
    x = torch.randn(5, 2, 3, 3).double()
    torch.testing.assert_close(network(x)[2:3], network(x[2:3]), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    "options", [{"kernel_size": 2}, {"kernel_size": 0}, {"hidden": (8, 4), "residual": True}, {"dropout": 1.0}, {"activation": "none"}]
)  # fmt: skip
def test_refuses(options):
    with pytest.raises(ConfigError):
        ConvNet(2, 3, **{"hidden": (8, 8), **options})
