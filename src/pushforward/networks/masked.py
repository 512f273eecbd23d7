"""A linear layer with fixed zeros that skips large blocks of zeros."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from pushforward.kernels import tuning
from pushforward.numerics import is_eager
from pushforward.numerics.tracing import is_batched, is_compiling

__all__ = ["MaskedLinear"]


class MaskedLinear(nn.Linear):
    """A linear layer with fixed zeros: y = (W * mask) x + b.

    The product W * mask is not kept between calls: not every change of W raises its version counter (fused Adam's does not),
    and an old product would give a wrong likelihood without notice. Instead a wide layer on the CPU is split into blocks of
    rows. Each block multiplies only the columns that any of its rows uses, and is masked only where its rows differ. With units
    sorted by degree this saves about 3/8 of the arithmetic and most of the masking.

    Args:
        mask: ``(outputs, inputs)``, true where a weight may differ from 0.
        groups: number of equal groups of rows, each of which is sorted by degree.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, groups: int = 1) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.groups = groups
        self.register_buffer("mask", mask)
        self._plan: tuple[Tensor, tuple[int, int], tuple[_Block, ...]] | None = None
        self._factor: tuple[Tensor, int, Tensor] | None = None
        self.clear()

    @torch.no_grad()
    def clear(self) -> None:
        """Set the weights that the mask hides to 0.

        A weight decay that is added to the gradient would shrink them, and Adam's averages of their gradients, to denormal
        numbers, with which some processors compute ten times as slowly.
        """
        self.weight.mul_(self.mask)

    def forward(self, input: Tensor) -> Tensor:
        """``(*batch, inputs)`` to ``(*batch, outputs)``."""
        blocks = self._blocks(input)
        if not blocks:
            return F.linear(input, self.weight * self.factor(), self.bias)
        rows = input.reshape(-1, self.in_features)
        return BlockLinear.apply(rows, self.weight, self.bias, self.factor(), blocks).reshape(*input.shape[:-1], -1)

    def factor(self) -> Tensor:
        """The mask in the type of the weights, as a product with booleans takes up to 30 times longer; as booleans in a graph."""
        mask, kept = self.mask, self._factor
        if is_compiling() or mask.is_inference():
            return mask
        # The identity and version of a tensor that a tracer wraps say nothing about its content.
        if kept is not None and kept[0] is mask and kept[1] == mask._version and kept[2].dtype is self.weight.dtype:
            return kept[2]
        with torch.inference_mode(False):  # a later caller may need a gradient
            factor = mask.to(self.weight.dtype)
        if is_eager():
            self._factor = (mask, mask._version, factor)
        return factor

    def _blocks(self, input: Tensor) -> tuple[_Block, ...]:
        """The row blocks, or none where the whole product is faster or needed."""
        large = (
            self.out_features // self.groups >= tuning.MASKED_FROM_UNITS
            and self.in_features >= tuning.MASKED_FROM_INPUTS
        )
        if not large or input.numel() < tuning.MASKED_FROM_ROWS * self.in_features or input.device.type != "cpu":
            return ()
        if not is_eager() or torch.is_autocast_enabled("cpu"):
            return ()
        mask = self.mask
        if mask.is_inference():
            return ()
        # The optimizer does not change a mask, so its version counts every change.
        state = (mask.data_ptr(), mask._version)
        if self._plan is None or self._plan[0] is not mask or self._plan[1] != state:
            self._plan = (mask, state, row_blocks(mask, self.groups))
        return self._plan[2]


class _Block(NamedTuple):
    """Rows, the columns that any of them uses, and the columns that some but not all of them use."""

    rows: slice
    columns: slice
    partial: slice


def row_blocks(mask: Tensor, groups: int) -> tuple[_Block, ...]:
    """Equal blocks of the rows of each group, for any mask; none if they would save little."""
    blocks: list[_Block] = []
    size = mask.shape[0] // groups
    edges = [
        group * size + part * size // tuning.MASKED_ROW_BLOCKS
        for group in range(groups)
        for part in range(tuning.MASKED_ROW_BLOCKS)
    ]
    for begin, end in zip(edges, [*edges[1:], mask.shape[0]], strict=True):
        seen, shared = mask[begin:end].any(0), mask[begin:end].all(0)
        columns = _extent(seen)
        blocks.append(_Block(slice(begin, end), columns, _extent(seen & ~shared)))
    area = sum((block.rows.stop - block.rows.start) * (block.columns.stop - block.columns.start) for block in blocks)
    return tuple(blocks) if area < 0.75 * mask.numel() else ()


class BlockLinear(Function):
    """The product by blocks of rows, and its gradient by the same blocks. Second derivatives and ``vmap`` use the whole product."""

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
        # For a second derivative, or for several gradients together, which in-place operations cannot have.
        if torch.is_grad_enabled() or is_batched(gradient):
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
    """The weights of a block, masked in the columns where its rows differ."""
    piece = weight[block.rows, block.columns]
    if block.partial.stop > block.partial.start:
        piece = (
            piece * mask[block.rows, block.columns]
        )  # one operation on all columns is faster than a copy and an operation on some
    return piece


def _extent(columns: Tensor) -> slice:
    used = columns.nonzero().flatten().tolist()
    return slice(used[0], used[-1] + 1) if used else slice(0, 0)
