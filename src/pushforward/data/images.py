"""Images from arrays, as integers in one shape: ``(n, channels, height, width)``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.errors import InputError

__all__ = ["as_images", "is_picture"]

_CHANNELS = (1, 3, 4)


def as_images(data: Any) -> Tensor:
    """A stack of images as integers, channels first.

    Args:
        data: array or tensor of integers, of booleans, or of floats that are whole numbers, or a list of arrays or of ``PIL.Image``
            objects, which become gray or RGB. The shape is ``(n, h, w)`` for
            gray images, else ``(n, h, w, c)`` or ``(n, c, h, w)`` with c of 1, 3 or 4. A shape that fits both is read
            with channels last.

    Returns:
        ``(n, c, h, w)``: uint8 stays uint8, wider integers become int32 or int64. The result shares the memory of the
        data where torch allows it.

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
        if isinstance(data, (list, tuple)):
            data = [_pixels(image) for image in data]
        try:
            array = np.asarray(data)
        except (TypeError, ValueError) as error:
            raise InputError(f"the images do not form an array; are their sizes unequal? {error}") from error
    array = _as_integers(array)
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[-1] in _CHANNELS:
        array = np.moveaxis(array, -1, 1)
    elif array.ndim != 4 or array.shape[1] not in _CHANNELS:
        raise InputError(
            f"images must have the shape (n, height, width), (n, height, width, channels) or (n, channels, height, width), "
            f"with {', '.join(map(str, _CHANNELS))} channels; got {array.shape}."
        )
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))  # torch warns of read-only memory


def is_picture(image: Any) -> bool:
    """Whether an object is a picture of Pillow, which need not be installed."""
    return isinstance(getattr(image, "mode", None), str) and hasattr(image, "convert")


def _pixels(image: Any) -> Any:
    """The pixels of a picture of Pillow, as :func:`~pushforward.io.read_images` gives them; anything else stays."""
    if not is_picture(image):
        return image
    deep = image.mode.startswith("I") or image.mode == "F"
    return np.asarray(image if deep else image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))


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
        array = array.astype(np.int64)
    if array.dtype in (np.bool_, np.uint8):
        return array.astype(np.uint8, copy=False)
    if array.min() < 0:
        raise InputError(f"images must be integers of at least 0; the smallest value is {array.min()}.")
    if array.max() > np.iinfo(np.int64).max:
        raise InputError("images of more than 63 bits are not supported: convert them to uint8 or int32.")
    return array.astype(np.int64 if array.max() > np.iinfo(np.int32).max else np.int32)
