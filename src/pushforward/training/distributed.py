"""`Processes`: what the processes of one data parallel run tell each other. Nothing here runs unless ``distributed=True``.

Every process has the whole model and takes its part of each batch. The gradients of a step are weighted by the numbers of
rows and added, so each process makes the step that a single process would make with the whole batch.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from pushforward.errors import ConfigError
from pushforward.training.sources import Share

__all__ = ["Agreed", "Processes", "join"]


class Agreed(NamedTuple):
    """What all processes know after a step.

    Attributes:
        loss: of the whole batch.
        interrupted: whether one of them is to stop.
        elapsed: mean of their seconds of training.
    """

    loss: Tensor
    interrupted: bool
    elapsed: float


class Processes:
    """The processes of a run.

    Args:
        share: the place of this process among them.
    """

    def __init__(self, share: Share) -> None:
        self.share = share
        self.interrupted = False
        """Whether this process is to stop; the others learn it with the next step."""
        self.elapsed = 0.0
        """Seconds of training of this process."""
        self.agreed: Agreed | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.share.rank == 0

    def add(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        """Replace the gradients by their sums over all processes.

        A parameter that has no gradient in any process has none afterwards.

        Args:
            parameters: trained parameters.
            loss: part of the loss that is due to the rows of this process.

        Returns:
            The loss of the whole batch.
        """
        kind = torch.float64 if any(p.dtype == torch.float64 for p in parameters) else torch.float32
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        more = [0.0 if p.grad is None else 1.0 for p in parameters] + [float(self.interrupted), self.elapsed]
        tail = torch.tensor(more, dtype=kind, device=loss.device)
        sums = torch.cat([*(grad.flatten().to(kind) for grad in grads), loss.reshape(1).to(kind), tail])
        distributed.all_reduce(sums)
        pieces = sums.split([*(grad.numel() for grad in grads), 1, len(more)])
        *present, interrupted, elapsed = pieces[-1].tolist()
        for parameter, piece, used in zip(parameters, pieces, present, strict=False):
            parameter.grad = piece.view_as(parameter).to(parameter.dtype) if used else None
        total = pieces[-2][0].to(loss.dtype)
        self.agreed = Agreed(total, interrupted > 0, elapsed / self.share.size)
        return total

    def same(self, value: Any) -> Any:
        """The value of the first process, in all of them."""
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    @torch.no_grad()
    def copy(self, model: nn.Module, *, buffers_only: bool = False) -> None:
        """Give the model the buffers, and its weights too, of the first process."""
        for tensor in model.buffers() if buffers_only else model.state_dict(keep_vars=True).values():
            if buffers_only and not tensor.is_floating_point():  # masks and flags do not change
                continue
            sent = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor.clone()
            distributed.broadcast(sent, src=0)
            if not self.first:
                tensor.copy_(sent)  # and not broadcast in place, so that caches that check tensor versions notice

    def gather(self, values: list[Tensor]) -> Tensor:
        """The values of all batches in their order, where each process has those of every ``size``-th batch."""
        found: list[Any] = [None] * self.share.size
        distributed.all_gather_object(found, [value.cpu() for value in values])
        longest = max(map(len, found))
        return torch.cat([batches[k] for k in range(longest) for batches in found if k < len(batches)])


def join(device: torch.device) -> Processes:
    """The processes that ``torchrun`` started, or those of the process group that the caller made.

    A group that is made here uses gloo on a CPU and NCCL on CUDA devices. It stays for the next call, because the processes
    would not find each other a second time at the same address, and ends with the program.

    Args:
        device: where the model is.

    Raises:
        ConfigError: if there are no such processes.
    """
    if not distributed.is_available():
        raise ConfigError("distributed=True needs a torch with torch.distributed.")
    if not distributed.is_initialized():
        if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
            raise ConfigError(
                "distributed=True is for a program that torchrun started in several processes: torchrun "
                "--nproc-per-node 2 program.py"
            )
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    return Processes(Share(distributed.get_rank(), distributed.get_world_size()))


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
