"""The default score of images: a density of pixel statistics, and a network that recognizes transformed images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward import io
from pushforward.data import split_indices
from pushforward.detection.input_score import InputScore
from pushforward.detection.scores import (
    CodeLength,
    DoSE,
    LatentMahalanobis,
    LikelihoodPath,
    Log,
    Need,
    PrincipalDistances,
    Score,
    SurpriseSum,
)
from pushforward.detection.transformation_training import fit_transformations, information
from pushforward.errors import ConfigError, InputError, PushforwardError, StorageError, in_words, warn_caller
from pushforward.models import Glow, ImageNICE, Model
from pushforward.numerics import seeded
from pushforward.registry import register
from pushforward.training import TrainingConfig, fit
from pushforward.training.budget import seconds
from pushforward.transforms.base import Shape

__all__ = ["IMAGE_TRAINING", "ImageScore", "fit_image_score", "image_flow"]

IMAGE_TRAINING = TrainingConfig(max_steps=1500, batch_size=64, learning_rate=2e-3, ema=None)
"""Default training of the flow of images; it was chosen without a moving average of the weights."""

LARGEST = 48
"""Longest side of the images that the flow reads; larger images are averaged over squares of pixels first."""
_HELD_OUT = 20
"""Fewest held-out images on which the density of the statistics can be fitted."""
_FRACTION = 0.1
"""Fraction of images that are held out if none is given: the density of the statistics always needs some."""
_NETWORK_STEPS, _NETWORK_TIME = 0.9, 0.5
"""Training steps of the network of transformations as a part of the flow's, and its part of the time, if that is limited."""
_WEIGHT = 2.0
"""Largest weight of the surprise of that network; the other statistics together have 1."""


