"""What the parts of a batch are to a network: its inputs by name and position, and labels."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pushforward.detection.network.reading import call, class_labels, first_tensor, plain_tensor
from pushforward.errors import InputError, warn_caller

__all__ = ["check_arguments", "check_second_part", "split_batch"]

_LABELS = ("labels", "label", "targets", "target")
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def split_batch(batch: Any, net: Any = None) -> tuple[Any, Tensor | None]:
    """The inputs and the labels of a batch of a loader, of any type; ``class_labels`` says whether they are classes.

    Labels are the last part of a pair ``(inputs, labels)``, or the entry ``labels`` (or label, targets, target) of a dictionary, see
    :func:`label_key`. A tuple of one part is its inputs. Anything else is inputs without labels.

    Args:
        batch: of a loader.
        net: that takes the inputs.
    """
    if isinstance(batch, Mapping):
        key = label_key(batch, net)
        labels = None if key is None else batch[key]
        return {name: value for name, value in batch.items() if name != key}, _labels(labels)
    if isinstance(batch, (tuple, list)):
        if len(batch) == 2:
            return batch[0], _labels(batch[1])
        return (batch[0], None) if len(batch) == 1 else (batch, None)
    return batch, None


def _labels(labels: Any) -> Tensor | None:
    if labels is None or isinstance(labels, (Mapping, tuple)):  # boxes, masks and the like
        return None
    return plain_tensor(labels)


def label_key(batch: Mapping[Any, Any], net: Any) -> str | None:
    """The key of the labels in a dictionary; None without labels.

    It is the first of "labels", "label", "targets" and "target" that is no input. An argument of the network's forward with such a
    name is an input; but "labels" that forward does not require, as in the models of Hugging Face, are labels.
    """
    arguments = _parameters(net)
    for key in _LABELS:
        if key not in batch:
            continue
        own = arguments.get(key)
        optional = own is not None and own.default is not own.empty
        if own is None or (optional and key == "labels"):
            return key
        if optional and isinstance(batch[key], Tensor) and class_labels(batch[key]) is not None:
            warn_caller(
                f"the batch has the key {key!r}, which is an argument of the network's forward, so it is an input and no label: give labels "
                "under 'labels', or as (inputs, labels)."
            )
    return None


def check_second_part(net: Any, inputs: Any, labels: Tensor | None) -> None:
    """Refuse labels that are rather another input of the network: they are not one for each row, and the network takes one more input.

    Raises:
        InputError: for integers of several columns, and for fractions of the shape of the inputs.
    """
    if labels is None or isinstance(inputs, Mapping) or labels.dim() < 2 or tuple(labels.shape[1:]) == (1,):
        return
    given = len(inputs) if isinstance(inputs, (tuple, list)) else 1
    kinds = [parameter.kind for parameter in _parameters(net).values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds and sum(kind in _POSITIONAL for kind in kinds) <= given:
        return
    first = first_tensor(inputs)
    if labels.is_floating_point() and (first is None or labels.shape != first.shape):
        return  # the target of a regression
    raise InputError(
        f"the second part of a pair (inputs, labels) is labels, and here it is {str(labels.dtype).removeprefix('torch.')} of the shape "
        f"{tuple(labels.shape)}: give several inputs as ((a, b), labels), or without labels as ((a, b),), and the inputs alone if it is no input."
    )


def check_arguments(net: nn.Module, inputs: Any) -> None:
    """Refuse a batch that does not fit the arguments of the network's ``forward``.

    Raises:
        InputError: saying which forms of batches there are.
    """
    try:
        arguments = inspect.signature(net.forward)
    except (TypeError, ValueError):  # of a module in another language
        return
    try:
        call(arguments.bind, inputs)
    except TypeError as error:
        parts = "one tensor" if isinstance(inputs, Tensor) else f"{len(inputs)} parts"
        parts = f"the keys {', '.join(map(str, inputs))}" if isinstance(inputs, Mapping) else parts
        raise InputError(
            f"a batch with {parts} does not fit the arguments of the network's forward ({error}): a batch must be (inputs, labels), inputs "
            "alone, or a dictionary of keyword arguments, and several inputs a dictionary, ((a, b), labels), or ((a, b),) without labels."
        ) from error


def _parameters(net: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters of the network's ``forward`` by name; none if they are not known."""
    if not isinstance(net, nn.Module):
        return {}
    try:
        return inspect.signature(net.forward).parameters
    except (TypeError, ValueError):  # of a module in another language
        return {}
