"""A linear layer with fixed zeros, which does not pay for them where they fill large blocks."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from pushforward.numerics import is_eager
from pushforward.numerics.tracing import is_compiling

__all__ = ["MaskedLinear"]

_ROW_BLOCKS = 4
_FEWEST_UNITS, _FEWEST_INPUTS, _FEWEST_ROWS = 512, 384, 256
"""Smaller layers and batches may be faster whole (measured on one core and on two, forward and backward)."""


class MaskedLinear(nn.Linear):
    """A linear layer with fixed zeros: y = (W * mask) x + b.

    Masked weights are not kept from one call to the next: no version counter tells of every change (fused Adam raises
    none), and a stale product would be a wrong likelihood in silence. Instead a wide layer on the CPU is cut into row
    blocks: each multiplies only with the columns that some of its rows may see, and is masked only where its rows
    differ. With units sorted by degree this saves about 3/8 of the arithmetic, and most of the masking.

    Args:
        mask: ``(outputs, inputs)``, true where a weight may differ from 0.
        groups: the rows are this many equal groups, each sorted by itself.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, groups: int = 1) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.groups = groups
        self.register_buffer("mask", mask)
        self._plan: tuple[Tensor, tuple[int, int], tuple[_Block, ...]] | None = None
        self._factor: tuple[Tensor, int, Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """``(*batch, inputs)`` to ``(*batch, outputs)``."""
        blocks = self._blocks(input)
        if not blocks:
            return F.linear(input, self.weight * self.factor(), self.bias)
        rows = input.reshape(-1, self.in_features)
        return BlockLinear.apply(rows, self.weight, self.bias, self.factor(), blocks).reshape(*input.shape[:-1], -1)

    def factor(self) -> Tensor:
        """The mask, as numbers of the weights' type where that is faster: a product with booleans takes up to 30 times longer."""
        mask, kept = self.mask, self._factor
        if is_compiling() or mask.is_inference():
            return mask
        # Of a tensor that a transform or a tracer wraps, neither identity nor version would tell anything.
        if kept is not None and kept[0] is mask and kept[1] == mask._version and kept[2].dtype is self.weight.dtype:
            return kept[2]
        factor = mask.to(self.weight.dtype)
        if is_eager():
            self._factor = (mask, mask._version, factor)
        return factor

    def _blocks(self, input: Tensor) -> tuple[_Block, ...]:
        """The row blocks, or none where the whole product is faster or needed."""
        wide = self.out_features // self.groups >= _FEWEST_UNITS and self.in_features >= _FEWEST_INPUTS
        if not wide or input.numel() < _FEWEST_ROWS * self.in_features or input.device.type != "cpu":
            return ()
        if not is_eager() or torch.is_autocast_enabled("cpu"):
            return ()
        mask = self.mask
        if mask.is_inference():
            return ()
        # Nothing trains a mask, so its version tells of every change.
        state = (mask.data_ptr(), mask._version)
        if self._plan is None or self._plan[0] is not mask or self._plan[1] != state:
            self._plan = (mask, state, row_blocks(mask, self.groups))
        return self._plan[2]


class _Block(NamedTuple):
    """Rows, the columns that any of them sees, and among those the columns that not all of them see."""

    rows: slice
    columns: slice
    partial: slice


def row_blocks(mask: Tensor, groups: int) -> tuple[_Block, ...]:
    """Equal row blocks of each group, with what they see; none if that is nearly everything. Right for any mask."""
    blocks: list[_Block] = []
    size = mask.shape[0] // groups
    edges = [group * size + part * size // _ROW_BLOCKS for group in range(groups) for part in range(_ROW_BLOCKS)]
    for begin, end in zip(edges, [*edges[1:], mask.shape[0]], strict=True):
        seen, shared = mask[begin:end].any(0), mask[begin:end].all(0)
        columns = _extent(seen)
        blocks.append(_Block(slice(begin, end), columns, _extent(seen & ~shared)))
    area = sum((block.rows.stop - block.rows.start) * (block.columns.stop - block.columns.start) for block in blocks)
    return tuple(blocks) if area < 0.75 * mask.numel() else ()


class BlockLinear(Function):
    """The product by row blocks, and its gradient by the same blocks. Differentiable again through the whole product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, blocks: tuple[_Block, ...]) -> Tensor:
        """``(batch, inputs)`` to ``(batch, outputs)``."""
        out = x.new_empty(x.shape[0], weight.shape[0])
        pieces = [_masked(weight, mask, block) for block in blocks]
        for block, piece in zip(blocks, pieces, strict=True):
            torch.addmm(bias[block.rows], x[:, block.columns], piece.t(), out=out[:, block.rows])
        ctx.blocks = blocks
        ctx.save_for_backward(x, weight, mask, *pieces)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias."""
        (gradient,) = gradients
        x, weight, mask, *pieces = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
        bias = gradient.sum(0) if for_bias else None
        if torch.is_grad_enabled():  # a second derivative is wanted
            whole = gradient @ (weight * mask) if for_x else None
            return whole, (gradient.t() @ x) * mask if for_weight else None, bias, None, None
        to_x = torch.zeros_like(x) if for_x else None
        to_weight = torch.zeros_like(weight) if for_weight else None
        for block, piece in zip(ctx.blocks, pieces, strict=True):
            part = gradient[:, block.rows]
            if to_x is not None:
                to_x[:, block.columns].addmm_(part, piece)
            if to_weight is not None:
                torch.mm(part.t(), x[:, block.columns], out=to_weight[block.rows, block.columns])
                to_weight[block.rows, block.partial].mul_(mask[block.rows, block.partial])
        return to_x, to_weight, bias, None, None


def _masked(weight: Tensor, mask: Tensor, block: _Block) -> Tensor:
    """The weights of a block, masked where its rows differ."""
    piece = weight[block.rows, block.columns]
    if block.partial.stop > block.partial.start:
        piece = piece * mask[block.rows, block.columns]  # one operation over all columns is faster than a copy and some
    return piece


def _extent(columns: Tensor) -> slice:
    places = columns.nonzero().flatten().tolist()
    return slice(places[0], places[-1] + 1) if places else slice(0, 0)
