"""One thread for small matrix products: several threads that wait for each other are slow beside a busy process."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]


@contextmanager
def one_blas_thread(*, when: bool = True) -> Iterator[None]:
    """Limit BLAS to one thread in a ``with`` block, and restore its number of threads after it.

    The number belongs to the process, so this is for work of a caller who waits, such as ``fit``, and not for work that several
    threads do at once.

    Args:
        when: False for no limit.
    """
    if not when:
        yield
        return
    with _controller().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _controller() -> ThreadpoolController:
    """The libraries that are loaded; to find them takes milliseconds."""
    return ThreadpoolController()
