"""Gaussian noise on training inputs, which smooths the density so that repeated values cannot get an infinite likelihood."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.numerics import Noise, normal_like
from pushforward.numerics.checks import check_positive
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform

__all__ = ["Jitter"]


@register("transforms")
class Jitter(Transform):
    """z = x + std * e with e ~ N(0, I) in training, and the identity in scoring.

    Training on noisy inputs fits the data density smoothed by a Gaussian kernel (Bishop 1995; Rothfuss et al. 2019),
    which keeps a flexible flow from collapsing on repeated values. Contribution 0.

    Args:
        features: event shape.
        std: standard deviation of the noise, in the units of the input; 0 for none.

    Raises:
        ConfigError: for a negative ``std``.

    Example:
        >>> import torch
        >>> Jitter(2, std=0.1).encode(torch.ones(1, 2)).z          # no generator: scoring
        tensor([[1., 1.]])
    """

    domain = codomain = None
    autoregressive_order = "any"
    _counts = True

    def __init__(self, features: int | Shape, std: float = 0.05) -> None:
        check_positive("std", std, zero=True)
        super().__init__(features)
        self.features, self.std = features, std

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Add noise if a generator is given."""
        return Step(self._jittered(x, noise), self.zero_log_det(x))

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """As ``encode``, with the contribution of each coordinate."""
        return self._jittered(x, noise), torch.zeros_like(x)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """The identity."""
        return z

    def _jittered(self, x: Tensor, noise: Noise) -> Tensor:
        if self.std and isinstance(noise, torch.Generator):
            return x + self.std * normal_like(x, len(self.in_shape), noise)
        return x
