"""Monotone rational-quadratic splines in plain PyTorch operations: the reference for the native kernel.

Differentiable any number of times, traceable, on any device.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pushforward.numerics import is_eager, soft_clamp

__all__ = ["SplineSettings", "cached_knot_map", "fraction", "log_slope_at", "plain_spline"]


_NATIVE_PARAMETERS = 4096
"""Parameters of an element, with 64 bytes each, that fit the stack of any thread."""
_PRODUCT_BINS = 512
"""Bins up to which knots are found by a product: its matrix then has at most 2 MiB in float64."""


@dataclass(frozen=True)
class SplineSettings:
    """The shape of a family of splines on [-bound, bound].

    Args:
        bins: K, the number of bins.
        bound: half the width of the interval.
        smallest: the smallest width and height of a bin, as a fraction of the interval.
        steepest: bound on abs(log slope) at a knot, smooth.
        periodic: if true, K free slopes, equal at both ends, and nothing outside the interval. Otherwise K - 1 free
            slopes, slope 1 at both ends, and the identity outside.

    Example:
        >>> from pushforward.kernels import SplineSettings
        >>> settings = SplineSettings(bins=8, bound=4.0, smallest=0.01, steepest=100.0)
        >>> settings.bins, settings.periodic
        (8, False)
    """

    bins: int
    bound: float
    smallest: float
    steepest: float
    periodic: bool = False

    @property
    def parameters(self) -> int:
        """Number of raw parameters: widths, heights, slopes."""
        return 3 * self.bins if self.periodic else 3 * self.bins - 1

    @property
    def native(self) -> bool:
        """Whether native code can take these splines: it keeps the parameters of some elements on the stack of a thread."""
        return self.parameters <= _NATIVE_PARAMETERS

    @property
    def by_product(self) -> bool:
        """Whether a product with a matrix of K^2 numbers finds the knots, which is faster than a running sum for few bins."""
        return self.bins <= _PRODUCT_BINS


class Bin(NamedTuple):
    """The bin of each point: left knot, width, bottom knot, height, and the slopes at both knots."""

    left: Tensor
    width: Tensor
    bottom: Tensor
    height: Tensor
    start: Tensor
    end: Tensor


def plain_spline(x: Tensor, raw: Tensor, settings: SplineSettings, inverse: bool) -> tuple[Tensor, Tensor]:
    """:func:`~pushforward.kernels.spline` in plain operations."""
    safe = x.clamp(-settings.bound, settings.bound)
    bin_ = find_bin(
        safe, find_knots(raw[: 2 * settings.bins], settings), raw[2 * settings.bins :], settings, side=int(inverse)
    )
    y, log_slope = (solve if inverse else evaluate)(safe, bin_)
    if settings.periodic:
        return y, log_slope
    inside = x.abs() < settings.bound
    return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0)


def find_knots(raw: Tensor, settings: SplineSettings) -> Tensor:
    """K + 1 increasing knots of both sides, ``(2, K + 1, *shape)``, from raw widths and heights, ``(2 K, *shape)``.

    The end knots are exact; a running sum would give them with rounding errors.
    """
    softmax = torch.softmax(raw.unflatten(0, (2, settings.bins)), 1)
    device = softmax.device.type
    precise = device == "cpu" and not torch.is_autocast_enabled(device)  # elsewhere the product may have less precision
    if precise and settings.by_product:
        # Nothing is cached under a tracer, or with another type of tensor.
        make = cached_knot_map if is_eager() and type(softmax) is Tensor else knot_map
        start, matrix = make(settings, softmax.dtype)
        knots = torch.baddbmm(start, matrix, softmax.flatten(2) if softmax.dim() > 2 else softmax.unsqueeze(2))
        return knots.reshape(2, settings.bins + 1, *softmax.shape[2:])
    sizes = settings.smallest + (1 - settings.smallest * settings.bins) * softmax[:, :-1]
    inner = (2 * settings.bound) * torch.cumsum(sizes, 1) - settings.bound
    end = torch.full_like(softmax[:, :1], settings.bound)
    return torch.cat((-end, inner, end), 1)


def knot_map(settings: SplineSettings, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Knots as an affine map of the softmax: a start ``(1, K + 1, 1)`` and a matrix ``(2, K + 1, K)``.

    One product is faster than a running sum. They are on the CPU, whatever the default device is.
    """
    index = torch.arange(settings.bins + 1, dtype=dtype, device="cpu")
    start = (2 * settings.bound * settings.smallest) * index - settings.bound
    start[-1] = settings.bound
    matrix = (index[:, None] > index[:-1]).to(dtype) * (2 * settings.bound * (1 - settings.smallest * settings.bins))
    matrix[-1] = 0
    return start.reshape(1, -1, 1), matrix.expand(2, -1, -1)


