"""Activation functions by name, so that a model file can say which one it uses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.errors import ConfigError

__all__ = ["activation", "replace"]

_BY_NAME: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "leaky_relu": nn.LeakyReLU,
}


def activation(name: str) -> nn.Module:
    """The activation of this name.

    Raises:
        ConfigError: for an unknown name; it lists the known ones.
    """
    try:
        return _BY_NAME[name]()
    except (KeyError, TypeError):
        raise ConfigError(f"unknown activation {name!r}; choose one of {', '.join(_BY_NAME)}.") from None


def replace(act: nn.Module, fresh: Tensor) -> Tensor:
    """The activation of a tensor that nothing else reads, written over it where its gradient needs no more than the result.

    A new tensor for each layer costs more than ReLU itself: the system clears its pages first.
    """
    return F.relu_(fresh) if type(act) is nn.ReLU else act(fresh)
