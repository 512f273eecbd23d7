"""`NetworkReader`: features, logits and inner layers of any network, in one forward pass and without changing it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from pushforward.detection.network.arguments import check_arguments
from pushforward.detection.network.closed_parts import (
    closed_parts,
    kind_of,
    outer_part,
    with_linear_layer,
)
from pushforward.detection.network.hooks import Hook, hooked
from pushforward.detection.network.layers import changed_later, channels_first, choose_layers, padded, trace
from pushforward.detection.network.modes import evaluation
from pushforward.detection.network.reading import (
    Reading,
    find_logits,
    floating_type,
    length,
    move,
    padding_mask,
    plain_tensor,
    pool,
    run,
)
from pushforward.errors import ConfigError, InputError, warn_caller

__all__ = ["NetworkReader"]


class NetworkReader:
    """Read a network by hooks that exist only during the call: the network, its mode and its weights stay as they are.

    The first batch shows where the parts are: the last linear layer is the :class:`~torch.nn.Linear` whose output is what the
    network returns (or of which that is the softmax or the log-softmax), and the inner layers are the last ones at each
    resolution.

    Args:
        net: any module.
        logits: name or index of the part of its output with one row per input; None where it is clear.
        layers: names of inner layers (of ``net.named_modules()``), "auto", or none.
        features: name of the module whose pooled output is the features; None for the input of the last linear layer.
        read: a function from inputs to a :class:`Reading`, in place of hooks, for compiled and scripted networks.

    Attributes:
        classifies: whether the network's output are logits; None until known.
        head: name of the last linear layer, or None.
        head_call: which of its calls in a forward pass makes the logits, counted from the last one, -1.
        layers: names of the inner layers.
        copies: names among the layers and ``features`` whose output a later module changes in place, so that it is copied.

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
        self.layers: tuple[str, ...] = () if isinstance(layers, str) else tuple(layers)
        if read is None:
            for name in (*self.layers, *([] if features is None else [features])):
                self._check_open(name)
                if name not in modules:
                    raise ConfigError(
                        f"the network has no module {name!r}; its modules are {', '.join(list(modules)[1:9])}, ..."
                    )
        self.head: str | None = None
        self.head_call, self.copies = -1, frozenset[str]()
        self.ready = False
        self.classifies: bool | None = None
        self.head_is_output = True

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
    def head_module(self) -> nn.Linear | None:
        """The last linear layer."""
        if self.head is None or not isinstance(self.net, nn.Module):
            return None
        module: Any = self.net.get_submodule(self.head)
        return module

    def weight_and_bias(self) -> tuple[Tensor, Tensor] | None:
        """Weight ``(C, D)`` and bias ``(C,)`` of the last linear layer, float64, not part of any graph."""
        head = self.head_module
        if head is None:
            return None
        weight = head.weight.detach().double()
        bias = weight.new_zeros(len(weight)) if head.bias is None else head.bias.detach().double()
        return weight, bias

    def restore(
        self,
        head: str | None,
        head_is_output: bool,
        classifies: bool,
        *,
        transposes: bool = True,
        head_call: int = -1,
        copies: Sequence[str] = (),
    ) -> None:
        """Set what the first batch showed, from a file; ``layers`` are given to the constructor.

        Without ``transposes`` outputs ``(n, channels, length)`` are averaged over channels, as in files of before.

        Raises:
            ConfigError: if the network has no such linear layer.
        """
        modules = dict(self.net.named_modules()) if isinstance(self.net, nn.Module) else {}
        if head is not None:
            self._check_open(head)
        if head is not None and not isinstance(modules.get(head), nn.Linear):
            raise ConfigError(f"the network has no linear layer {str(head)[:80]!r}.")
        self.head, self.head_is_output, self.classifies, self.ready = head, bool(head_is_output), classifies, True
        self.transposes, self.head_call = bool(transposes), min(-1, int(head_call))
        self.copies = frozenset(map(str, copies))

    def _discover(self, inputs: Any) -> None:
        """Find the last linear layer and the inner layers with one batch."""
        assert isinstance(self.net, nn.Module)
        check_arguments(self.net, inputs)
        calls, output = trace(self.net, inputs)
        logits = find_logits(output, self.logits)
        assert logits is not None
        linear = [c for c in calls if isinstance(c.module, nn.Linear) and c.output.shape[-1:] == logits.shape[-1:]]
        for exact in (
            lambda c: c.output.shape == logits.shape and torch.equal(c.output, logits),
            _normalized_to(logits),
        ):
            found = [c for c in linear if exact(c)]
            if found:
                self.head_is_output = torch.equal(found[-1].output, logits)
                self.head = found[-1].name
                own = [c is found[-1] for c in linear if c.name == self.head]
                self.head_call = own.index(True) - len(own)
                break
        else:
            if linear and _picked(linear[-1].output, logits, padding_mask(inputs)):
                self.head, self.head_is_output = linear[-1].name, True
        self._check_parts()
        if self.automatic:
            features = None if self.head is None else self._from_hooks(inputs, False).features
            self.layers = choose_layers(calls, self.head, features, padding_mask(inputs))
        named = self._named if not self.automatic else frozenset(() if self.features is None else (self.features,))
        self.copies = changed_later(self.net, inputs, named)
        self.ready = True  # last, since another thread may ask

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
            InputError: if the output has another number of rows than the inputs.
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
            (self.net.get_submodule(name), _keeps(seen, name, name in first, name in self.copies)) for name in names
        ]
        head = self.head_module
        if head is not None:
            hooks.append((head, _keeps_both(heads)))
        with hooked(hooks):
            output = run(self.net, inputs)
        if head is not None and len(heads) < -self.head_call:
            self._check_open(self.head or "")
            often = "did not run" if not heads else f"ran {len(heads)} times, and on the first batch more often,"
            raise InputError(
                f"the last linear layer {self.head!r} {often} on this batch in the thread of the call: guard a network that runs it for "
                "every batch, or pass read=."
            )
        head_input, head_output = heads[self.head_call] if head is not None else (None, None)
        logits = find_logits(output, self.logits)
        assert logits is not None
        mask = padding_mask(inputs)
        if head_output is not None and not self.head_is_output:
            logits = head_output
        logits = _plain(pool(logits, mask))
        missing = [name for name in names if name not in seen]
        if missing:
            self._check_open(missing[0])
            raise InputError(
                f"the layer {missing[0]!r} returned no tensor with one row per input on this batch: leave it out of layers=."
            )
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
    """On the CPU, in at least single precision: what a network shows is small, and its scores want precision."""
    values = values.cpu()
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _without_padding(values: Tensor, mask: Tensor | None) -> Tensor:
    """The map of a layer with zeros where a sequence is padding."""
    if values.is_nested:
        return padded(values, mask)
    if mask is None or values.dim() != 3 or mask.shape != values.shape[:2]:
        return values
    return torch.where(mask.unsqueeze(2), values, 0)


