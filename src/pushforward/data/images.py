"""Images from arrays, as integers in one shape: ``(n, channels, height, width)``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.errors import InputError

__all__ = [
    "as_images",
    "check_depth",
    "check_frames",
    "is_picture",
    "picture_error",
    "picture_mode",
    "pixels_of",
    "upright",
    "without_colors",
]

CHANNELS = (1, 3, 4)
_ORIENTATION = 0x0112
_STREAM = re.compile(r"<_io\.\w+ object at 0x[0-9a-fA-F]+>")


def as_images(data: Any) -> Tensor:
    """A stack of images as integers, channels first.

    Args:
        data: array or tensor of integers, of booleans, or of floats that are whole numbers, or a list of arrays or of ``PIL.Image``
            objects of one size, which are turned upright (EXIF) and become gray or RGB. The shape is ``(n, h, w)`` for
            gray images, else ``(n, h, w, c)`` or ``(n, c, h, w)`` with c of 1, 3 or 4. A shape that fits both is read
            with channels last.

    Returns:
        ``(n, c, h, w)``: uint8 stays uint8, wider integers become int32 or int64. The result shares the memory of the
        data where torch allows it.

    Raises:
        InputError: for another shape, fractions, negative values, no images, or a list in which some have 8 bits and others more.

    Example:
        >>> import numpy as np
        >>> as_images(np.zeros((5, 28, 28), dtype=np.uint8)).shape
        torch.Size([5, 1, 28, 28])
    """
    if isinstance(data, Tensor):
        array = _array_of(data)
    else:
        if isinstance(data, (list, tuple)):
            data = _pixels_of_all(data)
        try:
            array = np.asarray(data)
        except (TypeError, ValueError) as error:
            raise InputError(f"the images do not form an array; are their sizes unequal? {error}") from error
    array = _as_integers(array)
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[-1] in CHANNELS:
        array = np.moveaxis(array, -1, 1)
    elif array.ndim != 4 or array.shape[1] not in CHANNELS:
        raise InputError(
            f"images must have the shape (n, height, width), (n, height, width, channels) or (n, channels, height, width), "
            f"with {', '.join(map(str, CHANNELS))} channels; got {array.shape}."
        )
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))  # torch warns of read-only memory


def is_picture(image: Any) -> bool:
    """Whether an object is a picture of Pillow, which need not be installed."""
    return isinstance(getattr(image, "mode", None), str) and hasattr(image, "convert")


def picture_mode(picture: Any) -> str | None:
    """The mode to convert a picture of Pillow to, gray or RGB; None for more than 8 bits, which Pillow would cut."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return None
    return "L" if picture.mode in ("1", "L", "LA") else "RGB"


def upright(pixels: NDArray[Any], picture: Any) -> NDArray[Any]:
    """Pixels ``(h, w)`` or ``(h, w, c)`` of a Pillow image as its viewers show it: cameras store pictures as the sensor lay, with
    the direction of the top in a field (EXIF orientation, 1 to 8)."""
    orientation = picture.getexif().get(_ORIENTATION, 1)
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


def check_frames(picture: Any, name: str) -> None:
    """Refuse a picture of several frames or pages, of which only one would be read.

    Raises:
        InputError: naming the picture.
    """
    # The further frames of a camera's JPEG (MPO) are previews and other views of the same picture.
    frames = 1 if getattr(picture, "format", None) == "MPO" else getattr(picture, "n_frames", 1)
    if frames > 1:
        raise InputError(f"{name} has {frames} frames, and a picture is one: save the frames as separate files.")


def check_depth(picture: Any, name: str) -> None:
    """Refuse a picture of colors with 16 bits a channel, of which Pillow would silently keep 8. It must not be loaded yet.

    Raises:
        InputError: naming the picture.
    """
    for tile in getattr(
        picture, "tile", ()
    ):  # (codec, extents, offset, arguments); the arguments hold the mode of the file
        given = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if picture_mode(picture) and any(isinstance(part, str) and ";16" in part for part in given):
            raise InputError(
                f"{name} has channels of 16 bits, of which only 8 could be read: save it with 8 bits, or give its numbers as an array."
            )


