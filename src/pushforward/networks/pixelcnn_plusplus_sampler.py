"""The network of PixelCNN++ pixel by pixel, for sampling, with the arithmetic of about one pass over the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.networks.activations import concat_elu
from pushforward.networks.pixelcnn import bounded_context, with_ones
from pushforward.networks.pixelcnn_plusplus import (
    Block,
    Double,
    Halve,
    PixelCNNPlusPlus,
    ShiftedConv2d,
    residual,
)

__all__ = ["PixelCNNPlusPlusSampler"]


class TwoRows:
    """The last two rows of inputs of a down-shifted convolution."""

    def __init__(self, conv: ShiftedConv2d, rows: int, width: int, like: Tensor) -> None:
        self.conv, self.held = conv, like.new_zeros(rows, conv.in_channels, 2, width)

    def put(self, row: Tensor) -> None:
        """Append a row, ``(rows, inputs, 1, width)``."""
        self.held = torch.cat((self.held[:, :, 1:], row), 2)

    def __call__(self, row: Tensor) -> Tensor:
        """Append a row, and return the row of outputs that ends in it."""
        self.put(row)
        return self.read()

    def read(self) -> Tensor:
        """The row of outputs that ends in the last row."""
        return self.conv.rows(self.held)


class RowPair:
    """The inputs of a right-shifted 2 x 2 convolution: the row above, and the known part of the current row."""

    def __init__(self, conv: ShiftedConv2d, rows: int, width: int, like: Tensor) -> None:
        self.conv, self.step = conv, conv.stride[0]
        self.above = like.new_zeros(rows, width + 1, conv.in_channels)
        self.here = torch.zeros_like(self.above)
        self.taps = conv.weight[:, :, 1].permute(0, 2, 1).flatten(1)
        self.added = like

    def turn(self) -> None:
        """Begin a row: the current row becomes the one above."""
        self.above, self.here = self.here, self.above

    def prepare(self, more: Tensor | float = 0.0) -> None:
        """Compute the terms of the row above, of the bias and of ``more`` for each pixel of the row."""
        raw = F.conv1d(self.above.transpose(1, 2), self.conv.weight[:, :, 0], self.conv.bias, self.step)
        self.added = (raw.unsqueeze(2) + more).squeeze(2).permute(2, 0, 1).contiguous()

    def put(self, column: int, value: Tensor) -> None:
        """Set the inputs in this column, ``(rows, inputs)``."""
        self.here[:, column + 1] = value

    def read(self, column: int) -> Tensor:
        """The outputs in this column of the outputs."""
        start = self.step * column
        return F.linear(self.here[:, start : start + 2].flatten(1), self.taps) + self.added[column]

    def __call__(self, column: int, value: Tensor) -> Tensor:
        """Set a column, and return the outputs that end in it."""
        self.put(column, value)
        return self.read(column)


class IncrementalBlock:
    """A block of both streams, with what it needs of earlier pixels."""

    def __init__(self, block: Block, rows: int, width: int, context: Tensor | None, like: Tensor) -> None:
        self.block = block
        self.strips = [TwoRows(conv, rows, width, like) for conv in (block.above.first, block.above.second)]
        self.cells = [RowPair(conv, rows, width, like) for conv in (block.left.first, block.left.second)]
        self.shifts = [part.shift(context) for part in (block.above, block.left)]
        self.across, *self.skip = [link.weight[:, :, 0, 0] for link in block.left.links]  # pyright: ignore[reportIndexIssue]

    def row(self, above: Tensor, *skip: Tensor) -> Tensor:
        """A row of the upper stream, ``(rows, filters, 1, width)``; the left stream begins its row."""
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


class LevelChange:
    """Halving and doubling between a level and the next coarser one, with what they need of earlier pixels."""

    def __init__(self, halve: Halve, double: Double, rows: int, width: int, like: Tensor) -> None:
        self.width, self.double = width, double
        self.strip, self.cells = TwoRows(halve.above, rows, width, like), RowPair(halve.left, rows, width, like)
        self.doubled = like
        """Two doubled rows of the upper stream."""
        self.coarse = like.new_zeros(rows, -(-width // 2), double.left.in_channels)
        """The last row of the left stream before doubling."""
        self.taps = [[double.left.weight[:, :, a, b].t().contiguous() for b in (0, 1)] for a in (0, 1)]

    def put_row(self, above: Tensor, even: bool) -> None:
        """A row on the way down; an even one is halved together with the row before, an odd one with the next."""
        self.strip.put(above)
        self.cells.turn()
        if even:
            self.cells.prepare()


class RowTraversal:
    """The traversal of a row of the upper stream."""

    def __init__(self, sampler: PixelCNNPlusPlusSampler) -> None:
        self.sampler = sampler

    def down(self, level: int, index: int, h: Tensor) -> Tensor:
        """See :class:`~pushforward.networks.pixelcnn_plusplus.Traversal`."""
        h = self.sampler.blocks["down", level, index].row(h)
        if index == self.sampler.network.layers - 1 and level < len(self.sampler.between):
            self.sampler.between[level].put_row(h, (self.sampler.row >> level) % 2 == 0)
        return h

    def halve(self, level: int, h: Tensor) -> Tensor:
        """A row of the next level."""
        return self.sampler.between[level].strip.read()

    def up(self, level: int, index: int, h: Tensor, skip: Tensor) -> Tensor:
        """See :class:`~pushforward.networks.pixelcnn_plusplus.Traversal`."""
        return self.sampler.blocks["up", level, index].row(h, skip)

    def double(self, level: int, h: Tensor | None) -> Tensor:
        """The first of the two rows of a new row at the next level, or the second of the last one if there is no new row."""
        between = self.sampler.between[level]
        if h is None:
            return between.doubled[:, :, 1:]
        between.doubled = between.double.rows(h, between.width)
        return between.doubled[:, :, :1]


class PixelTraversal:
    """The traversal of a pixel of the left stream."""

    def __init__(self, sampler: PixelCNNPlusPlusSampler, column: int) -> None:
        self.sampler, self.column = sampler, column

    def down(self, level: int, index: int, h: Tensor) -> Tensor:
        """See :class:`~pushforward.networks.pixelcnn_plusplus.Traversal`."""
        column = self.column >> level
        h = self.sampler.blocks["down", level, index].pixel(column, h)
        if index == self.sampler.network.layers - 1 and level < len(self.sampler.between):
            self.sampler.between[level].cells.put(column, h)
        return h

    def halve(self, level: int, h: Tensor) -> Tensor:
        """A pixel of the next level."""
        return self.sampler.between[level].cells.read(self.column >> (level + 1))

    def up(self, level: int, index: int, h: Tensor, skip: Tensor) -> Tensor:
        """See :class:`~pushforward.networks.pixelcnn_plusplus.Traversal`."""
        return self.sampler.blocks["up", level, index].pixel(self.column >> level, h, skip)

    def double(self, level: int, h: Tensor | None) -> Tensor:
        """One of the four pixels of a pixel at the next level."""
        between, row, column = self.sampler.between[level], self.sampler.row >> level, self.column >> level
        if h is not None:
            between.coarse[:, column // 2] = h
        return F.linear(between.coarse[:, column // 2], between.taps[row % 2][column % 2], between.double.left.bias)


class PixelCNNPlusPlusSampler:
    """Outputs of a :class:`PixelCNNPlusPlus` pixel by pixel, each computed once, without gradient.

    Like :class:`~pushforward.networks.pixelcnn_sampler.PixelCNNSampler`, it keeps the last and the current row of the inputs of
    each convolution. A coarser level is computed at every second row and column of the finer one, and its result is kept for
    the pixels between.

    Args:
        network: in evaluation mode.
        rows: number of images.
        context: ``(rows, context)``.
        like: a tensor of the floating type and device of the images.
    """

    def __init__(self, network: PixelCNNPlusPlus, rows: int, context: Tensor | None, like: Tensor) -> None:
        self.network, self.row = network, -1
        channels, _, width = network.shape
        context = bounded_context(context)
        self.blocks = {
            (way, level, index): IncrementalBlock(network.block(way, level, index), rows, side, context, like)
            for level, (_, side) in enumerate(network.sides)
            for way, count in (("down", network.layers), ("up", network.layers + (level < network.scales - 1)))
            for index in range(count)
        }
        self.between = [
            LevelChange(network.halving(level), network.doubling(level), rows, network.sides[level][1], like)
            for level in range(network.scales - 1)
        ]
        self.above = TwoRows(network.above, rows, width, like)
        self.here = like.new_zeros(rows, 2 * channels, 1, width)
        """The current row of the image and its channels of ones, as the network reads it."""
        self.taps = network.left.weight[:, :, 1, 0]
        self.last = network.last.weight[:, :, 0, 0]
        self.added: Tensor = like

    def start_row(self) -> None:
        """Begin the next row, and compute the upper stream, which does not depend on it."""
        self.row += 1
        network, last = self.network, self.above.held[:, :, 1:]
        left = F.conv2d(F.pad(last, (1, -1)), network.left.weight[:, :, :1], network.left.bias)
        self.added = (network.over.rows(last) + left).squeeze(2).permute(2, 0, 1).contiguous()
        network.traverse(self.above.read(), self._deepest(self.row), RowTraversal(self))
        self.here = with_ones(torch.zeros_like(self.here[:, ::2]))

    def pixel(self, column: int) -> Tensor:
        """Outputs for the pixel in this column of the current row, ``(rows, outputs)``."""
        left = self.added[column]
        if column:
            left = left + F.linear(self.here[:, :, 0, column - 1], self.taps)
        deepest = min(self._deepest(self.row), self._deepest(column))
        left = self.network.traverse(left, deepest, PixelTraversal(self, column))
        return F.linear(F.elu(left), self.last, self.network.last.bias)

    def put(self, column: int, channel: int, value: Tensor) -> None:
        """Set a channel of a pixel of the current row, ``(rows,)``, as the network reads it."""
        self.here[:, 2 * channel, 0, column] = value

    def end_row(self, seen: Tensor | None = None) -> None:
        """End the row; with ``seen``, ``(rows, channels, width)``, its content is given and not sampled."""
        if seen is not None:
            self.here = with_ones(seen.unsqueeze(2))
            for column in range(seen.shape[-1]):
                self.pixel(column)
        self.above.put(self.here)

    def _deepest(self, index: int) -> int:
        """The coarsest level that has this row or column."""
        level = 0
        while level < self.network.scales - 1 and index % 2 ** (level + 1) == 0:
            level += 1
        return level
