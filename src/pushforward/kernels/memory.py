"""Freed memory kept for the next call: large results otherwise ask the system for thousands of cleared pages anew each time."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["freed_memory_kept", "keep_freed_memory"]

_TRIM, _LARGE = -1, -3
"""mallopt's names for: free bytes at the end of the heap that go back to the system, and size from which a block is mapped on
its own, so that it goes back when it is freed."""
_KEEP = {_LARGE: 1 << 30, _TRIM: (1 << 31) - 1}
_AFTER = {_LARGE: 32 << 20, _TRIM: 64 << 20}
"""Where glibc's own thresholds end once a process has freed large blocks; they no longer move after mallopt."""
_inside = 0
_settled = False


def keep_freed_memory() -> None:
    """Once a process: up to 64 MiB of freed memory stay with it, and only blocks of 32 MiB and more are mapped on their own.

    glibc's thresholds end there anyway once a block of that size has been freed, but start at 128 KiB: until then every
    layer of a network writes to pages that the system has to clear first, which can take longer than its arithmetic.
    Only with glibc on Linux, and not with ``PUSHFORWARD_KEEP_MEMORY=0``.
    """
    global _settled
    if _settled or _inside:
        return
    _settled = True
    if (library := _glibc()) is not None:
        for name, value in _AFTER.items():
            library.mallopt(name, value)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within, and in the whole process, blocks that are freed stay with the process; at the end they go back to the system.

    Only with glibc on Linux. The environment variable ``PUSHFORWARD_KEEP_MEMORY=0`` turns it off. Where one stands in another,
    the outermost counts.
    """
    global _inside
    library = _glibc()
    if library is None:
        yield
        return
    _inside += 1
    try:
        if _inside == 1 and not library.mallopt(_LARGE, _KEEP[_LARGE]):
            library.mallopt(_LARGE, _AFTER[_LARGE])  # the most that older versions take
        library.mallopt(_TRIM, _KEEP[_TRIM])
        yield
    finally:
        _inside -= 1
        if not _inside:
            for name, value in _AFTER.items():
                library.mallopt(name, value)
            library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if os.environ.get("PUSHFORWARD_KEEP_MEMORY") == "0" or platform.system() != "Linux":
        return None
    library = ctypes.CDLL(None)
    names = ("gnu_get_libc_version", "mallopt", "malloc_trim")  # others have a mallopt that does something else
    return library if all(hasattr(library, name) for name in names) else None
