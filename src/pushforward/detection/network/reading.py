"""`Reading`: what a network shows of one batch in one forward pass, and the checks of batches, outputs and masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pushforward.data import is_frame
from pushforward.data.arrays import frame_numbers
from pushforward.errors import ConfigError, InputError, PushforwardError
from pushforward.numerics.conversion import as_tensor

if TYPE_CHECKING:
    from pushforward.detection.network.reader import NetworkReader

__all__ = [
    "Reading",
    "call",
    "class_labels",
    "find_logits",
    "floating_type",
    "length",
    "move",
    "plain_tensor",
    "pool",
    "real",
    "run",
]


@dataclass
class Reading:
    """What a network shows of one batch.

    Attributes:
        output: what the network returned, unchanged.
        features: input of the last linear layer, ``(n, D)``; of a network without one, its output or its last inner layer.
        logits: ``(n, C)``, or None for a network that does not classify.
        layers: pooled outputs of inner layers by name, ``(n, D_l)``.
        maps: the same outputs before pooling, ``(n, channels, ...)``, if they were asked for.
        inputs: the batch itself.
        reader: that made it.

    Example:
        >>> import torch
        >>> from pushforward.detection.network import Reading
        >>> reading = Reading(output=None, features=torch.tensor([[0.0, 1.0], [torch.nan, 0.0]]))
        >>> len(reading), reading.finite
        (2, tensor([ True, False]))
    """

    output: Any
    features: Tensor
    logits: Tensor | None = None
    layers: dict[str, Tensor] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)
    inputs: Any = None
    reader: NetworkReader | None = None

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def finite(self) -> Tensor:
        """Which rows have finite features, logits and layers, ``(n,)``."""
        parts = [self.features, *self.layers.values(), *([] if self.logits is None else [self.logits])]
        total = parts[0].sum(1, dtype=torch.float64)
        for part in parts[1:]:
            total = total + part.sum(1, dtype=torch.float64)
        return torch.isfinite(total)

    @property
    def clean(self) -> Reading:
        """The same reading with zeros in rows that are not finite."""
        return self if self.surely_finite else self._zeroed

    @property
    def surely_finite(self) -> bool:
        """Whether all values are finite; False while a program is traced, where one must not ask."""
        return not torch.compiler.is_compiling() and self._all_finite

    @cached_property
    def _all_finite(self) -> bool:
        parts = [self.features, *self.layers.values(), *([] if self.logits is None else [self.logits])]
        total = sum(float(part.detach().sum()) for part in parts)
        return math.isfinite(total) or bool(self.finite.all())  # a sum of finite values may overflow

    @cached_property
    def _zeroed(
        self,
    ) -> Reading:  # never the reading itself: such a cycle would keep its tensors until a garbage collection
        keep = self.finite.unsqueeze(1)

        def zero(values: Tensor) -> Tensor:
            return torch.where(keep, values, 0)

        layers = {name: zero(values) for name, values in self.layers.items()}
        logits = None if self.logits is None else zero(self.logits)
        return Reading(self.output, zero(self.features), logits, layers, self.maps, self.inputs, self.reader)

    def rows(self, mask: Tensor) -> Reading:
        """The rows that a mask selects."""
        return Reading(
            self.output,
            self.features[mask],
            None if self.logits is None else self.logits[mask],
            {name: values[mask] for name, values in self.layers.items()},
            {name: values[mask.to(values.device)] for name, values in self.maps.items()},
            _select(self.inputs, mask),
            self.reader,
        )


def _select(inputs: Any, mask: Tensor) -> Any:
    if isinstance(inputs, Tensor):
        return inputs[mask.to(inputs.device)] if inputs.dim() and len(inputs) == len(mask) else inputs
    if isinstance(inputs, Mapping):
        return {key: _select(value, mask) for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return rebuilt(inputs, [_select(value, mask) for value in inputs])
    return inputs


def rebuilt(inputs: Any, parts: Sequence[Any]) -> Any:
    """A tuple, a named tuple or a list like another one, with other parts."""
    return type(inputs)(*parts) if hasattr(inputs, "_fields") else type(inputs)(parts)


def length(inputs: Any) -> int:
    """The number of rows of a batch: that of its first tensor."""
    tensor = first_tensor(inputs)
    if tensor is None or tensor.dim() == 0:
        raise InputError(f"a batch must contain a tensor with one row per input; got {type(inputs).__name__}.")
    return tensor.shape[0]  # len() would fix the size in an export


def first_tensor(inputs: Any) -> Tensor | None:
    """The first tensor in a structure of tuples, lists, dictionaries and tensors."""
    if isinstance(inputs, Tensor):
        return inputs
    parts = inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, (tuple, list)) else ()
    return next((tensor for tensor in map(first_tensor, parts) if tensor is not None), None)


def move(inputs: Any, device: torch.device | None, dtype: torch.dtype | None = None) -> Any:
    """The same structure with its tensors on a device; NumPy arrays become tensors, fractions of the given type."""
    if isinstance(inputs, Tensor):
        return inputs if device is None else inputs.to(device)
    if isinstance(inputs, Mapping):
        return {key: move(value, device, dtype) for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return rebuilt(inputs, [move(value, device, dtype) for value in inputs])
    if hasattr(inputs, "__array__"):
        return move(plain_tensor(inputs, dtype), device)
    return inputs


def plain_tensor(values: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor from a tensor, an array, a data frame or a list; fractions that are not a tensor yet get the type ``dtype``.

    A tensor keeps its type, since its owner chose it. The float64 of NumPy and pandas is no choice.

    Raises:
        InputError: for something that is not of numbers.
    """
    if isinstance(values, Tensor):
        return values
    try:
        found = as_tensor(np.asarray(values))
    except (TypeError, ValueError) as error:
        if is_frame(values):  # flags or nullable types beside numbers
            return plain_tensor(frame_numbers(values, "the inputs of the network")[0], dtype)
        kind = type(np.asarray(values, dtype=object).ravel()[:1].tolist()[0]).__name__ if np.size(values) else "nothing"
        raise InputError(
            f"the inputs and labels of a network must be numbers; got {kind}: give labels as the indices of the classes, such as "
            "numpy.unique(labels, return_inverse=True)[1] in the order of the network's outputs."
        ) from error
    return found.to(dtype) if dtype is not None and found.is_floating_point() else found


