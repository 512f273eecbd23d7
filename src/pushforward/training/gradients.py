"""Loss and gradients of one batch, computed in microbatches where that saves time or memory.

With thousands of rows and a wide network, the activations of a batch need new memory, which the operating system must
clear page by page. The activations of a part fit into memory that is already there, much of it cache.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pushforward.kernels import tuning
from pushforward.models.base import Model
from pushforward.models.row_parts import widest_layer
from pushforward.training.compiled_loss import Loss
from pushforward.training.distributed import Processes
from pushforward.training.sources import Batch

__all__ = ["gradients", "split_batch"]


def gradients(
    model: Model,
    parameters: list[nn.Parameter],
    batch: Batch,
    *,
    noise: torch.Generator,
    clip: float | None,
    amp: bool,
    microbatches: int | None = None,
    loss_function: Loss | None = None,
    processes: Processes | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss and gradient norm of a batch. The gradients, clipped to norm ``clip``, are stored in the parameters.

    Args:
        model: model to train.
        parameters: its trainable parameters.
        batch: rows of the step.
        noise: generator for the noise of transforms.
        clip: largest norm of the gradient, or None.
        amp: whether to compute the loss under bfloat16 autocast.
        microbatches: number of parts, see :func:`split_batch`.
        loss_function: replaces ``model.loss``.
        processes: those that share the batch; their gradients are added.
    """
    loss_function = model.loss if loss_function is None else loss_function
    for parameter in parameters:
        parameter.grad = None
    losses = []
    for part in split_batch(model, batch, microbatches):
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=amp):
            loss = loss_function(part.x, part.context, generator=noise)
        if part is not batch or batch.whole is not None:
            loss = loss * (len(part.x) / (batch.whole or len(batch.x)))
        loss.backward()
        losses.append(loss.detach())
    loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
    if processes is not None:
        loss = processes.add(parameters, loss)
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    # On a CPU, reading the norm is free and usually avoids the pass that scales; a GPU would have to wait for it.
    if clip is not None and (norm.device.type != "cpu" or norm > clip):
        nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    return loss, norm


def split_batch(model: Model, batch: Batch, microbatches: int | None = None) -> list[Batch]:
    """The batch, or parts of it whose gradients add up to the gradient of the batch.

    Without ``microbatches`` it is split only on a CPU, if it is large, the network is wide, and the loss is a mean over
    independent rows: no batch normalization, and ``Model.loss`` not overridden.

    Args:
        model: model that reads the batch.
        batch: batch to split.
        microbatches: number of parts of nearly equal size, at most one for each row; or None.
    """
    rows = batch.x.shape[0] if batch.x.dim() else 0
    if microbatches is not None:
        parts = min(microbatches, rows)
        return [batch] if parts <= 1 else _split(batch, _sizes(rows, parts))
    rows_are_independent = type(model).loss is Model.loss and not model.needs_refresh
    if (
        rows < tuning.MICROBATCH_FROM_ROWS
        or batch.x.device.type != "cpu"
        or not rows_are_independent
        or widest_layer(model) < tuning.MICROBATCH_FROM_OUTPUTS
    ):
        return [batch]
    return _split(batch, tuning.MICROBATCH_ROWS)


def _sizes(rows: int, parts: int) -> list[int]:
    """Numbers of rows that add up to ``rows`` and differ by at most one, the larger first."""
    size, larger = divmod(rows, parts)
    return [size + 1] * larger + [size] * (parts - larger)


def _split(batch: Batch, sizes: int | list[int]) -> list[Batch]:
    """Parts of these sizes; for one number, all but the last have that many rows."""
    xs = batch.x.split(sizes)
    contexts: list[Tensor | None] = [None] * len(xs) if batch.context is None else list(batch.context.split(sizes))
    return [batch._replace(x=x, context=context) for x, context in zip(xs, contexts, strict=True)]
