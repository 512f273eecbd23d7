"""One safetensors file with tensors, a JSON header and a checksum. Reading it runs no pickle and imports nothing.

The JSON header is in the safetensors metadata, under the key "pushforward". It begins with a SHA-256 digest of the whole
file, computed with the 64 characters of the digest itself set to zero. The digest is at the same position in every format
version, so a file is verified before anything in it is parsed. Any safetensors reader opens these files.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import stat
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from pushforward import __version__
from pushforward.errors import ConfigError, FormatVersionError, StorageError
from pushforward.io.atomic import atomic_write, reason
from pushforward.io.signature import check_signature
from pushforward.io.strict_json import parse

__all__ = ["FORMAT", "KINDS", "Path", "current_versions", "file_digest", "read", "write"]

Path = str | os.PathLike[str]

FORMAT = 2
"""Version of the format, which this code reads and writes. Format 1 named classes and arguments that have new names."""

KINDS = {
    "model": "pf.load(path)",
    "guard": "pf.Guard.load(path)",
    "shifted guard": "pf.estimators.ShiftedGuard.load(path)",
    "network guard": "pf.NetworkGuard.load(path, net)",
    "density": "pf.FlowDensity.load(path)",
    "checkpoint": "pf.fit(model, x, checkpoint=path)",
    "monitor": "pf.detection.Monitor.load(path)",
    "posterior": "pf.training.bayes.Posterior.load(path)",
    "simulation-posterior": "pf.inference.load_posterior(path)",
}
"""What a file can contain, and the call that reads it."""

_PREFIX = b'{"__metadata__":{"pushforward":"{\\"sha256\\":\\"'
_DIGEST = 8 + len(_PREFIX)
_ZEROS = b"0" * 64
_OURS = ("sha256", "format", "versions")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_LARGEST_FILE = 16 << 30
_LARGEST_HEADER = 16 << 20
_MAGIC = {
    b"PK\x03\x04": "a zip archive, as torch.save (.pt, .pth) and numpy.savez write, which can contain pickled code",
    **{bytes([0x80, protocol]): "a Python pickle, which can contain code" for protocol in range(2, 6)},
    b"\x93NUMPY": "a NumPy array",
    b"PAR1": "a Parquet table",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip archive",
    b"\x89PNG": "a PNG picture",
}


def write(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a header and tensors to one file, in one atomic step (see :func:`~pushforward.io.atomic.atomic_write`).

    Args:
        path: the file to write. ``~`` is the home directory, and a symbolic link is followed.
        header: plain JSON types, with ``kind`` one of :data:`KINDS`. Tuples come back as lists.
        tensors: tensors by name, on any device and with any strides; they may share memory. The types are floating point
            (64, 32, 16, bfloat16), integer (64, 32, 16, 8, unsigned 8) and bool.

    Raises:
        ConfigError: if the header or a tensor has a type that a file cannot store.
        StorageError: if the file cannot be written. A file that was at ``path`` is then unchanged.

    Example:
        >>> import pathlib, tempfile, torch, pushforward as pf
        >>> path = pathlib.Path(tempfile.mkdtemp(), "numbers.safetensors")
        >>> pf.io.write(path, {"kind": "model"}, {"weight": torch.ones(2)})
        >>> pf.io.read(path)[1]["weight"]
        tensor([1., 1.])
    """
    name = _text(path)
    pieces = _encode(header, tensors)
    with atomic_write(name) as file:
        for piece in pieces:
            file.write(piece)