def without_colors(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    """Pixels ``(h, w)`` of a picture for a model of gray images: one channel of a picture ``(h, w, 3)`` whose channels are equal.

    Raises:
        InputError: for a picture with colors, naming it.
    """
    if pixels.ndim == 3 and (pixels != pixels[..., :1]).any():
        raise InputError(f"{name} has colors, and the images must be gray: convert it to gray, or leave it out.")
    return pixels[..., 0] if pixels.ndim == 3 else pixels


def pixels_of(picture: Any, name: str) -> NDArray[Any]:
    """The pixels of a picture of Pillow that is not loaded yet: upright, ``(h, w)`` if gray and else ``(h, w, 3)``.

    Raises:
        InputError: see :func:`check_frames` and :func:`check_depth`.
    """
    check_frames(picture, name)
    check_depth(picture, name)
    if getattr(picture, "format", None) == "TIFF":
        picture.load()  # Pillow turns TIFF files upright, its versions at different times
    mode = picture_mode(picture)
    return upright(np.asarray(picture.convert(mode) if mode else picture), picture)


def picture_error(error: BaseException) -> str:
    """What Pillow says of a picture, without the address of the stream that it was read from."""
    return _STREAM.sub("the picture", str(error))


def _array_of(tensor: Tensor) -> NDArray[Any]:
    """The numbers of a tensor; those of types that NumPy does not have, such as bfloat16, as float32."""
    kinds = (torch.float16, torch.float32, torch.float64)
    return (
        (tensor.float() if tensor.is_floating_point() and tensor.dtype not in kinds else tensor).detach().cpu().numpy()
    )


def _check_one_range(images: Sequence[Any]) -> None:
    """Refuse arrays of 8 bits beside others: white is 255 in the former, and may be far more in the latter."""
    deep = {k: image.dtype.itemsize > 1 for k, image in enumerate(images) if isinstance(image, np.ndarray)}
    if len(set(deep.values())) > 1:
        first, other = next(iter(deep)), next(k for k, value in deep.items() if value != next(iter(deep.values())))
        few, many = (other, first) if deep[first] else (first, other)
        raise InputError(
            f"images must have one range: image {few} has 8 bits, and image {many} has more: convert one of them."
        )


def _pixels_of_all(images: Sequence[Any]) -> list[Any]:
    """The pixels of pictures of Pillow, as :func:`~pushforward.io.read_images` gives them; anything else stays."""
    found = [
        pixels_of(image, f"image {k}")
        if is_picture(image)
        else _array_of(image)
        if isinstance(image, Tensor)
        else image
        for k, image in enumerate(images)
    ]
    _check_one_range(found)
    if not images or not is_picture(images[0]):
        return found
    first = found[0].shape
    for k, (image, pixels) in enumerate(zip(images, found, strict=True)):
        if not is_picture(image) or pixels.shape == first:
            continue
        if pixels.shape[:2] != first[:2]:
            raise InputError(
                f"images must have one size: image {k} is {pixels.shape[1]} wide and {pixels.shape[0]} high, and image 0 is "
                f"{first[1]} wide and {first[0]} high."
            )
        raise InputError(
            f"images must be all gray or all RGB: image {k} has the mode {image.mode}, and image 0 has {images[0].mode}: convert them, "
            'as with image.convert("RGB").'
        )
    return found


def _as_integers(array: NDArray[Any]) -> NDArray[Any]:
    """The same numbers as uint8, int32 or int64, if they are integers of at least 0."""
    if array.dtype.kind not in "fiub":
        raise InputError(f"images must be integers; got {array.dtype}.")
    if array.size == 0:
        raise InputError(f"there are no images in an array of shape {array.shape}.")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InputError("the images contain NaN or infinity: give integers such as 0 to 255.")
        if (array != np.round(array)).any():
            raise InputError(
                f"images must be integers such as 0 to 255, and these have fractions between {array.min():.4g} and "
                f"{array.max():.4g}: give the raw pixels, or round(255 * x) if the pixels were divided by 255."
            )
    if array.dtype in (np.bool_, np.uint8):
        return array.astype(np.uint8, copy=False)
    low, high = int(array.min()), int(array.max())
    if low < 0:
        raise InputError(f"images must be integers of at least 0; the smallest value is {low}.")
    if high > np.iinfo(np.int64).max:
        raise InputError("images of more than 63 bits are not supported: convert them to uint8 or int32.")
    return array.astype(np.int64 if high > np.iinfo(np.int32).max else np.int32)
