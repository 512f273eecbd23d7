"""How many bits a lossless compressor needs for an image."""

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
    # Of the preset's dictionary of 64 MiB an image uses as much as it has bytes, and to set up the rest takes far longer.
    return lzma.compress(raw, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": max(4096, len(raw))}])


CODECS: dict[str, Callable[[NDArray[np.uint8]], bytes]] = {
    "png": lambda image: _picture(image, format="PNG", compress_level=9),
    "webp": lambda image: _picture(image, format="WEBP", lossless=True, quality=75, method=4, exact=True),
    "zlib": lambda image: zlib.compress(image.tobytes(), 9),
    "bz2": lambda image: bz2.compress(image.tobytes(), 9),
    "lzma": lambda image: _lzma(image.tobytes()),
}
"""Lossless compressors of one image, ``(C, H, W)``: of pictures (with filters along rows), and of the plain bytes. WebP's slowest
method would save 2 percent more, and take 35 times as long."""


def check_codecs(codecs: Iterable[str]) -> tuple[str, ...]:
    """Names of compressors.

    Raises:
        ConfigError: if there is none, one is unknown or named twice, or Pillow lacks it.
    """
    codecs = (codecs,) if isinstance(codecs, str) else tuple(codecs)
    if (
        not codecs
        or len(set(codecs)) < len(codecs)
        or not all(isinstance(name, str) and name in CODECS for name in codecs)
    ):
        raise ConfigError(f"codecs are some of {', '.join(map(repr, CODECS))}, each once; got {codecs!r}.")
    if "webp" in codecs:
        from PIL import features

        if not features.check("webp"):
            raise ConfigError("this Pillow was built without WebP: use 'png', or install another build.")
    return codecs


def code_lengths(x: Tensor, codecs: tuple[str, ...]) -> Tensor:
    """Bits of each image under each compressor, float64, ``(n, len(codecs))``; +inf for one with an infinite entry.

    Args:
        x: ``(n, C, H, W)``, integers 0, ..., 255 of any type, with C of 1, 3 or 4 for PNG and WebP.
        codecs: names in :data:`CODECS`.

    Raises:
        InputError: for another shape, or values that are no integers in 0, ..., 255; it names the row.
    """
    if x.dim() != 4:
        raise InputError(f"compressors read images of shape (n, channels, height, width); got {tuple(x.shape)}.")
    if x.shape[1] not in _MODES and {"png", "webp"} & set(codecs):
        raise InputError(
            f"PNG and WebP hold images of 1, 3 or 4 channels; got {x.shape[1]}: use 'zlib', 'bz2' or 'lzma'."
        )
    far = far_rows(x)
    calm = torch.where(far[:, None, None, None], 0, x)
    images = calm.clamp(0, 255).to(torch.uint8)
    wrong = (images != calm).flatten(1).any(1)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        low, high = calm[row].min().item(), calm[row].max().item()
        raise InputError(
            f"compressors read 8-bit images, integers 0 to 255; row {row} has other values, between {low:.4g} and "
            f"{high:.4g}: give the raw pixels."
        )
    known: dict[bytes, list[float]] = {}  # equal images, such as those that fill up a batch, are compressed once
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
    """Bits of each 8-bit image under lossless compressors, one column each; header included.

    The header costs the same for all images of one shape. "png" (level 9) and "webp" (lossless) are codes for pictures;
    "zlib", "bz2" and "lzma" see the bytes of the channels one after the other. ``TwoSided(CodeLength("png"))`` is the
    length alone as a score, and belongs in every table: it says how much of a likelihood score is the image's complexity.

    Args:
        codecs: names of compressors; "png" by default.
        pool: side of the squares whose rounded mean is one pixel of the image that is compressed; 1 for the image itself. A
            coarser image tells structure from texture.

    Raises:
        ConfigError: for an unknown compressor, an impossible ``pool``, or WebP where Pillow lacks it.
        InputError: by :meth:`values`, for anything but integers 0, ..., 255 of shape (n, C, H, W).

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
