"""Images from files and folders."""

from __future__ import annotations

import gzip
import inspect
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pushforward.data.images import as_images
from pushforward.errors import ConfigError, InputError, StorageError
from pushforward.io.files import existing_path, expanded, files_below, load_array, plain_errors
from pushforward.io.input_file import InputFile, unchanged
from pushforward.io.pictures import (
    PICTURES,
    decoded,
    decoded_parts,
    has_encoded_images,
    is_picture_file,
    opened,
    picture_files,
    pictures_of_folder,
    pictures_of_parquet,
)
from pushforward.numerics.checks import check_integer

__all__ = ["holds_images", "named_images", "read_images", "stream_images"]

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4"}
_TORCHVISION = "torchvision:"


def read_images(
    source: str | os.PathLike[str],
    *,
    array: str | None = None,
    column: str | None = None,
    train: bool = True,
    gray: bool = False,
) -> Tensor:
    """Read images from a file or a folder, in the form of :func:`~pushforward.data.as_images`.

    Args:
        source: one of

            - a ``.npy`` or ``.npz`` file of integers;
            - an IDX file, the format of MNIST, which may be compressed with gzip;
            - a Parquet file with a column of encoded images (PNG, JPEG, WebP), plain or as ``{"bytes": ...}``;
            - a folder of image files of one size, or one image file. Files are read in the order of their paths, sub-folders and linked ones included;
              hidden ones, whose names begin with ".", are not. Each is turned upright (EXIF);
            - ``"torchvision:NAME:ROOT"``, a torchvision data set that is already on the disk, such as
              ``"torchvision:FashionMNIST:data"``.
        array: which array of an ``.npz`` file; by default "X", or the only one.
        column: which column of a Parquet file; by default "image", or the only one of encoded images.
        train: whether to read the training part of a torchvision data set, else its test part.
        gray: whether to read encoded images as gray, for a guard of gray images. An image with colors is refused by name; one whose
            three channels are equal has none.

    Returns:
        ``(n, c, h, w)`` integers. c is 1 if all images are gray, else 3; transparency is dropped.

    Raises:
        StorageError: for a path that is absent, damaged, or of unknown format.
        InputError: for images of different sizes, images of 8 and of more bits together, an image of several frames or pages or of
            colors with 16 bits a channel (of which Pillow would keep 8), or no images.
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
    if path.is_dir() or path.suffix.lower() in PICTURES:
        return decoded(pictures_of_folder(path), gray)
    with plain_errors(path):
        name = path.name.lower()
        if name.endswith((".npy", ".npz")):
            return as_images(np.array(load_array(path, array)))
        if name.endswith(".parquet"):
            return decoded(pictures_of_parquet(path, column), gray)
        raw = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
        return as_images(_idx_array(path, raw))


def stream_images(source: str | os.PathLike[str], rows: int, *, gray: bool = False) -> Iterator[Tensor]:
    """The images of :func:`read_images` in parts of ``rows`` images; the last part may be shorter.

    An ``.npy`` file, a Parquet file and a folder of image files are read part by part, in constant memory, and may be larger
    than memory. Everything else is read as a whole.

    Args:
        source: as for :func:`read_images`.
        rows: number of images in a part.
        gray: as for :func:`read_images`.

    Raises:
        StorageError, InputError, ConfigError: as for :func:`read_images`.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "x.npy")
        >>> np.save(path, np.zeros((5, 8, 8), np.uint8))
        >>> [len(part) for part in stream_images(path, 2)]
        [2, 2, 1]
    """
    for _, part in named_images(source, rows, gray=gray):
        yield part


def named_images(
    source: str | os.PathLike[str], rows: int, *, gray: bool = False
) -> Iterator[tuple[list[str] | None, Tensor]]:
    """The parts of :func:`stream_images`, each with the names of its files: their paths in the folder; None without image files."""
    check_integer("rows", rows)
    path = None if str(source).startswith(_TORCHVISION) else existing_path(source)
    if path is None or not (path.is_dir() or path.suffix.lower() in PICTURES):
        yield from ((None, part) for part in _unnamed(source, path, rows, gray))
        return
    files, first = picture_files(path), 0
    for part in decoded_parts(opened(files), rows, gray):
        yield [name for name, _ in files[first : first + len(part)]], part
        first += len(part)


def _unnamed(source: str | os.PathLike[str], path: Path | None, rows: int, gray: bool) -> Iterator[Tensor]:
    if path is not None and path.name.lower().endswith(".parquet"):
        with plain_errors(path), unchanged([InputFile(str(path), str(path), None, "parquet")]):
            yield from decoded_parts(pictures_of_parquet(path, None), rows, gray)
        return
    if path is not None and path.name.lower().endswith(".npy"):
        with plain_errors(path):
            mapped: Any = load_array(path)
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


def holds_images(path: str | os.PathLike[str]) -> bool:
    """Whether a file or folder contains images and not a table.

    Images are: an image file, a folder with some, an IDX file, an array of three or four dimensions, and a Parquet file with a
    column of encoded images. The answer is False for what cannot be read, so that the reader of tables reports the error.

    Example:
        >>> import pathlib, tempfile, numpy as np
        >>> from pushforward.io import holds_images
        >>> path = pathlib.Path(tempfile.mkdtemp(), "images.npy")
        >>> np.save(path, np.zeros((3, 8, 8), dtype=np.uint8))
        >>> holds_images(path)
        True
    """
    try:
        path = expanded(path)
        name = path.name.lower()
        if path.is_dir():
            return any(is_picture_file(file, path) for file in files_below(path))
        if path.suffix.lower() in PICTURES:
            return True
        if name.endswith(".parquet"):
            return has_encoded_images(path)
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
