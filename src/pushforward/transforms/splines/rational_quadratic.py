"""Monotone rational-quadratic splines, on an interval of the line and on the circle (Durkan et al. 2019)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.kernels import SplineSettings, spline
from pushforward.likelihood import Support
from pushforward.numerics import soft_clamp
from pushforward.registry import register
from pushforward.transforms.transformers.base import Transformer

__all__ = ["CircularSplineTransformer", "SplineTransformer"]


@register("transformers")
@dataclass(frozen=True)
class SplineTransformer(Transformer):
    """Rational-quadratic spline with K bins on [-bound, bound] and the identity outside (Durkan et al. 2019, sec. 3.1).

    Raw parameters: K widths, K heights, K - 1 inner slopes; slopes at the ends are 1, so the law is C1 everywhere and
    the identity at 0. Sizes and slopes are bounded, so that the slope lies within about a factor 1 / ``min_slope`` of 1
    on both sides and the inverse keeps its digits.

    Args:
        bins: K.
        bound: the paper's tail bound B; data should mostly lie within.
        min_bin: smallest width and height of a bin, as a share of the interval.
        min_slope: smallest slope at a knot; the largest is 1 / ``min_slope``.

    Raises:
        ConfigError: if the bins cannot hold their smallest sizes.
    """

    bins: int = 8
    bound: float = 4.0
    min_bin: float = 1e-2
    min_slope: float = 1e-2
    start = 0.1

    def __post_init__(self) -> None:
        check_spline(self.bins, self.bound, self.min_bin, self.min_slope)

    @property
    def parameters(self) -> int:
        """3 K - 1."""
        return 3 * self.bins - 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """y = f(x) and log f'(x)."""
        return spline(x, raw, self._law)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """x with f(x) = y, and log f'(x)."""
        return spline(y, raw, self._law, inverse=True)

    @property
    def _law(self) -> SplineSettings:
        return SplineSettings(self.bins, self.bound, self.min_bin, -math.log(self.min_slope))


@register("transformers")
@dataclass(frozen=True)
class CircularSplineTransformer(Transformer):
    """Rational-quadratic spline on the circle [-pi, pi) with a learned turn (Rezende et al. 2020, sec. 2.1.2).

    y = spline(x + phase mod 2 pi), slopes equal at both ends. Raw parameters: K widths, K heights, K slopes, one phase.
    Data are angles in radians in [-pi, pi].

    Args:
        bins: K.
        min_bin: smallest width and height of a bin, as a share of the circle.
        min_slope: smallest slope at a knot; the largest is 1 / ``min_slope``.
    """

    bins: int = 8
    min_bin: float = 1e-2
    min_slope: float = 1e-2
    support = Support(-math.pi, math.pi)
    periodic = True
    start = 0.1

    def __post_init__(self) -> None:
        check_spline(self.bins, math.pi, self.min_bin, self.min_slope)

    @property
    def parameters(self) -> int:
        """3 K + 1."""
        return 3 * self.bins + 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """y = f(x) and log f'(x)."""
        turned = wrap(x.clamp(-math.pi, math.pi) + soft_clamp(raw[-1], math.pi))
        return spline(turned, raw[:-1], self._law)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """x with f(x) = y, and log f'(x)."""
        turned, log_slope = spline(y.clamp(-math.pi, math.pi), raw[:-1], self._law, inverse=True)
        return wrap(turned - soft_clamp(raw[-1], math.pi)), log_slope

    @property
    def _law(self) -> SplineSettings:
        return SplineSettings(self.bins, math.pi, self.min_bin, -math.log(self.min_slope), periodic=True)


def wrap(angle: Tensor) -> Tensor:
    """The same angle in [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def check_spline(bins: int, bound: float, min_bin: float, min_slope: float) -> None:
    """Refuse sizes that no spline can have.

    Raises:
        ConfigError: naming the argument.
    """
    if not isinstance(bins, int) or bins < 2:
        raise ConfigError(f"a spline needs at least 2 bins; got {bins!r}.")
    if not 0 < bound < math.inf:
        raise ConfigError(f"a spline's bound must be positive and finite; got {bound}.")
    if not 0 < min_bin < 1 / bins:
        raise ConfigError(f"min_bin must lie in (0, 1 / bins = {1 / bins:.3g}); got {min_bin}.")
    if not 0 < min_slope < 1:
        raise ConfigError(f"min_slope must lie in (0, 1); got {min_slope}.")
