"""Dynamic binarization: a gray level is the probability of a one."""

from __future__ import annotations

from torch import Tensor

from pushforward.likelihood import UNIT, Kind, Support
from pushforward.numerics import Noise, RowNoise, uniform_like
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform, outside
from pushforward.transforms.stochastic.likelihoods import check_levels

__all__ = ["DynamicBinarize"]


@register("transforms")
class DynamicBinarize(Transform):
    """z = 1 with probability x / (levels - 1), else 0, drawn anew for each batch (Salakhutdinov and Murray 2008; the
    "dynamic" MNIST of Burda et al. 2016, arXiv 1509.00519, sec. 5).

    The likelihood is that of the drawn binary image, not of the gray one: contribution 0, kind ESTIMATE. In scoring, the draw
    depends on the seed and the row alone, and all draws of later transforms use the same one, so that more samples tighten
    the bound for that binary image. ``decode`` is the identity: samples are binary.

    Args:
        features: event shape.
        levels: number of gray levels of the data.

    Raises:
        ConfigError: for fewer than two levels.

    Example:
        >>> import torch
        >>> DynamicBinarize(3, levels=4).encode(torch.tensor([[0.0, 3.0, 3.0]])).z
        tensor([[0., 1., 1.]])
    """

    supports_float64 = False
    codomain = UNIT
    kind = Kind.ESTIMATE
    autoregressive_order = "any"
    _counts = True

    def __init__(self, features: int | Shape, levels: int = 256) -> None:
        super().__init__(features)
        self.features, self.levels = features, check_levels(levels)
        self.domain = Support(0.0, float(levels - 1))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Draw the binary image."""
        z, _ = self.encode_terms(x, noise=noise)
        return Step(z, outside(x, self.domain, len(self.in_shape)))

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """As ``encode``, with a contribution of 0 for each coordinate."""
        if isinstance(noise, RowNoise):
            noise = type(noise)(noise.seed)
        u = uniform_like(x, len(self.in_shape), noise)
        return (u < x.detach() / (self.levels - 1)).to(x.dtype), outside(x.unsqueeze(-1), self.domain, 1)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """The identity."""
        return z
