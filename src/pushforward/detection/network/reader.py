"""`NetworkReader`: features, logits and inner layers of any network, in one forward pass and without changing it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from pushforward.detection.modes import evaluation
from pushforward.detection.network.arguments import check_arguments
from pushforward.detection.network.closed_parts import (
    closed_parts,
    kind_of,
    outer_part,
    with_linear_layer,
)
from pushforward.detection.network.head import Head, find_head
from pushforward.detection.network.hooks import Hook, hooked
from pushforward.detection.network.layers import changed_later, channels_first, choose_layers, padded, trace
from pushforward.detection.network.padding import Padding, find_padding
from pushforward.detection.network.reading import (
    Reading,
    find_logits,
    floating_type,
    length,
    move,
    plain_tensor,
    pool,
    real,
    run,
)
from pushforward.errors import ConfigError, InputError, warn_caller

__all__ = ["NetworkReader"]


class NetworkReader:
    """Read a network by hooks that exist only during the call: the network, its mode and its weights stay as they are.

    The first batch shows where the parts are: the last linear layer is the :class:`~torch.nn.Linear` whose output is what the network
    returns, up to its shape, to a function such as the softmax or the sigmoid, or to factors and shifts of its columns; the inner layers
    are the last ones at each resolution; and the padding of sequences is what a mask, lengths or a token say that does not change what
    the network returns.

    Args:
        net: any module.
        logits: name or index of the part of its output with one row per input; None where it is clear.
        layers: names of inner layers (of ``net.named_modules()``), "auto", or none.
        features: name of the module whose pooled output is the features; None for the input of the last linear layer.
        read: a function from inputs to a :class:`Reading`, in place of hooks, for compiled and scripted networks.

    Attributes:
        classifies: whether the network's output are logits; None until known.
        found: the last linear layer, or None.
        layers: names of the inner layers.
        copies: names among the layers and ``features`` whose output a later module changes in place, so that it is copied.
        channels_last: names among the layers, ``features`` and the last linear layer whose output is ``(n, height, width, channels)``.
        padding: what says where sequences are padded.
        averages: whether the last batch had values that were averaged over all positions ``(n, T, D)``.

    Raises:
        ConfigError: for a network that hooks cannot read, or a name that it does not have.

    Example:
        >>> import torch, pushforward as pf
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> reading = pf.detection.network.NetworkReader(net).read(torch.zeros(2, 4))
        >>> reading.features.shape, reading.logits.shape
        (torch.Size([2, 8]), torch.Size([2, 3]))
    """

    def __init__(
        self,
        net: nn.Module | Callable[..., Any],
        *,
        logits: str | int | None = None,
        layers: Sequence[str] | str = "auto",
        features: str | None = None,
        read: Callable[[Any], Reading] | None = None,
    ) -> None:
        self.net, self.logits, self.features, self.function = net, logits, features, read
        self.transposes = True
        if read is None:
            self._check_hooks(net)
        modules = dict(net.named_modules()) if isinstance(net, nn.Module) else {}
        self.automatic = layers == "auto"
        if layers is None or (isinstance(layers, str) and layers != "auto"):
            raise ConfigError(
                f"layers must be 'auto' or a list of names of modules, which may be empty; got {layers!r}."
            )
        self.layers: tuple[str, ...] = () if isinstance(layers, str) else tuple(dict.fromkeys(layers))
        if read is None:
            for name in (*self.layers, *([] if features is None else [features])):
                self._check_open(name)
                if name not in modules:
                    raise ConfigError(
                        f"the network has no module {name!r}; its modules are {', '.join(list(modules)[1:9])}, ..."
                    )
        self.found: Head | None = None
        self.copies, self.channels_last, self.padding = frozenset[str](), frozenset[str](), Padding()
        self.ready, self.averages = False, False
        self.classifies: bool | None = None

    @staticmethod
    def _check_hooks(net: Any) -> None:
        kind = type(net).__name__
        if isinstance(net, nn.DataParallel) and len(net.device_ids) > 1:
            raise ConfigError(
                "nn.DataParallel runs copies of the network in other threads: guard its module, net.module."
            )
        closed = kind_of(net)
        if closed is not None or not isinstance(net, nn.Module):
            if not callable(net):
                raise ConfigError(f"a network must be a torch.nn.Module, or a function with read=; got {net!r:.60}.")
            what = "a compiled network" if closed == "compiled" else f"a {kind}"
            before = ""
            if closed == "compiled":
                before = ", or the network before torch.compile, which has the same weights"
            if getattr(net, "_compiled_call_impl", None) is not None:
                before = ", or make or load the guard first and call net.compile() after that"
            raise ConfigError(
                f"hooks cannot read {what}: pass read=, a function from inputs to pf.detection.network.Reading (output, features, "
                f"logits, layers){before}."
            )

    def _check_open(self, name: str) -> None:
        """Refuse the name of a module that hooks cannot read."""
        closed = closed_parts(self.net) if isinstance(self.net, nn.Module) else {}
        part = outer_part(name, closed)
        if part is not None:
            raise ConfigError(
                f"hooks cannot read the layer {name!r}, because the part {part!r} is {closed[part]}: "
                "guard the network before torch.compile, which keeps the weights, or before torch.jit.script, or pass read=."
            )

    # -- what the network has --------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device | None:
        """The device of the network's first parameter or buffer."""
        if not isinstance(self.net, nn.Module):
            return None
        return next((tensor.device for tensor in chain(self.net.parameters(), self.net.buffers())), None)

    @property
    def dtype(self) -> torch.dtype | None:
        """The floating-point type of the network's weights, which arrays get; None if they have several, or none."""
        return floating_type(self.net)

    @property
    def head(self) -> str | None:
        """The name of the last linear layer, or None."""
        return None if self.found is None else self.found.name

    @property
    def head_module(self) -> nn.Linear | None:
        """The last linear layer."""
        if self.head is None or not isinstance(self.net, nn.Module):
            return None
        module: Any = self.net.get_submodule(self.head)
        return module

    def weight_and_bias(self) -> tuple[Tensor, Tensor] | None:
        """Weight ``(C, D)`` and bias ``(C,)`` that give the logits from the features, float64, not part of any graph."""
        head = self.head_module
        if head is None or self.found is None:
            return None
        weight = head.weight.detach().double()
        bias = weight.new_zeros(len(weight)) if head.bias is None else head.bias.detach().double()
        return self.found.weights(weight, bias)

    def restore(
        self,
        found: Head | None,
        classifies: bool,
        *,
        transposes: bool = True,
        copies: Sequence[str] = (),
        channels_last: Sequence[str] = (),
        padding: Padding | None = None,
    ) -> None:
        """Set what the first batch showed, from a file; ``layers`` are given to the constructor.

        Without ``transposes`` outputs ``(n, channels, length)`` are averaged over channels, as in files of before.

        Raises:
            ConfigError: if the network has no such linear layer.
        """
        modules = dict(self.net.named_modules()) if isinstance(self.net, nn.Module) else {}
        if found is not None:
            self._check_open(found.name)
            module = modules.get(found.name)
            if not isinstance(module, nn.Linear):
                raise ConfigError(f"the network has no linear layer {found.name[:80]!r}.")
            if any(not -1 <= place < module.out_features for place in found.columns):
                raise ConfigError(
                    f"the linear layer {found.name[:80]!r} has other columns: load the guard with the network that it was fitted to."
                )
        self.found, self.classifies, self.ready = found, classifies, True
        self.transposes, self.copies = bool(transposes), frozenset(map(str, copies))
        self.channels_last, self.padding = frozenset(map(str, channels_last)), padding or Padding()

    def _discover(self, inputs: Any) -> None:
        """Find the last linear layer and the inner layers with one batch."""
        assert isinstance(self.net, nn.Module)
        check_arguments(self.net, inputs)
        self.padding = find_padding(self.net, inputs, self._logits_of)
        mask = self.padding.mask(inputs)
        calls, output = trace(self.net, inputs, mask)
        logits = find_logits(output, self.logits)
        assert logits is not None
        self.found = find_head(calls, logits, mask)
        self.channels_last = frozenset(call.name for call in calls if call.last)
        self._check_parts()
        if self.automatic:
            features = None if self.head is None else self._from_hooks(inputs, False).features
            self.layers = choose_layers(calls, self.head, features, mask)
        read = self._named if not self.automatic else frozenset(() if self.features is None else (self.features,))
        self.copies = changed_later(self.net, inputs, read)
        self.channels_last &= self._named | {self.head or ""}
        self.ready = True  # last, since another thread may ask

    def _logits_of(self, inputs: Any) -> Tensor:
        logits = find_logits(run(self.net, inputs), self.logits)
        assert logits is not None
        return pool(logits, None)

    def _check_parts(self) -> None:
        """Refuse a network whose last linear layer may be in a part that hooks cannot read, and name compiled parts."""
        assert isinstance(self.net, nn.Module)
        closed = closed_parts(self.net)
        part = with_linear_layer(self.net, closed) if self.head is None and self.features is None else None
        if part is not None:
            raise ConfigError(
                f"the last linear layer of the network was not found, and the part {part!r} is {closed[part]}: "
                "guard the network before torch.compile, which keeps the weights, or before torch.jit.script, or pass read=."
            )
        compiled = [part for part, kind in closed.items() if kind == "compiled"]
        if compiled and self.automatic:
            warn_caller(
                f"the layers of the compiled part {compiled[0]!r} are not read, so the score has fewer statistics: guard the network before "
                "torch.compile, which has the same weights, or pass layers=[]."
            )

    # -- reading -----------------------------------------------------------------------------------------------------------

    def read(self, inputs: Any, *, maps: bool = False, grad: bool | None = False) -> Reading:
        """Read a batch in evaluation mode; the mode of every module is restored.

        Args:
            inputs: what the network takes: a tensor, a tuple of positional or a dictionary of keyword arguments.
            maps: whether to keep the outputs of the inner layers before pooling.
            grad: whether to build a graph; None leaves that as it is.

        Raises:
            InputError: if the output has another number of rows than the inputs, or complex numbers.
        """
        inputs = move(inputs, self.device, self.dtype)
        with evaluation(self.net), nullcontext() if grad is None else torch.set_grad_enabled(grad):
            if self.function is not None:
                return self._from_function(inputs)
            if not self.ready:
                self._discover(inputs)
            return self._from_hooks(inputs, maps)

    def _from_function(self, inputs: Any) -> Reading:
        assert self.function is not None
        reading = self.function(inputs)
        if not isinstance(reading, Reading):
            raise ConfigError(f"read must return a pf.detection.network.Reading; got {type(reading).__name__}.")
        self.layers, self.ready = tuple(reading.layers), True
        reading.features = _plain(pool(plain_tensor(reading.features), None))
        reading.logits = None if reading.logits is None else _plain(plain_tensor(reading.logits))
        reading.layers = {name: _plain(pool(plain_tensor(values), None)) for name, values in reading.layers.items()}
        found = {"features": reading.features, "logits": reading.logits, **reading.layers}
        for name, values in found.items():
            if values is not None and len(values) != length(inputs):
                raise InputError(
                    f"read= gave {len(values)} rows of {name} for {length(inputs)} inputs: give one row for each input."
                )
        reading.inputs, reading.reader = inputs, self
        return reading

    @property
    def _named(self) -> frozenset[str]:
        """The modules whose outputs are read."""
        return frozenset((*self.layers, *([] if self.features is None else [self.features])))

    @cached_property
    def _channels_first(self) -> frozenset[str]:
        """Modules whose outputs are ``(n, channels, length)``."""
        assert isinstance(self.net, nn.Module)
        return channels_first(self.net) if self.transposes else frozenset()

    def _from_hooks(self, inputs: Any, maps: bool) -> Reading:
        assert isinstance(self.net, nn.Module)
        seen: dict[str, Tensor] = {}
        heads: list[tuple[Tensor, Tensor]] = []
        names = self._named
        first = self._channels_first if names else frozenset()
        hooks: list[tuple[nn.Module, Hook]] = [
            (
                self.net.get_submodule(name),
                _keeps(seen, name, name in first, name in self.copies, name in self.channels_last),
            )
            for name in names
        ]
        head = self.head_module
        if head is not None:
            hooks.append((head, _keeps_both(heads)))
        with hooked(hooks):
            output = run(self.net, inputs)
        found = self.found
        if found is not None and len(heads) < -found.call:
            self._check_open(self.head or "")
            often = "did not run" if not heads else f"ran {len(heads)} times, and on the first batch more often,"
            raise InputError(
                f"the last linear layer {self.head!r} {often} on this batch in the thread of the call: guard a network that runs it for "
                "every batch, or pass read=."
            )
        head_input, head_output = heads[found.call] if found is not None else (None, None)
        logits = find_logits(output, self.logits)
        assert logits is not None
        mask = self.padding.mask(inputs)
        if found is not None and head_output is not None and not found.is_output:
            logits = head_output
        if self.head in self.channels_last and head_input is not None:
            logits = logits.movedim(-1, 1) if logits.dim() == head_input.dim() else logits
            head_input = head_input.movedim(-1, 1)
        logits = _plain(pool(logits, mask))
        missing = [name for name in names if name not in seen]
        if missing:
            self._check_open(missing[0])
            raise InputError(
                f"the layer {missing[0]!r} returned no tensor with one row per input on this batch: leave it out of layers=."
            )
        positions = [*seen.values(), *([] if head_input is None else [head_input])]
        self.averages = mask is None and any(values.dim() == 3 for values in positions)
        layers = {name: _plain(pool(seen[name], mask)) for name in self.layers}
        if self.features is not None:
            features = _plain(pool(seen[self.features], mask))
        elif head_input is not None:
            features = _plain(pool(head_input, mask))
        else:
            features = layers[self.layers[-1]] if self.layers and self.classifies else logits
        if logits.shape[0] != length(inputs):
            if isinstance(inputs, Tensor) and inputs.dim() == 1:
                raise InputError(
                    f"the network returned {logits.shape[0]} rows for a vector of {length(inputs)} numbers, which are that many inputs: give "
                    "one input as a batch, x[None]."
                )
            raise InputError(
                f"the network returned {logits.shape[0]} rows for {length(inputs)} inputs: name the part of its output with one "
                "row per input with logits=. Batches in which a row is a part of an input, such as a node of a graph, cannot be guarded."
            )
        kept = {name: seen[name] for name in self.layers} if maps else {}
        kept = {name: _without_padding(values, mask) for name, values in kept.items()}
        return Reading(output, features, logits, layers, kept, inputs, self)


