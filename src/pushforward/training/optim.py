"""Optimizers by name, and optimizer state as JSON values and tensors (no pickle)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, StorageError, TrainingError

__all__ = ["OPTIMIZERS", "MakeOptimizer", "make_optimizer", "pack_optimizer", "unpack_optimizer"]

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

OPTIMIZERS = ("adamw", "adam", "sgd")


def make_optimizer(
    optimizer: str | MakeOptimizer,
    parameters: list[nn.Parameter],
    learning_rate: float,
    weight_decay: float,
    dimensions: Sequence[int] | None = None,
) -> torch.optim.Optimizer:
    """The optimizer of that name, or the one that the function makes.

    A named optimizer applies weight decay only to parameters of two or more dimensions: biases and scales do not decay.
    "sgd" has Nesterov momentum 0.9.

    Args:
        optimizer: "adamw", "adam", "sgd", or a function of the parameters.
        parameters: parameters to train; at least one.
        learning_rate: not used with a function.
        weight_decay: not used with a function.
        dimensions: number of dimensions of each parameter in a single model. None takes the parameters' own.

    Raises:
        ConfigError: for a function that returns no torch optimizer, or one that needs a closure.
    """
    if not isinstance(optimizer, str):
        made = optimizer(parameters)
        if not isinstance(made, torch.optim.Optimizer):
            raise ConfigError(
                f"the optimizer function must return a torch optimizer; it returned {type(made).__name__}."
            )
        if isinstance(made, torch.optim.LBFGS):
            raise ConfigError(
                "LBFGS evaluates the loss several times per step, which fit does not do: use another optimizer."
            )
        return made
    dimensions = [parameter.dim() for parameter in parameters] if dimensions is None else dimensions
    decays = [count > 1 or not weight_decay for count in dimensions]  # one group without weight decay
    groups = [
        {"params": [p for p, decay in zip(parameters, decays, strict=True) if decay], "weight_decay": weight_decay},
        {"params": [p for p, decay in zip(parameters, decays, strict=True) if not decay], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if optimizer == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True)
    cls = torch.optim.AdamW if optimizer == "adamw" else torch.optim.Adam
    try:
        return cls([dict(group) for group in groups], lr=learning_rate, fused=True)
    except (RuntimeError, ValueError):  # a device or type without a fused kernel
        return cls(groups, lr=learning_rate)


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """State of an optimizer as (JSON values, tensors).

    Raises:
        TrainingError: if the optimizer keeps a value that is neither.
    """
    state = optimizer.state_dict()
    values: dict[str, Any] = {"state": {}, "groups": []}
    tensors: dict[str, Tensor] = {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            _store(optimizer, f"state.{index}.{key}", value, values["state"], tensors)
    for index, group in enumerate(state["param_groups"]):
        stored: dict[str, Any] = {}
        for key, value in group.items():
            if key != "params":
                _store(optimizer, f"groups.{index}.{key}", value, stored, tensors)
        values["groups"].append(stored)
    return values, tensors


def unpack_optimizer(optimizer: torch.optim.Optimizer, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Set a new optimizer to the state that :func:`pack_optimizer` returned.

    Raises:
        StorageError: if the state does not belong to an optimizer of this kind.
    """
    state: dict[int, dict[str, Any]] = {}
    groups = optimizer.state_dict()["param_groups"]
    try:
        for name, value in [*values["state"].items(), *tensors.items()]:
            section, index, key = name.split(".", 2)
            if section == "state":
                state.setdefault(int(index), {})[key] = value
            else:
                groups[int(index)][key] = value
        for group, stored in zip(groups, values["groups"], strict=True):
            for name, value in stored.items():
                key = name.split(".", 2)[2]
                group[key] = tuple(value) if isinstance(group.get(key), tuple) else value
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        name = type(optimizer).__name__
        raise StorageError(f"the optimizer state in the checkpoint does not fit {name}: {error}") from error


def _store(
    optimizer: torch.optim.Optimizer, name: str, value: Any, values: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    if isinstance(value, Tensor):
        tensors[name] = value
    elif value is None or isinstance(value, bool | int | float | str):
        values[name] = value
    elif isinstance(value, tuple | list) and all(
        item is None or isinstance(item, bool | int | float) for item in value
    ):
        values[name] = list(value)
    else:
        raise TrainingError(
            f"a checkpoint cannot store the {type(value).__name__} that {type(optimizer).__name__} keeps in {name}: "
            "train without checkpoint= or with another optimizer."
        )
