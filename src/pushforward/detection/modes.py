"""Modes of PyTorch while something is scored: networks and models in evaluation mode, statistics without autocast."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from pushforward.errors import warn_caller

__all__ = ["autocast_type", "evaluation", "outside_inference", "warn_of_training_mode", "without_autocast"]

_DEVICES = ("cpu", "cuda", "xpu", "mps")

_changing = threading.Lock()
_evaluated: Counter[nn.Module] = Counter()
"""Calls in progress of each module that its owner has in training mode; empty between calls."""


def autocast_type(device: torch.device | None) -> str:
    """The type of ``torch.autocast`` on the device of a network, such as "bfloat16"; "" without autocast.

    Example:
        >>> import torch
        >>> from pushforward.detection.modes import autocast_type
        >>> with torch.autocast("cpu", dtype=torch.bfloat16):
        ...     print(autocast_type(torch.device("cpu")))
        bfloat16
    """
    kind = "cpu" if device is None else device.type
    if not torch.is_autocast_enabled(kind):
        return ""
    return str(torch.get_autocast_dtype(kind)).removeprefix("torch.")


@contextmanager
def without_autocast() -> Iterator[None]:
    """No autocast for a while: products of half precision would make most statistics of a guard wrong."""
    with ExitStack() as stack:
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def outside_inference() -> Iterator[None]:
    """No inference mode for a while, and no gradient: tensors that are made in inference mode can have none later."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


@contextmanager
def evaluation(net: Any) -> Iterator[None]:
    """Evaluation mode for a while; then every module is in its own mode again. Of several threads the last one restores it."""
    if not isinstance(net, nn.Module):
        yield
        return
    changed: list[nn.Module] = []
    shared = not torch.compiler.is_compiling()  # a tracer runs one thread and knows no locks
    try:
        with _changing if shared else nullcontext():
            changed = [module for module in net.modules() if module.training or (shared and module in _evaluated)]
            if shared:
                _evaluated.update(changed)
            if any(module.training for module in changed):
                net.eval()
        yield
    finally:
        with _changing if shared else nullcontext():
            if shared:
                _evaluated.subtract(changed)
            for module in changed:
                if not shared or _evaluated[module] == 0:
                    _evaluated.pop(module, None)
                    module.training = True


def warn_of_training_mode(net: Any) -> None:
    """Warn if a network is in training mode, in which its own predictions change from call to call."""
    if isinstance(net, nn.Module) and net.training:
        warn_caller(
            "the network is in training mode, so its own predictions are not those that the guard reads in evaluation mode: "
            "call net.eval()."
        )
