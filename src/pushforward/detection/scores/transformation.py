"""How well a network recognizes which transformation was applied to an image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.detection.scores.base import Score
from pushforward.detection.scores.model_outputs import far_rows
from pushforward.errors import ConfigError, InputError
from pushforward.networks import ConvSummary
from pushforward.registry import register

__all__ = ["TransformationScore", "symmetry", "symmetry_count"]


def symmetry_count(height: int, width: int) -> int:
    """Number of the symmetries of a rectangle: 8 of a square (quarter turns, mirrored or not), else 4."""
    return 8 if height == width else 4


def symmetry(x: Tensor, index: int) -> Tensor:
    """The symmetry with this index applied to images ``(n, channels, height, width)``; 0 is the identity.

    The second half of the indices mirror left and right first; then the image is turned, by quarter turns if it is square
    and by half turns if not.
    """
    turns = symmetry_count(*x.shape[-2:]) // 2
    if index >= turns:
        x = x.flip(3)
    return x.rot90(index % turns * (4 // turns), (2, 3))


@register("scores")
class TransformationScore(Score):
    """-(1 / G) sum_g log p(g | g x), nats: how badly a network recognizes the symmetries g that are applied to the image x.

    A network is trained on the training images alone to say which of the G symmetries of a square (quarter turns, mirrored or
    not) was applied; for this it must learn what the images show and how that stands. On images that show something else,
    or that stand otherwise, it errs (Golan and El-Yaniv 2018, "Deep anomaly detection using geometric transformations",
    arXiv 1805.10917, sec. 4; the sum of log-probabilities is that of Hendrycks et al. 2019, arXiv 1906.12340, sec. 4). Where the
    training images themselves look the same after some symmetry, a good network is undecided among those, which adds a
    constant to all scores.

    The network may have further classes, for images that are changed so that they are no longer normal ("shifted instances",
    Tack et al. 2020, "CSI", arXiv 2007.08176, sec. 2.2). Their probabilities make the score larger.
    :func:`~pushforward.detection.transformation_training.fit_transformations` trains such a network.

    Args:
        network: from images of values in [-1, 1] to logits: first of the symmetries, in the order of :func:`symmetry`, then of
            other classes.

    Raises:
        ConfigError: for a network of something else than images, or with fewer outputs than there are symmetries.

    Example:
        >>> import torch
        >>> from pushforward.detection.scores import TransformationScore
        >>> from pushforward.networks import ConvSummary
        >>> score = TransformationScore(ConvSummary((1, 8, 8), 8))
        >>> score(torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3])
    """

    def __init__(self, network: ConvSummary) -> None:
        super().__init__()
        if not isinstance(network, ConvSummary) or len(network.shape) != 3:
            raise ConfigError("TransformationScore needs a ConvSummary of images (channels, height, width).")
        self.network = network
        if network.outputs < self.count:
            raise ConfigError(
                f"a network of {self.count} symmetries needs as many outputs; got a network with {network.outputs}."
            )

    @property
    def count(self) -> int:
        """The number of symmetries, G."""
        return symmetry_count(*self.network.shape[1:])

    def _score(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.network.shape:
            raise InputError(
                f"TransformationScore reads images of shape {self.network.shape}; got {tuple(x.shape[1:])}."
            )
        far = far_rows(x)
        return torch.where(far, math.inf, self.of_batch(torch.where(far[:, None, None, None], 0, x)))

    def of_batch(self, x: Tensor) -> Tensor:
        """The score of finite images ``(n, *shape)`` of values from 0 to 255 in one batch of any size, with a gradient, ``(n,)``."""
        images = scaled(x, self.network.dense.last.weight.dtype)
        terms = [
            F.log_softmax(self.network(symmetry(images, index).flatten(1)).double(), 1)[:, index]
            for index in range(self.count)
        ]
        return -torch.stack(terms, 1).mean(1)


def scaled(x: Tensor, dtype: torch.dtype) -> Tensor:
    """8-bit images as numbers in [-1, 1]; values outside of 0 to 255 are cut, so that no output is unbounded."""
    return x.to(dtype).clamp(0.0, 255.0) / 127.5 - 1.0
