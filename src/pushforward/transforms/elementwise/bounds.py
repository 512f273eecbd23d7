"""Data with bounds that differ by column, to the reals."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.likelihood import Support
from pushforward.numerics import Noise, constant, sum_event
from pushforward.numerics.checks import check_choice
from pushforward.registry import register
from pushforward.transforms.base import Step
from pushforward.transforms.elementwise.functions import Elementwise, spare
from pushforward.transforms.elementwise.probit import HALF_LOG_2_PI, LARGEST
from pushforward.transforms.validation import vector_width

__all__ = ["Bounds"]


@register("transforms")
class Bounds(Elementwise):
    """Columns between bounds to the reals, each by the function of its own bounds l and h.

    - both: z = log(x - l) - log(h - x), and log dz/dx = log(h - l) - log(x - l) - log(h - x);
      with ``link="probit"`` z = Phi^{-1}((x - l) / (h - l)), and log dz/dx = z^2 / 2 + log(2 pi) / 2 - log(h - l);
    - l alone: z = log(x - l), and log dz/dx = -log(x - l);
    - h alone: z = -log(h - x), and log dz/dx = -log(h - x);
    - none: z = x.

    A row with a coordinate outside its bounds has the contribution -inf, and ``decode`` gives only rows inside. A coordinate
    on a bound counts as if its distance were the smallest positive number, so it is finite but extreme (|z| of 80 in float32
    and of 701 in float64; 12.4 and 37.2 of normal quantiles): give slightly wider bounds to data that reach theirs.

    Args:
        features: width D of the rows.
        low: lower bound of each column, None where it has none.
        high: upper bound of each column, None where it has none.
        link: function of columns with two bounds: "logit", or "probit", normal quantiles. After these a uniform column is
            standard normal, and a density that does not vanish at a bound has the tails of a normal distribution, as the base
            of most flows has; after logits those of a logistic one.

    Raises:
        ConfigError: unless there are D of each, finite or None, and each low is below its high; in a call, if the type of the
            rows has no number between two bounds, as float32 has none between 1e8 and 1e8 + 4.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Bounds
        >>> bounds = Bounds(3, low=(0.0, 0.0, None), high=(10.0, None, None))    # a share of 10, a length, a real number
        >>> bounds.encode(torch.tensor([[5.0, 1.0, -7.0]])).z
        tensor([[ 0.,  0., -7.]])
        >>> bounds.encode(torch.tensor([[5.0, -1.0, -7.0]])).contribution
        tensor([-inf])
    """

    def __init__(
        self, features: int, low: Sequence[float | None], high: Sequence[float | None], link: str = "logit"
    ) -> None:
        super().__init__(features)
        check_choice("link", link, ("logit", "probit"))
        self.link = link
        width = vector_width(features, "Bounds")
        self.low, self.high = _checked("low", low, width), _checked("high", high, width)
        ends = [
            (-math.inf if a is None else a, math.inf if b is None else b)
            for a, b in zip(self.low, self.high, strict=True)
        ]
        for column, (a, b) in enumerate(ends):
            if not a < b:
                raise ConfigError(
                    f"the lower bound of column {column} must be below its upper bound; got {a:g} and {b:g}."
                )
            if math.isinf(b - a) and not math.isinf(a) and not math.isinf(b):
                raise ConfigError(f"the bounds of column {column} are too far apart: leave one of them open.")
        self.domain = Support.joined([(Support(a, b), 1) for a, b in ends])
        self._ends = tuple(a for a, _ in ends), tuple(b for _, b in ends)
        widths = [(b - a, (b - a) / max(abs(a), abs(b))) for a, b in ends if math.isfinite(b - a)]
        self._narrowest = min((width for width, _ in widths), default=math.inf)
        self._finest = min((share for _, share in widths), default=math.inf)
        self._farthest = max((abs(end) for pair in ends for end in pair if math.isfinite(end)), default=0.0)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """z and the sum of log dz/dx; -inf for rows with a coordinate outside its bounds."""
        z, terms = self.encode_terms(x)
        return Step(z, sum_event(terms, 1))

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """z and log dz/dx of each coordinate; -inf for coordinates outside their bounds."""
        lower, upper = self._bounds(x)
        z, log_slope = self.function(x)
        return z, torch.where((x < lower) | (x > upper), -math.inf, log_slope)

    def function(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of the distances to the bounds."""
        lower, upper = self._bounds(x)
        below, above = torch.isinf(lower), torch.isinf(upper)
        x = torch.minimum(torch.maximum(x, lower), upper)
        limits = torch.finfo(x.dtype)
        smallest = limits.tiny * spare(limits)
        # The distance to an open end counts as 1, with the logarithm 0.
        left = torch.where(below, 1.0, (x - torch.where(below, 0.0, lower)).clamp(min=smallest))
        right = torch.where(above, 1.0, (torch.where(above, 0.0, upper) - x).clamp(min=smallest))
        log_left, log_right = left.log(), right.log()
        width = torch.where(below | above, 1.0, upper - lower)
        z, log_slope = log_left - log_right, width.log() - log_left - log_right
        if self.link == "probit":
            both = ~(below | above)
            nearer = torch.minimum(left, right) / width  # the tail from the nearer end, so that no digits are lost
            quantile = torch.special.ndtri(torch.where(both, nearer.clamp(min=smallest), 0.5))
            quantile = torch.where(left < right, quantile, -quantile)
            z = torch.where(both, quantile, z)
            log_slope = torch.where(both, 0.5 * quantile.square() + HALF_LOG_2_PI - width.log(), log_slope)
        return torch.where(below & above, x, z), log_slope

    def inverse_function(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The row with these logarithms, strictly inside its bounds."""
        lower, upper = self._bounds(z)
        below, above = torch.isinf(lower), torch.isinf(upper)
        both, neither = ~(below | above), below & above
        limits = torch.finfo(z.dtype)
        limit = math.log(limits.max / spare(limits))
        low, high = torch.where(below, 0.0, lower), torch.where(above, 0.0, upper)
        width = torch.where(both, high - low, 1.0)
        probit = self.link == "probit"
        share = 0.5 * torch.erfc(z.abs() / math.sqrt(2)) if probit else torch.sigmoid(-z.abs())  # from the nearer end
        between = torch.where(z < 0, low + width * share, high - width * share)
        grown = torch.where(below, high - torch.exp(-z.clamp(min=-limit)), low + torch.exp(z.clamp(max=limit)))
        x = torch.where(both, between, grown)
        first, last = self._bounds(z, inside=True)
        x = torch.where(neither, z, torch.minimum(torch.maximum(x, first), last))
        inner = (
            0.5 * z.clamp(-LARGEST, LARGEST).square() + HALF_LOG_2_PI if probit else -F.logsigmoid(z) - F.logsigmoid(-z)
        )
        log_slope = torch.where(both, inner - width.log(), torch.where(below, z, -z))
        return x, torch.where(neither, 0.0, log_slope)

    def _bounds(self, x: Tensor, inside: bool = False) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds in the type of ``x``, or the numbers next to them inside; infinite where they are open."""
        low, high = self._ends
        limits = torch.finfo(x.dtype)
        tight = (
            self._finest < 8 * limits.eps
            or self._narrowest < 8 * spare(limits) * limits.tiny
            or self._farthest > limits.max
        )
        if inside or tight:
            columns = [_between(a, b, limits) for a, b in zip(low, high, strict=True)]
            if tight:
                self._require_numbers(columns, x.dtype)
            if inside:
                low, high = tuple(first for first, _ in columns), tuple(last for _, last in columns)
        return constant(low, x.dtype, x.device), constant(high, x.dtype, x.device)

    def _require_numbers(self, columns: list[tuple[float, float]], dtype: torch.dtype) -> None:
        """Refuse bounds that have no number of a type between them.

        Raises:
            ConfigError: naming the column.
        """
        largest = torch.finfo(dtype).max
        for column, (first, last) in enumerate(columns):
            if first > last or largest < first < math.inf or -math.inf < last < -largest:
                low, high = (ends[column] for ends in self._ends)
                raise ConfigError(
                    f"no number of {dtype} lies between the bounds of column {column}, {low!r} and {high!r}: subtract an offset "
                    "from the column and its bounds, or use float64, as model.double() does."
                )


def _between(low: float, high: float, limits: torch.finfo) -> tuple[float, float]:
    """The first and the last number of a type between two bounds: a rounding inside of them, or the next numbers if they are close."""
    left, right = (max(abs(end) * limits.eps, limits.tiny * spare(limits)) for end in (low, high))
    if math.isfinite(high - low) and high - low < 4 * (left + right):
        return -_below(-low, limits), _below(high, limits)
    return low + left if math.isfinite(low) else low, high - right if math.isfinite(high) else high


def _below(end: float, limits: torch.finfo) -> float:
    """The number of a type next below an end that is rounded to the type."""
    if end == 0:
        return -limits.tiny
    fraction, exponent = math.frexp(end)
    step = limits.eps / 2  # of the fractions, which are from 1/2 to 1
    return math.ldexp(step * (round(fraction / step) - 1), exponent)


def _checked(name: str, values: Sequence[float | None], width: int) -> tuple[float | None, ...]:
    if not isinstance(values, (tuple, list)) or len(values) != width:
        raise ConfigError(f"{name} must have one number or None for each of the {width} columns; got {values!r}.")
    for value in values:
        if value is not None and (
            not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value)
        ):
            raise ConfigError(f"{name} must have finite numbers or None; got {value!r}.")
    return tuple(None if value is None else float(value) for value in values)