def run(net: Any, inputs: Any) -> Any:
    """:func:`call`, with an error of the network as one that says what it was given.

    Raises:
        InputError: if the network does not take the batch.
    """
    try:
        return call(net, inputs)
    except (RuntimeError, TypeError, ValueError, LookupError) as error:
        if isinstance(error, (PushforwardError, torch.OutOfMemoryError)) or torch.compiler.is_compiling():
            raise
        text = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"the network cannot read a batch of {_form(inputs)}{_precision(net, inputs)}: {type(error).__name__}: {text[:300]}"
        ) from error


def _form(inputs: Any) -> str:
    """Shapes and types of a batch, for an error."""
    if isinstance(inputs, Tensor):
        return f"shape {tuple(inputs.shape)} and type {str(inputs.dtype).removeprefix('torch.')}"
    if isinstance(inputs, Mapping):
        return f"the keywords {', '.join(f'{key} ({_form(value)})' for key, value in inputs.items())}"
    if isinstance(inputs, (tuple, list)) and len(inputs) <= 8:
        return f"{len(inputs)} inputs ({'; '.join(map(_form, inputs))})"
    return f"a {type(inputs).__name__}"


def _precision(net: Any, inputs: Any) -> str:
    """The type of the network's weights, where that of the inputs is another."""
    tensor, dtype = first_tensor(inputs), floating_type(net)
    if tensor is None or dtype in (None, tensor.dtype):
        return ""
    return f", and its weights are {str(dtype).removeprefix('torch.')}"


def floating_type(net: Any) -> torch.dtype | None:
    """The type of the network's weights, if all of them have one."""
    if not isinstance(net, nn.Module):
        return None
    found = {parameter.dtype for parameter in net.parameters() if parameter.is_floating_point()}
    return found.pop() if len(found) == 1 else None


