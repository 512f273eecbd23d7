"""`Reading`: what a network shows of one batch in one forward pass, and the checks of batches, outputs and masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pushforward.errors import ConfigError, InputError
from pushforward.numerics.conversion import as_tensor

if TYPE_CHECKING:
    from pushforward.detection.network.reader import NetworkReader

__all__ = ["Reading", "call", "find_logits", "length", "move", "padding_mask", "pool", "split_batch"]

LABEL_KEYS = ("labels", "label", "targets", "target")
_KEEP_MASKS = ("attention_mask",)
_DROP_MASKS = ("src_key_padding_mask", "key_padding_mask", "padding_mask")


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
        return type(inputs)(_select(value, mask) for value in inputs)
    return inputs


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


def move(inputs: Any, device: torch.device | None) -> Any:
    """The same structure with its tensors on a device; NumPy arrays become tensors."""
    if isinstance(inputs, Tensor):
        return inputs if device is None else inputs.to(device)
    if isinstance(inputs, Mapping):
        return {key: move(value, device) for key, value in inputs.items()}
    if isinstance(inputs, tuple) and hasattr(inputs, "_fields"):
        return type(inputs)(*(move(value, device) for value in inputs))
    if isinstance(inputs, (tuple, list)):
        return type(inputs)(move(value, device) for value in inputs)
    if type(inputs).__module__ == "numpy" and hasattr(inputs, "__array__"):
        return move(as_tensor(inputs), device)
    return inputs


def call(net: Callable[..., Any], inputs: Any) -> Any:
    """Apply a network to a batch: a tuple gives positional arguments, a dictionary keyword arguments."""
    if isinstance(inputs, Mapping):
        return net(**inputs)
    if isinstance(inputs, (tuple, list)):
        return net(*inputs)
    return net(inputs)


def split_batch(batch: Any) -> tuple[Any, Tensor | None]:
    """The inputs and the labels of a batch of a loader.

    Labels are the last part of a pair ``(inputs, labels)``, or the entry ``labels`` (or label, target, targets) of a dictionary.
    A tuple of one part is its inputs. Anything else is inputs without labels.
    """
    if isinstance(batch, Mapping):
        key = next((name for name in LABEL_KEYS if name in batch), None)
        labels = None if key is None else batch[key]
        return {name: value for name, value in batch.items() if name != key}, _labels(labels)
    if isinstance(batch, (tuple, list)):
        if len(batch) == 2:
            return batch[0], _labels(batch[1])
        return (batch[0], None) if len(batch) == 1 else (batch, None)
    return batch, None


def _labels(labels: Any) -> Tensor | None:
    labels = None if labels is None else as_tensor(labels)
    if labels is None or labels.is_floating_point() or labels.dim() != 1:
        return None  # the target of a regression is no class
    return labels.long()


def find_logits(output: Any, key: str | int | None) -> Tensor | None:
    """The part of a network's output that has one row per input and one column per class, or per coordinate.

    Args:
        output: a tensor, a tuple, a dictionary, or an object with attributes, such as those of Hugging Face.
        key: name or index of the part; None for the tensor itself, ``logits``, or the first part.

    Raises:
        ConfigError: if there is no such part, or it is no tensor.
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
            f"the network returns {type(output).__name__}, in which logits={key!r} names no tensor: name the part with "
            "logits=, as a key, an attribute or an index."
        )
    return part


def _part(output: Any, key: str | int) -> Any:
    try:
        if isinstance(output, Mapping) or isinstance(key, int):
            return output[key]
        return getattr(output, key)
    except (KeyError, IndexError, AttributeError, TypeError):
        return None


def padding_mask(inputs: Any) -> Tensor | None:
    """Which positions of a sequence count, ``(n, T)`` bool, from the mask in a dictionary of inputs; None without one."""
    if not isinstance(inputs, Mapping):
        return None
    for names, keep in ((_KEEP_MASKS, True), (_DROP_MASKS, False)):
        for name in names:
            mask = inputs.get(name)
            if isinstance(mask, Tensor) and mask.dim() == 2:
                return mask.bool() if keep else ~mask.bool()
    return None


def pool(values: Tensor, mask: Tensor | None) -> Tensor:
    """One row of features per input: the mean over positions.

    ``(n, D)`` stays; ``(n, channels, height, width, ...)`` is averaged over all but the channels; ``(n, T, D)`` is averaged over
    T, without the positions that a mask of padding leaves out. A row that is all padding gets zeros.
    """
    if values.dim() <= 2:
        return values.unsqueeze(1) if values.dim() == 1 else values
    if values.dim() == 3:
        if mask is not None and mask.shape == values.shape[:2]:
            weight = mask.to(values.dtype).unsqueeze(2)
            return torch.where(mask.unsqueeze(2), values, 0).sum(1) / weight.sum(1).clamp(min=1)
        return values.mean(1)
    return values.flatten(2).mean(2)
