"""Activation functions by name, so that a model file can say which one it uses."""

from __future__ import annotations

from torch import nn

from pushforward.errors import ConfigError

__all__ = ["activation"]

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
