"""Standard input and named pipes: read once as a stream of text, or first copied to a temporary file."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import shutil
import stat
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from typing import Any, BinaryIO

from pushforward.errors import StorageError
from pushforward.io.atomic import reason
from pushforward.io.files import file_format
from pushforward.io.input_file import InputFile, TextFormat, magic_compression, utf8, with_own_blocks

__all__ = ["Pipe", "interruptible", "is_pipe", "open_pipe", "spooled"]

_START = 1 << 20
"""Bytes that are read to find the columns; not more than a block of the readers."""
_BINARY_MAGIC = {
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xff\xff\xff\xff": "arrow",
    b"\x93NUMPY": "npy",
    b"PK\x03\x04": "npz",
}


class Pipe:
    """A stream of bytes that can be read once, as one file of a table.

    Args:
        source: the stream.
        name: the stream in the words of the user, for errors.
        format: one of the values of :data:`~pushforward.io.files.FORMATS`; None to recognize it by its first bytes.
        text: how its bytes become text.

    Raises:
        StorageError: if the stream is empty, or its format is not given and cannot be recognized.
    """

    def __init__(self, source: BinaryIO, name: str, format: str | None, text: TextFormat) -> None:
        import pyarrow as pa

        self.name, self.text = name, text
        start = source.read(8)
        if not start:
            raise StorageError(f"{name} is empty.")
        joined = _Joined(start, source)
        self._stream: Any = pa.PythonFile(joined, mode="r")
        if compression := magic_compression(start):
            self._stream = pa.CompressedInputStream(self._stream, compression)
            start = self._stream.read(8)
            joined = _Joined(start, self._stream)
            self._stream = pa.PythonFile(joined, mode="r")
        self.format = format or _recognized(start, name)
        self._joined = joined
        self._started = False
        self._start, self._whole = b"", False

    def __str__(self) -> str:
        return self.name

    @property
    def delimiter(self) -> str:
        """The character between cells."""
        return self.text.delimiter or ("\t" if self.format == "tsv" else ",")

    @property
    def starts_whole(self) -> bool:
        """Whether the first lines are all lines."""
        self._read_start()
        return self._whole

    @property
    def content(self) -> Any:
        """The bytes, decompressed and in their own encoding."""
        return self._joined

    def open_start(self) -> Any:
        """The first lines, as a stream of UTF-8: the header of CSV and TSV, complete lines of JSON Lines."""
        import pyarrow as pa

        self._read_start()
        if self.format == "jsonl":
            return pa.BufferReader(self._start if self._whole else self._start[: self._start.rfind(b"\n") + 1])
        end = -1
        while (end := self._start.find(b"\n", end + 1)) >= 0:
            line = self._start[:end]
            if line.strip(b"\xef\xbb\xbf \r\n") and line.count(b'"') % 2 == 0:
                return pa.BufferReader(line + b"\n")
        return pa.BufferReader(self._start)

    def open_text(self) -> Any:
        """The whole content as a stream of UTF-8; it can be opened once."""
        import pyarrow as pa

        self._read_start()
        self._joined = _Joined(self._start, self._stream)
        return with_own_blocks(pa.PythonFile(self._joined, mode="r"))

    def count_quotes(self) -> int:
        """The number of quotation marks in what was read."""
        return self._joined.quotes

    def _read_start(self) -> None:
        if self._started:
            return
        self._started = True
        self._stream = utf8(self._stream, self.text.encoding)
        parts, size = [], 0
        while size < _START and (part := self._stream.read(_START - size)):
            parts.append(part)
            size += len(part)
        self._start, self._whole = b"".join(parts), size < _START


class _Joined(io.RawIOBase):
    """Bytes that were read already, then the rest of their stream."""

    def __init__(self, start: bytes, rest: Any) -> None:
        self._start, self._rest = start, rest
        self.quotes = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._start:
            size = len(self._start) if size < 0 else size
            part, self._start = self._start[:size], self._start[size:]
        else:
            part = self._rest.read(size) if size >= 0 else self._rest.read()
        self.quotes += part.count(b'"')
        return part

    def close(self) -> None:
        """Close what was read; standard input stays open."""
        if self._rest is not getattr(sys.stdin, "buffer", None):
            self._rest.close()
        super().close()


def is_pipe(path: Any) -> bool:
    """Whether a path is "-" or the name of a pipe or terminal, which can be read only once."""
    if isinstance(path, str) and path == "-":
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, TypeError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (stat.S_ISCHR(mode) and os.fspath(path) != os.devnull)


def open_pipe(path: Any, format: str | None, text: TextFormat) -> Pipe:
    """Standard input for "-", else the named pipe at a path.

    Raises:
        StorageError: if it cannot be read, or as for :class:`Pipe`.
    """
    name = "standard input" if path == "-" else os.fspath(path)
    try:
        if path == "-":
            source = getattr(sys.stdin, "buffer", None)
            if source is None:
                raise StorageError("there is no standard input.")
        else:
            source = open(path, "rb")  # noqa: SIM115  it is read until the table ends
        with contextlib.ExitStack() as failed:
            if path != "-":
                failed.callback(source.close)
            pipe = Pipe(source, name, format or (None if path == "-" else _stated(name)), text)
            failed.pop_all()
        return pipe
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot read {name}: {reason(error)}.") from error


def interruptible(items: Iterator[Any]) -> Iterator[Any]:
    """The items of an iterator that waits for a stream in native code, where Python handles no signal.

    Another thread waits in place of the main thread, so that Ctrl-C and SIGTERM end a program though no more bytes come.
    """
    if threading.current_thread() is not threading.main_thread():
        yield from items
        return
    asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
    found: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        while asked.get():
            try:
                found.put((next(items), None))
            except BaseException as error:
                found.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            asked.put(True)
            item, error = found.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        asked.put(False)


def spooled(stream: Any, name: str, format: str, text: TextFormat) -> tuple[InputFile, Any]:
    """A temporary file with the rest of a stream, for formats that are read out of order or twice.

    Returns:
        The file, and what deletes it when it is no longer referenced.

    Raises:
        StorageError: if the temporary directory has no space for it.
    """
    owner = _TemporaryFile(f".{format}")
    try:
        with open(owner.path, "wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
    except OSError as error:
        if error.errno is None:  # pyarrow, for damaged compressed bytes
            raise StorageError(f"cannot read {name}: {reason(error)}.") from error
        raise StorageError(
            f"cannot copy {name} to a temporary file in {tempfile.gettempdir()}: {reason(error)}. The environment variable "
            "TMPDIR names another directory."
        ) from error
    return InputFile(name, owner.path, None, format, None, text), owner


class _TemporaryFile:
    """A file that is deleted when nothing refers to this object, or when the interpreter ends."""

    def __init__(self, suffix: str) -> None:
        descriptor, self.path = tempfile.mkstemp(suffix, "pushforward-")
        os.close(descriptor)
        weakref.finalize(self, _remove, self.path)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _recognized(start: bytes, name: str) -> str:
    for magic, found in _BINARY_MAGIC.items():
        if start.startswith(magic):
            return found
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return "jsonl"
    raise StorageError(
        f"the format of {name} is unknown: name it (format=, on the command line --format), such as csv."
    )


def _stated(name: str) -> str | None:
    try:
        return file_format(name)
    except StorageError:
        return None
