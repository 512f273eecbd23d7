"""Which modules of a network run, in which order, and which of them are worth reading."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.detection.network.closed_parts import closed_parts, outer_part
from pushforward.detection.network.hooks import Hook, hooked
from pushforward.detection.network.reading import pool, run

__all__ = ["Call", "changed_later", "channels_first", "choose_layers", "padded", "trace"]

_MOST = 3
"""Largest number of inner layers that are chosen."""
_WIDEST = 2048
"""Largest number of features of an inner layer: its covariance has the square of that."""


_FIRST = (
    nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.InstanceNorm1d, nn.GroupNorm, nn.Dropout1d, nn.MaxPool1d, nn.AvgPool1d, nn.LPPool1d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d,
)  # fmt: skip
_KEEPS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus,
    nn.Softsign, nn.Hardswish, nn.Hardtanh, nn.Hardsigmoid, nn.Dropout, nn.Identity,
)  # fmt: skip


_IMAGES = (
    nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Conv3d,
    nn.ConvTranspose3d, nn.BatchNorm3d, nn.InstanceNorm3d, nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.GroupNorm,
)  # fmt: skip


class Call(NamedTuple):
    """One call of a module: its name, the module, the tensor that it returned, and whether that is an image with its channels last."""

    name: str
    module: nn.Module
    output: Tensor
    last: bool = False

    @property
    def ordered(self) -> Tensor:
        """The output with its channels first."""
        return self.output.movedim(-1, 1) if self.last else self.output


def channels_first(net: nn.Module) -> frozenset[str]:
    """Names of the modules whose outputs of three dimensions are ``(n, channels, length)``, as those of convolutions, not ``(n, T, D)``.

    These are such layers, activations after them in a ``Sequential``, and a ``Sequential`` that ends with one.
    """
    found: set[str] = set()

    def visit(name: str, module: nn.Module, before: bool) -> bool:
        first = isinstance(module, _FIRST) or (before and isinstance(module, _KEEPS))
        for part, child in module.named_children():
            inside = visit(f"{name}.{part}" if name else part, child, first and isinstance(module, nn.Sequential))
            first = inside and isinstance(module, nn.Sequential)
        if first:
            found.add(name)
        return first

    visit("", net, False)
    return frozenset(found)


def trace(net: nn.Module, inputs: Any, mask: Tensor | None = None) -> tuple[list[Call], Any]:
    """The calls of all modules on one batch, in the order in which they end, and what the network returned.

    Modules in compiled and scripted parts are left out. Outputs ``(n, height, width, channels)`` are those of a linear layer or a layer
    normalization, and all others of their shape.

    Args:
        net: the network.
        inputs: a batch.
        mask: of its padding.
    """
    calls: list[Call] = []
    first = channels_first(net)
    shapes: set[tuple[int, ...]] = set()  # of outputs of three dimensions with channels first
    images: set[tuple[int, ...]] = set()  # of four and more dimensions with channels first
    last: set[tuple[int, ...]] = set()  # and with channels last

    def record(name: str) -> Hook:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, (tuple, list)) and output else output
            if isinstance(tensor, Tensor) and tensor.is_nested:
                tensor = padded(tensor, mask)
            if isinstance(tensor, Tensor) and tensor.dim() == 3 and name in first:
                shapes.add(tuple(tensor.shape))
                tensor = tensor.transpose(1, 2)
            elif isinstance(tensor, Tensor) and tuple(tensor.shape) in shapes and not isinstance(module, nn.Linear):
                return  # it may be such an output too, as that of an activation which is called anywhere
            if isinstance(tensor, Tensor) and tensor.dim() >= 4:
                if isinstance(module, _IMAGES):
                    images.add(tuple(tensor.shape))
                elif _has_channels_last(module, tensor):
                    last.add(tuple(tensor.shape))
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.dim() >= 2:
                calls.append(Call(name, module, tensor))

        return hook

    closed = closed_parts(net)
    modules = [(name, module) for name, module in net.named_modules() if outer_part(name, closed) is None]
    with hooked([(module, record(name)) for name, module in modules]):
        output = run(net, inputs)
    return [call._replace(last=tuple(call.output.shape) in last - images) for call in calls], output


def _has_channels_last(module: nn.Module, output: Tensor) -> bool:
    """Whether an output of four or more dimensions is that of a layer whose channels are the last of them."""
    if isinstance(module, nn.Linear):
        return True
    return type(module) is nn.LayerNorm and tuple(module.normalized_shape) == (output.shape[-1],)


def changed_later(net: nn.Module, inputs: Any, names: Collection[str]) -> frozenset[str]:
    """Those of the named modules whose output on one batch is changed in place after they return it, as by ``ReLU(inplace=True)``."""
    kept: dict[str, tuple[Tensor, Tensor]] = {}
    if not names:
        return frozenset()

    def keep(name: str) -> Hook:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, (tuple, list)) and output else output
            if isinstance(tensor, Tensor) and not tensor.is_nested:
                kept[name] = tensor, tensor.detach().clone()

        return hook

    with hooked([(net.get_submodule(name), keep(name)) for name in names]):
        run(net, inputs)
    return frozenset(
        name for name, (after, before) in kept.items() if not torch.equal(after.nan_to_num(), before.nan_to_num())
    )


def padded(values: Tensor, mask: Tensor | None) -> Tensor:
    """A nested tensor of sequences as ``(n, T, D)`` with zeros at the end, T being that of the mask of padding."""
    found = values.to_padded_tensor(0.0)
    missing = 0 if mask is None else mask.shape[1] - found.shape[1]
    return F.pad(found, (0, 0, 0, missing)) if missing > 0 and found.dim() == 3 else found


def choose_layers(calls: list[Call], head: str | None, features: Tensor | None, mask: Tensor | None) -> tuple[str, ...]:
    """Names of the inner layers to read, at most three.

    Modules with one shape of output are a stage. Of a network with several stages the last module of each of the last three is taken
    (averaging the large maps of earlier ones costs time); of one whose layers all have the same width, modules at equal distances. Left out are the head and what comes after it, modules that run several
    times, outputs that are wider than 2,048, and outputs that another module or the features repeat.
    """
    names = [record.name for record in calls]
    end = names.index(head) if head is not None and head in names else len(calls)
    kept: list[Call] = []
    for record in calls[:end]:
        output = record.ordered
        shape = tuple(output.shape[1:])
        width = shape[-1] if len(shape) == 2 else shape[0]
        plain = isinstance(record.module, (nn.Flatten, nn.Identity))
        if not record.name or names.count(record.name) > 1 or width > _WIDEST or plain:
            continue
        if features is not None and (len(output) != len(features) or _equal(pool(output, mask), features)):
            continue
        if kept and _equal(kept[-1].output, record.output):
            kept.pop()
        kept.append(record)
    last = {tuple(record.output.shape[1:]): record.name for record in kept}
    found = [record.name for record in kept]
    if len(last) > 2:
        found = [name for name in found if name in last.values()][-_MOST:]
    if len(found) > _MOST:
        found = [found[i] for i in torch.linspace(0, len(found) - 1, _MOST).round().long().tolist()]
    return tuple(found)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b.to(a))
