"""A gated PixelCNN pixel by pixel, for sampling, with the arithmetic of about one pass over the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.networks.masked_conv import MaskedConv2d
from pushforward.networks.pixelcnn import GatedLayer, GatedPixelCNN, bounded_context, gate, with_ones

__all__ = ["PixelCNNSampler"]


class PixelCNNSampler:
    """Outputs of a :class:`GatedPixelCNN` pixel by pixel, each computed once, without gradient.

    It keeps the last few rows of the vertical features of each layer, and the current row of the horizontal ones. A row costs
    one convolution of a few rows for each layer, and a pixel one small product for each layer. The outputs are those of the
    whole network up to rounding.

    Args:
        network: in evaluation mode.
        rows: number of images.
        context: ``(rows, context)``.
        like: a tensor of the floating type and device of the images.
    """

    def __init__(self, network: GatedPixelCNN, rows: int, context: Tensor | None, like: Tensor) -> None:
        self.network, self.context = network, bounded_context(context)
        self.layers: list[GatedLayer] = list(network.layers)  # pyright: ignore[reportAttributeAccessIssue]
        channels, _, width = network.shape
        self.seen = like.new_zeros(rows, channels, width)
        """The current row of the image, as the network reads it."""
        self.above: list[Tensor] = []
        self.left: list[Tensor] = []
        self.taps: list[tuple[Tensor, Tensor | None]] = []
        for layer in self.layers:
            inputs, size = layer.horizontal.in_channels, layer.reach
            self.above.append(like.new_zeros(rows, inputs, size, width))
            self.left.append(like.new_zeros(rows, width + size, inputs))
            weight = (layer.horizontal.weight * layer.horizontal.mask)[:, :, 0, : size + 1]
            self.taps.append((weight.permute(0, 2, 1).flatten(1), layer.horizontal.bias))
        self.points = [_point(layer.out) for layer in self.layers]
        self.last_layers = [_point(network.hidden), _point(network.last)]
        self.added: list[Tensor] = []

    def start_row(self) -> None:
        """Begin the next row, and compute its vertical features, which depend on the rows above only."""
        self.added = []
        v: Tensor | None = None
        for index, layer in enumerate(self.layers):
            strip = self.above[index] if v is None else torch.cat((self.above[index], v), 2)
            raw, added = layer.rows(strip, self.context)
            if v is not None:
                self.above[index] = strip[:, :, 1:]
            self.added.append(added.squeeze(2).permute(2, 0, 1).contiguous())
            self.left[index].zero_()
            v = gate(raw)
        self.seen.zero_()
        self.left[0][:, self.layers[0].reach :, 1::2] = 1  # the channels of ones

    def pixel(self, column: int) -> Tensor:
        """Outputs for the pixel in this column of the current row, ``(rows, outputs)``."""
        h: Tensor | None = None
        for index, layer in enumerate(self.layers):
            cells = self.left[index]
            if h is not None:
                cells[:, column + layer.reach] = h
            window = cells[:, column : column + layer.reach + 1].flatten(1)
            new = F.linear(gate(F.linear(window, *self.taps[index]) + self.added[index][column]), *self.points[index])
            h = new if h is None else h + new
        assert h is not None
        return F.linear(F.relu(F.linear(F.relu(h), *self.last_layers[0])), *self.last_layers[1])

    def put(self, column: int, channel: int, value: Tensor) -> None:
        """Set a channel of a pixel of the current row, ``(rows,)``, as the network reads it."""
        self.seen[:, channel, column] = value
        self.left[0][:, column + self.layers[0].reach, 2 * channel] = value

    def end_row(self, seen: Tensor | None = None) -> None:
        """End the row; with ``seen``, ``(rows, channels, width)``, its content is given and not sampled."""
        row = with_ones((self.seen if seen is None else seen).unsqueeze(2))
        self.above[0] = torch.cat((self.above[0][:, :, 1:], row), 2)


def _point(layer: MaskedConv2d) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a 1x1 convolution as a linear layer."""
    return (layer.weight * layer.mask)[:, :, 0, 0], layer.bias
