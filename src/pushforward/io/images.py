"""Images from files and folders."""

from __future__ import annotations

import gzip
import inspect
import io
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pushforward.data.images import as_images
from pushforward.errors import ConfigError, InputError, StorageError
from pushforward.io.files import existing_path, load_array, plain_errors
from pushforward.io.input_file import InputFile, unchanged
from pushforward.numerics.checks import check_integer

__all__ = ["holds_images", "read_images", "stream_images"]

_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4"}
_TORCHVISION = "torchvision:"


def read_images(
    source: str | os.PathLike[str], *, array: str | None = None, column: str | None = None, train: bool = True
) -> Tensor:
    """Read images from a file or a folder, in the form of :func:`~pushforward.data.as_images`.

    Args:
        source: one of

            - a ``.npy`` or ``.npz`` file of integers;
            - an IDX file, the format of MNIST, which may be compressed with gzip;
            - a Parquet file with a column of encoded images (PNG, JPEG, WebP), plain or as ``{"bytes": ...}``;
            - a folder of image files of one size. They are read in the order of their paths, sub-folders included;
            - ``"torchvision:NAME:ROOT"``, a torchvision data set that is already on the disk, such as
              ``"torchvision:FashionMNIST:data"``.
        array: which array of an ``.npz`` file; by default "X", or the only one.
        column: which column of a Parquet file; by default "image", or the only one of encoded images.
        train: whether to read the training part of a torchvision data set, else its test part.

    Returns:
        ``(n, c, h, w)`` integers. c is 1 if all images are gray, else 3; transparency is dropped.

    Raises:
        StorageError: for a path that is absent, damaged, or of unknown format.
        InputError: for images of different sizes, or no images.
        ConfigError: for an array, a column or a data set that does not exist.

    Example:
        >>> import pathlib, tempfile, numpy as np
        >>> from pushforward.io import read_images
        >>> path = pathlib.Path(tempfile.mkdtemp(), "images.npy")
        >>> np.save(path, np.zeros((3, 8, 8), dtype=np.uint8))
        >>> read_images(path).shape
        torch.Size([3, 1, 8, 8])
    """
    if isinstance(source, str) and source.startswith(_TORCHVISION):
        return _from_torchvision(source, train)
    path = existing_path(source)
    if path.is_dir():
        return _from_folder(path)
    with plain_errors(path):
        name = path.name.lower()
        if name.endswith((".npy", ".npz")):
            return as_images(np.array(load_array(path, array)))
        if name.endswith(".parquet"):
            return _from_parquet(path, column)
        raw = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
        return as_images(_idx_array(path, raw))


def stream_images(source: str | os.PathLike[str], rows: int) -> Iterator[Tensor]:
    """The images of :func:`read_images` in parts of ``rows`` images; the last part may be shorter.

    An ``.npy`` file is read part by part, in constant memory, and may be larger than memory. Everything else is read as a
    whole.

    Raises:
        StorageError, InputError, ConfigError: as for :func:`read_images`.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "x.npy")
        >>> np.save(path, np.zeros((5, 8, 8), np.uint8))
        >>> [len(part) for part in stream_images(path, 2)]
        [2, 2, 1]
    """
    check_integer("rows", rows)
    if not str(source).startswith(_TORCHVISION) and str(source).lower().endswith(".npy"):
        path = existing_path(source)
        with plain_errors(path):
            mapped: Any = None if path.is_dir() else load_array(path)
            if isinstance(mapped, np.memmap) and mapped.ndim in (3, 4) and mapped.flags.c_contiguous and len(mapped):
                shape, kind, offset = mapped.shape, mapped.dtype, mapped.offset
                del mapped
                yield from _array_parts(path, shape, kind, offset, rows)
                return
    images = read_images(source)
    for start in range(0, len(images), rows):
        yield images[start : start + rows]


def _array_parts(path: Path, shape: tuple[int, ...], kind: Any, offset: int, rows: int) -> Iterator[Tensor]:
    """The images of an array, which are read and not mapped: the system ends a process that reads a mapped file that was cut."""
    size = math.prod(shape[1:])
    file = InputFile(str(path), str(path), None, "npy")
    with unchanged([file]), path.open("rb") as stream:
        stream.seek(offset)
        for start in range(0, shape[0], rows):
            count = min(rows, shape[0] - start)
            yield as_images(np.fromfile(stream, kind, count * size).reshape(count, *shape[1:]))


def holds_images(path: Path) -> bool:
    """Whether a file or folder contains images and not a table.

    Images are: a folder with image files, an IDX file, an array of three or four dimensions, and a Parquet file with a
    column of encoded images. The answer is False for what cannot be read, so that the reader of tables reports the error.

    Example:
        >>> import pathlib, tempfile, numpy as np
        >>> from pushforward.io import holds_images
        >>> path = pathlib.Path(tempfile.mkdtemp(), "images.npy")
        >>> np.save(path, np.zeros((3, 8, 8), dtype=np.uint8))
        >>> holds_images(path)
        True
    """
    name = path.name.lower()
    try:
        if path.is_dir():
            return any(file.suffix.lower() in _PICTURES for file in path.rglob("*"))
        if name.endswith(".parquet"):
            from pyarrow import parquet

            return any(_is_encoded(field.type) for field in parquet.read_schema(path))
        if name.endswith((".npy", ".npz")):
            return load_array(path).ndim in (3, 4)
        with gzip.open(path) if name.endswith(".gz") else path.open("rb") as file:
            start = file.read(4)
        return len(start) == 4 and start[:2] == b"\0\0" and start[2] in _IDX_TYPES and start[3] == 3
    except Exception:
        return False