def call(net: Callable[..., Any], inputs: Any) -> Any:
    """Apply a network to a batch: a tuple gives positional arguments, a dictionary keyword arguments."""
    if isinstance(inputs, Mapping):
        return net(**inputs)
    if isinstance(inputs, (tuple, list)):
        return net(*inputs)
    return net(inputs)


def class_labels(labels: Tensor | None) -> Tensor | None:
    """Labels as the classes of the rows, int64 ``(n,)``; None for the target of a regression, which is no class.

    Integers and flags of the shape ``(n,)`` or ``(n, 1)`` are classes.

    Example:
        >>> import torch
        >>> from pushforward.detection.network.reading import class_labels
        >>> class_labels(torch.tensor([[2], [0]])), class_labels(torch.tensor([0.5, 0.1]))
        (tensor([2, 0]), None)
    """
    if labels is None or labels.is_floating_point() or labels.is_complex():
        return None
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return labels.long() if labels.dim() == 1 else None


def find_logits(output: Any, key: str | int | None) -> Tensor | None:
    """The part of a network's output that has one row per input and one column per class, or per coordinate.

    Args:
        output: a tensor, a tuple, a dictionary, or an object with attributes, such as those of Hugging Face.
        key: name or index of the part, also of a part of a part, such as "out.logits"; None for the tensor itself, ``logits``, or the
            first part.

    Raises:
        ConfigError: if there is no such part, or it is no tensor.
        InputError: for complex numbers.
    """
    part = output
    if key is not None:
        part = _part(output, key)
    elif isinstance(output, Mapping):
        part = output["logits"] if "logits" in output else next(iter(output.values()), None)
    elif not isinstance(output, Tensor):
        part = getattr(output, "logits", None)
        if part is None and isinstance(output, (tuple, list)) and output:
            part = output[0]
    if not isinstance(part, Tensor):
        raise ConfigError(
            f"the network returns {type(output).__name__}, in which logits={key!r} names no tensor: name the part with logits=, as a key, an "
            "attribute, an index, or a path such as 'out.logits'; where no part has one row for each input, pass read=, a function from inputs "
            "to pf.detection.network.Reading."
        )
    return real(part)


def real(values: Tensor) -> Tensor:
    """The values.

    Raises:
        InputError: for complex numbers.
    """
    if values.is_complex():
        raise InputError(
            "the network shows complex numbers: let it return real ones, such as torch.view_as_real(z).flatten(1), or pass read=."
        )
    return values


def _part(output: Any, key: str | int) -> Any:
    try:
        if isinstance(output, Mapping) or isinstance(key, int):
            return output[key]
        return getattr(output, key)
    except (KeyError, IndexError, AttributeError, TypeError):
        if not isinstance(key, str) or "." not in key:
            return None
    first, rest = key.split(".", 1)
    part = _part(output, int(first) if first.isdecimal() and not isinstance(output, Mapping) else first)
    return (
        None if part is None else _part(part, int(rest) if rest.isdecimal() and not isinstance(part, Mapping) else rest)
    )


def pool(values: Tensor, mask: Tensor | None) -> Tensor:
    """One row of features per input: the mean over positions.

    ``(n, D)`` stays; ``(n, channels, height, width, ...)`` is averaged over all but the channels; ``(n, T, D)`` is averaged over
    T, without the positions that a mask of padding leaves out. A row that is all padding gets zeros. A nested tensor, such as the layers
    of :class:`torch.nn.TransformerEncoder` return of a batch with padding, has no padding, so each row is averaged over all it has.
    """
    if values.dtype in (torch.float16, torch.bfloat16):  # a sum over many positions overflows
        values = values.float()
    if values.is_nested:
        return torch.stack([row.sum(0) / max(1, len(row)) for row in values.unbind()])
    if values.dim() <= 2:
        return values.unsqueeze(1) if values.dim() == 1 else values
    if values.dim() == 3:
        if mask is not None and mask.shape == values.shape[:2]:
            mask = mask.to(values.device)
            weight = mask.to(values.dtype).unsqueeze(2)
            return torch.where(mask.unsqueeze(2), values, 0).sum(1) / weight.sum(1).clamp(min=1)
        return values.mean(1)
    return values.flatten(2).mean(2)