def _keeps(seen: dict[str, Tensor], name: str, channels_first: bool, copies: bool) -> Hook:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        tensor = find_logits(output, None) if not isinstance(output, Tensor) else output
        if isinstance(tensor, Tensor):
            tensor = tensor.clone() if copies else tensor
            seen[name] = tensor.transpose(1, 2) if channels_first and tensor.dim() == 3 else tensor

    return hook


def _keeps_both(heads: list[tuple[Tensor, Tensor]]) -> Hook:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        heads.append((args[0] if args else kwargs["input"], output))

    return hook


def _picked(values: Tensor, logits: Tensor, mask: Tensor | None) -> bool:
    """Whether the network returns one position, or the mean over positions, of the outputs ``(n, ..., C)`` of a layer."""
    if values.dim() <= 2 or logits.dim() != 2 or len(values) != len(logits):
        return False
    positions = values.flatten(1, -2)
    if (positions == logits.unsqueeze(1)).all(-1).any(1).all():
        return True
    return values.dim() == 3 and torch.allclose(pool(values, mask).float(), logits.float(), atol=1e-4)


def _normalized_to(output: Tensor) -> Callable[[Any], bool]:
    """Whether the softmax or the log-softmax of a layer's output is what the network returns."""

    def check(record: Any) -> bool:
        if record.output.shape != output.shape or output.shape[-1] < 2:
            return False
        value = record.output.float()
        return any(torch.allclose(f(value, -1), output.float(), atol=1e-5) for f in (torch.softmax, torch.log_softmax))

    return check
