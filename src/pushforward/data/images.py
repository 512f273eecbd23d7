"""Images, from arrays and from files, as integers in one shape: ``(n, channels, height, width)``."""

from __future__ import annotations

import gzip
import inspect
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.data.files import plain_errors
from pushforward.errors import ConfigError, InputError, StorageError

__all__ = ["as_images", "holds_images", "read_images"]

_CHANNELS = (1, 3, 4)
_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4"}
_TORCHVISION = "torchvision:"


def as_images(data: Any) -> Tensor:
    """A stack of images as integers, channels first.

    Args:
        data: array or tensor of integers (or booleans, or floats that hold integers): ``(n, h, w)`` for gray images,
            ``(n, h, w, c)`` or ``(n, c, h, w)`` with c of 1, 3 or 4; where both readings are possible, channels are
            last.

    Returns:
        ``(n, c, h, w)``: uint8 as it is, wider integers as int32 or int64. Memory is shared where torch allows it.

    Raises:
        InputError: for another shape, fractions, negative values, or no images.

    Example:
        >>> import numpy as np
        >>> as_images(np.zeros((5, 28, 28), dtype=np.uint8)).shape
        torch.Size([5, 1, 28, 28])
    """
    if isinstance(data, Tensor):
        array = data.detach().cpu().numpy()
    else:
        try:
            array = np.asarray(data)
        except (TypeError, ValueError) as error:
            raise InputError(f"the images form no array (of unequal sizes?): {error}") from error
    return _stack(_integers(array))


def read_images(
    source: str | os.PathLike[str], *, array: str | None = None, column: str | None = None, train: bool = True
) -> Tensor:
    """Images from a file or a folder, as :func:`as_images` gives them.

    Args:
        source: one of

            - a ``.npy`` or ``.npz`` file of integers;
            - an IDX file, as MNIST comes, also gzipped;
            - a Parquet file with a column of encoded images (PNG, JPEG, WebP), plain or as ``{"bytes": ...}``;
            - a folder of image files of one size, sub-folders included, in the order of their paths;
            - ``"torchvision:NAME:ROOT"``, a torchvision data set that is on the disk already, such as
              ``"torchvision:FashionMNIST:data"``.
        array: which array of an ``.npz`` file; needed where it holds several.
        column: which column of a Parquet file; "image" or the only binary one by default.
        train: which part of a torchvision data set.

    Returns:
        ``(n, c, h, w)`` integers: c is 1 if all images are gray, else 3; transparency is dropped.

    Raises:
        StorageError: for a path that is absent, damaged, or of unknown format.
        InputError: for images of different sizes, or none.
        ConfigError: for an array, a column or a data set that does not exist.
    """
    if isinstance(source, str) and source.startswith(_TORCHVISION):
        return _from_torchvision(source, train)
    try:
        path = Path(source)
    except TypeError:
        raise InputError(f"expected the path of a file or a folder; got {type(source).__name__}.") from None
    if not path.exists():
        raise StorageError(f"there is no file or folder {path}.")
    if path.is_dir():
        return _from_folder(path)
    with plain_errors(path):
        name = path.name.lower()
        if name.endswith((".npy", ".npz")):
            return _stack(_integers(_numpy_array(path, array)))
        if name.endswith(".parquet"):
            return _from_parquet(path, column)
        raw = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
        return _stack(_idx_array(path, raw))


def holds_images(path: Path) -> bool:
    """Whether a file or folder holds images rather than a table, judged by its beginning.

    A folder does, an IDX file, arrays of three or four dimensions, and a Parquet file with a column of encoded images. What
    cannot be read does not: whoever reads it as a table says what is wrong.
    """
    if path.is_dir():
        return True
    name = path.name.lower()
    try:
        if name.endswith(".parquet"):
            import pyarrow.parquet as pq

            return any(_encoded(field.type) for field in pq.read_schema(path))
        if name.endswith(".npy"):
            return np.load(path, mmap_mode="r", allow_pickle=False).ndim in (3, 4)
        if name.endswith(".npz"):
            return _numpy_array(path, None).ndim in (3, 4)
        with gzip.open(path) if name.endswith(".gz") else path.open("rb") as file:
            start = file.read(4)
        return len(start) == 4 and start[:2] == b"\0\0" and start[2] in _IDX_TYPES and start[3] == 3
    except Exception:
        return False


def _integers(array: NDArray[Any]) -> NDArray[Any]:
    """The same numbers as uint8, int32 or int64, if they are integers of at least 0."""
    if array.dtype.kind not in "fiub":
        raise InputError(f"images are integers; got {array.dtype}.")
    if array.size == 0:
        raise InputError(f"there are no images in an array of shape {array.shape}.")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InputError("the images hold NaN or infinity: give integers such as 0 to 255.")
        if (array != np.round(array)).any():
            raise InputError(
                f"images are integers such as 0 to 255, and these are fractions between {array.min():.4g} and "
                f"{array.max():.4g}: give the raw pixels, or round(255 * x) if that is what they were."
            )
        array = array.astype(np.int64)
    if array.dtype in (np.bool_, np.uint8):
        return array.astype(np.uint8, copy=False)
    if array.min() < 0:
        raise InputError(f"images are integers from 0 on; the smallest value is {array.min()}.")
    if array.max() > np.iinfo(np.int64).max:
        raise InputError("images of more than 63 bits are not supported.")
    return array.astype(np.int64 if array.max() > np.iinfo(np.int32).max else np.int32)


