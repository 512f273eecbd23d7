"""The digest of a network's weights, to which a guard is bound."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["digest", "same_weights"]

_COMPILED = "_orig_mod."
"""What ``torch.compile`` puts before the names of a network's tensors."""


def digest(net: nn.Module) -> str:
    """SHA-256 of the names, types, shapes and values of all parameters and buffers of ``state_dict``, as hexadecimal text.

    It does not depend on the device, nor on ``torch.compile``. A network whose weights, normalization statistics or precision changed has another digest.

    Example:
        >>> import torch
        >>> from pushforward.detection.network import digest
        >>> net = torch.nn.Linear(2, 2)
        >>> before = digest(net)
        >>> with torch.no_grad():
        ...     _ = net.bias.add_(1e-3)
        >>> digest(net) == before
        False
    """
    return _digest({name.replace(_COMPILED, ""): tensor for name, tensor in net.state_dict(keep_vars=True).items()})


def same_weights(net: nn.Module, stored: Any) -> bool:
    """Whether a network has a digest of a file; files of before had the digest of a compiled network with its names.

    Example:
        >>> import torch
        >>> from pushforward.detection.network.digest import digest, same_weights
        >>> net = torch.nn.Linear(2, 2)
        >>> same_weights(net, digest(net))
        True
    """
    if digest(net) == stored:
        return True
    tensors = net.state_dict(keep_vars=True)
    return any(_COMPILED in name for name in tensors) and _digest(tensors) == stored


def _digest(tensors: Mapping[str, Any]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return found.hexdigest()
