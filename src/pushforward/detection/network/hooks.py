"""Forward hooks that exist during one call and see the modules that the thread of this call runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["Hook", "hooked"]

Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]
"""A function of a module, its positional and keyword arguments, and its output; what it returns, unless None, is the output."""

_registering = threading.Lock()
"""PyTorch numbers hooks without a lock, so two threads could get one number."""


@contextmanager
def hooked(hooks: Iterable[tuple[nn.Module, Hook]]) -> Iterator[None]:
    """Run hooks after calls of modules that this thread makes in a ``with`` block; they are removed in any case.

    Other threads may run the same modules at the same time: their calls do not reach these hooks.

    Example:
        >>> import torch
        >>> from pushforward.detection.network.hooks import hooked
        >>> layer, seen = torch.nn.Linear(2, 3), []
        >>> with hooked([(layer, lambda module, args, kwargs, output: seen.append(output.shape))]):
        ...     _ = layer(torch.zeros(4, 2))
        >>> seen
        [torch.Size([4, 3])]
    """
    handles: list[Any] = []
    if torch.compiler.is_compiling():  # a tracer runs one thread and knows no locks
        try:
            for module, hook in hooks:
                handles.append(module.register_forward_hook(hook, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()
        return
    thread = threading.get_ident()
    try:
        with _registering:
            for module, hook in hooks:
                handles.append(module.register_forward_hook(_of_thread(hook, thread), with_kwargs=True))
        yield
    finally:
        with _registering:
            for handle in handles:
                handle.remove()


def _of_thread(hook: Hook, thread: int) -> Callable[..., Any]:
    def run(module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Any:
        other = not torch.compiler.is_compiling() and threading.get_ident() != thread
        # A call of another thread while the hook is added or removed may come without its keyword arguments.
        return None if other else hook(module, args, rest[0], rest[1])

    return run
