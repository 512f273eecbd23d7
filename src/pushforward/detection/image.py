"""The default score for images: a density over what a flow, a compressor and the training images say of an image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.detection.scores import (
    CodeLength,
    DoSE,
    LatentMahalanobis,
    LikelihoodPath,
    Log,
    Need,
    PrincipalDistances,
    Score,
)
from pushforward.errors import ConfigError, InputError, PushforwardError, StorageError
from pushforward.io import unpack
from pushforward.models import Glow, ImageNICE, Model
from pushforward.registry import register
from pushforward.training import fit
from pushforward.transforms.base import Shape

__all__ = ["ImageScore", "fit_image_score", "image_flow", "image_score"]

LARGEST = 48
"""Longest side that the flow sees; larger images are averaged over squares of pixels first."""


@register("scores")
class ImageScore(Score):
    """A score of 8-bit images of a size that suits it, applied to images of any size and depth.

    Values of more than 8 bits lose the lowest ones; squares of ``pool`` pixels are averaged and rounded; the border is
    repeated until both sides are multiples of 4.

    Args:
        score: of images of the shape that :meth:`prepare` makes; fitting this fits it.
        shape: (channels, height, width) of the images that come in.
        pool: side of the squares.
        shift: bits to lose.

    Raises:
        InputError: by scoring, for another shape or values that are no integers of that range.
    """

    def __init__(self, score: Score, shape: Shape, pool: int = 1, shift: int = 0) -> None:
        super().__init__()
        self.score, self.shape, self.pool, self.shift = score, tuple(shape), pool, shift
        self.needs: frozenset[Need] = score.needs  # pyright: ignore[reportIncompatibleVariableOverride]

    def __repr__(self) -> str:
        channels, height, width = self.shape
        return f"ImageScore({type(self.score).__name__} of {channels} x {height} x {width} images)"

    def _learn(self, reference: Tensor) -> None:
        self.score.fit(self.prepare(reference))

    def _score(self, x: Tensor) -> Tensor:
        far = torch.isinf(x).flatten(1).any(1)
        calm = torch.where(far[:, None, None, None], 0, x)
        return torch.where(far, math.inf, self.score(self.prepare(calm)))

    def prepare(self, x: Tensor) -> Tensor:
        """What the score reads of images ``(n, *shape)``: uint8, ``(n, channels, height', width')``."""
        if tuple(x.shape[1:]) != self.shape:
            raise InputError(f"this guard reads images of shape {self.shape}; got {tuple(x.shape[1:])}.")
        whole = x.long()
        top = 256 << self.shift
        wrong = ((whole < 0) | (whole >= top) | (whole != x)).flatten(1).any(1)
        if wrong.any():
            raise InputError(
                f"this guard reads images of integers 0 to {top - 1}, as it was fitted on; image {int(wrong.nonzero()[0])} "
                "has other values."
            )
        return prepare(whole, self.pool, self.shift)


def prepare(x: Tensor, pool: int, shift: int) -> Tensor:
    """8-bit images whose sides are multiples of 4; see :class:`ImageScore`."""
    x = (x >> shift).to(torch.uint8) if shift else x.to(torch.uint8)
    if pool > 1:
        x = F.avg_pool2d(x.float(), pool, ceil_mode=True, count_include_pad=False).round().to(torch.uint8)
    height, width = x.shape[-2:]
    down, right = -height % 4, -width % 4
    if down or right:
        x = F.pad(x.float(), (0, right, 0, down), mode="replicate").to(torch.uint8)
    return x


def image_flow(kind: str, shape: Shape) -> Model:
    """A flow that a processor trains in minutes.

    Args:
        kind: "auto" or "glow", or "nice" (constant volume, fully connected).
        shape: (channels, height, width), sides multiples of 4.

    Raises:
        ConfigError: for another kind.
    """
    if kind in ("auto", "glow"):
        return Glow(shape, scales=2, layers=4, hidden=(32, 32))
    if kind == "nice":
        return ImageNICE(shape=shape)
    raise ConfigError(f"model for images must be 'auto', 'glow' or 'nice'; got {kind!r}.")


def fit_image_score(
    train: Tensor,
    held_out: Tensor,
    *,
    kind: str = "auto",
    seed: int = 0,
    max_steps: int = 3000,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    fit_flow: Callable[..., Any] = fit,
    **options: Any,
) -> ImageScore:
    """Train a flow, fit distances on the training images, and a density of all statistics on held-out images.

    The statistics, chosen on outliers made of training images alone (shuffled blocks, blur, mixtures, ...; see
    docs/measurements.md): the terms of the flow's log p by scale, the Mahalanobis distance of its latents, distances
    along and across the training images' principal directions, and code lengths of the image and of its half-size version.

    Args:
        train: ``(n, channels, height, width)``, integers.
        held_out: images that stop the training early and on which the density of the statistics is fitted.
        kind: see :func:`image_flow`.
        seed: of weights, training and mixture.
        max_steps: of the flow's training.
        batch_size: of the flow's training.
        learning_rate: learning rate of the flow's training.
        fit_flow: trains it; replaced by tests.
        **options: passed on to ``pf.fit``.

    Raises:
        InputError: for fewer than 20 held-out images.
    """
    if len(held_out) < 20:
        raise InputError(f"the density of the statistics needs at least 20 held-out images; got {len(held_out)}.")
    shape = tuple(train.shape[1:])
    pool = math.ceil(max(shape[1:]) / LARGEST)
    shift = max(0, int(train.max()).bit_length() - 8)
    small = prepare(train, pool, shift)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = image_flow(kind, tuple(small.shape[1:]))
    fit_flow(
        flow, small, validation=prepare(held_out, pool, shift), seed=seed, max_steps=max_steps, batch_size=batch_size,
        learning_rate=learning_rate, **options,
    )  # fmt: skip
    flow.eval()
    some = small[:10_000]  # rows are in random order
    distances = [PrincipalDistances().fit(some), Log(LatentMahalanobis(flow)).fit(some)]
    codes = [Log(CodeLength("png", "zlib")), Log(CodeLength("png", pool=2))]
    dose = DoSE(LikelihoodPath(flow), *codes, *distances, density="gmm", components=16, refit=False, seed=seed)
    return ImageScore(dose, shape, pool, shift).fit(held_out)


def image_score(description: Any, tensors: dict[str, Tensor]) -> ImageScore:
    """The score of images that a file holds.

    Raises:
        StorageError: if it holds another one, or parts that do not fit each other.
    """
    score = unpack(description, tensors, "score.")
    if not isinstance(score, ImageScore):
        raise StorageError("it has no score of images.")
    try:
        score(torch.zeros(1, *score.shape, dtype=torch.uint8))  # what was fitted has the sizes that belong together
    except (PushforwardError, RuntimeError, IndexError) as error:
        raise StorageError(f"the parts of its score do not fit each other: {error}") from error
    return score
