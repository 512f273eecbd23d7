"""A masked convolution: outputs depend on earlier pixels in raster order, and on earlier channels of the same pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.numerics.checks import check_choice, check_integer

__all__ = ["MaskedConv2d", "check_kernel"]


def check_kernel(name: str, size: int) -> int:
    """An odd kernel size.

    Raises:
        ConfigError: if it is even or no positive integer.
    """
    if check_integer(name, size) % 2 == 0:
        raise ConfigError(f"{name} must be odd; got {size}.")
    return size


class MaskedConv2d(nn.Conv2d):
    """Convolution with fixed zeros: an output reads the pixels before its own in raster order (PixelCNN, van den Oord et
    al. 2016, arXiv 1601.06759, sec. 3.4).

    Channels form ``colors`` equal groups, one for each color. At its own pixel an output reads the groups before its own (type
    "A", for the first layer) or up to its own (type "B", for all others). At other pixels it reads all groups.

    Args:
        inputs: channels, a multiple of ``colors``.
        outputs: channels, a multiple of ``colors`` times ``parts``.
        kernel: odd height and width.
        kind: "A" or "B".
        colors: number of groups of channels; with 1, type "A" masks the whole pixel.
        parts: number of equal parts of the outputs, each with all groups.

    Raises:
        ConfigError: for impossible sizes or another kind.

    Example:
        >>> import torch
        >>> MaskedConv2d(3, 6, (3, 3), "A", colors=3)(torch.zeros(2, 3, 5, 5)).shape
        torch.Size([2, 6, 5, 5])
    """

    mask: Tensor

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], kind: str, colors: int = 1, parts: int = 1
    ) -> None:
        height, width = check_kernel("kernel", kernel[0]), check_kernel("kernel", kernel[1])
        check_integer("colors", colors)
        if inputs % colors or outputs % (colors * parts):
            raise ConfigError(
                f"inputs must be a multiple of the {colors} colors, and outputs of {colors * parts}; got {inputs} and {outputs}."
            )
        check_choice("kind", kind, ("A", "B"))
        super().__init__(inputs, outputs, (height, width), padding=(height // 2, width // 2))
        row = torch.arange(height)[:, None] - height // 2
        column = torch.arange(width)[None, :] - width // 2
        before = (row < 0) | ((row == 0) & (column < 0))
        here = (row == 0) & (column == 0)
        group_in = torch.arange(inputs) * colors // inputs
        group_out = (torch.arange(outputs // parts) * (colors * parts) // outputs).repeat(parts)
        allowed = group_in < group_out[:, None] if kind == "A" else group_in <= group_out[:, None]
        self.register_buffer("mask", before | (here & allowed[:, :, None, None]))
        with torch.no_grad():
            self.weight.mul_(self.mask)  # as in MaskedLinear.clear

    def forward(self, input: Tensor) -> Tensor:
        """``(n, inputs, height, width)`` to ``(n, outputs, height, width)``."""
        return F.conv2d(input, self.weight * self.mask, self.bias, padding=self.padding)  # pyright: ignore[reportArgumentType]
