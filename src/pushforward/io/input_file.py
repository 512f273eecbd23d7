"""One file of a table on a local disk or any file system of pyarrow, as a stream of UTF-8 text or as bytes."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pushforward.errors import ConfigError, StorageError
from pushforward.io.atomic import reason
from pushforward.numerics.checks import check_choice

__all__ = [
    "InputFile",
    "TextFormat",
    "filesystem_of",
    "magic_compression",
    "not_text",
    "unchanged",
    "utf8",
    "with_own_blocks",
]

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class TextFormat:
    """How bytes become the cells of a table of text.

    Attributes:
        encoding: name of the encoding, as Python knows it.
        delimiter: the character between cells; None for "," in CSV and a tab in TSV.
        decimal: the character before the fraction of a number, "." or ",".

    Raises:
        ConfigError: for an unknown encoding, a delimiter that is not one character of ASCII, or another decimal point.
    """

    encoding: str = "utf-8"
    delimiter: str | None = None
    decimal: str = "."

    def __post_init__(self) -> None:
        try:
            "".encode(self.encoding)
        except (LookupError, TypeError):
            raise ConfigError(
                f"encoding must be the name of a text encoding, such as latin-1; got {self.encoding!r}."
            ) from None
        mark = self.delimiter
        if mark is not None and not (
            isinstance(mark, str) and len(mark) == 1 and mark.isascii() and mark not in '"\r\n'
        ):
            raise ConfigError(f"delimiter must be one character, such as ';'; got {mark!r}.")
        check_choice("decimal", self.decimal, (".", ","))


@dataclass(frozen=True)
class InputFile:
    """One file of a table.

    Attributes:
        name: the file in the words of the user, for errors.
        path: its path in the file system.
        filesystem: a ``pyarrow.fs.FileSystem``; None for a local path.
        format: one of the values of :data:`~pushforward.io.files.FORMATS`.
        compression: "gzip", "zstd" or None.
        text: how its bytes become text.
    """

    name: str
    path: str
    filesystem: Any
    format: str
    compression: str | None = None
    text: TextFormat = TextFormat()

    def __str__(self) -> str:
        return self.name

    @property
    def delimiter(self) -> str:
        """The character between cells."""
        return self.text.delimiter or ("\t" if self.format == "tsv" else ",")

    def open_text(self) -> Any:
        """The content as a stream of UTF-8."""
        import pyarrow as pa

        if self.filesystem is None:
            stream = pa.input_stream(self.path, compression=self.compression)
        else:
            stream = with_own_blocks(self.filesystem.open_input_stream(self.path, compression=self.compression))
        return utf8(stream, self.text.encoding)

    def open_start(self) -> Any:
        """A stream that begins as :meth:`open_text` does, and is long enough to find the columns."""
        return self.open_text()

    def open_bytes(self) -> Any:
        """The content as a file with random access."""
        import pyarrow as pa

        return pa.OSFile(self.path) if self.filesystem is None else self.filesystem.open_input_file(self.path)

    def count_quotes(self) -> int:
        """The number of quotation marks in a file of text."""
        count = 0
        with self.open_text() as stream:
            while block := stream.read(1 << 20):
                count += block.count(b'"')
        return count

    def state(self) -> tuple[Any, ...]:
        """What differs after something else wrote to the file, or replaced it."""
        if self.filesystem is None:
            try:
                status = os.stat(self.path)
            except OSError:
                return ()
            return status.st_ino, status.st_size, status.st_mtime_ns
        info = self.filesystem.get_file_info(self.path)
        return info.type, info.size, info.mtime_ns


def filesystem_of(path: Any) -> tuple[Any, str] | None:
    """The ``pyarrow.fs.FileSystem`` of a URI, and the path in it; (None, path) for a file:// URI; None for a plain path.

    Raises:
        StorageError: for a URI that pyarrow does not know, or a file system that refuses.
    """
    if not isinstance(path, str) or not _URI.match(path):
        return None
    import pyarrow as pa
    from pyarrow import fs

    try:
        filesystem, inside = _open_uri(path)
    except (pa.ArrowException, OSError, ValueError, NotImplementedError) as error:
        raise StorageError(f"cannot open {path}: {reason(error).splitlines()[0]}.") from error
    return (None, inside) if isinstance(filesystem, fs.LocalFileSystem) else (filesystem, inside)


def _open_uri(uri: str) -> tuple[Any, str]:
    from pyarrow import fs

    return fs.FileSystem.from_uri(uri)


def utf8(stream: Any, encoding: str) -> Any:
    """A stream of UTF-8 from a stream in another encoding."""
    import pyarrow as pa

    name = codecs.lookup(encoding).name
    if name in ("utf-8", "utf-8-sig", "ascii"):
        return stream
    return with_own_blocks(pa.transcoding_input_stream(stream, name, "utf-8"))


def with_own_blocks(stream: Any) -> Any:
    """The same stream, whose blocks are copied into memory of pyarrow's.

    Readers of pyarrow free the last block in a thread of their own. If it is a block of Python's and the interpreter ends at that
    moment, the process aborts.
    """
    import pyarrow as pa

    return pa.BufferedInputStream(stream, _BLOCK)


def not_text(file: Any) -> str:
    """The message for bytes that are not text in the encoding of a file."""
    encoding = file.text.encoding
    advice = " save it as UTF-8, or name its encoding (encoding=, on the command line --encoding), such as latin-1 or utf-16."
    return f"{file} is not {encoding.upper()} text:{advice if encoding == 'utf-8' else ' name its encoding.'}"


def magic_compression(start: bytes) -> str | None:
    """The compression that the first bytes of a file show."""
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)


@contextmanager
def unchanged(files: Sequence[InputFile]) -> Iterator[None]:
    """Raise an error if a file changes before the block ends; it takes the place of the errors that the change causes.

    Raises:
        StorageError: if a file changed.
    """
    before = [file.state() for file in files]

    def check() -> None:
        for file, state in zip(files, before, strict=True):
            if file.state() != state:
                raise StorageError(f"{file} changed while it was read: read it again when nothing writes to it.")

    try:
        yield
    except Exception:
        check()
        raise
    check()
