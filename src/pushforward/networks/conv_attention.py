"""A convolutional conditioner with self-attention between pixels (Flow++, Ho et al. 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.networks.activations import concat_elu
from pushforward.networks.attention import attend
from pushforward.networks.mlp import check_options
from pushforward.numerics import bound_input
from pushforward.numerics.checks import check_integer, check_widths

__all__ = ["ConvAttentionNet"]


class ConvAttentionBlock(nn.Module):
    """h + gate(convolution), then h + gate(attention), each followed by a layer norm over the channels of a pixel."""

    def __init__(self, width: int, sides: tuple[int, int], heads: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.first = nn.Conv2d(2 * width, width, kernel_size, padding=kernel_size // 2)
        self.second = nn.Conv2d(2 * width, 2 * width, 1)
        self.position = nn.Parameter(0.01 * torch.randn(width, *sides))
        self.project, self.out = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, 2 * width, 1)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """``(rows, width, H, W)`` to the same shape."""
        h = h + F.glu(self.second(self.dropout(concat_elu(self.first(concat_elu(h))))), 1)
        h = self._normalized(h, 0)
        tokens = self.project(h + self.position).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(-1, -2)
        seen = attend(*tokens.unbind(1))  # (rows, heads, H W, width / heads)
        seen = seen.transpose(-1, -2).flatten(1, 2).unflatten(-1, h.shape[-2:])
        return self._normalized(h + F.glu(self.out(self.dropout(seen)), 1), 1)

    def _normalized(self, h: Tensor, which: int) -> Tensor:
        return self.norms[which](h.movedim(1, -1)).movedim(-1, 1)


class ConvAttentionNet(nn.Module):
    """k x k convolution, blocks of a gated convolution and gated self-attention, and a last k x k (Ho et al. 2019, sec. 3.3).

    Args:
        inputs: channels in.
        outputs: channels out.
        sides: (height, width) of the images; each pixel has a trainable position embedding.
        hidden: the number of blocks and their equal width.
        heads: number of attention heads; a divisor of the width.
        kernel_size: odd k.
        dropout: probability, inside the blocks.
        input_bound: the network sees its input clamped to this range, so its output is bounded everywhere.
        output_gain: factor on the last layer's initial weights; its bias starts at 0.

    Raises:
        ConfigError: for impossible sizes.

    Example:
        >>> import torch
        >>> ConvAttentionNet(3, 2, (4, 6), hidden=(8, 8))(torch.zeros(5, 3, 4, 6)).shape
        torch.Size([5, 2, 4, 6])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        sides: tuple[int, int],
        hidden: tuple[int, ...] = (32, 32),
        *,
        heads: int = 4,
        kernel_size: int = 3,
        dropout: float = 0.0,
        input_bound: float | None = None,
        output_gain: float = 0.0,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = check_integer("inputs", inputs), check_integer("outputs", outputs)
        self.sides, self.hidden = (sides[0], sides[1]), check_widths("hidden", hidden, equal=True)
        self.kernel_size, self.dropout, self.input_bound = (
            check_integer("kernel_size", kernel_size),
            dropout,
            input_bound,
        )
        check_options(dropout, input_bound)
        if kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size must be odd; got {kernel_size}.")
        width = self.hidden[0]
        if width % check_integer("heads", heads):
            raise ConfigError(
                f"the hidden width must be a multiple of heads; got a width of {width} and heads={heads}."
            )
        self.heads = heads
        self.first = nn.Conv2d(inputs, width, kernel_size, padding=kernel_size // 2)
        self.blocks = nn.Sequential(
            *(ConvAttentionBlock(width, self.sides, heads, kernel_size, dropout) for _ in self.hidden)
        )
        self.last = nn.Conv2d(width, outputs, kernel_size, padding=kernel_size // 2)
        with torch.no_grad():
            self.last.weight.mul_(output_gain)
            if self.last.bias is not None:
                self.last.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """``(*batch, inputs, H, W)`` to ``(*batch, outputs, H, W)``."""
        rows = x.reshape(-1, self.inputs, *self.sides).to(self.last.weight.dtype)  # coordinates may be float64
        if self.input_bound is not None:
            rows = bound_input(rows, self.input_bound)
        return self.last(self.blocks(self.first(rows))).reshape(*x.shape[:-3], self.outputs, *self.sides)
