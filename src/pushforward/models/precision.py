"""The floating type of a model's weights, and coordinates that are float64 while the weights have another type."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from pushforward.errors import KindError
from pushforward.transforms.base import Transform

__all__ = ["check_float64", "floating_type"]


def check_float64(chain: Transform, owner: str) -> None:
    """Refuse float64 coordinates if a transform cannot bring them back to the last digits.

    A transform with float64 weights passes.

    Raises:
        KindError: naming the first transform that cannot.
    """
    for part in chain.modules():
        if not isinstance(part, Transform) or _inverts_float64(part):
            continue
        types = {tensor.dtype for tensor in (*part.parameters(), *part.buffers()) if tensor.is_floating_point()}
        if types != {torch.float64}:
            raise KindError(
                f"{owner} cannot use float64 coordinates with weights of another type, because {type(part).__name__} drops part of "
                "its input, or evaluates its network at different points in encode and decode: call model.double() first, "
                "which makes an inverse exact to the last digits."
            )


def _inverts_float64(part: Transform) -> bool:
    return part.supports_float64 and not part.many_to_one and math.prod(part.out_shape) >= math.prod(part.in_shape)


def floating_type(modules: Iterable[nn.Module]) -> torch.dtype:
    """Type of the first floating tensor in the modules, parameters before buffers.

    It is the default type of torch if there is no such tensor.
    """
    for module in modules:
        for group in ("_parameters", "_buffers"):
            found = _first_floating(module, group)
            if found is not None:
                return found
    return torch.get_default_dtype()


def _first_floating(module: nn.Module, group: str) -> torch.dtype | None:
    """Type of the first floating tensor of a module; every call of a model asks, and nn.Module's generators are slow."""
    for tensor in getattr(module, group).values():
        if tensor is not None and tensor.is_floating_point():
            return tensor.dtype
    for child in module._modules.values():
        if child is not None and (found := _first_floating(child, group)) is not None:
            return found
    return None