@functools.lru_cache(maxsize=64)
def cached_knot_map(settings: SplineSettings, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """:func:`knot_map`, computed once."""
    with torch.inference_mode(False):
        return knot_map(settings, dtype)


def find_bin(at: Tensor, knots: Tensor, slopes: Tensor, settings: SplineSettings, side: int) -> Bin:
    """The bin of each point, by counting the inner knots of a side that are not above it.

    Args:
        at: points, ``shape``.
        knots: ``(2, K + 1, *shape)``.
        slopes: raw, ``(K - 1, *shape)``, or K of them if periodic.
        settings: of the splines.
        side: 0 if the points are values of x, 1 if they are values of y.
    """
    start = (at >= knots[side, 1:-1]).sum(0, dtype=torch.uint8 if settings.bins <= 256 else torch.int64).long()
    ends = torch.stack((start, start + 1))
    (left, bottom), (right, top) = knots.gather(1, ends.expand(2, *ends.shape)).unbind(1)
    edge = torch.zeros_like(slopes[:1]) if not settings.periodic else slopes[:1]  # a raw slope of 0 is a slope of 1
    raw = torch.cat((slopes, edge) if settings.periodic else (edge, slopes, edge)).gather(0, ends)
    first, last = soft_clamp(raw, settings.steepest).exp()
    return Bin(left, right - left, bottom, top - bottom, first, last)


def evaluate(x: Tensor, bin_: Bin) -> tuple[Tensor, Tensor]:
    """y and log dy/dx inside a bin (eq. 4-5)."""
    q = ((x - bin_.left) / bin_.width).clamp(0, 1)
    s, t = bin_.height / bin_.width, 1 - q
    qt = q * t
    denominator = torch.addcmul(s, torch.sub(bin_.start + bin_.end, s, alpha=2), qt)
    rise = torch.addcmul(s * q * q, bin_.start, qt) / denominator
    return torch.addcmul(bin_.bottom, bin_.height, rise), _log_slope(q, t, qt, s, bin_.start, bin_.end, denominator)


def solve(y: Tensor, bin_: Bin) -> tuple[Tensor, Tensor]:
    """x and log dy/dx inside a bin (eq. 6-8)."""
    u, ratio = (y - bin_.bottom) / bin_.height, bin_.width / bin_.height
    q = fraction(u, ratio, bin_.start, bin_.end)
    log_slope = log_slope_at(q, bin_.height / bin_.width, bin_.start, bin_.end)
    return torch.addcmul(bin_.left, q, bin_.width), log_slope


def fraction(u: Tensor, ratio: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Where x lies in its bin, as a fraction of the width, for y at the fraction u of the height (eq. 6-8).

    With g = (start (1 - u) - end u) ratio / 2 it is u / (u + g + sqrt(g^2 + u (1 - u))). As u is in [0, 1], the
    argument of the root is never negative. For negative g the sum g + sqrt(...) would cancel, so it is computed as
    u (1 - u) divided by sqrt(...) - g.

    Args:
        u: in [0, 1].
        ratio: width by height.
        start: slope at the left knot.
        end: slope at the right knot.
    """
    product = torch.addcmul(u, u, u, value=-1)
    twice = torch.addcmul(start, start + end, u, value=-1) * ratio
    root = torch.sqrt(torch.addcmul(product, twice, twice, value=0.25))
    # 1 where g is negative. A choice by torch.where is slow for random signs, and abs has no derivative at 0.
    negative = torch.signbit(twice).to(twice.dtype)
    total = torch.add(root, torch.addcmul(twice, twice, negative, value=-2), alpha=0.5)
    return u / (u + torch.lerp(total, product / total, negative))


def log_slope_at(q: Tensor, s: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """log dy/dx at the fraction q of a bin of mean slope s."""
    t = 1 - q
    qt = q * t
    return _log_slope(q, t, qt, s, start, end, torch.addcmul(s, torch.sub(start + end, s, alpha=2), qt))


def _log_slope(q: Tensor, t: Tensor, qt: Tensor, s: Tensor, start: Tensor, end: Tensor, denominator: Tensor) -> Tensor:
    """log dy/dx at the fraction q of a bin, t = 1 - q, qt = q t (eq. 5)."""
    numerator = torch.addcmul(torch.addcmul(end * q * q, start * t, t), s, qt, value=2)
    ratio = s / denominator
    return torch.log(numerator * ratio * ratio)
