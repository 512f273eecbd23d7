"""Mobius transforms of the circle, and convex combinations of them, as a transformer of angles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.likelihood import CIRCLE
from pushforward.numerics import bound_square, monotone_root, soft_clamp
from pushforward.numerics.checks import check_integer, check_number
from pushforward.registry import register
from pushforward.transforms.splines.rational_quadratic import wrap
from pushforward.transforms.transformers.base import Transformer

__all__ = ["MobiusTransformer"]


@register("transformers")
@dataclass(frozen=True)
class MobiusTransformer(Transformer):
    """Convex combination of K Mobius transforms of the circle, and a rotation (Rezende et al. 2020, sec. 2.1.1, eq. 6-9).

    A Mobius transform with center w = r exp(i phi) inside the unit disc, rotated so that 0 is a fixed point, maps the angle x to

        h(x) = x + 2 [ atan2(r sin(x - phi), 1 - r cos(x - phi)) + atan2(r sin phi, 1 - r cos phi) ],
        h'(x) = (1 - r^2) / (1 + r^2 - 2 r cos(x - phi)),

    and y = sum_k rho_k h_k(x) + phase (mod 2 pi), rho on the simplex. The centers stay inside a smaller disc, so that
    slopes lie between ``min_slope`` and 1 / ``min_slope``. Raw parameters: 2 K coordinates of the centers, K logits of
    rho, one phase. Data are angles in radians in [-pi, pi]. The inverse is found by root finding.

    Args:
        components: number of Mobius transforms K.
        min_slope: smallest slope; the largest is 1 / ``min_slope``.

    Raises:
        ConfigError: for a K below 1, or a slope outside (0, 1).

    Example:
        >>> import torch
        >>> transformer = MobiusTransformer(components=2)
        >>> x = torch.tensor([-3.0, 0.5])
        >>> y, log_slope = transformer.forward(x, torch.ones(7, 2))
        >>> torch.allclose(transformer.inverse(y, torch.ones(7, 2))[0], x, atol=1e-5)
        True
    """

    components: int = 8
    min_slope: float = 1e-2
    support = CIRCLE
    periodic = True
    output_gain = 0.1

    def __post_init__(self) -> None:
        check_integer("components", self.components)
        check_number("min_slope", self.min_slope, 0, 1)

    @property
    def parameters(self) -> int:
        """3 K + 1."""
        return 3 * self.components + 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """y = f(x) and log f'(x)."""
        unwrapped, slope = combination(x.clamp(-math.pi, math.pi), *self._centers(raw))
        return wrap(unwrapped + soft_clamp(raw[-1], math.pi)), slope.log()

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """x with f(x) = y, and log f'(x)."""
        centers = self._centers(raw)
        # 0 and 2 pi are fixed points, so a target in [0, 2 pi) has its root in [0, 2 pi).
        target = torch.remainder(y.clamp(-math.pi, math.pi) - soft_clamp(raw[-1], math.pi), 2 * math.pi)
        low = torch.zeros_like(target)
        x = monotone_root(lambda t: combination(t, *centers), target, low, low + 2 * math.pi, doublings=0)
        return wrap(x), combination(x, *centers)[1].log()

    def _centers(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates of the centers and their weights, ``(K, *x.shape)`` each."""
        count = self.components
        a, b, logits = bound_square(raw[:count], 3), bound_square(raw[count : 2 * count], 3), raw[2 * count : -1]
        # At raw = 0 all components are the identity, and equal gradients would keep them equal: each has its own gain and angle.
        k = torch.arange(count, dtype=raw.dtype, device=raw.device).reshape(-1, *(1,) * (raw.dim() - 1))
        gain, angle = 0.5 + (k + 0.5) / count, 2 * math.pi * k / count
        largest = (1 - self.min_slope) / (1 + self.min_slope)  # the radius r at which (1 - r) / (1 + r) is min_slope
        scale = largest * gain * torch.rsqrt(1 + (gain * a).square() + (gain * b).square())
        cos, sin = angle.cos(), angle.sin()
        return scale * (cos * a - sin * b), scale * (sin * a + cos * b), torch.softmax(logits, 0)


def combination(x: Tensor, a: Tensor, b: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of ``weight`` times Mobius transforms with centers (a, b), unwrapped to the line, and its slope; both shaped as ``x``."""
    cos, sin = x.cos(), x.sin()
    sine, cosine = a * sin - b * cos, 1 - a * cos - b * sin
    angles = torch.atan2(sine, cosine) + torch.atan2(b, 1 - a)
    slope = (1 - a * a - b * b) / (sine.square() + cosine.square())
    return x + 2 * (weight * angles).sum(0), (weight * slope).sum(0)
