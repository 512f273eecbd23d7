"""Activation functions by name, as model files store them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.numerics.checks import check_choice

__all__ = ["activation", "concat_elu", "has_hooks", "replace"]

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
    """The activation module of a name.

    Raises:
        ConfigError: for an unknown name.
    """
    return _BY_NAME[check_choice("activation", name, _BY_NAME)]()


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks wait for a call of the module itself, in place of which a faster function may not be called then."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def replace(act: nn.Module, fresh: Tensor) -> Tensor:
    """The activation of a tensor that nothing else uses, in place if its gradient needs the result only.

    Memory for a new tensor would cost more time than ReLU itself, as the system clears it first.
    """
    return F.relu_(fresh) if type(act) is nn.ReLU and not has_hooks(act) else act(fresh)


def concat_elu(x: Tensor) -> Tensor:
    """elu(x) and elu(-x), twice as many features in dimension 1 (Shang et al. 2016; Salimans et al. 2017)."""
    return F.elu(torch.cat((x, -x), 1))
