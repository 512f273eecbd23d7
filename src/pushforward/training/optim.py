"""Optimizers by name, and their state as plain values and tensors (no pickle)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, StorageError, TrainingError

__all__ = ["MakeOptimizer", "make_optimizer", "pack_optimizer", "unpack_optimizer"]

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

_NAMES = ("adamw", "adam", "sgd")


def make_optimizer(
    optimizer: str | MakeOptimizer, parameters: list[nn.Parameter], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """The optimizer that the user named, or made.

    By name, weight decay acts on weights of two or more dimensions only: biases and scales are not pulled to zero.
    "sgd" has Nesterov momentum 0.9.

    Args:
        optimizer: "adamw", "adam", "sgd", or a function of the parameters.
        parameters: what to train; not empty.
        lr: learning rate; not used by a function.
        weight_decay: not used by a function.

    Raises:
        ConfigError: for another name, or a function that makes no torch optimizer or one that needs a closure.
    """
    if isinstance(optimizer, str):
        if optimizer not in _NAMES:
            raise ConfigError(f"optimizer must be one of {', '.join(_NAMES)}, or a function; got {optimizer!r}.")
        wide = [p for p in parameters if p.dim() > 1 or not weight_decay]
        thin = [p for p in parameters if p.dim() <= 1 and weight_decay]
        groups = [{"params": wide, "weight_decay": weight_decay}, {"params": thin, "weight_decay": 0.0}]
        return _named(optimizer, [group for group in groups if group["params"]], lr)
    if not callable(optimizer):
        raise ConfigError(f"optimizer must be a name or a function of the parameters; got {optimizer!r}.")
    made = optimizer(parameters)
    if not isinstance(made, torch.optim.Optimizer):
        raise ConfigError(f"the optimizer function returned {type(made).__name__}, not a torch optimizer.")
    if isinstance(made, torch.optim.LBFGS):
        raise ConfigError("LBFGS evaluates the loss several times a step, which fit does not do: use another.")
    return made


def _named(name: str, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
    cls = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    try:
        return cls([dict(group) for group in groups], lr=lr, fused=True)
    except (RuntimeError, ValueError):  # a device or type without a fused kernel
        return cls(groups, lr=lr)


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """State of an optimizer as (plain JSON values, tensors).

    Raises:
        TrainingError: if the optimizer keeps something that is neither.
    """
    state = optimizer.state_dict()
    plain: dict[str, Any] = {"state": {}, "groups": []}
    tensors: dict[str, Tensor] = {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            _put(optimizer, f"state.{index}.{key}", value, plain["state"], tensors)
    for index, group in enumerate(state["param_groups"]):
        kept: dict[str, Any] = {}
        for key, value in group.items():
            if key != "params":
                _put(optimizer, f"groups.{index}.{key}", value, kept, tensors)
        plain["groups"].append(kept)
    return plain, tensors


def unpack_optimizer(optimizer: torch.optim.Optimizer, plain: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Give a fresh optimizer of the same kind the state that :func:`pack_optimizer` took.

    Raises:
        StorageError: if the state is not that of such an optimizer.
    """
    state: dict[int, dict[str, Any]] = {}
    groups = optimizer.state_dict()["param_groups"]
    try:
        for place, value in [*plain["state"].items(), *tensors.items()]:
            kind, index, key = place.split(".", 2)
            if kind == "state":
                state.setdefault(int(index), {})[key] = value
            else:
                groups[int(index)][key] = value
        for group, kept in zip(groups, plain["groups"], strict=True):
            for place, value in kept.items():
                key = place.split(".", 2)[2]
                group[key] = tuple(value) if isinstance(group.get(key), tuple) else value
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        name = type(optimizer).__name__
        raise StorageError(f"the checkpoint's optimizer state does not fit {name}: {error}") from error


def _put(
    optimizer: torch.optim.Optimizer, place: str, value: Any, plain: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    if isinstance(value, Tensor):
        tensors[place] = value
    elif value is None or isinstance(value, bool | int | float | str):
        plain[place] = value
    elif isinstance(value, tuple | list) and all(isinstance(item, bool | int | float) for item in value):
        plain[place] = list(value)
    else:
        raise TrainingError(
            f"{type(optimizer).__name__} keeps a {type(value).__name__} in {place}, which a checkpoint cannot hold: "
            "train without checkpoint=, or with another optimizer."
        )
