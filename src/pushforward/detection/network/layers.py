"""Which modules of a network run, in which order, and which of them are worth reading."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pushforward.detection.network.reading import call

__all__ = ["Call", "choose_layers", "trace"]

_MOST = 4
"""Largest number of inner layers that are chosen."""
_WIDEST = 2048
"""Largest number of features of an inner layer: its covariance has the square of that."""


class Call(NamedTuple):
    """One call of a module: its name, the module, and the tensor that it returned."""

    name: str
    module: nn.Module
    output: Tensor


def trace(net: nn.Module, inputs: Any) -> tuple[list[Call], Any]:
    """The calls of all modules on one batch, in the order in which they end, and what the network returned."""
    calls: list[Call] = []
    handles = []
    for name, module in net.named_modules():

        def hook(module: nn.Module, _: Any, output: Any, name: str = name) -> None:
            tensor = output[0] if isinstance(output, (tuple, list)) and output else output
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.dim() >= 2:
                calls.append(Call(name, module, tensor))

        handles.append(module.register_forward_hook(hook))
    try:
        return calls, call(net, inputs)
    finally:
        for handle in handles:
            handle.remove()


def choose_layers(calls: list[Call], head: str | None, rows: int) -> tuple[str, ...]:
    """Names of the inner layers to read: the last module at each resolution, at most four, evenly spread.

    Modules of one shape of output (without the first dimension) form a group, in the order of the calls; the last module of a
    group stands for it. The head and what comes after it are left out, and so are modules that were called several times.
    """
    names = [record.name for record in calls]
    end = names.index(head) if head is not None and head in names else len(calls)
    if head is None and calls and calls[-1].name == "":
        end = len(calls) - 1  # the network itself
    groups: dict[tuple[int, ...], str] = {}
    for record in calls[:end]:
        shape = tuple(record.output.shape[1:])
        width = shape[-1] if len(shape) == 2 else shape[0]
        plain = isinstance(record.module, (nn.Flatten, nn.Identity))  # the input itself, or another layer once more
        if (
            record.name
            and len(record.output) == rows
            and names.count(record.name) == 1
            and width <= _WIDEST
            and not plain
        ):
            groups.pop(shape, None)
            groups[shape] = record.name
    found = list(groups.values())
    if len(found) > _MOST:
        found = [found[i] for i in torch.linspace(0, len(found) - 1, _MOST).round().long().tolist()]
    return tuple(found)