def _idx_array(path: Path, raw: bytes) -> NDArray[Any]:
    """The array of an IDX file: two zero bytes, a type, the number of dimensions, the sizes, and the numbers."""
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_TYPES:
        raise StorageError(
            f"{path} is not a file of images: it must be .npy, .npz, .parquet, an IDX file, or a folder of image files."
        )
    kind, dims = np.dtype(_IDX_TYPES[raw[2]]), raw[3]
    sizes = [int.from_bytes(raw[4 + 4 * k : 8 + 4 * k], "big") for k in range(dims)]
    begin, count = 4 + 4 * dims, int(np.prod(sizes, dtype=object))
    if len(raw) != begin + count * kind.itemsize:
        raise StorageError(f"{path} is damaged: its header states an array of {sizes}, and it has {len(raw)} bytes.")
    if dims != 3:
        raise InputError(
            f"{path} has an array of shape {tuple(sizes)}, which is not images. Is it the file of the labels?"
        )
    return np.frombuffer(raw, kind, count, begin).reshape(sizes).astype(kind.newbyteorder("="))


def _from_parquet(path: Path, column: str | None) -> Tensor:
    from pyarrow import parquet

    found = [field.name for field in parquet.read_schema(path) if _is_encoded(field.type)]
    if column is None and "image" not in found and len(found) != 1:
        raise ConfigError(
            f"{path} has {len(found)} columns of encoded images ({', '.join(found) or 'none'}): choose one with column=."
        )
    name = column or ("image" if "image" in found else found[0])
    if name not in found:
        raise ConfigError(f"{path} has no column of encoded images {name!r}; it has {', '.join(found) or 'none'}.")
    cells = parquet.read_table(path, columns=[name])[name].to_pylist()
    values = (cell["bytes"] if isinstance(cell, dict) else cell for cell in cells)
    return _from_pictures((f"row {row} of {path}", _stream(path, row, value)) for row, value in enumerate(values))


def _is_encoded(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _stream(path: Path, row: int, value: bytes | None) -> io.BytesIO:
    if value is None:
        raise InputError(f"row {row} of {path} (counted from 0) has no image: leave this row out.")
    return io.BytesIO(value)


def _from_folder(path: Path) -> Tensor:
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _PICTURES and file.is_file())
    if not files:
        raise StorageError(f"the folder {path} has no image files ({', '.join(sorted(_PICTURES))}).")
    return _from_pictures((str(file), file) for file in files)


def _from_pictures(files: Iterable[tuple[str, Any]]) -> Tensor:
    """Decode images of one size, given with their names for errors. The result is gray if all of them are."""
    from PIL import Image

    arrays: list[NDArray[Any]] = []
    for name, file in files:
        try:
            with Image.open(file) as picture:
                deep = picture.mode.startswith("I") or picture.mode == "F"
                gray = picture.mode in ("1", "L", "LA") or deep
                array = np.asarray(picture if deep else picture.convert("L" if gray else "RGB"))
        except Exception as error:  # decoders raise errors of any type for damaged bytes
            raise StorageError(f"{name} is not an image that Pillow can read: {error}") from error
        if arrays and array.shape[:2] != arrays[0].shape[:2]:
            raise InputError(
                f"images must have one size: {name} is {array.shape[1]} wide and {array.shape[0]} high, and the first image is "
                f"{arrays[0].shape[1]} wide and {arrays[0].shape[0]} high."
            )
        arrays.append(array)
    if not arrays:
        raise InputError("there are no images.")
    if any(array.ndim == 3 for array in arrays):
        arrays = [array if array.ndim == 3 else np.repeat(array[..., None], 3, -1) for array in arrays]
    return as_images(np.stack(arrays))


def _from_torchvision(source: str, train: bool) -> Tensor:
    _, _, rest = source.partition(":")
    name, _, root = rest.partition(":")
    try:
        from torchvision import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError(
            f"{source} needs torchvision: pip install torchvision, or name the files of the data set."
        ) from None
    kind = getattr(datasets, name, None)
    if not isinstance(kind, type):
        raise ConfigError(f"torchvision has no data set {name!r}.")
    takes = inspect.signature(kind).parameters
    options = {"train": train} if "train" in takes else {"split": "train" if train else "test"}
    try:
        data = kind(root=root or ".", download=False, **options)
    except Exception as error:  # data sets raise errors of different types for absent files
        raise StorageError(f"torchvision finds no {name} in {root or '.'}: {error}") from error
    if hasattr(data, "data"):
        return as_images(data.data)
    return as_images(np.stack([np.asarray(data[i][0]) for i in range(len(data))]))
