"""The number of bits that a lossless compressor needs for an image."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pushforward.detection.scores.base import Statistic
from pushforward.detection.scores.model_outputs import far_rows
from pushforward.errors import ConfigError, InputError
from pushforward.numerics.checks import check_integer
from pushforward.registry import register

__all__ = ["CODECS", "CodeLength", "check_codecs", "code_lengths"]

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def _picture(image: NDArray[np.uint8], **options: Any) -> bytes:
    from PIL import Image

    plane = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plane)).save(stream, **options)
    return stream.getvalue()


def _lzma(raw: bytes) -> bytes:
    # The preset allocates a dictionary of 64 MiB, which is slow. An image needs no more than its own number of bytes.
    return lzma.compress(raw, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": max(4096, len(raw))}])


CODECS: dict[str, Callable[[NDArray[np.uint8]], bytes]] = {
    "png": lambda image: _picture(image, format="PNG", compress_level=9),
    "webp": lambda image: _picture(image, format="WEBP", lossless=True, quality=75, method=4, exact=True),
    "zlib": lambda image: zlib.compress(image.tobytes(), 9),
    "bz2": lambda image: bz2.compress(image.tobytes(), 9),
    "lzma": lambda image: _lzma(image.tobytes()),
}
"""Lossless compressors of one image, ``(C, H, W)``: image formats, and general compressors of the plain bytes. WebP's slowest
method would save 2 percent more and take 35 times as long."""


def check_codecs(codecs: Iterable[str]) -> tuple[str, ...]:
    """Check the names of compressors and return them as a tuple.

    Raises:
        ConfigError: if no name is given, a name is unknown or repeated, or Pillow does not support the format.
    """
    codecs = (codecs,) if isinstance(codecs, str) else tuple(codecs)
    if (
        not codecs
        or len(set(codecs)) < len(codecs)
        or not all(isinstance(name, str) and name in CODECS for name in codecs)
    ):
        raise ConfigError(
            f"codecs must be one or more of {', '.join(map(repr, CODECS))}, each at most once; got {codecs!r}."
        )
    if "webp" in codecs:
        from PIL import features

        if not features.check("webp"):
            raise ConfigError("the installed Pillow has no WebP support: use 'png', or install a build with WebP.")
    return codecs


def code_lengths(x: Tensor, codecs: tuple[str, ...]) -> Tensor:
    """Bits of each image under each compressor, float64, ``(n, len(codecs))``; +inf for an image with an infinite entry.

    Args:
        x: ``(n, C, H, W)``, integers 0, ..., 255 of any type, with C of 1, 3 or 4 for PNG and WebP.
        codecs: names in :data:`CODECS`.

    Raises:
        InputError: for another shape, or values that are not integers from 0 to 255; the message names the row.
    """
    if x.dim() != 4:
        raise InputError(f"compressors need images of shape (n, channels, height, width); got {tuple(x.shape)}.")
    if x.shape[1] not in _MODES and {"png", "webp"} & set(codecs):
        raise InputError(
            f"PNG and WebP need images of 1, 3 or 4 channels; got {x.shape[1]}: use 'zlib', 'bz2' or 'lzma'."
        )
    far = far_rows(x)
    finite = torch.where(far[:, None, None, None], 0, x)
    images = finite.clamp(0, 255).to(torch.uint8)
    wrong = (images != finite).flatten(1).any(1)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        low, high = finite[row].min().item(), finite[row].max().item()
        raise InputError(
            f"compressors need 8-bit images, integers from 0 to 255; row {row} has other values, between {low:.4g} and "
            f"{high:.4g}: pass the raw pixels."
        )
    known: dict[bytes, list[float]] = {}  # equal images, such as the padding of a batch, are compressed once
    lengths = []
    for image in images.cpu().numpy():
        key = image.tobytes()
        if key not in known:
            known[key] = [8.0 * len(CODECS[name](image)) for name in codecs]
        lengths.append(known[key])
    result = torch.tensor(lengths, dtype=torch.float64, device=x.device).reshape(len(x), len(codecs))
    return torch.where(far[:, None], torch.inf, result)


@register("scores")
class CodeLength(Statistic):
    """Bits of each 8-bit image under lossless compressors, headers included; one column for each compressor.

    The header costs the same for all images of one shape. "png" (level 9) and "webp" (lossless) are image formats;
    "zlib", "bz2" and "lzma" compress the bytes of the channels one after the other. ``TwoSided(CodeLength("png"))`` scores
    by the length alone. Use it as a baseline: it shows how much of a likelihood score is due to the image's complexity.

    Args:
        codecs: names of compressors; "png" by default.
        pool: side of the average-pooling window, in pixels; the pooled and rounded image is compressed. 1 compresses the
            image itself. A coarser image has less texture and keeps large structures.

    Raises:
        ConfigError: for an unknown compressor, an invalid ``pool``, or WebP if Pillow does not support it.
        InputError: by :meth:`values`, for anything but integers from 0 to 255 of shape (n, C, H, W).

    Example:
        >>> import torch
        >>> from pushforward.detection.scores import CodeLength
        >>> flat, noise = torch.zeros(1, 1, 8, 8), torch.randint(256, (1, 1, 8, 8))
        >>> bits = CodeLength("png", "zlib").values(torch.cat((flat, noise)))
        >>> bits.shape, (bits[1] > bits[0]).all()
        (torch.Size([2, 2]), tensor(True))
    """

    needs = frozenset({"compressor"})

    def __init__(self, *codecs: str, pool: int = 1) -> None:
        super().__init__()
        check_integer("pool", pool)
        self.codecs, self.pool = check_codecs(codecs or ("png",)), pool

    @property
    def names(self) -> tuple[str, ...]:
        """The compressors' names."""
        return self.codecs if self.pool == 1 else tuple(f"{name} / {self.pool}" for name in self.codecs)

    def _values(self, x: Tensor) -> Tensor:
        if self.pool > 1 and x.dim() == 4:
            far = far_rows(x)[:, None, None, None]
            coarse = torch.where(far, 0.0, x.double())
            x = F.avg_pool2d(coarse, self.pool, ceil_mode=True).round().masked_fill(far, torch.inf)
        return code_lengths(x, self.codecs)
