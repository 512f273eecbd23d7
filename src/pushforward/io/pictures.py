"""Encoded images (PNG, JPEG, ...) of one size: decoded as a whole, or in parts with what the headers of all of them say."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pushforward.data.images import (
    as_images,
    check_depth,
    check_frames,
    picture_error,
    picture_mode,
    pixels_of,
    upright,
    without_colors,
)
from pushforward.errors import ConfigError, InputError, StorageError
from pushforward.io.files import files_below

__all__ = [
    "PICTURES",
    "Files",
    "decoded",
    "decoded_parts",
    "has_encoded_images",
    "is_picture_file",
    "opened",
    "picture_files",
    "pictures_of_folder",
    "pictures_of_parquet",
]

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
Files = Callable[[], Iterable[tuple[str, Any]]]
"""Starts a pass over images: their names for errors, and what Pillow opens."""
_CELLS = 64


def is_picture_file(file: Path, folder: Path) -> bool:
    """Whether a file in a folder is a picture by its name, and neither it nor a folder above it is hidden.

    Systems leave files such as ``._0001.png`` and folders such as ``.ipynb_checkpoints`` behind, which are no images of the user.
    """
    parts = file.relative_to(folder).parts
    return file.suffix.lower() in PICTURES and not any(part.startswith(".") or part == "__MACOSX" for part in parts)


def picture_files(path: Path) -> list[tuple[str, Path]]:
    """The image files of a folder, in the order of their paths, each with its path in the folder; or one image file with its name.

    The paths have "/" between their parts on every system; bytes of a name that are no UTF-8 become the replacement character.

    Raises:
        StorageError: if there are none.
    """
    if path.is_file():
        return [(_text(Path(path.name)), path)]
    files = sorted(file for file in files_below(path) if is_picture_file(file, path))
    if not files:
        raise StorageError(f"the folder {path} has no image files ({', '.join(sorted(PICTURES))}).")
    return [(_text(file.relative_to(path)), file) for file in files]


def pictures_of_folder(path: Path) -> Files:
    """The image files of a folder, in the order of their paths; or one image file.

    Raises:
        StorageError: if there are none.
    """
    return opened(picture_files(path))


def opened(files: list[tuple[str, Path]]) -> Files:
    """Passes over files of :func:`picture_files`."""
    return lambda: ((str(file), file) for _, file in files)


def _text(path: Path) -> str:
    return os.fsencode(path.as_posix()).decode("utf-8", "replace")


def pictures_of_parquet(path: Path, column: str | None) -> Files:
    """The encoded images of a column.

    Raises:
        ConfigError: if there is no such column, or the choice is not clear.
    """
    from pyarrow import parquet

    found = [field.name for field in parquet.read_schema(path) if _is_encoded(field.type)]
    if column is None and "image" not in found and len(found) != 1:
        raise ConfigError(
            f"{path} has {len(found)} columns of encoded images ({', '.join(found) or 'none'}): choose one with column=."
        )
    name = column or ("image" if "image" in found else found[0])
    if name not in found:
        raise ConfigError(f"{path} has no column of encoded images {name!r}; it has {', '.join(found) or 'none'}.")

    def cells() -> Iterator[tuple[str, Any]]:
        row = 0
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_CELLS, columns=[name]):
                for cell in batch.column(0).to_pylist():
                    value = cell["bytes"] if isinstance(cell, dict) else cell
                    if value is None:
                        raise InputError(f"row {row} of {path} (counted from 0) has no image: leave this row out.")
                    yield f"row {row} of {path}", io.BytesIO(value)
                    row += 1

    return cells


def has_encoded_images(path: Path) -> bool:
    """Whether a Parquet file has a column of encoded images: structures with "bytes", or binary cells of which Pillow knows one of the first.

    Other binary cells may be hashes or keys. Without rows a binary column is one of images if its name is "image".
    """
    import pyarrow as pa
    from pyarrow import parquet

    found = [field for field in parquet.read_schema(path) if _is_encoded(field.type)]
    if not found or any(pa.types.is_struct(field.type) for field in found):
        return bool(found)
    with parquet.ParquetFile(path) as file:
        first = next(file.iter_batches(_CELLS, columns=[field.name for field in found]), None)
    cells = [] if first is None else [cell for column in first.columns for cell in column.drop_null().to_pylist()[:3]]
    return any(map(_is_picture, cells)) if cells else any(field.name == "image" for field in found)


def _is_picture(content: bytes) -> bool:
    """Whether Pillow knows the format of encoded bytes."""
    try:
        from PIL import Image

        with Image.open(io.BytesIO(content)):
            return True
    except ImportError:  # the error that says what to install comes later
        return True
    except Exception:  # readers raise errors of any type for other bytes
        return False


def decoded(files: Files, gray: bool = False) -> Tensor:
    """All images, in the form of :func:`~pushforward.data.as_images`: gray if all of them are.

    Args:
        files: the images.
        gray: whether to refuse an image with colors.

    Raises:
        StorageError: for an image that cannot be decoded.
        InputError: for images of different sizes or ranges, of several frames or of 16 bits a channel, for colors that are refused,
            or no images.
    """
    arrays: list[NDArray[Any]] = []
    for name, file in files():
        array = _decode(name, file, gray)
        if arrays:
            _check_like(name, array, arrays[0])
        arrays.append(array)
    if not arrays:
        raise InputError("there are no images.")
    return as_images(np.stack(_alike(arrays, any(array.ndim == 3 for array in arrays))))


def decoded_parts(files: Files, rows: int, gray: bool = False) -> Iterator[Tensor]:
    """As :func:`decoded`, in parts of ``rows`` images.

    A first pass reads the headers of all images, which say whether one has colors and whether all have one size.
    """
    kinds: set[Any] = set()
    color, first = False, None
    for name, file in files():
        array = _header(name, file, gray)
        first = array if first is None else first
        _check_like(name, array, first)
        kinds.add(array.dtype)
        color |= array.ndim == 3
    if first is None:
        raise InputError("there are no images.")
    kind = np.result_type(*kinds)
    part: list[NDArray[Any]] = []
    for name, file in files():
        array = _decode(name, file, gray)
        _check_like(name, array, first)
        if array.ndim == 3 and not color:
            raise StorageError(f"{name} changed while it was read.")
        part.append(array)
        if len(part) == rows:
            yield as_images(np.stack(_alike(part, color)).astype(kind, copy=False))
            part = []
    if part:
        yield as_images(np.stack(_alike(part, color)).astype(kind, copy=False))


def _alike(arrays: list[NDArray[Any]], color: bool) -> list[NDArray[Any]]:
    return [array if array.ndim == 3 or not color else np.repeat(array[..., None], 3, -1) for array in arrays]


def _check_like(name: str, array: NDArray[Any], first: NDArray[Any]) -> None:
    """Refuse a picture whose size or range is not that of the first."""
    if array.shape[:2] != first.shape[:2]:
        raise InputError(
            f"images must have one size: {name} is {array.shape[1]} wide and {array.shape[0]} high, and the first image is "
            f"{first.shape[1]} wide and {first.shape[0]} high."
        )
    if (array.dtype == np.uint8) != (first.dtype == np.uint8):  # white is 255 in one of them and far more in the other
        few, many = (name, "the first image") if array.dtype == np.uint8 else ("the first image", name)
        raise InputError(f"images must have one range: {few} has 8 bits, and {many} has more: convert one of them.")


def _header(name: str, file: Any, gray: bool) -> NDArray[Any]:
    """An array of the shape and type that :func:`_decode` would give, without pixels."""

    def read(picture: Any) -> NDArray[Any]:
        check_frames(picture, name)
        check_depth(picture, name)
        if picture.format == "TIFF":
            picture.load()  # Pillow turns TIFF files upright, its versions at different times
        mode = picture_mode(picture)
        return _blank(picture, "L" if gray and mode else mode)

    return _open(name, file, read)


def _decode(name: str, file: Any, gray: bool) -> NDArray[Any]:
    """Pixels, ``(h, w)`` if gray and else ``(h, w, 3)``."""
    pixels = _open(name, file, lambda picture: pixels_of(picture, name))
    return without_colors(pixels, name) if gray else pixels


def _open(name: str, file: Any, read: Callable[[Any], NDArray[Any]]) -> NDArray[Any]:
    from PIL import Image

    try:
        with Image.open(file) as picture:
            return read(picture)
    except InputError:
        raise
    except Exception as error:  # decoders raise errors of any type for damaged bytes
        raise StorageError(f"{name} is not an image that Pillow can read: {picture_error(error)}") from error


def _blank(picture: Any, mode: str | None) -> NDArray[Any]:
    shape = (picture.height, picture.width) if mode != "RGB" else (picture.height, picture.width, 3)
    kind = np.uint8 if mode else np.float32 if picture.mode == "F" else np.int32 if picture.mode == "I" else np.uint16
    return upright(np.broadcast_to(np.zeros((), kind), shape), picture)


def _is_encoded(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" and _is_encoded(kind.field(i).type) for i in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
