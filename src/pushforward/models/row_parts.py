"""Rows that are scored in parts, so that memory does not grow with the number of rows."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from pushforward.kernels import tuning
from pushforward.numerics import is_eager
from pushforward.transforms.base import Shape

__all__ = ["row_parts", "widest_layer"]


def row_parts(model: nn.Module, x: Tensor, context: Tensor | None, shape: Shape) -> list[tuple[Tensor, Tensor | None]]:
    """Rows and their contexts, split into parts that can be scored one after another.

    Few rows, rows that need a gradient, a model in training mode, and rows with errors stay one part: an error then
    names the index in the whole batch.

    Args:
        model: the model that scores the rows.
        x: data; not yet checked.
        context: contexts; not yet checked.
        shape: event shape of the data.
    """
    whole = [(x, context)]
    if model.training or torch.is_grad_enabled() or not is_eager() or not isinstance(x, Tensor):
        return whole
    if x.device.type != "cpu" or x.shape[1:] != shape or x.is_complex() or len(x) < tuning.SCORING_ROWS:
        return whole
    if context is not None and not (isinstance(context, Tensor) and context.dim() == 2 and len(context) == len(x)):
        return whole
    if context is not None and not context.sum().isfinite():
        return whole
    rows = tuning.SCORING_ROWS // 2 if widest_layer(model) >= tuning.SCORING_WIDE_OUTPUTS else tuning.SCORING_ROWS
    if len(x) < 2 * rows or not x.sum().isfinite():
        return whole
    contexts = itertools.repeat(None) if context is None else context.split(rows)
    return list(zip(x.split(rows), contexts, strict=False))


def widest_layer(module: nn.Module) -> int:
    """The largest number of outputs of a layer."""
    return max((weight.shape[0] for weight in module.parameters() if weight.dim() > 1), default=0)
