"""`Photographs`: pictures of any size and file format as one tensor of the size that a network takes."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushforward.data.images import CHANNELS, check_frames, is_picture, picture_error
from pushforward.errors import ConfigError, InputError
from pushforward.numerics.checks import check_integer, check_number

__all__ = ["Photographs"]

_MOST_PIXELS = 200_000_000


def _of_channels(name: str, values: Any, low: float) -> Tensor:
    """Three numbers above ``low``, ``(3, 1, 1)``."""
    numbers = list(values) if isinstance(values, (tuple, list, np.ndarray, Tensor)) else []
    if len(numbers) != 3:
        raise ConfigError(f"{name} must be three numbers, one for each channel; got {values!r:.80}.")
    checked = [
        check_number(
            name, float(value) if np.ndim(value) == 0 and not isinstance(value, (str, bool)) else value, low, math.inf
        )
        for value in numbers
    ]
    return torch.tensor(checked, dtype=torch.float32).reshape(3, 1, 1)


class Photographs:
    """Read pictures and bring them to one size: ``(n, 3, size, size)``, float32, standardized.

    Each picture is turned upright (EXIF), converted to RGB, scaled so that its shorter side is ``size`` pixels, and cut to the
    square in its center. Pixels from 0 to 1 are then standardized as ``(x - mean) / std``, by channel.

    Args:
        size: side of the square that the network takes, in pixels.
        mean: of each channel; by default of ImageNet, which most pretrained networks use.
        std: of each channel, positive.

    Raises:
        ConfigError: for a size, a mean or a std that is not possible.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> rng = np.random.default_rng(0)
        >>> mixed = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((40, 60, 3), (100, 80, 3), (32, 32))]
        >>> pf.data.Photographs(32)(mixed).shape
        torch.Size([3, 3, 32, 32])
    """

    def __init__(
        self,
        size: int = 224,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        self.size = check_integer("size", size)
        self.mean = _of_channels("mean", mean, -math.inf)
        self.std = _of_channels("std", std, 0.0)

    def __repr__(self) -> str:
        mean, std = (tuple(round(float(v), 6) for v in part.flatten()) for part in (self.mean, self.std))
        return f"Photographs({self.size}, mean={mean}, std={std})"

    def __call__(self, pictures: Iterable[Any]) -> Tensor:
        """Read pictures.

        Args:
            pictures: a list of paths, bytes of files, ``PIL.Image`` objects, or arrays ``(h, w)``, ``(h, w, c)`` or ``(c, h, w)`` of 8 bits, with
                c of 1, 3, or 4 (RGB and transparency, which is dropped).

        Returns:
            ``(n, 3, size, size)``.

        Raises:
            InputError: for a picture that cannot be read, it says which; for one picture that is not in a list; or for no pictures.
        """
        if isinstance(pictures, (str, bytes, bytearray, os.PathLike)) or is_picture(pictures):
            raise InputError(
                f"this is one picture, of type {type(pictures).__name__}: give a list of pictures, also of one."
            )
        found = [self._one(k, picture) for k, picture in enumerate(pictures)]
        if not found:
            raise InputError("there are no pictures: give a list of at least one.")
        return torch.stack(found)

    def _one(self, k: int, picture: Any) -> Tensor:
        from PIL import Image, ImageOps

        try:
            found = self._open(picture)
            check_frames(found, "it")
            if not found.width * found.height:
                raise InputError("it has no pixels: leave it out")
            if found.width * found.height > _MOST_PIXELS:
                raise InputError(f"it has {found.width} x {found.height} pixels, more than {_MOST_PIXELS:,}")
            if found.mode.startswith("I") or found.mode == "F":  # Pillow would clip their values to 255
                raise InputError(
                    f"its pixels have more than 8 bits (mode {found.mode}): convert them to integers from 0 to 255"
                )
            found = ImageOps.exif_transpose(found).convert("RGB")
            scale = self.size / min(found.size)
            width, height = (max(self.size, round(side * scale)) for side in found.size)
            left, top = (width - self.size) // 2, (height - self.size) // 2
            # The square is cut before scaling, so that no large picture is made of a long narrow one.
            box = (left / width * found.width, top / height * found.height,
                   (left + self.size) / width * found.width, (top + self.size) / height * found.height)  # fmt: skip
            found = found.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)
        except Exception as error:  # decoders raise errors of any type for damaged bytes
            name = f" ({os.fspath(picture)})" if isinstance(picture, (str, os.PathLike)) else ""
            raise InputError(f"picture {k}{name} cannot be read: {picture_error(error).rstrip('.')}.") from error
        pixels = torch.from_numpy(np.array(found)).permute(2, 0, 1).float() / 255
        return (pixels - self.mean) / self.std

    @staticmethod
    def _open(picture: Any) -> Any:
        from PIL import Image

        if isinstance(picture, Image.Image):
            return picture
        if isinstance(picture, (str, os.PathLike)):
            return Image.open(picture)
        if isinstance(picture, (bytes, bytearray)):
            return Image.open(io.BytesIO(picture))
        array = np.asarray(picture)
        if array.dtype != np.uint8:
            raise InputError(
                f"an array must have 8-bit integers (uint8), not {array.dtype}; pixels from 0 to 1 are np.uint8(np.round(255 * x))"
            )
        if array.ndim == 2 and array.shape[1] in CHANNELS:
            raise InputError(
                f"an array of shape {array.shape} is a row of a picture: give a list of pictures, also of one"
            )
        if (
            array.ndim == 3
            and array.shape[0] in CHANNELS
            and array.shape[2] not in (CHANNELS if array.shape[0] == 4 else (1, 3))
        ):
            array = np.moveaxis(array, 0, 2)
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in CHANNELS):
            raise InputError(
                f"an array of shape {np.shape(picture)} is no picture: give (h, w), (h, w, c) or (c, h, w) with c of 1, 3 or 4"
            )
        return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)
