"""The conditioner of Flow++: every pixel depends on every pixel, and outputs are bounded."""

from __future__ import annotations

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.networks.conv_attention import ConvAttentionNet


def network(**more) -> ConvAttentionNet:
    torch.manual_seed(0)
    return ConvAttentionNet(2, 3, (6, 5), **{"hidden": (4, 4), "heads": 2, "output_gain": 1.0, **more}).double().eval()


def test_every_pixel_depends_on_every_pixel():
    x = torch.randn(2, 6, 5, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(network(), x).abs().sum((0, 3))
    assert (jacobian > 0).all()


def test_positions_matter():
    """Without position embeddings, a shifted image in a frame of zeros would have a shifted output."""
    x = torch.zeros(2, 2, 6, 5, dtype=torch.float64)
    x[0, :, 2, 2] = 1.0
    x[1, :, 3, 2] = 1.0
    y = network()(x)
    assert (y[0, :, 2, 2] - y[1, :, 3, 2]).abs().max() > 1e-4


def test_batches_and_start():
    x = torch.randn(2, 3, 2, 6, 5, dtype=torch.float64)
    y = network()(x)
    assert y.shape == (2, 3, 3, 6, 5)
    torch.testing.assert_close(network()(x[1, 2]), y[1, 2])
    assert network()(x[:0]).shape == (0, 3, 3, 6, 5)
    assert (network(output_gain=0.0)(x) == 0).all()


def test_a_bounded_input_gives_a_bounded_output():
    far = network(input_bound=5.0)
    x = torch.full((2, 6, 5), 1e20, dtype=torch.float64)
    torch.testing.assert_close(far(x), far(torch.full_like(x, 5.0)))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"heads": 3}, "heads"), ({"kernel_size": 2}, "odd"), ({"hidden": (4, 8)}, "equal"), ({"hidden": ()}, "equal")],
)
def test_errors_of_invalid_arguments(options, words):
    with pytest.raises(ConfigError, match=words):
        network(**options)
