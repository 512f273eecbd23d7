"""PixelCNN++: two streams of shifted convolutions, without masks, at several resolutions with skip connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.networks.activations import concat_elu
from pushforward.networks.mlp import check_options
from pushforward.networks.pixelcnn import bounded_context, with_ones
from pushforward.numerics.checks import check_integer
from pushforward.numerics.conversion import channels_last

__all__ = ["PixelCNNPlusPlus"]

H = TypeVar("H")
Streams = tuple[Tensor, Tensor]


class ShiftedConv2d(nn.Conv2d):
    """A convolution whose kernel ends at its own pixel: in its row ("down"), or in its row and column ("right").

    A "down" kernel has an odd width and reads columns on both sides. A strict one ends one row ("down") or one column
    ("right") earlier. The padding is 0, and a stride of 2 keeps rows and columns 0, 2, ...
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], way: str, *, strict: bool = False, stride: int = 1
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride)
        (height, width), back = kernel, int(strict)
        if way == "down":
            self.sides, self.ends = (width // 2, width // 2), (height - 1 + back, -back)
        else:
            self.sides, self.ends = (width - 1 + back, -back), (height - 1, 0)

    def forward(self, input: Tensor) -> Tensor:
        """``(n, inputs, height, width)`` to ``(n, outputs, height / stride, width / stride)``, rounded up."""
        return super().forward(F.pad(input, (*self.sides, *self.ends)))

    def rows(self, input: Tensor) -> Tensor:
        """One row of outputs, from as many rows of inputs as the kernel has."""
        return super().forward(F.pad(input, self.sides))


def residual(x: Tensor, first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Tensor:
    """x + a sigmoid(b) with (a, b) = second(concat_elu(first(concat_elu(x)))), a gated residual block."""
    return x + F.glu(second(concat_elu(first(concat_elu(x)))), 1)


class GatedBlock(nn.Module):
    """A gated residual block of one stream; links from other features enter after its first convolution."""

    def __init__(
        self, filters: int, kernel: tuple[int, int], way: str, links: int, dropout: float, context: int
    ) -> None:
        super().__init__()
        self.first = ShiftedConv2d(2 * filters, filters, kernel, way)
        self.links = nn.ModuleList(nn.Conv2d(2 * filters, filters, 1, bias=False) for _ in range(links))
        self.dropout = nn.Dropout(dropout)
        self.second = ShiftedConv2d(2 * filters, 2 * filters, kernel, way)
        self.context = nn.Linear(context, 2 * filters) if context else None
        with torch.no_grad():
            self.second.weight.mul_(0.1)  # blocks start near the identity

    def forward(self, x: Tensor, others: tuple[Tensor, ...], context: Tensor | None) -> Tensor:
        """``(n, filters, height, width)`` to the same shape."""
        return residual(
            x,
            lambda h: self.linked(self.first(h), others),
            lambda h: self.second(self.dropout(h)) + self.shift(context),
        )

    def linked(self, h: Tensor, others: tuple[Tensor, ...]) -> Tensor:
        """h plus the terms of the other features."""
        for link, other in zip(self.links, others, strict=True):
            h = h + link(concat_elu(other))
        return h

    def shift(self, context: Tensor | None) -> Tensor | float:
        """The term of the context before the gate."""
        return 0.0 if self.context is None else self.context(context).unsqueeze(-1).unsqueeze(-1)


class Block(nn.Module):
    """A gated block of both streams; the left one links to the one above."""

    def __init__(self, filters: int, skip: bool, dropout: float, context: int) -> None:
        super().__init__()
        self.above = GatedBlock(filters, (2, 3), "down", int(skip), dropout, context)
        self.left = GatedBlock(filters, (2, 2), "right", 1 + skip, dropout, context)

    def forward(self, streams: Streams, skip: Streams | None, context: Tensor | None) -> Streams:
        """Both streams after the block; on the way up each also links to itself on the way down."""
        above = self.above(streams[0], skip[:1] if skip else (), context)
        return above, self.left(streams[1], (above, *(skip[1:] if skip else ())), context)


class Halve(nn.Module):
    """Every second row and column of both streams, by convolutions of stride 2."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.above = ShiftedConv2d(filters, filters, (2, 3), "down", stride=2)
        self.left = ShiftedConv2d(filters, filters, (2, 2), "right", stride=2)


class Double(nn.Module):
    """Twice the rows and columns, by transposed convolutions: a pixel reaches its own row and column, and the next."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.above = nn.ConvTranspose2d(filters, filters, (2, 3), stride=2)
        self.left = nn.ConvTranspose2d(filters, filters, (2, 2), stride=2)

    def rows(self, above: Tensor, width: int) -> Tensor:
        """Twice as many rows of the stream above, cut to ``width``."""
        return self.above(above)[..., 1 : 1 + width]


class Traversal(Protocol[H]):
    """The operations of a traversal of the network: for whole images, or for a row or a pixel in sampling."""

    def down(self, level: int, index: int, h: H) -> H:
        """A block on the way down."""
        ...

    def halve(self, level: int, h: H) -> H:
        """To the next coarser level."""
        ...

    def up(self, level: int, index: int, h: H, skip: H) -> H:
        """A block on the way up, with the features of the way down (``skip``)."""
        ...

    def double(self, level: int, h: H | None) -> H:
        """From the next coarser level to this one; ``h`` is None if nothing is new there."""
        ...


class WholeImages:
    """The traversal of whole images: both streams, all pixels at once."""

    def __init__(self, network: PixelCNNPlusPlus, context: Tensor | None) -> None:
        self.network, self.context = network, context

    def down(self, level: int, index: int, h: Streams) -> Streams:
        """See :class:`Traversal`."""
        return self.network.block("down", level, index)(h, None, self.context)

    def halve(self, level: int, h: Streams) -> Streams:
        """Every second row and column."""
        halve = self.network.halving(level)
        return halve.above(h[0]), halve.left(h[1])

    def up(self, level: int, index: int, h: Streams, skip: Streams) -> Streams:
        """See :class:`Traversal`."""
        return self.network.block("up", level, index)(h, skip, self.context)

    def double(self, level: int, h: Streams | None) -> Streams:
        """Twice as many rows and columns, cropped to the sides of the level."""
        assert h is not None
        double, (height, width) = self.network.doubling(level), self.network.sides[level]
        return double.rows(h[0], width)[:, :, :height], double.left(h[1])[:, :, :height, :width]


class PixelCNNPlusPlus(nn.Module):
    """The network of PixelCNN++ (Salimans, Karpathy, Chen, Kingma 2017, arXiv 1701.05517, sec. 2.2-2.5 and fig. 2).

    One stream reads the rows above a pixel through 2 x 3 kernels that end in its row. The other stream also reads the pixels to
    the left through 2 x 2 kernels, and the first stream. Both have gated residual blocks with concatenated ELU at ``scales``
    resolutions, first down and then up; a block on the way up also reads the features of the way down. Odd sides are
    rounded up when halved and cropped after doubling. The input has a channel of ones for each color. The context is added to
    every gate. The weights are not normalized, other than in the authors' code.

    No output depends on its own pixel, so the distribution of a pixel must model the dependence of its channels.

    Args:
        shape: (channels, height, width).
        outputs: number of outputs for each pixel.
        filters: F, the width of each stream; 160 in the paper.
        layers: number of blocks at each resolution on the way down, and one more on the way up except at the coarsest; 5 in the
            paper.
        scales: number of resolutions; 3 in the paper.
        dropout: probability, in every block; 0.5 in the paper.
        context: width of the context.

    Raises:
        ConfigError: for impossible sizes.

    Example:
        >>> import torch
        >>> network = PixelCNNPlusPlus((1, 5, 7), 4, filters=8, layers=1)
        >>> network(torch.zeros(2, 1, 5, 7)).shape
        torch.Size([2, 4, 5, 7])
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        *,
        filters: int = 32,
        layers: int = 2,
        scales: int = 3,
        dropout: float = 0.0,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.outputs = shape, check_integer("outputs", outputs)
        self.filters, self.layers = check_integer("filters", filters), check_integer("layers", layers)
        self.scales = check_integer("scales", scales)
        check_integer("context", context, 0)
        check_options(dropout, None)
        inputs = 2 * shape[0]
        self.above = ShiftedConv2d(inputs, filters, (2, 3), "down", strict=True)
        self.over = ShiftedConv2d(inputs, filters, (1, 3), "down", strict=True)
        self.left = ShiftedConv2d(inputs, filters, (2, 1), "right", strict=True)

        def blocks(count: int, skip: bool) -> nn.ModuleList:
            return nn.ModuleList(Block(filters, skip, dropout, context) for _ in range(count))

        self.ways = nn.ModuleDict({
            "down": nn.ModuleList(blocks(layers, False) for _ in range(scales)),
            "up": nn.ModuleList(blocks(layers + (level < scales - 1), True) for level in range(scales)),
        })  # fmt: skip
        self.halves = nn.ModuleList(Halve(filters) for _ in range(scales - 1))
        self.doubles = nn.ModuleList(Double(filters) for _ in range(scales - 1))
        self.last = nn.Conv2d(filters, outputs, 1)
        with torch.no_grad():
            self.last.weight.mul_(0.1)
            assert self.last.bias is not None
            self.last.bias.zero_()
        self.sides = [(-(-shape[1] // 2**level), -(-shape[2] // 2**level)) for level in range(scales)]
        """Height and width at each level."""

    def block(self, way: str, level: int, index: int) -> Block:
        """A block of the way "down" or "up"."""
        return self.ways[way][level][index]  # pyright: ignore[reportIndexIssue]

    def halving(self, level: int) -> Halve:
        """From this level to the next coarser one."""
        return self.halves[level]  # pyright: ignore[reportReturnType]

    def doubling(self, level: int) -> Double:
        """From the next coarser level to this one."""
        return self.doubles[level]  # pyright: ignore[reportReturnType]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(n, channels, height, width)``, of the order of 1, to ``(n, outputs, height, width)``."""
        x = channels_last(with_ones(x))  # faster on CPU
        start = (self.above(x), self.over(x) + self.left(x))
        _, left = self.traverse(start, self.scales - 1, WholeImages(self, bounded_context(context)))
        return self.last(F.elu(left))

    def traverse(self, h: H, deepest: int, traversal: Traversal[H]) -> H:
        """Down to the level ``deepest`` and up again, with the features of all blocks on the way down as skip connections.

        If there are coarser levels, the traversal itself has their features from an earlier call.
        """
        kept = [h]
        for level in range(deepest + 1):
            if level:
                h = traversal.halve(level - 1, h)
                kept.append(h)
            for index in range(self.layers):
                h = traversal.down(level, index, h)
                kept.append(h)
        h = kept.pop() if deepest == self.scales - 1 else traversal.double(deepest, None)
        for level in reversed(range(deepest + 1)):
            for index in range(self.layers + (level < self.scales - 1)):
                h = traversal.up(level, index, h, kept.pop())
            if level:
                h = traversal.double(level - 1, h)
        return h
