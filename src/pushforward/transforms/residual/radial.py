"""Radial flow: contraction or expansion around a point."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pushforward.numerics import Noise, softplus_positive
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.validation import seeded_normal, vector_width

__all__ = ["Radial"]

MIN_SLOPE = 1e-3


@register("transforms")
class Radial(Transform):
    """z = x + beta h (x - x0) with r = norm(x - x0) and h = 1 / (alpha + r) (Rezende and Mohamed 2015, eq. 14).

    Contribution: (D - 1) log(1 + beta h) + log(1 + alpha beta h^2). Invertible because alpha > 0 and
    beta = alpha (s - 1) > -alpha, with the slope at the center s >= 1e-3. Decoding is in closed form: r is the positive
    root of r^2 + (alpha + beta - rho) r - alpha rho = 0 with rho = norm(z - x0).

    Args:
        features: width D of the vectors.
        seed: of the starting weights, near the identity.

    Raises:
        ConfigError: if the event is not a vector.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Radial
        >>> radial = Radial(2)
        >>> x = torch.tensor([[1.0, -2.0]])
        >>> torch.allclose(radial.decode(radial.encode(x).z), x)
        True
    """

    def __init__(self, features: int | Shape, seed: int = 0) -> None:
        super().__init__(features)
        self.features, self.seed = features, seed
        self.width = vector_width(features, "Radial")
        start = seeded_normal(self.width + 1, seed=seed)
        self.center = nn.Parameter(start[1:] / math.sqrt(self.width))
        self.raw_alpha = nn.Parameter(torch.zeros(()))
        self.raw_slope = nn.Parameter(0.3 * start[0])

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """X + beta h (x - x0)."""
        alpha, slope = self._constrained()
        offset = x - self.center
        r = _length(offset)
        stretch = (alpha * slope + r) / (alpha + r)
        near = (alpha / (alpha + r)).square()
        contribution = (self.width - 1) * stretch.log() + ((1 - near) + near * slope).log()
        return Step(self.center + offset * stretch.unsqueeze(-1), contribution)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """x0 + (z - x0) / (1 + beta h), with h at the root r."""
        alpha, slope = self._constrained()
        offset = z - self.center
        rho = _length(offset)
        # In units of the largest length in play, so that squares stay in range; the root scales with the unit.
        unit = torch.maximum(rho, torch.maximum(alpha, alpha * slope)).detach()
        half = 0.5 * (alpha * slope - rho) / unit
        size = torch.where(half >= 0, half, -half)
        product = (alpha / unit) * (rho / unit)
        larger = size + torch.sqrt(half.square() + product)
        # The roots multiply to -product: take the form that adds numbers of one sign.
        r = unit * torch.where(half >= 0, product / larger, larger)
        return self.center + offset * ((alpha + r) / (alpha * slope + r)).unsqueeze(-1)

    def _constrained(self) -> tuple[Tensor, Tensor]:
        """Alpha, and the slope at the center 1 + beta / alpha."""
        return softplus_positive(self.raw_alpha, MIN_SLOPE), softplus_positive(self.raw_slope, MIN_SLOPE)


def _length(offset: Tensor) -> Tensor:
    """Euclidean norm whose squares do not overflow, with gradient 0 at the origin."""
    unit = offset.detach().abs().amax(-1, keepdim=True).clamp(min=1.0)
    return torch.linalg.vector_norm(offset / unit, dim=-1) * unit.squeeze(-1)
