"""Large batches in parts: the same gradient with less memory, and sooner, as what a part leaves behind stays in reach.

A batch of thousands of rows of a wide network writes its activations to memory that the system must first clear, page by page,
and reads them back from there. Of a part they fit into memory that is there already, much of it cache.
"""

from __future__ import annotations

from torch import Tensor

from pushforward.models.base import Model
from pushforward.models.row_parts import widest_layer
from pushforward.training.sources import Batch

__all__ = ["in_parts"]

LARGE, PART, WIDE = 8192, 2048, 512
"""Rows of a batch that is split, rows of a part, and outputs of a layer that make a network wide."""


def in_parts(model: Model, batch: Batch, accumulate: int | None = None) -> list[Batch]:
    """The batch, or parts of it whose gradients add up to its own.

    It is split on a CPU where it is large, the network is wide, and the loss is the mean of losses of rows that do not see
    each other: no batch normalization, and no loss of the model's own.

    Args:
        model: that reads it.
        batch: to split.
        accumulate: parts of nearly one size, whatever model and device; at most one for each row.
    """
    rows = batch.x.shape[0] if batch.x.dim() else 0
    if accumulate is not None:
        size = -(-rows // accumulate)
        return [batch] if size >= rows else split(batch, size)
    apart = type(model).loss is Model.loss and not model.chain.needs_refresh
    if rows < LARGE or batch.x.device.type != "cpu" or not apart or widest_layer(model) < WIDE:
        return [batch]
    return split(batch, PART)


def split(batch: Batch, size: int) -> list[Batch]:
    """Parts of so many rows; the last one has the rest."""
    xs = batch.x.split(size)
    contexts: list[Tensor | None] = [None] * len(xs) if batch.context is None else list(batch.context.split(size))
    return [batch._replace(x=x, context=context) for x, context in zip(xs, contexts, strict=True)]
