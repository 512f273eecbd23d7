"""The digest of a network's weights, to which a guard is bound."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["digest", "same_weights"]

_COMPILED = "_orig_mod."
"""What ``torch.compile`` puts before the names of a network's tensors."""


def digest(net: nn.Module) -> str:
    """SHA-256 of the names, types, shapes and values of all parameters and buffers of ``state_dict``, as hexadecimal text.

    Packed weights of quantized layers count too. It does not depend on the device, nor on ``torch.compile``. A network whose weights, normalization statistics or precision changed has another digest.

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
    return _digest({name.replace(_COMPILED, ""): value for name, value in _tensors(net.state_dict(keep_vars=True))})


def same_weights(net: nn.Module, stored: Any) -> bool:
    """Whether a network has a digest of a file.

    In files of before the digest of a compiled network has its names, and that of a quantized one has no packed weights.

    Example:
        >>> import torch
        >>> from pushforward.detection.network.digest import digest, same_weights
        >>> net = torch.nn.Linear(2, 2)
        >>> same_weights(net, digest(net))
        True
    """
    if digest(net) == stored:
        return True
    state = net.state_dict(keep_vars=True)
    plain = {name: value for name, value in state.items() if isinstance(value, torch.Tensor) and not value.is_quantized}
    renamed = {name.replace(_COMPILED, ""): tensor for name, tensor in plain.items()}
    return stored in (_digest(plain), _digest(renamed))


def _tensors(values: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in nested dictionaries, tuples and lists, with names; a quantized one as its integers and its numbers."""
    if isinstance(values, torch.Tensor):
        if values.is_quantized:
            yield f"{name} integers", values.int_repr()
            values = values.dequantize()
        yield name, values
        return
    parts = (
        values.items()
        if isinstance(values, Mapping)
        else enumerate(values)
        if isinstance(values, (tuple, list))
        else ()
    )
    for key, part in parts:
        yield from _tensors(part, f"{name} {key}" if name else str(key))


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return found.hexdigest()