def file_digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the file that :func:`write` would write, as hexadecimal text.

    Raises:
        ConfigError: as :func:`write`.

    Example:
        >>> import torch
        >>> from pushforward.io import file_digest
        >>> len(file_digest({"kind": "model"}, {"weight": torch.zeros(2)}))
        64
    """
    found = hashlib.sha256()
    for piece in _encode(header, tensors):
        found.update(piece)
    return found.hexdigest()


def read(
    path: Path, kind: str | None = None, *, limit: int = _LARGEST_FILE, public_key: Path | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the header and the tensors of a file that :func:`write` wrote.

    The file is read once, and its bytes are verified against the checksum before they are parsed.

    Args:
        path: the file.
        kind: the kind that the file must have, one of :data:`KINDS`; None accepts every kind.
        limit: size of the largest file to read, in bytes.
        public_key: file of the key with which the file must be signed (:func:`~pushforward.io.sign`); None accepts any.

    Returns:
        The header, with ``format`` and ``versions`` (the versions of pushforward, torch and python that wrote the file),
        and the tensors, on the CPU, none of which share memory.

    Raises:
        FormatVersionError: if a newer version of pushforward wrote the file, or an early version 0.1.
        SignatureError: if a key is given, and the file is not signed with it or was changed since.
        StorageError: if there is no such file, or if it is damaged, too large, of another kind or not from pushforward.

    Example:
        >>> import pathlib, tempfile, torch, pushforward as pf
        >>> path = pathlib.Path(tempfile.mkdtemp(), "model.safetensors")
        >>> model = pf.models.NICE(features=2)
        >>> pf.save(model, path)
        >>> header, tensors = pf.io.read(path)
        >>> header["kind"], len(tensors) > 0
        ('model', True)
    """
    name = _text(path)
    data = _bytes(name, limit)
    if public_key is not None:
        check_signature(data, name, public_key)
    digest = hashlib.sha256(memoryview(data)[:_DIGEST])
    digest.update(_ZEROS)
    digest.update(memoryview(data)[_DIGEST + 64 :])
    if digest.hexdigest().encode() != data[_DIGEST : _DIGEST + 64]:
        raise StorageError(f"{name} is damaged: its content does not match its checksum. Use an intact copy.")
    try:
        outer = parse(data[8 : 8 + int.from_bytes(data[:8], "little")].rstrip(b" "))
        header = parse(outer.pop("__metadata__")["pushforward"])
        version, found = header["format"], header["kind"]
        versions = {str(part): str(text) for part, text in header["versions"].items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{name} has a header that pushforward did not write: {str(error)[:200]}.") from None
    _check_format(name, version, versions)
    _check_kind(name, found, kind)
    del header["sha256"]
    return header, _tensors(name, outer, data)


def current_versions() -> dict[str, str]:
    """The versions of pushforward, torch and python that run, as files state them."""
    return {"pushforward": __version__, "torch": torch.__version__, "python": platform.python_version()}


def _encode(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Iterable[bytes | memoryview]:
    """The bytes of the file, in pieces."""
    if header.get("kind") not in KINDS:
        raise ConfigError(f"the kind of a file must be one of {', '.join(KINDS)}; got {header.get('kind')!r}.")
    whole = {
        "sha256": _ZEROS.decode(),
        "format": FORMAT,
        "versions": current_versions(),
        **{key: value for key, value in header.items() if key not in _OURS},
    }
    try:
        text = json.dumps(whole, allow_nan=False, separators=(",", ":"), default=_python_number)
        parse(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the header contains a value that JSON cannot store: {str(error)[:200]}.") from error
    data = safetensors.torch.save({name: _plain(name, t) for name, t in tensors.items()}, {"pushforward": text})
    length = int.from_bytes(data[:8], "little")
    if length > _LARGEST_HEADER:
        raise ConfigError(f"the header takes {length} bytes; a file can store at most {_LARGEST_HEADER}.")
    if data[8:_DIGEST] != _PREFIX:
        raise StorageError(
            "this version of safetensors writes a header that pushforward cannot read: install another version of safetensors."
        )
    view = memoryview(data)
    digest = hashlib.sha256(data).hexdigest().encode()
    return view[:_DIGEST], digest, view[_DIGEST + 64 :]


def _python_number(value: Any) -> Any:
    """A number of numpy as one of Python; a TypeError for anything else."""
    return value.item() if isinstance(value, np.generic) else json.JSONEncoder().default(value)


def _plain(name: str, tensor: Tensor) -> Tensor:
    """A dense copy on the CPU, because safetensors accepts neither shared memory nor views."""
    if name == "__metadata__" or not isinstance(tensor, Tensor):
        raise ConfigError(f"a file stores tensors by name; it cannot store {type(tensor).__name__} {name!r}.")
    if tensor.dtype not in _DTYPES.values() or tensor.layout is not torch.strided or tensor.is_meta:
        raise ConfigError(
            f"a file cannot store the tensor {name!r} ({tensor.dtype}, {tensor.layout}, {tensor.device}): make it a dense "
            "tensor of a real, integer or bool type."
        )
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _bytes(name: str, limit: int) -> bytes:
    """The bytes of the file, read only if its size and its first bytes are those of a pushforward file."""
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):  # reading a pipe or a device can block or never end
            raise StorageError(f"{name} is a directory or a device, not a file.")
        with open(name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(_DIGEST + 64)
            length = int.from_bytes(start[:8], "little")
            if start[8:_DIGEST] != _PREFIX or len(start) < _DIGEST + 64:
                _refuse_foreign(name, start, size)
            if not len(start) - 8 <= length <= size - 8:
                raise StorageError(
                    f"{name} is cut short or damaged: its header says that it is {length} bytes long, and the file has {size} bytes."
                )
            if length > _LARGEST_HEADER or size > limit:
                raise StorageError(f"{name} is too large to read: {size} bytes, {length} of them in its header.")
            file.seek(0)
            data = file.read(size + 1)
    except StorageError:
        raise
    except (OSError, ValueError, MemoryError) as error:
        raise StorageError(f"cannot read {name}: {reason(error)}.") from error
    if len(data) != size or not data.startswith(start):
        raise StorageError(f"{name} changed while it was read: read it again when nothing writes to it.")
    return data


def _refuse_foreign(name: str, start: bytes, size: int) -> NoReturn:
    if not start:
        raise StorageError(f"{name} is empty.")
    for magic, meaning in _MAGIC.items():
        if start.startswith(magic) and start[8:10] != b'{"':
            raise StorageError(f"{name} looks like {meaning}; pushforward reads only files that it wrote.")
    if start[8:10] == b'{"' and int.from_bytes(start[:8], "little") <= size - 8:
        raise StorageError(
            f"{name} is a safetensors file that pushforward did not write, or that another program changed."
        )
    raise StorageError(f"{name} is not a file that pushforward wrote, or its first bytes are damaged.")


def _check_format(name: str, version: Any, versions: Mapping[str, str]) -> None:
    if type(version) is not int or version < 1:
        raise StorageError(f"{name} has no format version that pushforward writes.")
    if version < FORMAT:
        raise FormatVersionError(
            f"{name} was written by an early version 0.1 of pushforward, whose names have changed since: fit the model "
            "again, and save it."
        )
    if version > FORMAT:
        raise FormatVersionError(
            f"{name} has format {version} and was written by pushforward {versions.get('pushforward', '?')[:40]}; this "
            f"is version {__version__}, which reads format {FORMAT}: upgrade pushforward."
        )


def _check_kind(name: str, found: Any, kind: str | None) -> None:
    if not isinstance(found, str) or found not in KINDS:
        raise StorageError(f"{name} is of the kind {str(found)[:40]!r}, which this version of pushforward cannot read.")
    if kind is not None and found != kind:
        raise StorageError(f"{name} contains a {found}, not a {kind}: read it with {KINDS[found]}.")


def _tensors(name: str, entries: Mapping[str, Any], data: bytes) -> dict[str, Tensor]:
    for key, entry in entries.items():
        if not isinstance(entry, dict) or str(entry.get("dtype")) not in _DTYPES:
            raise StorageError(f"{name} has the tensor {key[:80]!r} in a type that pushforward does not write.")
    try:
        # Copied, because the last bit of a matrix product depends on the alignment of memory, and torch aligns its own.
        with torch.device("cpu"):  # where safetensors makes tensors without numbers is the default device
            tensors = {key: tensor.clone() for key, tensor in safetensors.torch.load(data).items()}
    except Exception as error:  # the parser raises different errors for different damage
        raise StorageError(f"{name} has tensors that do not fit the file: {str(error)[:200]}.") from None
    for key, tensor in tensors.items():
        if tensor.dtype is torch.bool and tensor.numel() and tensor.view(torch.uint8).max() > 1:
            raise StorageError(f"{name} has the bool tensor {key[:80]!r} with values other than 0 and 1.")
    return tensors


def _text(path: Path) -> str:
    try:
        name = os.path.expanduser(os.fsdecode(path))
    except TypeError:
        raise StorageError(f"the name of a file must be text or a path; got {type(path).__name__}.") from None
    if not name or "\0" in name:
        raise StorageError(f"{name!r} is not the name of a file.")
    return name
