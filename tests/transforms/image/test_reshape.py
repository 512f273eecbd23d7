"""Squeeze and Flatten: both published orders, against index arithmetic written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import pixel_unshuffle

from pushforward.errors import ConfigError
from pushforward.transforms import Flatten, Squeeze


def test_glow_order_is_channel_by_channel():
    x = torch.arange(2.0 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    assert torch.equal(Squeeze((3, 4, 6)).encode(x).z, pixel_unshuffle(x, 2))


def test_checkerboard_order_brings_one_color_of_every_channel_to_the_front():
    """Real NVP: slots (0, 0), (1, 1), (0, 1), (1, 0), each with all channels."""
    x = torch.arange(3.0 * 4 * 6).reshape(3, 4, 6)
    z = Squeeze((3, 4, 6), "checkerboard").encode(x).z
    for slot, (i, j) in enumerate([(0, 0), (1, 1), (0, 1), (1, 0)]):
        for channel in range(3):
            assert torch.equal(z[3 * slot + channel], x[channel, i::2, j::2])
    even = (torch.arange(4)[:, None] + torch.arange(6)) % 2 == 0
    assert set(z[:6].flatten().tolist()) == set(x[:, even].flatten().tolist())


@pytest.mark.parametrize(
    "transform", [Squeeze((1, 2, 2)), Squeeze((3, 2, 6), "checkerboard"), Flatten((2, 3, 1))], ids=str
)
def test_is_a_volume_preserving_bijection(transform, check):
    x = check.normal(4, *transform.in_shape)
    check.round_trip(transform, x, 0.0)
    check.contribution(transform, x, 0.0)
    check.shapes(transform)


def test_flatten_is_in_row_major_order():
    assert Flatten((2, 2)).encode(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])).z.tolist() == [[1.0, 2.0, 3.0, 4.0]]


@pytest.mark.parametrize("shape", [(1, 3, 4), (1, 4, 3), (1, 1, 1)])
def test_odd_sides_are_refused(shape):
    with pytest.raises(ConfigError, match=rf"are even; got {shape[1]} x {shape[2]}: pad or crop"):
        Squeeze(shape)


def test_unknown_orders_and_other_shapes_than_images_are_refused():
    with pytest.raises(ConfigError, match="order"):
        Squeeze((1, 2, 2), "rows")
    with pytest.raises(ConfigError, match="channels, height, width"):
        Squeeze((4, 4))  # pyright: ignore[reportArgumentType]
