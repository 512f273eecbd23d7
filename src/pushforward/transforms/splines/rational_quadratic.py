"""Monotone rational-quadratic splines as transformers, on an interval of the line and on the circle (Durkan et al. 2019)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.kernels import SplineSettings, spline
from pushforward.likelihood import CIRCLE
from pushforward.numerics import soft_clamp
from pushforward.numerics.checks import check_integer, check_number, check_positive
from pushforward.registry import register
from pushforward.transforms.transformers.base import Transformer

__all__ = ["CircularSplineTransformer", "SplineTransformer"]


@register("transformers")
@dataclass(frozen=True)
class SplineTransformer(Transformer):
    """Rational-quadratic spline with K bins on [-bound, bound] and the identity outside (Durkan et al. 2019, sec. 3.1).

    Raw parameters: K widths, K heights, K - 1 inner slopes; the slopes (derivatives) at the ends are 1, so y is continuously
    differentiable everywhere, and the identity at raw = 0. Sizes of bins and slopes at knots are bounded, so all slopes are.
    Between knots of slopes a and b a bin of mean slope s has 4 s^2 / (a + b + 2 s) in its middle, which can be far below
    ``min_slope``, at the extreme 1e-6: there one rounding of y is as many roundings of x, which no inverse can undo.

    Args:
        bins: number of bins K.
        bound: the paper's tail bound B; data should mostly lie within [-bound, bound].
        min_bin: smallest width and height of a bin, as a fraction of the interval.
        min_slope: smallest slope at a knot; the largest is 1 / ``min_slope``.

    Raises:
        ConfigError: if ``min_bin`` is too large for the number of bins, or a bound or slope is out of range.

    Example:
        >>> import torch
        >>> from pushforward.transforms import SplineTransformer
        >>> f = SplineTransformer(bins=4)
        >>> x = torch.tensor([0.5])
        >>> y, log_slope = f.forward(x, torch.zeros(f.parameters, 1))
        >>> torch.allclose(f.inverse(y, torch.zeros(f.parameters, 1))[0], x, atol=1e-5)
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
        """3 K - 1."""
        return 3 * self.bins - 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """y = f(x) and log f'(x)."""
        return spline(x, raw, self.settings)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """x with f(x) = y, and log f'(x)."""
        return spline(y, raw, self.settings, inverse=True)

    @property
    def settings(self) -> SplineSettings:
        """The sizes in the form of the spline kernel."""
        return SplineSettings(self.bins, self.bound, self.min_bin, -math.log(self.min_slope))


@register("transformers")
@dataclass(frozen=True)
class CircularSplineTransformer(Transformer):
    """Rational-quadratic spline on the circle [-pi, pi) with a learned rotation (Rezende et al. 2020, sec. 2.1.2).

    y = spline(x + phase mod 2 pi), slopes equal at both ends. Raw parameters: K widths, K heights, K slopes, one phase.
    Data are angles in radians in [-pi, pi].

    Args:
        bins: number of bins K.
        min_bin: smallest width and height of a bin, as a fraction of the circle.
        min_slope: smallest slope at a knot; the largest is 1 / ``min_slope``.

    Raises:
        ConfigError: if ``min_bin`` is too large for the number of bins, or a slope is out of range.

    Example:
        >>> import torch
        >>> from pushforward.transforms import CircularSplineTransformer
        >>> f = CircularSplineTransformer(bins=4)
        >>> x = torch.tensor([0.5])
        >>> y, log_slope = f.forward(x, torch.zeros(f.parameters, 1))
        >>> torch.allclose(f.inverse(y, torch.zeros(f.parameters, 1))[0], x, atol=1e-5)
        True
    """

    bins: int = 8
    min_bin: float = 1e-2
    min_slope: float = 1e-2
    support = CIRCLE
    periodic = True
    output_gain = 0.1

    def __post_init__(self) -> None:
        check_spline(self.bins, math.pi, self.min_bin, self.min_slope)

    @property
    def parameters(self) -> int:
        """3 K + 1."""
        return 3 * self.bins + 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """y = f(x) and log f'(x)."""
        rotated = wrap(x.clamp(-math.pi, math.pi) + soft_clamp(raw[-1], math.pi))
        return spline(rotated, raw[:-1], self.settings)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """x with f(x) = y, and log f'(x)."""
        rotated, log_slope = spline(y.clamp(-math.pi, math.pi), raw[:-1], self.settings, inverse=True)
        return wrap(rotated - soft_clamp(raw[-1], math.pi)), log_slope

    @property
    def settings(self) -> SplineSettings:
        """The sizes in the form of the spline kernel."""
        return SplineSettings(self.bins, math.pi, self.min_bin, -math.log(self.min_slope), periodic=True)


def wrap(angle: Tensor) -> Tensor:
    """The same angle in [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def check_spline(bins: int, bound: float, min_bin: float, min_slope: float) -> None:
    """Refuse sizes that are impossible for a spline.

    Raises:
        ConfigError: naming the argument.
    """
    check_integer("bins", bins, 2)
    check_positive("bound", bound)
    check_number("min_bin", min_bin, 0, 1 / bins)
    check_number("min_slope", min_slope, 0, 1)
