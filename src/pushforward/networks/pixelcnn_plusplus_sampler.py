"""One pixel after the other through the network of PixelCNN++, with the arithmetic of about one pass over the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.networks.pixelcnn import bounded_context, with_ones
from pushforward.networks.pixelcnn_plusplus import (
    Block,
    Double,
    Halve,
    PixelCNNPlusPlus,
    ShiftedConv2d,
    concat_elu,
    residual,
)

__all__ = ["PixelCNNPlusPlusSampler"]


class Strip:
    """The last two rows of inputs of a down-shifted convolution."""

    def __init__(self, conv: ShiftedConv2d, rows: int, width: int, like: Tensor) -> None:
        self.conv, self.held = conv, like.new_zeros(rows, conv.in_channels, 2, width)

    def put(self, row: Tensor) -> None:
        """A row more, ``(rows, inputs, 1, width)``."""
        self.held = torch.cat((self.held[:, :, 1:], row), 2)

    def __call__(self, row: Tensor) -> Tensor:
        """Put a row, and return the outputs that end in it."""
        self.put(row)
        return self.read()

    def read(self) -> Tensor:
        """The outputs that end in the last row."""
        return self.conv.rows(self.held)


class Cells:
    """The inputs of a right-shifted 2 x 2 convolution: of the row above, and of the present one as far as it is known."""

    def __init__(self, conv: ShiftedConv2d, rows: int, width: int, like: Tensor) -> None:
        self.conv, self.step = conv, conv.stride[0]
        self.above = like.new_zeros(rows, width + 1, conv.in_channels)
        self.here = torch.zeros_like(self.above)
        self.taps = conv.weight[:, :, 1].permute(0, 2, 1).flatten(1)
        self.added = like

    def turn(self) -> None:
        """The present row becomes the one above."""
        self.above, self.here = self.here, self.above

    def prepare(self, more: Tensor | float = 0.0) -> None:
        """What the row above, the bias and ``more`` add to each pixel of the row."""
        raw = F.conv1d(self.above.transpose(1, 2), self.conv.weight[:, :, 0], self.conv.bias, self.step)
        self.added = (raw.unsqueeze(2) + more).squeeze(2).permute(2, 0, 1).contiguous()

    def put(self, column: int, value: Tensor) -> None:
        """Inputs in this column, ``(rows, inputs)``."""
        self.here[:, column + 1] = value

    def read(self, column: int) -> Tensor:
        """Outputs in this column of the outputs."""
        start = self.step * column
        return F.linear(self.here[:, start : start + 2].flatten(1), self.taps) + self.added[column]

    def __call__(self, column: int, value: Tensor) -> Tensor:
        """Put a column, and return the outputs that end in it."""
        self.put(column, value)
        return self.read(column)


class KeptBlock:
    """What a block of both streams needs of earlier pixels."""

    def __init__(self, block: Block, rows: int, width: int, context: Tensor | None, like: Tensor) -> None:
        self.block = block
        self.strips = [Strip(conv, rows, width, like) for conv in (block.above.first, block.above.second)]
        self.cells = [Cells(conv, rows, width, like) for conv in (block.left.first, block.left.second)]
        self.shifts = [part.shift(context) for part in (block.above, block.left)]
        self.across, *self.skip = [link.weight[:, :, 0, 0] for link in block.left.links]  # pyright: ignore[reportIndexIssue]

    def row(self, above: Tensor, *skip: Tensor) -> Tensor:
        """A row of the stream above, ``(rows, filters, 1, width)``; the left one begins its own."""
        part = self.block.above
        above = residual(
            above, lambda h: part.linked(self.strips[0](h), skip), lambda h: self.strips[1](h) + self.shifts[0]
        )
        for cells in self.cells:
            cells.turn()
        self.cells[0].prepare(F.conv2d(concat_elu(above), self.across[:, :, None, None]))
        self.cells[1].prepare(self.shifts[1])
        return above

    def pixel(self, column: int, left: Tensor, *skip: Tensor) -> Tensor:
        """A pixel of the left stream, ``(rows, filters)``."""

        def first(h: Tensor) -> Tensor:
            h = self.cells[0](column, h)
            for weight, other in zip(self.skip, skip, strict=True):
                h = h + F.linear(concat_elu(other), weight)
            return h

        return residual(left, first, lambda h: self.cells[1](column, h))


class Between:
    """What halving and doubling need of earlier pixels, between a level and the next."""

    def __init__(self, halve: Halve, double: Double, rows: int, width: int, like: Tensor) -> None:
        self.width, self.double = width, double
        self.strip, self.cells = Strip(halve.above, rows, width, like), Cells(halve.left, rows, width, like)
        self.doubled = like
        """Two rows of the stream above, doubled."""
        self.coarse = like.new_zeros(rows, -(-width // 2), double.left.in_channels)
        """The last row of the left stream, not doubled."""
        self.taps = [[double.left.weight[:, :, a, b].t().contiguous() for b in (0, 1)] for a in (0, 1)]

    def put_row(self, above: Tensor, even: bool) -> None:
        """Rows on the way down, to be halved with the next one or (even) with the last."""
        self.strip.put(above)
        self.cells.turn()
        if even:
            self.cells.prepare()


class Rows:
    """The passage of a row of the stream above."""

    def __init__(self, walk: PixelCNNPlusPlusSampler) -> None:
        self.walk = walk

    def down(self, level: int, place: int, h: Tensor) -> Tensor:
        """See :class:`~pushforward.networks.pixelcnn_plusplus.Passage`, as for the others."""
        h = self.walk.blocks["down", level, place].row(h)
        if place == self.walk.network.layers - 1 and level < len(self.walk.between):
            self.walk.between[level].put_row(h, (self.walk.row >> level) % 2 == 0)
        return h

    def halve(self, level: int, h: Tensor) -> Tensor:
        """A row of the next level."""
        return self.walk.between[level].strip.read()

    def up(self, level: int, place: int, h: Tensor, skip: Tensor) -> Tensor:
        """A block with short-cuts."""
        return self.walk.blocks["up", level, place].row(h, skip)

    def double(self, level: int, h: Tensor | None) -> Tensor:
        """The first row that comes of one at the next level, or where that has none the second one of the last."""
        between = self.walk.between[level]
        if h is None:
            return between.doubled[:, :, 1:]
        between.doubled = between.double.rows(h, between.width)
        return between.doubled[:, :, :1]


class Pixels:
    """The passage of a pixel of the left stream."""

    def __init__(self, walk: PixelCNNPlusPlusSampler, column: int) -> None:
        self.walk, self.column = walk, column

    def down(self, level: int, place: int, h: Tensor) -> Tensor:
        """See :class:`~pushforward.networks.pixelcnn_plusplus.Passage`, as for the others."""
        column = self.column >> level
        h = self.walk.blocks["down", level, place].pixel(column, h)
        if place == self.walk.network.layers - 1 and level < len(self.walk.between):
            self.walk.between[level].cells.put(column, h)
        return h

    def halve(self, level: int, h: Tensor) -> Tensor:
        """A pixel of the next level."""
        return self.walk.between[level].cells.read(self.column >> (level + 1))

    def up(self, level: int, place: int, h: Tensor, skip: Tensor) -> Tensor:
        """A block with short-cuts."""
        return self.walk.blocks["up", level, place].pixel(self.column >> level, h, skip)

    def double(self, level: int, h: Tensor | None) -> Tensor:
        """One of the four pixels that come of one at the next level."""
        between, row, column = self.walk.between[level], self.walk.row >> level, self.column >> level
        if h is not None:
            between.coarse[:, column // 2] = h
        return F.linear(between.coarse[:, column // 2], between.taps[row % 2][column % 2], between.double.left.bias)


class PixelCNNPlusPlusSampler:
    """Outputs of a :class:`PixelCNNPlusPlus` pixel by pixel, each computed once, without gradient.

    As :class:`~pushforward.networks.pixelcnn_sampler.PixelCNNSampler`: convolutions keep the last row and the present one, a coarser level is
    visited at every second row and column of the finer one, and what it gave is kept for the pixels between.

    Args:
        network: in evaluation mode.
        rows: how many images at once.
        context: ``(rows, context)``.
        like: a tensor of the floating type and device of the images.
    """

    def __init__(self, network: PixelCNNPlusPlus, rows: int, context: Tensor | None, like: Tensor) -> None:
        self.network, self.row = network, -1
        channels, _, width = network.shape
        context = bounded_context(context)
        self.blocks = {
            (way, level, place): KeptBlock(network.block(way, level, place), rows, side, context, like)
            for level, (_, side) in enumerate(network.sides)
            for way, count in (("down", network.layers), ("up", network.layers + (level < network.scales - 1)))
            for place in range(count)
        }
        self.between = [
            Between(network.halving(level), network.doubling(level), rows, network.sides[level][1], like)
            for level in range(network.scales - 1)
        ]
        self.above = Strip(network.above, rows, width, like)
        self.here = like.new_zeros(rows, 2 * channels, 1, width)
        """The present row of the image with its ones, as the network sees it."""
        self.taps = network.left.weight[:, :, 1, 0]
        self.last = network.last.weight[:, :, 0, 0]
        self.added: Tensor = like

    def start_row(self) -> None:
        """Begin the next row: the stream above, which does not depend on it."""
        self.row += 1
        network, last = self.network, self.above.held[:, :, 1:]
        left = F.conv2d(F.pad(last, (1, -1)), network.left.weight[:, :, :1], network.left.bias)
        self.added = (network.over.rows(last) + left).squeeze(2).permute(2, 0, 1).contiguous()
        network.through(self.above.read(), self._deepest(self.row), Rows(self))
        self.here = with_ones(torch.zeros_like(self.here[:, ::2]))

    def pixel(self, column: int) -> Tensor:
        """Outputs for the pixel in this column of the present row, ``(rows, outputs)``."""
        left = self.added[column]
        if column:
            left = left + F.linear(self.here[:, :, 0, column - 1], self.taps)
        deepest = min(self._deepest(self.row), self._deepest(column))
        left = self.network.through(left, deepest, Pixels(self, column))
        return F.linear(F.elu(left), self.last, self.network.last.bias)

    def put(self, column: int, channel: int, value: Tensor) -> None:
        """Set a channel of a pixel of the present row, ``(rows,)``, as the network sees it."""
        self.here[:, 2 * channel, 0, column] = value

    def end_row(self, seen: Tensor | None = None) -> None:
        """End the row, or pass over it with given content ``(rows, channels, width)``."""
        if seen is not None:
            self.here = with_ones(seen.unsqueeze(2))
            for column in range(seen.shape[-1]):
                self.pixel(column)
        self.above.put(self.here)

    def _deepest(self, index: int) -> int:
        """The coarsest level that has a row or column here."""
        level = 0
        while level < self.network.scales - 1 and index % 2 ** (level + 1) == 0:
            level += 1
        return level