@register("scores")
class ImageScore(Score, InputScore):
    """A score of small 8-bit images, applied to images of any size and bit depth.

    Values of more than 8 bits are counted from ``offset`` and lose their lowest bits. Squares of ``pool`` pixels are averaged
    and rounded. The border is repeated until both sides are multiples of 4. An image with a number outside the range
    ``offset`` to :attr:`top` has the score inf.

    Args:
        inner: the score of the small images, of the shape that :meth:`prepare` returns; fitting this score fits it.
        shape: (channels, height, width) of the inputs.
        pool: side of the squares.
        shift: number of bits to lose.
        offset: the number that becomes 0.

    Raises:
        InputError: when it scores images of another shape, or values that are negative or not integers.

    Warns:
        PushforwardWarning: for images with numbers outside the range.
    """

    reads = "images"

    def __init__(self, inner: Score, shape: Shape, pool: int = 1, shift: int = 0, offset: int = 0) -> None:
        super().__init__()
        self.inner, self.shape, self.pool, self.shift, self.offset = inner, tuple(shape), pool, shift, offset
        self.needs: frozenset[Need] = inner.needs  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def top(self) -> int:
        """The largest number of the range."""
        return self.offset + (256 << self.shift) - 1

    def __repr__(self) -> str:
        channels, height, width = self.shape
        return f"ImageScore({type(self.inner).__name__} of {channels} x {height} x {width} images)"

    def score(self, inputs: Tensor) -> np.ndarray:
        """The score of each image ``(n, *shape)``, float64 ``(n,)``.

        Raises:
            InputError: for images of another shape, or values that are negative or not integers.

        Warns:
            PushforwardWarning: for images with numbers outside the range.
        """
        if inputs.dim() == 4 and self._outside(inputs).any():
            warn_caller(
                f"there are images with numbers outside {self.offset} to {self.top}, the range of the training images: they are alarms. If "
                "the camera or the file format has changed, bring the images to the old scale, or fit again."
            )
        return self(inputs).numpy()

    def pack(self, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Description and tensors for a file."""
        return io.pack(self, prefix)

    @classmethod
    def unpack(cls, description: Any, tensors: dict[str, Tensor], prefix: str) -> Self:
        """Rebuild a score from what :meth:`pack` returned.

        Raises:
            StorageError: for the description of another object, or parts that do not fit each other.
        """
        score = io.unpack(description, tensors, prefix)
        if not isinstance(score, cls):
            raise StorageError("its score does not read images.")
        try:
            score(torch.zeros(1, *score.shape, dtype=torch.uint8))  # fitted tensors of other sizes raise here
        except (PushforwardError, RuntimeError, IndexError) as error:
            raise StorageError(f"the parts of its score do not fit each other: {in_words(error)}") from error
        return score

    def _learn(self, reference: Tensor) -> None:
        self.inner.fit(self.prepare(reference))

    def _score(self, x: Tensor) -> Tensor:
        self._require_shape(x)
        x = x if x.is_floating_point() else x.long()
        far = self._outside(x) | torch.isinf(x).flatten(1).any(1)
        inside = torch.where(far[:, None, None, None], self.offset, x)
        return torch.where(far, math.inf, self.inner(self.prepare(inside)))

    def _require_shape(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != self.shape:
            raise InputError(
                f"this guard reads images of shape {self.shape} (channels, height, width); got {tuple(x.shape[1:])}: bring them to the size "
                "and the channels of the training images."
            )

    def _outside(self, x: Tensor) -> Tensor:
        """Which images have a finite number outside the range; negative ones are another mistake."""
        x = x if x.is_floating_point() else x.long()  # PyTorch compares 8 bits with the last 8 bits of a number
        return (((x > self.top) | (x < self.offset)) & (x >= 0) & (x < math.inf)).flatten(1).any(1)

    def prepare(self, x: Tensor) -> Tensor:
        """The small images that the inner score reads of images ``(n, *shape)``: uint8, ``(n, channels, h, w)``."""
        self._require_shape(x)
        integers = x.long()
        wrong = ((integers < self.offset) | (integers > self.top) | (integers != x)).flatten(1).any(1)
        if wrong.any():
            raise InputError(
                f"this guard reads images of integers {self.offset} to {self.top}, like its training images; image "
                f"{int(wrong.nonzero()[0])} has other values."
            )
        return prepare(integers, self.pool, self.shift, self.offset)


def prepare(x: Tensor, pool: int, shift: int, offset: int = 0) -> Tensor:
    """Convert images to 8 bits and sides that are multiples of 4, see :class:`ImageScore`."""
    x = ((x - offset if offset else x) >> shift).to(torch.uint8) if shift or offset else x.to(torch.uint8)
    if pool > 1:
        x = F.avg_pool2d(x.float(), pool, ceil_mode=True, count_include_pad=False).round().to(torch.uint8)
    height, width = x.shape[-2:]
    down, right = -height % 4, -width % 4
    if down or right:
        x = F.pad(x.float(), (0, right, 0, down), mode="replicate").to(torch.uint8)
    return x


def value_range(images: Sequence[Tensor]) -> tuple[int, int]:
    """Offset and number of lost bits with which 8 bits hold all numbers of some images and, for new ones, an eighth more.

    It is (0, 0) for images of 8 bits; the offset is 0 where it saves no bit.
    """
    low, high = min(int(part.min()) for part in images), max(int(part.max()) for part in images)
    if high < 256:
        return 0, 0
    whole, shift = _lost_bits(high + 1), _lost_bits(high - low + 1)
    if whole <= shift:
        return 0, whole
    spare = (256 << shift) - (high - low + 1)
    return max(0, low - spare // 2), shift


def _lost_bits(levels: int) -> int:
    """Bits to lose until 8 bits hold so many levels and an eighth more; no more for a power of two, where a camera saturates."""
    if levels <= 2**16 and (levels & (levels - 1) == 0 or 9 * levels > 8 * 2**16):
        return max(0, (levels - 1).bit_length() - 8)
    return max(0, math.ceil(9 * levels / 8 - 1).bit_length() - 8)


def image_flow(kind: str, shape: Shape) -> Model:
    """Build a flow that a CPU trains in minutes.

    Args:
        kind: "auto" or "glow", or "nice" (constant volume, fully connected).
        shape: (channels, height, width), sides multiples of 4.

    Raises:
        ConfigError: for another kind.
    """
    if kind in ("auto", "glow"):
        return Glow(shape, scales=2, layers=4, hidden=(32, 32))
    if kind == "nice":
        return ImageNICE(shape)
    raise ConfigError(f"model for images must be 'auto', 'glow' or 'nice'; got {kind!r}.")


def fit_image_score(
    train: Tensor,
    validation: Tensor | float = _FRACTION,
    *,
    kind: str = "auto",
    exportable: bool = False,
    config: TrainingConfig = IMAGE_TRAINING,
) -> ImageScore:
    """Train a flow and a network of transformations, and fit distances, a density of statistics, and their sum.

    The score is a sum of two surprises in nats (:class:`~pushforward.detection.scores.SurpriseSum`). One is that of -log q of
    statistics of the pixels: the terms of the flow's log p by scale, the Mahalanobis distance of its latents, distances
    along and across the training images' principal directions, and code lengths of the image and of its half-size version.
    They were chosen on outliers made of training images alone (shuffled blocks, blur, mixtures, ...; see
    docs/measurements.md). The other is that of a network that was trained on the same images to recognize how an image was turned,
    mirrored or changed (:class:`~pushforward.detection.scores.TransformationScore`); it sees what the images show. Its
    weight is 2 (2 A - 1), where A is the AUROC with which it tells held-out images from their own transformations, so it is 0
    for images that look the same in all orientations and after all changes.

    Args:
        train: ``(n, channels, height, width)``, integers.
        validation: held-out images, which stop the training early and on which the density of the statistics is fitted;
            or the fraction of ``train`` to hold out, at least 20 images (0 is 0.1).
        kind: see :func:`image_flow`.
        exportable: whether to leave out what other runtimes do not have: code lengths, and noise that is a hash of the image.
        config: options of the flow's training; ``seed`` also determines the split, the first weights, the network of
            transformations and the mixture. That network trains for nine tenths as many steps.

    Raises:
        InputError: for fewer than 20 held-out images, or fewer than 40 to split.
        ConfigError: for an unknown kind.
    """
    if isinstance(validation, Tensor):
        held_out = validation
    else:
        train, held_out = _split(train, validation or _FRACTION, config.seed + 1)
    if len(held_out) < _HELD_OUT:
        raise InputError(
            f"the density of the statistics needs at least {_HELD_OUT} held-out images; got {len(held_out)}."
        )
    shape = tuple(train.shape[1:])
    pool = math.ceil(max(shape[1:]) / LARGEST)
    offset, shift = value_range((train, held_out))
    small = prepare(train, pool, shift, offset)
    with seeded(config.seed):
        flow = image_flow(kind, tuple(small.shape[1:]))
    small_held_out = prepare(held_out, pool, shift, offset)
    limit = None if config.max_time is None else seconds(config.max_time)
    if limit is not None:
        config = replace(config, max_time=(1 - _NETWORK_TIME) * limit)
    fit(flow, small, validation=small_held_out, config=config)
    flow.eval()
    steps = config.max_steps or IMAGE_TRAINING.max_steps or 1
    network = fit_transformations(
        small,
        steps=max(1, round(_NETWORK_STEPS * steps)),
        seed=config.seed,
        seconds=None if limit is None else _NETWORK_TIME * limit,
    )
    weight = _WEIGHT * information(network, small_held_out, config.seed)
    some = small[split_indices(len(small), (min(len(small), 10_000),), seed=config.seed)[0]]
    noise = "middle" if exportable else "row"
    distances = [PrincipalDistances().fit(some), Log(LatentMahalanobis(flow, noise)).fit(some)]
    codes = [] if exportable else [Log(CodeLength("png", "zlib")), Log(CodeLength("png", pool=2))]
    dose = DoSE(
        LikelihoodPath(flow, noise=noise),
        *codes,
        *distances,
        density="gmm",
        components=16,
        refit=False,
        seed=config.seed,
    )
    return ImageScore(SurpriseSum(dose, network, weights=(1.0, weight)), shape, pool, shift, offset).fit(held_out)


def _split(images: Tensor, validation: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split at random into training images and held-out images."""
    count = max(_HELD_OUT, round(validation * len(images)))
    if len(images) < 2 * count:
        raise InputError(
            f"the score of images needs at least {2 * count} images to fit, of which {count} are held out; got "
            f"{len(images)} beside those for calibration."
        )
    kept, held_out = split_indices(len(images), (len(images) - count, count), seed=seed)
    return images[kept], images[held_out]
