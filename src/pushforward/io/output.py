"""Where a table is written that is not a local file: standard output, and the file systems of pyarrow."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pushforward.errors import PushforwardError, StorageError
from pushforward.io.atomic import reason

__all__ = ["discard_standard_output", "remote_write", "standard_output"]


@contextmanager
def standard_output() -> Iterator[Any]:
    """Standard output, for bytes.

    Raises:
        StorageError: if it cannot be written. A BrokenPipeError passes: the program that read it has ended.
    """
    file = getattr(sys.stdout, "buffer", None)
    if file is None:
        raise StorageError("there is no standard output.")
    try:
        file.flush()
        yield _Shared(file)
        file.flush()
    except (PushforwardError, BrokenPipeError):
        raise
    except OSError as error:
        raise StorageError(f"cannot write standard output: {reason(error)}.") from error


@contextmanager
def remote_write(filesystem: Any, path: str, name: str) -> Iterator[Any]:
    """A local temporary file that is copied to a file system of pyarrow when the block ends without an error.

    Args:
        filesystem: a ``pyarrow.fs.FileSystem``.
        path: the path in it.
        name: the place in the words of the user.

    Raises:
        StorageError: if it cannot be written. What was copied of it is then deleted.
    """
    try:
        with tempfile.TemporaryFile(prefix="pushforward-") as file:
            yield file
            file.flush()
            file.seek(0)
            try:
                with filesystem.open_output_stream(path, compression=None) as sink:
                    shutil.copyfileobj(file, sink, 1 << 20)
            except BaseException:
                with contextlib.suppress(Exception):
                    filesystem.delete_file(path)
                raise
    except PushforwardError:
        raise
    except OSError as error:
        raise StorageError(f"cannot write {name}: {reason(error)}.") from error


class _Shared(io.RawIOBase):
    """A file that stays open when its user closes it."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def flush(self) -> None:
        if not self.closed:
            self._file.flush()


def discard_standard_output() -> None:
    """Send what is still to be written nowhere, so that a closed pipe causes no message when the interpreter ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
