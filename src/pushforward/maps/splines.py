"""Monotone rational-quadratic splines, on an interval of the line and on the circle (Durkan et al. 2019)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.maps.transformers import Transformer
from pushforward.measure import Support
from pushforward.numerics import soft_clamp
from pushforward.registry import register

__all__ = ["CircularSplineTransformer", "SplineTransformer"]


class Bin(NamedTuple):
    """The spline's piece that holds each point: left knot, width, bottom knot, height, slopes at both knots."""

    left: Tensor
    width: Tensor
    bottom: Tensor
    height: Tensor
    slope_left: Tensor
    slope_right: Tensor


def knots(raw: Tensor, bound: float, smallest: float) -> Tensor:
    """K raw sizes, ``(K, *shape)``, to K + 1 increasing knots from -bound to bound with no gap below ``smallest``.

    The end knots are exact: a running sum of float32 sizes would miss them.
    """
    bins = raw.shape[0]
    sizes = smallest + (1 - smallest * bins) * torch.softmax(raw, 0)
    inner = (2 * bound) * torch.cumsum(sizes[:-1], 0) - bound
    end = torch.full_like(raw[:1], bound)
    return torch.cat((-end, inner, end))


def find_bin(at: Tensor, edges: Tensor, xs: Tensor, ys: Tensor, slopes: Tensor) -> Bin:
    """The piece that holds ``at``, by counting the inner ``edges`` below it; knots come first, ``(K + 1, *shape)``."""
    index = (at >= edges[1:-1]).sum(0, keepdim=True)

    def pick(values: Tensor, place: Tensor) -> Tensor:
        return values.gather(0, place).squeeze(0)

    left, right = pick(xs, index), pick(xs, index + 1)
    bottom, top = pick(ys, index), pick(ys, index + 1)
    return Bin(left, right - left, bottom, top - bottom, pick(slopes, index), pick(slopes, index + 1))


def log_slope(piece: Bin, q: Tensor) -> Tensor:
    """log dy/dx at the fraction q of a piece (Durkan et al. 2019, eq. 5)."""
    s = piece.height / piece.width
    denominator = s + (piece.slope_right + piece.slope_left - 2 * s) * q * (1 - q)
    numerator = piece.slope_right * q.square() + 2 * s * q * (1 - q) + piece.slope_left * (1 - q).square()
    return 2 * torch.log(s) + torch.log(numerator) - 2 * torch.log(denominator)


def spline_forward(x: Tensor, piece: Bin) -> tuple[Tensor, Tensor]:
    """y and log dy/dx inside a piece (Durkan et al. 2019, eq. 4-5)."""
    q = ((x - piece.left) / piece.width).clamp(0, 1)
    s = piece.height / piece.width
    denominator = s + (piece.slope_right + piece.slope_left - 2 * s) * q * (1 - q)
    y = piece.bottom + piece.height * (s * q.square() + piece.slope_left * q * (1 - q)) / denominator
    return y, log_slope(piece, q)


def spline_inverse(y: Tensor, piece: Bin) -> tuple[Tensor, Tensor]:
    """x and log dy/dx inside a piece (Durkan et al. 2019, eq. 6-8), by the root that does not cancel."""
    s = piece.height / piece.width
    e = y - piece.bottom
    bend = piece.slope_right + piece.slope_left - 2 * s
    a = piece.height * (s - piece.slope_left) + e * bend
    b = piece.height * piece.slope_left - e * bend
    c = -s * e
    # Rounding can make the discriminant negative; the floor also keeps the gradient of the root finite.
    root = torch.sqrt((b.square() - 4 * a * c).clamp_min(torch.finfo(y.dtype).tiny))
    q = (2 * c / (-b - root)).clamp(0, 1)
    return piece.left + q * piece.width, log_slope(piece, q)


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

    def __post_init__(self) -> None:
        check_spline(self.bins, self.bound, self.min_bin, self.min_slope)

    @property
    def parameters(self) -> int:
        """3 K - 1."""
        return 3 * self.bins - 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """y = f(x) and log f'(x)."""
        xs, ys, slopes = self._knots(raw)
        inside = (x > -self.bound) & (x < self.bound)
        safe = x.clamp(-self.bound, self.bound)
        y, log_derivative = spline_forward(safe, find_bin(safe, xs, xs, ys, slopes))
        return torch.where(inside, y, x), torch.where(inside, log_derivative, torch.zeros_like(x))

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """x with f(x) = y, and log f'(x)."""
        xs, ys, slopes = self._knots(raw)
        inside = (y > -self.bound) & (y < self.bound)
        safe = y.clamp(-self.bound, self.bound)
        x, log_derivative = spline_inverse(safe, find_bin(safe, ys, xs, ys, slopes))
        return torch.where(inside, x, y), torch.where(inside, log_derivative, torch.zeros_like(y))

    def _knots(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        xs = knots(raw[: self.bins], self.bound, self.min_bin)
        ys = knots(raw[self.bins : 2 * self.bins], self.bound, self.min_bin)
        inner = soft_clamp(raw[2 * self.bins :], -math.log(self.min_slope)).exp()
        one = torch.ones_like(raw[:1])
        return xs, ys, torch.cat((one, inner, one))


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

    def __post_init__(self) -> None:
        check_spline(self.bins, math.pi, self.min_bin, self.min_slope)

    @property
    def parameters(self) -> int:
        """3 K + 1."""
        return 3 * self.bins + 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """y = f(x) and log f'(x)."""
        xs, ys, slopes = self._knots(raw)
        turned = wrap(x.clamp(-math.pi, math.pi) + soft_clamp(raw[-1], math.pi))
        return spline_forward(turned, find_bin(turned, xs, xs, ys, slopes))

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """x with f(x) = y, and log f'(x)."""
        xs, ys, slopes = self._knots(raw)
        safe = y.clamp(-math.pi, math.pi)
        turned, log_derivative = spline_inverse(safe, find_bin(safe, ys, xs, ys, slopes))
        return wrap(turned - soft_clamp(raw[-1], math.pi)), log_derivative

    def _knots(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bins = self.bins
        slopes = soft_clamp(raw[2 * bins : 3 * bins], -math.log(self.min_slope)).exp()
        return (
            knots(raw[:bins], math.pi, self.min_bin),
            knots(raw[bins : 2 * bins], math.pi, self.min_bin),
            torch.cat((slopes, slopes[:1])),
        )


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
