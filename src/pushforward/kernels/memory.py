"""Freed memory kept for the next training step.

Otherwise the system clears the pages of large results again in every step.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["freed_memory_kept"]

_BLOCK, _BLOCKS = 31 << 20, 33
"""Bytes of a block, and blocks that are reserved: 1 GiB. glibc never takes blocks of more than 32 MiB from its heap."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep memory that is freed inside the ``with`` block in the process, up to about 1 GiB, and return it at the end.

    glibc returns memory to the system when much of it is free at the end of its heap. One block that stays allocated at
    the end of a large free area prevents that. The area is reserved and not written to, so it takes no memory until it
    is used.

    No setting of the allocator is changed. What remains afterwards is what remains in every process that has freed one
    tensor of 31 MiB: glibc, whose thresholds follow the sizes of freed blocks, takes blocks of up to this size from its
    heap and keeps up to 62 MiB of freed memory.

    Nothing is done with other C libraries than glibc, or if the environment variable ``PUSHFORWARD_KEEP_MEMORY`` is 0.

    Example:
        >>> import torch
        >>> from pushforward.kernels import freed_memory_kept
        >>> with freed_memory_kept():
        ...     total = sum(torch.ones(1000).sum().item() for _ in range(3))
        >>> total
        3000.0
    """
    if os.environ.get("PUSHFORWARD_KEEP_MEMORY") == "0" or not _glibc():
        yield
        return
    end = _reserve()
    try:
        yield
    finally:
        del end
        ctypes.CDLL(None).malloc_trim(0)  # free memory before blocks that are still in use


def _reserve() -> torch.Tensor | None:
    """The block at the end of a large free area of the heap."""
    try:
        torch.empty(_BLOCK, dtype=torch.uint8)  # freed at once: glibc takes the following ones from its heap
        blocks = [torch.empty(_BLOCK, dtype=torch.uint8) for _ in range(_BLOCKS)]
    except RuntimeError:  # the process may not reserve so much
        return None
    return blocks[-1]


def _glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (AttributeError, OSError, ValueError):  # Windows, or another C library
        return False
