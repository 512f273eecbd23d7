"""The score of images under noise, for smoothing: a mixture of pixels, and a network that has learned transformations under noise."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pushforward import io
from pushforward.detection.projected_mixture import ProjectedMixture
from pushforward.detection.scores import TransformationScore
from pushforward.detection.scores.surprise_sum import surprise, surprise_scale
from pushforward.detection.transformation_training import fit_transformations, information
from pushforward.errors import PushforwardError, StorageError, in_words
from pushforward.numerics.checks import check_integer

__all__ = ["NoisyImages"]

Array = NDArray[np.float64]
Shape = tuple[int, int, int]

LARGEST = 32
"""Longest side of the images that the network reads; larger images are averaged over squares."""
_CHANNELS = (16, 32, 64)
_WEIGHT = 2.0
_HELD_OUT = 0.1
_MOST_HELD_OUT = 1000
_DRAWS = 4
"""Draws of noise of each held-out image, for the common scale."""
_ROWS = 256
"""Noisy images in memory at a time."""


class NoisyImages:
    """t_1(z) + w t_2(z): the sum of two surprises of a noisy image z, nats.

    The first is that of :class:`~pushforward.detection.projected_mixture.ProjectedMixture`, the second that of
    :class:`~pushforward.detection.scores.TransformationScore`, whose network was trained with the same noise on its inputs. Both are
    -log tail probabilities among noisy images that took no part in the fits. The weight w is 2 (2 A - 1), with A the
    AUROC with which the network tells noisy held-out images from their transformations.

    The network reads images of at most 32 pixels a side, averaged over squares, with values cut to [0, 1]. These are functions of
    z, so a bound for the sum under noise holds for the image as it comes.

    Args:
        mixture: of the pixels.
        network: the score of transformations.
        shape: (channels, height, width) of the images.
        parts: "knots" ``(2, K)``, "levels" ``(K,)``, "excess" ``(2,)`` and "weight" ``()``, float64.

    Example:
        >>> import torch
        >>> from pushforward.detection.smoothing import Smoothing
        >>> ramp = torch.arange(8) * 30 + torch.randint(0, 20, (300, 1, 8, 8), generator=torch.Generator().manual_seed(0))
        >>> base = NoisyImages.fit(ramp.to(torch.uint8), 0.1, steps=60)
        >>> rows = ramp[:1].flatten(1).double().numpy() / 255
        >>> near, turned = Smoothing(0.1, 32).score(base, np.concatenate((rows, rows[:, ::-1])))
        >>> bool(turned > near)
        True
    """

    def __init__(
        self, mixture: ProjectedMixture, network: TransformationScore, shape: Shape, parts: dict[str, Tensor]
    ) -> None:
        self.mixture, self.network, self.shape, self.parts = mixture, network, shape, parts

    @classmethod
    def fit(
        cls, images: Tensor, sigma: float, *, top: int = 255, steps: int, directions: int = 32, components: int = 16, seed: int = 0
    ) -> Self:  # fmt: skip
        """Fit on training images.

        Args:
            images: integers from 0 to ``top``, ``(n, channels, height, width)``, at least 100.
            sigma: standard deviation of the noise, of pixels from 0 to 1.
            top: largest value of a pixel.
            steps: of the network's training.
            directions: of the mixture.
            components: of the mixture.
            seed: of the division of the images, the noise and the fits.
        """
        shape: Shape = tuple(images.shape[1:])  # pyright: ignore[reportAssignmentType]
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(images), generator=generator)
        count = min(math.ceil(_HELD_OUT * len(images)), _MOST_HELD_OUT)
        held_out, rest = images[order[:count]], images[order[count:]]
        mixture = ProjectedMixture.fit(_rows(rest, top), sigma, directions=directions, components=components, seed=seed)

        def noise(n: int, source: torch.Generator) -> Tensor:
            return small(sigma * torch.randn(n, *shape, generator=source, dtype=torch.float32))

        def eight_bits(x: Tensor) -> Tensor:
            return (small(x.float() / top) * 255.0).round().to(torch.uint8)

        network = fit_transformations(eight_bits(rest), steps=steps, seed=seed, channels=_CHANNELS, noise=noise)
        weight = _WEIGHT * information(network, eight_bits(held_out), seed, noise)
        self = cls(mixture, network, shape, {})
        source = np.random.default_rng(seed)
        rows = np.repeat(_rows(held_out, top), _DRAWS, 0)
        values = self._values(rows + sigma * source.standard_normal(rows.shape))
        knots, levels, excess = surprise_scale(values)
        self.parts = {
            "knots": knots, "levels": levels, "excess": excess, "weight": torch.tensor(weight, dtype=torch.float64)
        }  # fmt: skip
        return self

    @property
    def width(self) -> int:
        """d, the number of values of an image."""
        return math.prod(self.shape)

    def noisy_scores(self, row: Array, sigma: float, generator: np.random.Generator, count: int) -> Array:
        """Draws of the score under noise, see :class:`~pushforward.detection.smoothing.NoisyScore`."""
        return self.score(row + sigma * generator.standard_normal((count, row.size)))

    def score(self, rows: Array) -> Array:
        """The score of rows ``(n, d)`` as they are, ``(n,)``."""
        return self.combine(self._values(rows)).numpy()

    def combine(self, values: Tensor) -> Tensor:
        """t_1 + w t_2 of the values ``(n, 2)`` of the mixture and of the network, ``(n,)``."""
        knots, levels, excess, weight = (self.parts[name] for name in ("knots", "levels", "excess", "weight"))
        first, second = (surprise(values[:, k], knots[k], levels, excess[k]) for k in range(2))
        return first + weight * second

    def pixels(self, rows: Tensor) -> Tensor:
        """What the network reads of rows ``(n, d)``: small images, 0 to 255."""
        return 255.0 * small(rows.reshape(-1, *self.shape))

    @torch.no_grad()
    def _values(self, rows: Array) -> Tensor:
        parts = []
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            seen = self.network.of_batch(self.pixels(torch.from_numpy(some.astype(np.float32))))
            parts.append(torch.stack((torch.from_numpy(self.mixture.score(some)), seen), 1))
        return torch.cat(parts)

    def pack(self, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Description and tensors for a file."""
        mixture, tensors = self.mixture.pack(f"{prefix}mixture.")
        network, weights = io.pack(self.network, f"{prefix}network.")
        parts = {f"{prefix}{name}": part.clone() for name, part in self.parts.items()}
        return {"mixture": mixture, "network": network, "shape": list(self.shape)}, tensors | weights | parts

    @classmethod
    def unpack(cls, description: Any, tensors: dict[str, Tensor], prefix: str) -> Self:
        """Rebuild a score from what :meth:`pack` returned.

        Raises:
            StorageError: for parts that do not fit each other.
        """
        try:
            mixture = ProjectedMixture.unpack(description["mixture"], tensors, f"{prefix}mixture.")
            network = io.unpack(description["network"], tensors, f"{prefix}network.")
            sizes = [check_integer("shape", size) for size in description["shape"]]
            parts = {name: tensors[f"{prefix}{name}"] for name in ("knots", "levels", "excess", "weight")}
            if not isinstance(network, TransformationScore) or len(sizes) != 3:
                raise StorageError(
                    "the network of the smoothed score is not one of transformations of images: use a file that pushforward wrote."
                )
            self = cls(mixture, network, (sizes[0], sizes[1], sizes[2]), parts)
            shapes = [tuple(part.shape) for part in parts.values()]
            finite = all(part.dtype == torch.float64 and torch.isfinite(part).all() for part in parts.values())
            if self.width != mixture.width or shapes != [(2, *shapes[1]), shapes[1], (2,), ()] or not finite:
                raise StorageError(
                    "the parts of the smoothed score do not fit each other: use a file that pushforward wrote."
                )
            self.score(np.zeros((1, self.width)))
        except StorageError:
            raise
        except (TypeError, KeyError, AttributeError, RuntimeError, PushforwardError) as error:
            raise StorageError(f"the smoothed score is not one that pushforward writes: {in_words(error)}") from error
        return self


def small(x: Tensor) -> Tensor:
    """Images averaged over squares to at most 32 pixels a side, and extended at the edges to sides that are multiples of 4."""
    pool = math.ceil(max(x.shape[-2:]) / LARGEST)
    if pool > 1:
        x = F.avg_pool2d(x, pool, ceil_mode=True, count_include_pad=False)
    down, right = -x.shape[-2] % 4, -x.shape[-1] % 4
    return F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x


def _rows(images: Tensor, top: int) -> Array:
    return (images.flatten(1).double() / top).numpy()