def _plain(values: Tensor) -> Tensor:
    """On the CPU, in at least single precision: what a network shows is small, and its scores want precision.

    Raises:
        InputError: for complex numbers.
    """
    values = real(values).cpu()
    return values.float() if values.dtype in (torch.float16, torch.bfloat16, torch.bool) else values


def _without_padding(values: Tensor, mask: Tensor | None) -> Tensor:
    """The map of a layer with zeros where a sequence is padding."""
    if values.is_nested:
        return padded(values, mask)
    if mask is None or values.dim() != 3 or mask.shape != values.shape[:2]:
        return values
    return torch.where(mask.unsqueeze(2).to(values.device), values, 0)


def _keeps(seen: dict[str, Tensor], name: str, channels_first: bool, copies: bool, channels_last: bool) -> Hook:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        tensor = find_logits(output, None) if not isinstance(output, Tensor) else output
        if isinstance(tensor, Tensor):
            tensor = tensor.clone() if copies else tensor
            if channels_last and tensor.dim() >= 4:
                tensor = tensor.movedim(-1, 1)
            seen[name] = tensor.transpose(1, 2) if channels_first and tensor.dim() == 3 else tensor

    return hook


def _keeps_both(heads: list[tuple[Tensor, Tensor]]) -> Hook:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        heads.append((args[0] if args else kwargs["input"], output))

    return hook
