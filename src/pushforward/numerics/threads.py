"""One thread for small work: several threads that wait for each other are slow beside a busy process."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController

__all__ = ["one_thread"]


@contextmanager
def one_thread(*, when: bool = True) -> Iterator[None]:
    """Limit BLAS and OpenMP to one thread in a ``with`` block, and restore their numbers of threads after it.

    The number of BLAS belongs to the process, so this is for work of a caller who waits, such as ``fit``, and not for work that
    several threads do at once. PyTorch and the native kernels have a number of their own (``torch.set_num_threads``).

    Args:
        when: False for no limit.
    """
    if not when:
        yield
        return
    with _controller().limit(limits=1):
        yield


@functools.cache
def _controller() -> ThreadpoolController:
    """The libraries that are loaded; to find them takes milliseconds."""
    return ThreadpoolController()
