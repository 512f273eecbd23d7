"""Compiled and scripted parts of a network, whose layers hooks cannot read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["closed_parts", "kind_of", "outer_part", "with_linear_layer"]


def kind_of(module: Any) -> str | None:
    """ "compiled" or "scripted"; None for a module that hooks can read."""
    if isinstance(module, torch.jit.ScriptModule):
        return "scripted"
    if not isinstance(module, nn.Module):
        return None
    compiled = (
        type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None
    )  # of Module.compile()
    forward = vars(module).get("forward")
    return "compiled" if compiled or hasattr(forward, "_torchdynamo_orig_callable") else None


def closed_parts(net: nn.Module) -> dict[str, str]:
    """The names of the outermost parts of a network that hooks cannot read, each with its kind.

    Example:
        >>> import torch
        >>> from pushforward.detection.network.closed_parts import closed_parts
        >>> closed_parts(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()))
        {}
    """
    found: dict[str, str] = {}
    for name, module in net.named_modules():
        kind = kind_of(module)
        if kind is not None and outer_part(name, found) is None:
            found[name] = kind
    return found


def outer_part(name: str, closed: Mapping[str, str]) -> str | None:
    """The closed part to which a module belongs, by their names; None outside of them."""
    return next((part for part in closed if name == part or name.startswith(f"{part}.") or not part), None)


def with_linear_layer(net: nn.Module, closed: Mapping[str, str]) -> str | None:
    """The last closed part that contains a linear layer."""
    for part in reversed(list(closed)):
        inner = net.get_submodule(part).modules()
        if any(isinstance(each, nn.Linear) or getattr(each, "original_name", "") == "Linear" for each in inner):
            return part
    return None
