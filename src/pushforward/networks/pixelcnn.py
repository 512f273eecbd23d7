"""Gated PixelCNN: a convolutional network whose outputs for a pixel depend on earlier pixels only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.networks.masked_conv import MaskedConv2d, check_kernel
from pushforward.numerics import bound_input
from pushforward.numerics.checks import check_integer
from pushforward.numerics.conversion import channels_last

__all__ = ["GatedPixelCNN", "bounded_context", "gate", "with_ones"]


def with_ones(x: Tensor) -> Tensor:
    """Each channel followed by a channel of ones, so that the network can distinguish a gray value from the padding."""
    return torch.stack((x, torch.ones_like(x)), 2).flatten(1, 2)


def bounded_context(context: Tensor | None) -> Tensor | None:
    """The context clamped to [-10, 10]."""
    return None if context is None else bound_input(context, 10.0)


def gate(raw: Tensor, dim: int = 1) -> Tensor:
    """tanh(a) sigmoid(b) for the two halves of ``dim`` (van den Oord et al. 2016b, eq. 2)."""
    a, b = raw.chunk(2, dim)
    return torch.tanh(a) * torch.sigmoid(b)


class GatedLayer(nn.Module):
    """One layer of both stacks (van den Oord et al. 2016b, fig. 2).

    The vertical stack reads the rows above. The horizontal stack reads the pixels to the left and the vertical stack. Together
    they read every earlier pixel in reach, without a blind spot.
    """

    def __init__(self, inputs: int, filters: int, kernel: int, colors: int, context: int, first: bool) -> None:
        super().__init__()
        self.first, self.reach = first, kernel // 2
        # The first layer reads the rows above. Later layers may read vertical features of their own row, as these depend on the
        # rows above only.
        rows = self.reach if first else self.reach + 1
        self.vertical = nn.Conv2d(inputs, 2 * filters, (rows, kernel))
        self.link = nn.Conv2d(2 * filters, 2 * filters, 1)
        self.horizontal = MaskedConv2d(inputs, 2 * filters, (1, kernel), "A" if first else "B", colors, parts=2)
        self.out = MaskedConv2d(filters, filters, (1, 1), "B", colors)
        self.context = nn.Linear(context, 4 * filters) if context else None

    def rows(self, v: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Raw vertical features, and the term of these and of the context in the horizontal ones.

        ``v`` is ``(n, inputs, reach + height, width)``, the rows above first; in the first layer without its last row.
        """
        raw = self.vertical(F.pad(v, (self.reach, self.reach)))
        added = self.link(raw)
        if self.context is not None:
            above, here = self.context(context).unsqueeze(-1).unsqueeze(-1).chunk(2, 1)
            raw, added = raw + above, added + here
        return raw, added

    def forward(self, v: Tensor, h: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features of both stacks, ``(n, filters, height, width)`` each."""
        padded = F.pad(v, (0, 0, self.reach, 0))
        raw, added = self.rows(padded[:, :, :-1] if self.first else padded, context)
        new = self.out(gate(self.horizontal(h) + added))
        return gate(raw), new if self.first else h + new


class GatedPixelCNN(nn.Module):
    """Gated PixelCNN (van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu 2016, arXiv 1606.05328, sec. 2).

    ``layers`` gated layers of a vertical and a horizontal stack, then two 1x1 layers. The input has a channel of ones for each
    color, to distinguish gray values from the padding. The context is added to every gate (eq. 4).

    Args:
        shape: (channels, height, width).
        outputs: number of outputs for each pixel.
        ordered: whether the outputs form one group for each channel, and group c also reads channels 0, ..., c - 1 of its own
            pixel; otherwise no output reads its own pixel.
        filters: F, the width of each stack; a multiple of the channels if ``ordered``.
        layers: number of gated layers.
        kernel_size: odd size of all kernels but the first.
        first_kernel_size: odd size of the first, at least 3.
        context: width of the context.

    Raises:
        ConfigError: for impossible sizes.

    Example:
        >>> import torch
        >>> network = GatedPixelCNN((1, 5, 5), 4, filters=8, layers=2)
        >>> network(torch.zeros(2, 1, 5, 5)).shape
        torch.Size([2, 4, 5, 5])
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        *,
        ordered: bool = False,
        filters: int = 32,
        layers: int = 5,
        kernel_size: int = 3,
        first_kernel_size: int = 7,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.ordered, self.outputs = shape, ordered, check_integer("outputs", outputs)
        self.colors = shape[0] if ordered else 1
        check_integer("layers", layers)
        check_integer("context", context, 0)
        if check_integer("filters", filters) % self.colors:
            raise ConfigError(f"filters must be a multiple of the {self.colors} channels; got {filters}.")
        if check_kernel("first_kernel_size", first_kernel_size) < 3 or check_kernel("kernel_size", kernel_size) < 3:
            raise ConfigError(
                f"kernel_size and first_kernel_size must be at least 3; got {kernel_size} and {first_kernel_size}."
            )
        self.layers = nn.ModuleList(
            GatedLayer(
                filters if k else 2 * shape[0],
                filters,
                kernel_size if k else first_kernel_size,
                self.colors,
                context,
                not k,
            )
            for k in range(layers)
        )
        self.hidden = MaskedConv2d(filters, filters, (1, 1), "B", self.colors)
        self.last = MaskedConv2d(filters, outputs, (1, 1), "B", self.colors)
        with torch.no_grad():
            self.last.weight.mul_(0.1)
            assert self.last.bias is not None
            self.last.bias.zero_()

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(n, channels, height, width)``, of the order of 1, to ``(n, outputs, height, width)``."""
        v = h = channels_last(with_ones(x))  # faster on CPU
        context = bounded_context(context)
        for layer in self.layers:
            v, h = layer(v, h, context)
        return self.last(F.relu(self.hidden(F.relu(h))))
