"""The digest of a network's weights, to which a guard is bound."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

__all__ = ["digest"]


def digest(net: nn.Module) -> str:
    """SHA-256 of the names, types, shapes and values of all parameters and buffers, as hexadecimal text.

    It does not depend on the device. A network whose weights, normalization statistics or precision changed has another digest.

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
    found = hashlib.sha256()
    for name, tensor in sorted(net.state_dict(keep_vars=True).items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return found.hexdigest()
