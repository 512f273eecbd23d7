"""What every reader and writer of tables and images needs: the format of a file, and errors in one sentence."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pushforward.errors import ConfigError, InputError, PushforwardError, StorageError
from pushforward.io.atomic import reason
from pushforward.numerics.checks import check_choice

__all__ = [
    "COMPRESSIONS",
    "FORMATS",
    "TEXT_FORMATS",
    "compression_of",
    "existing_path",
    "expanded",
    "file_format",
    "files_below",
    "format_of_name",
    "load_array",
    "plain_errors",
]

_TEXT = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_BINARY = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow", ".npy": "npy", ".npz": "npz"}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""The endings of compressed files of text, and the compression of each, as pyarrow calls it."""

FORMATS = {ending + suffix: kind for ending, kind in _TEXT.items() for suffix in ("", *COMPRESSIONS)} | _BINARY
"""The endings of files with tables, and the format of each."""

TEXT_FORMATS = tuple(dict.fromkeys(_TEXT.values()))
"""The formats of text: they have an encoding and can be compressed."""


def file_format(path: str | os.PathLike[str], chosen: str | None = None) -> str:
    """The format of a file, one of the values of :data:`FORMATS`: the chosen one, or the one that its name states.

    Raises:
        ConfigError: for a chosen format that does not exist.
        StorageError: for a name with any other ending, if no format was chosen.
    """
    if chosen is not None:
        return check_choice("format", chosen, dict.fromkeys(FORMATS.values()))
    found = format_of_name(path)
    if found is not None:
        return found
    endings = ", ".join((*_TEXT, *_BINARY))
    raise StorageError(
        f"the format of {path} is unknown: its name must end in one of {endings} (those of text also in "
        f"{' or '.join(COMPRESSIONS)}); or name the format (format=, on the command line --format)."
    )


def format_of_name(path: str | os.PathLike[str]) -> str | None:
    """The format that the name of a file states, one of the values of :data:`FORMATS`; None for any other ending."""
    name = os.fspath(path).replace(os.sep, "/").rsplit("/", 1)[-1].lower()
    return next((found for ending, found in FORMATS.items() if name.endswith(ending)), None)


def compression_of(name: str) -> str | None:
    """The compression that the ending of a name states."""
    return next((kind for ending, kind in COMPRESSIONS.items() if name.lower().endswith(ending)), None)


def expanded(path: Any) -> Path:
    """A path with the folder of the user in place of "~"; as it is if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def existing_path(path: Any) -> Path:
    """The path of a file or folder that exists, with the folder of the user in place of "~".

    Raises:
        InputError: for an object that is not a path.
        StorageError: if the path is empty, nothing is there, it cannot be reached, it is empty, or it is neither a file nor a folder.
    """
    if path == "":  # which Path would read as the folder of the process
        raise StorageError("the name of the file or folder is empty: give its path.")
    try:
        found = expanded(path)
        status = found.stat()
    except TypeError:
        raise InputError(f"expected the path of a file or folder; got {type(path).__name__}.") from None
    except FileNotFoundError:
        raise StorageError(f"there is no file or folder {path}.") from None
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {str(path)!r}: {reason(error)}.") from error
    if stat.S_ISDIR(status.st_mode):
        return found
    if not stat.S_ISREG(status.st_mode):
        raise StorageError(f"{path} is not a regular file, a folder or a pipe: copy its content to a file first.")
    if status.st_size == 0:
        raise StorageError(f"{path} is empty.")
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """The files of a folder and its sub-folders, also of linked ones, and links to nothing, so that no file is left out unsaid.

    A link to a folder that contains the link is not followed.
    """

    def below(path: str, outer: frozenset[str]) -> Iterator[Path]:
        here = os.path.realpath(path)
        if here in outer:
            return
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir():
                    yield from below(entry.path, outer | {here})
                elif entry.is_file() or not os.path.exists(entry.path):
                    yield Path(entry.path)

    try:
        yield from below(os.fspath(folder), frozenset())
    except OSError as error:
        raise StorageError(f"cannot read {error.filename or folder}: {reason(error)}.") from error


def load_array(path: Path, name: str | None = None) -> np.ndarray:
    """The array of an NPY file, memory-mapped, or one array of an NPZ file.

    Args:
        path: the file.
        name: which array of an NPZ file; by default the array "X", or the only one.

    Raises:
        ConfigError: if there is no array of that name.
        InputError: if no name was given and the file has several arrays, none of them "X".
    """
    if path.name.lower().endswith(".npy"):
        return np.lib.format.open_memmap(path, mode="r")
    with path.open("rb") as file:  # given a path, numpy does not close a file that it cannot read
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        names = loaded.files
        wanted = name or ("X" if "X" in names or len(names) != 1 else names[0])
        if wanted not in names:
            present = f"{path} has no array {wanted!r}; it has {', '.join(names) or 'none'}"
            raise (
                ConfigError(f"{present}.")
                if name
                else InputError(f"{present}. Store one array, or call one of them X.")
            )
        return loaded[wanted]


@contextmanager
def plain_errors(path: object) -> Iterator[None]:
    """Report whatever a library raises for a damaged file as one sentence; errors of pushforward pass unchanged."""
    try:
        yield
    except PushforwardError:
        raise
    except Exception as error:  # libraries raise errors of any type for damaged bytes
        text = (str(error).strip("'\"").splitlines() or [type(error).__name__])[0]
        if "Object arrays" in text or "Python objects" in text:
            raise InputError(
                f"{path} contains Python objects, which are not loaded because they can run code: save numbers or text."
            ) from None
        if "pickled" in text:  # numpy calls all bytes that it does not recognize pickled data
            text = "these are not the bytes of a NumPy file."
        raise StorageError(f"{path} is damaged, or its name has the wrong ending: {text[:200]}") from error
