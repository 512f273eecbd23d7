"""Convolutional encoder and decoder between images of any size and vectors."""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.networks.activations import activation as make_activation
from pushforward.numerics import bound_input
from pushforward.numerics.checks import check_integer, check_widths
from pushforward.numerics.conversion import channels_last

__all__ = ["ConvDecoder", "ConvEncoder"]


class ConvEncoder(nn.Module):
    """Images to vectors: 3x3 convolutions of stride 2, then one linear layer.

    Args:
        shape: (channels, height, width).
        outputs: width of the vector.
        channels: number of channels of each convolution.
        activation: name of the activation.

    Raises:
        ConfigError: for impossible widths.

    Example:
        >>> import torch
        >>> ConvEncoder((1, 7, 5), 3, (4, 8))(torch.zeros(2, 1, 7, 5)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self, shape: tuple[int, int, int], outputs: int, channels: tuple[int, ...], activation: str = "relu"
    ) -> None:
        super().__init__()
        self.shape, widths = shape, (shape[0], *check_widths("channels", channels))
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), make_activation(activation)]
        self.body = nn.Sequential(*layers)
        height, width = sizes(shape, len(channels))[-1]
        self.last = nn.Linear(widths[-1] * height * width, check_integer("outputs", outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(*batch, channels, height, width)`` to ``(*batch, outputs)``."""
        rows = x.reshape(-1, *self.shape).to(self.last.weight.dtype)  # coordinates may be float64
        rows = channels_last(rows)  # faster on CPU
        return self.last(self.body(rows).flatten(1)).reshape(*x.shape[:-3], self.last.out_features)


class ConvDecoder(nn.Module):
    """Vectors to images: a linear layer, then nearest-neighbor doubling and 3x3 convolutions.

    Args:
        inputs: width of the vector.
        shape: (outputs, height, width).
        channels: those of the encoder; the decoder has them in reverse order.
        activation: name of the activation.
        input_bound: the vector is clamped to [-input_bound, input_bound], so that the output is bounded.

    Raises:
        ConfigError: for impossible widths.

    Example:
        >>> import torch
        >>> ConvDecoder(3, (2, 7, 5), (4, 8))(torch.zeros(2, 3)).shape
        torch.Size([2, 2, 7, 5])
    """

    def __init__(
        self,
        inputs: int,
        shape: tuple[int, int, int],
        channels: tuple[int, ...],
        activation: str = "relu",
        input_bound: float = 10.0,
    ) -> None:
        super().__init__()
        self.shape, self.input_bound = shape, input_bound
        widths = check_widths("channels", channels)[::-1]
        *self.larger, (height, width) = sizes(shape, len(widths))
        self.larger.reverse()
        self.start = (widths[0], height, width)
        self.first = nn.Linear(inputs, widths[0] * height * width)
        self.act = make_activation(activation)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1)
            for before, after in zip(widths, (*widths[1:], widths[-1]), strict=True)
        )
        self.last = nn.Conv2d(widths[-1], shape[0], 1)

    def forward(self, z: Tensor) -> Tensor:
        """``(*batch, inputs)`` to ``(*batch, outputs, height, width)``."""
        flat = bound_input(z, self.input_bound).reshape(-1, z.shape[-1]).to(self.last.weight.dtype)
        h = self.act(self.first(flat)).reshape(-1, *self.start)
        h = channels_last(h)  # faster on CPU
        for size, layer in zip(self.larger, self.layers, strict=True):
            h = self.act(layer(F.interpolate(h, size=size, mode="nearest")))
        return self.last(h).reshape(*z.shape[:-1], *self.shape)


def sizes(shape: tuple[int, int, int], count: int) -> list[tuple[int, int]]:
    """Height and width before and after each of ``count`` convolutions of stride 2."""
    found = [(shape[1], shape[2])]
    for _ in range(count):
        height, width = found[-1]
        found.append(((height + 1) // 2, (width + 1) // 2))
    return found
