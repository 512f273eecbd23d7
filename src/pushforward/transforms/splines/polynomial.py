"""Monotone splines of degree 1, 2 and 3 as transformers; outside an interval they are the identity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.numerics import monotone_root, soft_clamp
from pushforward.registry import register
from pushforward.transforms.splines.rational_quadratic import check_spline
from pushforward.transforms.transformers.base import Transformer

__all__ = ["CubicSplineTransformer", "LinearSplineTransformer", "QuadraticSplineTransformer"]

_MIN_END_SLOPE = 0.4
"""Smallest mean slope of a cubic's first and last bin: above 1/3, so that the cubic with slope 1 at the end is monotone."""


@register("transformers")
@dataclass(frozen=True)
class LinearSplineTransformer(Transformer):
    """Piecewise-linear function with K equal bins on [-bound, bound] and the identity outside (Müller et al. 2019, sec. 4.1).

    y = y_k + s_k (x - x_k), log f' = log s_k. The K raw parameters are the logarithms of the slopes up to a
    common factor, which makes the mean slope 1. The density has a jump at every knot, and at both ends of the interval.

    Args:
        bins: number of bins K.
        bound: data should mostly lie within [-bound, bound].
        min_slope: smallest slope; the largest is 1 / ``min_slope``.

    Raises:
        ConfigError: for fewer than 2 bins, or a bound or slope out of range.

    Example:
        >>> import torch
        >>> transformer = LinearSplineTransformer(bins=2, bound=1.0)
        >>> y, log_slope = transformer.forward(torch.tensor([-0.5, 2.0]), torch.zeros(2, 2))
        >>> y                                                    # the identity at raw = 0
        tensor([-0.5000,  2.0000])
    """

    bins: int = 8
    bound: float = 4.0
    min_slope: float = 1e-2
    output_gain = 0.1

    def __post_init__(self) -> None:
        check_spline(self.bins, self.bound, 1e-9, self.min_slope)  # widths are fixed

    @property
    def parameters(self) -> int:
        """K."""
        return self.bins

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """y_k + s_k (x - x_k)."""
        clamped, inside = _clamped(x, self.bound)
        xs, ys, slopes = self._pieces(raw)
        left, bottom, slope = _pick(_find(clamped, xs), xs[:-1], ys[:-1], slopes)
        return _select(inside, bottom + slope * (clamped - left), slope.log(), x)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """x_k + (y - y_k) / s_k."""
        clamped, inside = _clamped(y, self.bound)
        xs, ys, slopes = self._pieces(raw)
        left, bottom, slope = _pick(_find(clamped, ys), xs[:-1], ys[:-1], slopes)
        return _select(inside, left + (clamped - bottom) / slope, slope.log(), y)

    def _pieces(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Knots in x and y, ``(K + 1, *shape)``, and slopes ``(K, *shape)``."""
        levels = _levels(raw, self.min_slope)
        slopes = levels / levels.mean(0)
        width = torch.full_like(slopes, 1 / self.bins)
        return _knots(width, self.bound), _knots(width * slopes, self.bound), slopes


@register("transformers")
@dataclass(frozen=True)
class QuadraticSplineTransformer(Transformer):
    """Piecewise-quadratic function with K bins on [-bound, bound] and the identity outside (Müller et al. 2019, sec. 4.2).

    The slope is piecewise linear: with q = (x - x_k) / w_k, f' = u_k (1 - q) + u_{k+1} q and
    y = y_k + w_k (u_k q + (u_{k+1} - u_k) q^2 / 2). Raw parameters: K widths and the slopes u at the K - 1 inner knots up
    to a common factor. The slopes at both ends are 1 and the factor makes the mean slope 1, so y is continuously
    differentiable everywhere. (If the end slopes were scaled too, the density would have a jump at the ends.)

    Args:
        bins: number of bins K.
        bound: data should mostly lie within [-bound, bound].
        min_bin: smallest width of a bin, as a fraction of the interval.
        min_slope: smallest slope; the largest is 1 / ``min_slope``.

    Raises:
        ConfigError: for fewer than 3 bins (with 2 no slope is free), a ``min_bin`` that is too large for the number of
            bins, or a bound or slope out of range.

    Example:
        >>> import torch
        >>> transformer = QuadraticSplineTransformer(bins=4)
        >>> x, raw = torch.linspace(-5, 5, 7), torch.ones(transformer.parameters, 7).cumsum(0)
        >>> torch.allclose(transformer.inverse(transformer.forward(x, raw)[0], raw)[0], x, atol=1e-5)
        True
    """

    bins: int = 8
    bound: float = 4.0
    min_bin: float = 1e-2
    min_slope: float = 1e-2
    output_gain = 0.1

    def __post_init__(self) -> None:
        check_spline(self.bins, self.bound, self.min_bin, self.min_slope)
        if self.bins < 3:
            raise ConfigError(
                f"bins of a quadratic spline must be at least 3, because both end slopes are 1; got {self.bins}."
            )

    @property
    def parameters(self) -> int:
        """2 K - 1."""
        return 2 * self.bins - 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The integral of a piecewise-linear slope."""
        clamped, inside = _clamped(x, self.bound)
        xs, ys, slopes = self._pieces(raw)
        left, right, bottom, start, end = _pick(_find(clamped, xs), xs[:-1], xs[1:], ys[:-1], slopes[:-1], slopes[1:])
        width = right - left
        q = ((clamped - left) / width).clamp(0, 1)
        y = bottom + width * q * (start + 0.5 * (end - start) * q)
        return _select(inside, y, torch.log(start * (1 - q) + end * q), x)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The root of a quadratic, in the form that does not cancel."""
        clamped, inside = _clamped(y, self.bound)
        xs, ys, slopes = self._pieces(raw)
        left, right, bottom, start, end = _pick(_find(clamped, ys), xs[:-1], xs[1:], ys[:-1], slopes[:-1], slopes[1:])
        width = right - left
        e = (clamped - bottom) / width
        # The square of the slope at the solution.
        square = (start.square() + 2 * (end - start) * e).clamp_min(self.min_slope**2)
        q = (2 * e / (start + square.sqrt())).clamp(0, 1)
        return _select(inside, left + q * width, torch.log(start * (1 - q) + end * q), y)

    def _pieces(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Knots in x and y, and the slopes at them, each ``(K + 1, *shape)``."""
        widths = _widths(raw[: self.bins], self.min_bin)
        levels = _levels(raw[self.bins :], self.min_slope)
        weights = 0.5 * (widths[:-1] + widths[1:])
        inner = levels * weights.sum(0) / (levels * weights).sum(0)  # with these and the end slopes the mean slope is 1
        one = torch.ones_like(widths[:1])
        slopes = torch.cat((one, inner, one))
        heights = 0.5 * widths * (slopes[:-1] + slopes[1:])
        return _knots(widths, self.bound), _knots(heights, self.bound), slopes


@register("transformers")
@dataclass(frozen=True)
class CubicSplineTransformer(Transformer):
    """Monotone cubic spline with K bins on [-bound, bound] and the identity outside (Durkan et al. 2019, arXiv
    1906.02145, sec. 3; Steffen 1990, eq. 11).

    In a bin of width w, mean slope s and end slopes d_0, d_1, with q = (x - x_k) / w:
    y = y_k + w (d_0 q + (3 s - 2 d_0 - d_1) q^2 + (d_0 + d_1 - 2 s) q^3). Raw parameters: K widths, K mean slopes.
    Steffen's rule gives the slopes at inner knots, min(2 s_{k-1}, 2 s_k, p_k) with p_k the slope of the parabola through
    the three knots. The paper learns the two end slopes; here they are 1, so that y is continuously differentiable
    everywhere. That is monotone only if the first and last mean slopes exceed 1/3, so they are kept above 0.4.

    The inverse finds the root in its bin by safeguarded Newton steps: the closed form of a cubic's root is inaccurate
    where the cubic is nearly a line.

    Args:
        bins: number of bins K.
        bound: data should mostly lie within [-bound, bound].
        min_bin: smallest width of a bin, as a fraction of the interval.
        min_slope: smallest mean slope of a bin; the largest is 1 / ``min_slope``.

    Raises:
        ConfigError: if ``min_bin`` is too large for the number of bins, or a bound or slope is out of range.

    Example:
        >>> import torch
        >>> transformer = CubicSplineTransformer(bins=4)
        >>> x, raw = torch.linspace(-5, 5, 7), torch.ones(transformer.parameters, 7).cumsum(0)
        >>> torch.allclose(transformer.inverse(transformer.forward(x, raw)[0], raw)[0], x, atol=1e-5)
        True
    """

    bins: int = 8
    bound: float = 4.0
    min_bin: float = 1e-2
    min_slope: float = 1e-2
    output_gain = 0.1

    def __post_init__(self) -> None:
        check_spline(self.bins, self.bound, self.min_bin, self.min_slope)

    @property
    def parameters(self) -> int:
        """2 K."""
        return 2 * self.bins

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The cubic of the bin that contains x."""
        clamped, inside = _clamped(x, self.bound)
        xs, ys, means, slopes = self._pieces(raw)
        left, right, bottom, mean, start, end = _pick(
            _find(clamped, xs), xs[:-1], xs[1:], ys[:-1], means, slopes[:-1], slopes[1:]
        )
        width = right - left
        value, slope = _cubic(((clamped - left) / width).clamp(0, 1), mean, start, end)
        return _select(inside, bottom + width * value, slope.log(), x)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The root of the cubic of the bin that contains y."""
        clamped, inside = _clamped(y, self.bound)
        xs, ys, means, slopes = self._pieces(raw)
        left, right, bottom, mean, start, end = _pick(
            _find(clamped, ys), xs[:-1], xs[1:], ys[:-1], means, slopes[:-1], slopes[1:]
        )
        width = right - left
        e = (clamped - bottom) / width
        zero, one = torch.zeros_like(e), torch.ones_like(e)
        q = monotone_root(lambda q: _cubic(q, mean, start, end), e, zero, one, start=e / mean, doublings=0)
        q = q.clamp(0, 1)
        return _select(inside, left + q * width, _cubic(q, mean, start, end)[1].log(), y)

    def _pieces(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Knots in x and y ``(K + 1, *shape)``, mean slopes of the bins ``(K, *shape)``, slopes at the knots."""
        widths = _widths(raw[: self.bins], self.min_bin)
        levels = _levels(raw[self.bins :], self.min_slope)
        floor = torch.zeros_like(widths)
        floor[0], floor[-1] = _MIN_END_SLOPE, _MIN_END_SLOPE
        free = widths * (1 - floor)
        means = floor + (1 - floor) * levels * free.sum(0) / (free * levels).sum(0)
        before, after, left, right = means[:-1], means[1:], widths[:-1], widths[1:]
        parabola = (before * right + after * left) / (left + right)
        one = torch.ones_like(widths[:1])
        slopes = torch.cat((one, torch.minimum(2 * torch.minimum(before, after), parabola), one))
        return _knots(widths, self.bound), _knots(widths * means, self.bound), means, slopes


def _cubic(q: Tensor, mean: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope at q of the cubic on [0, 1] with f(0) = 0, f(1) = mean, f'(0) = start and f'(1) = end."""
    value = q * (start + q * (3 * mean - 2 * start - end + q * (start + end - 2 * mean)))
    middle = 2 * (3 * mean - start - end)
    return value, start * (1 - q).square() + middle * q * (1 - q) + end * q.square()


def _levels(raw: Tensor, min_slope: float) -> Tensor:
    """Positive numbers, 1 at raw = 0; the ratio of each to any weighted mean of them is in [min_slope, 1 / min_slope]."""
    return soft_clamp(raw, -0.5 * math.log(min_slope)).exp()


def _widths(raw: Tensor, smallest: float) -> Tensor:
    """Bin widths as fractions of the interval, ``(K, *shape)``: each at least ``smallest``, with sum 1."""
    return smallest + (1 - smallest * raw.shape[0]) * torch.softmax(raw, 0)


def _knots(fractions: Tensor, bound: float) -> Tensor:
    """K + 1 knots from K fractions of [-bound, bound]. The end knots are set exactly; a running sum would round them."""
    inner = (2 * bound) * torch.cumsum(fractions[:-1], 0) - bound
    end = torch.full_like(fractions[:1], bound)
    return torch.cat((-end, inner, end))


def _clamped(x: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """x clamped to the interval, and a mask of where it lies inside. Clamping keeps the values that are not selected finite."""
    return x.clamp(-bound, bound), (x > -bound) & (x < bound)


def _select(inside: Tensor, y: Tensor, log_slope: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The spline inside, the identity outside."""
    return torch.where(inside, y, x), torch.where(inside, log_slope, torch.zeros_like(x))


def _find(points: Tensor, knots: Tensor) -> Tensor:
    """index of the bin that contains each point, ``(1, *shape)``: the number of inner knots below it."""
    return (points >= knots[1:-1]).sum(0, keepdim=True)


def _pick(index: Tensor, *values: Tensor) -> list[Tensor]:
    """From each ``(K, *shape)`` tensor the entry of the bin with this index."""
    return [value.gather(0, index).squeeze(0) for value in values]
