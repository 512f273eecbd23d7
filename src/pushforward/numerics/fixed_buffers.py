"""Buffers that the arguments of a module determine, and that a state dict must not change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["other_buffers"]


def other_buffers(module: nn.Module, names: Iterable[str], state: Mapping[str, Any], prefix: str) -> list[str]:
    """A sentence for each buffer that has another content in a state dict than the arguments of the module gave it.

    PyTorch checks only shapes. The rest of the module would follow its arguments, so that ``decode`` would not invert ``encode``.
    Nothing is compared on the meta device, where a file is read.
    """
    found = []
    for name in names:
        own, stored = module.get_buffer(name), state.get(prefix + name)
        if not isinstance(stored, Tensor) or own.is_meta or stored.is_meta or own.shape != stored.shape:
            continue
        if not torch.equal(own, stored.to(own.device)):
            found.append(
                f"{prefix}{name} is that of a {type(module).__name__} with another order or mask of the coordinates: build the "
                "model with the arguments of the saved one, or save it with pushforward.save, which stores them."
            )
    return found
