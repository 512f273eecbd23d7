"""One way to write a file, so that a crash leaves the old file or the new one and never half of either."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from pushforward.errors import PushforwardError, StorageError

__all__ = ["atomic_write", "reason"]


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A new file that replaces the one at ``path`` when the block ends without an error.

    The bytes go to a temporary file in the same directory. It is flushed to disk and then renamed, which is one step
    for the file system. A symbolic link is followed, and an existing file keeps its permissions. A device or a pipe, such as
    ``/dev/null``, is written to as it is and not replaced.

    Args:
        path: the file to write.

    Yields:
        The temporary file (or the device or pipe), open for writing.

    Raises:
        StorageError: if the file cannot be written. The temporary file is deleted, and a file at ``path`` is unchanged.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "notes.txt")
        >>> with atomic_write(path) as file:
        ...     _ = file.write(b"whole")
        >>> path.read_bytes()
        b'whole'
    """
    # A pipe has no path behind its link.
    target = os.fspath(path) if os.path.exists(path) and not os.path.isfile(path) else os.path.realpath(path)
    try:
        with _replacement(target) as file:
            yield file
    except PushforwardError:
        raise
    except OSError as error:
        raise StorageError(f"cannot write {target}: {reason(error)}.") from error


@contextmanager
def _replacement(target: str) -> Iterator[BinaryIO]:
    """The work of :func:`atomic_write`, with the errors of the operating system."""
    if os.path.isdir(target):
        raise OSError("it is a directory")
    mode = os.stat(target).st_mode if os.path.exists(target) else None
    if mode is not None and not os.access(target, os.W_OK):
        raise OSError("the existing file is read-only")
    if mode is not None and not stat.S_ISREG(mode):
        with open(target, "wb") as file:
            yield file
        return
    directory = os.path.dirname(target)
    temporary = os.path.join(directory, f".pushforward-{secrets.token_hex(8)}.tmp")
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666 if mode is None else 0o600
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:  # before the first byte: nobody may read the new file who may not read the old one
                os.chmod(temporary, stat.S_IMODE(mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    with contextlib.suppress(OSError):  # the rename reaches the disk too, on systems that can sync a directory
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def reason(error: BaseException) -> str:
    """The cause of an error as the end of a sentence."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return text[:1].lower() + text[1:]
