"""Planar flow: a tanh ridge along one direction."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pushforward.numerics import Noise, monotone_root, softplus_positive
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.validation import seeded_normal, vector_width

__all__ = ["Planar"]

MIN_SLOPE = 1e-3


@register("transforms")
class Planar(Transform):
    """z = x + u' tanh(w.x + b) (Rezende and Mohamed 2015, eq. 10); contribution log(1 + (1 - tanh^2) w.u').

    Invertible because w.u' > -1: u' = u + (m(w.u) - w.u) w / (w.w), with the *squared* norm below and
    m(a) = -1 + softplus(a + c) + 1e-3, where c makes m(0) = 0 (app. A.1 has c = 0, where u = 0 is not the identity).
    The slope along w is at least 1e-3. Decoding solves one scalar monotone equation for w.x, with its exact gradient.

    Args:
        features: width D of the vectors.
        seed: of the starting weights, near the identity.

    Raises:
        ConfigError: if the event is not a vector.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Planar
        >>> planar = Planar(2)
        >>> x = torch.tensor([[1.0, -2.0]])
        >>> torch.allclose(planar.decode(planar.encode(x).z), x)
        True
    """

    def __init__(self, features: int | Shape, seed: int = 0) -> None:
        super().__init__(features)
        self.features, self.seed = features, seed
        width = vector_width(features, "Planar")
        start = seeded_normal(2, width, seed=seed)
        self.weight = nn.Parameter(start[0] / math.sqrt(width))
        self.direction = nn.Parameter(0.3 * start[1] / math.sqrt(width))
        self.bias = nn.Parameter(torch.zeros(()))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """X + u' tanh(w.x + b)."""
        push, slope_at_center = self._constrained(x)
        ridge = torch.tanh((x * self.weight).sum(-1) + self.bias)
        return Step(x + ridge.unsqueeze(-1) * push, ridge_slope(ridge, slope_at_center).log())

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Z - u' tanh(a + b), where a = w.x solves a + w.u' tanh(a + b) = w.z."""
        push, slope_at_center = self._constrained(z)
        height = slope_at_center - 1

        def along(a: Tensor) -> tuple[Tensor, Tensor]:
            ridge = torch.tanh(a + self.bias)
            return a + height * ridge, ridge_slope(ridge, slope_at_center)

        target = (z * self.weight).sum(-1)
        reach = height.detach().abs()
        a = monotone_root(along, target, target.detach() - reach, target.detach() + reach, doublings=0)
        return z - torch.tanh(a + self.bias).unsqueeze(-1) * push

    def _constrained(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """u', and 1 + w.u' > 0, as precise as the coordinates."""
        dtype = torch.promote_types(self.weight.dtype, like.dtype)
        weight, direction = self.weight.to(dtype), self.direction.to(dtype)
        product = (weight * direction).sum()
        slope_at_center = softplus_positive(product, MIN_SLOPE)
        square = weight.square().sum().clamp(min=1e-30)
        return direction + (slope_at_center - 1 - product) * weight / square, slope_at_center


def ridge_slope(ridge: Tensor, slope_at_center: Tensor) -> Tensor:
    """1 + (1 - tanh^2)(s - 1) as a sum of positive terms, which cannot cancel to 0."""
    square = ridge.square()
    return square + (1 - square) * slope_at_center