def _stack(array: NDArray[Any]) -> Tensor:
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[-1] in _CHANNELS:
        array = np.moveaxis(array, -1, 1)
    elif array.ndim != 4 or array.shape[1] not in _CHANNELS:
        raise InputError(
            f"images have shape (n, height, width), (n, height, width, channels) or (n, channels, height, width) with "
            f"{', '.join(map(str, _CHANNELS))} channels; got {array.shape}."
        )
    return torch.from_numpy(np.ascontiguousarray(array))


def _numpy_array(path: Path, name: str | None) -> NDArray[Any]:
    with path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        names = loaded.files
        if name is None and len(names) != 1:
            raise ConfigError(f"{path} holds the arrays {', '.join(names) or 'none'}: name one with array=.")
        if name is not None and name not in names:
            raise ConfigError(f"{path} has no array {name!r}; it holds {', '.join(names)}.")
        return loaded[names[0] if name is None else name]


def _idx_array(path: Path, raw: bytes) -> NDArray[Any]:
    """The array of an IDX file: two zero bytes, a type, the number of dimensions, their sizes, the numbers."""
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_TYPES:
        raise StorageError(f"{path} is none of .npy, .npz, .parquet, an IDX file or a folder of images.")
    kind, dims = np.dtype(_IDX_TYPES[raw[2]]), raw[3]
    sizes = [int.from_bytes(raw[4 + 4 * k : 8 + 4 * k], "big") for k in range(dims)]
    begin, count = 4 + 4 * dims, int(np.prod(sizes, dtype=object))
    if len(raw) != begin + count * kind.itemsize:
        raise StorageError(f"{path} is damaged: its header promises {sizes} numbers, and it holds {len(raw)} bytes.")
    if dims != 3:
        raise InputError(f"{path} holds an array of shape {tuple(sizes)}, not images (the labels, perhaps?).")
    return _integers(np.frombuffer(raw, kind, count, begin).reshape(sizes).astype(kind.newbyteorder("=")))


def _from_parquet(path: Path, column: str | None) -> Tensor:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        found = [field.name for field in schema if _encoded(field.type)]
        if column is None and "image" not in found and len(found) != 1:
            raise ConfigError(
                f"{path} has {len(found)} columns of encoded images ({', '.join(found)}): name it with column=."
            )
        name = column or ("image" if "image" in found else found[0])
        if name not in found:
            raise ConfigError(f"{path} has no column of encoded images {name!r}; it has {', '.join(found) or 'none'}.")
        cells = pa.concat_tables([pa.Table.from_batches([b]) for b in file.iter_batches(columns=[name])])[name]
    values = (cell["bytes"] if isinstance(cell, dict) else cell for cell in cells.to_pylist())
    return _pictures((f"row {row}", _bytes(path, row, value)) for row, value in enumerate(values))


def _encoded(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _bytes(path: Path, row: int, value: bytes | None) -> io.BytesIO:
    if value is None:
        raise InputError(f"{path} has no image in row {row}.")
    return io.BytesIO(value)


def _from_folder(path: Path) -> Tensor:
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _PICTURES and file.is_file())
    if not files:
        raise StorageError(f"{path} holds no image files ({', '.join(sorted(_PICTURES))}).")
    return _pictures((str(file), file) for file in files)


def _pictures(files: Iterable[tuple[str, Any]]) -> Tensor:
    """Decode encoded images of one size; gray if all of them are."""
    from PIL import Image

    arrays: list[NDArray[Any]] = []
    for name, file in files:
        try:
            with Image.open(file) as picture:
                deep = picture.mode.startswith("I") or picture.mode == "F"
                gray = picture.mode in ("1", "L", "LA") or deep
                array = np.asarray(picture if deep else picture.convert("L" if gray else "RGB"))
        except Exception as error:  # damaged bytes make decoders raise anything
            raise StorageError(f"{name} is no image that Pillow can read: {error}") from error
        if arrays and array.shape[:2] != arrays[0].shape[:2]:
            raise InputError(
                f"images must have one size: {name} is {array.shape[1]} wide and {array.shape[0]} high, the first is "
                f"{arrays[0].shape[1]} by {arrays[0].shape[0]}."
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
            f"{source} needs torchvision: pip install torchvision, or give the files themselves."
        ) from None
    kind = getattr(datasets, name, None)
    if not isinstance(kind, type):
        raise ConfigError(f"torchvision has no data set {name!r}.")
    takes = inspect.signature(kind).parameters
    options = {"train": train} if "train" in takes else {"split": "train" if train else "test"}
    try:
        data = kind(root=root or ".", download=False, **options)
    except Exception as error:  # each data set has its own words for files that are not there
        raise StorageError(f"torchvision finds no {name} in {root or '.'}: {error}") from error
    if hasattr(data, "data"):
        return as_images(data.data)
    return as_images(np.stack([np.asarray(data[i][0]) for i in range(len(data))]))
