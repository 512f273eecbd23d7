"""`Combined`: several scores of one forward pass as one, on a common scale that held-out rows set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pushforward.detection.modes import outside_inference
from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore, finite_or_infinity
from pushforward.detection.network.streaming import Gathered
from pushforward.errors import ConfigError, InputError

__all__ = ["SMALLEST_REFERENCE", "Combined"]

SMALLEST_REFERENCE = 20
"""Fewest reference rows on which a common scale can be set."""
_KNOTS = 64
"""Number of quantiles that describe the middle of a statistic."""
_TAIL = 0.1
"""Fraction of reference rows above which the tail is exponential."""


class Combined(nn.Module):
    """One score from several statistics: the root mean square of their surprises, weighted.

    The surprise of a statistic t is ``-log P(T >= t)`` in nats, with T the statistic of in-distribution rows. Up to the 90 % quantile
    of the reference rows it is linear between 64 quantiles, and above it the tail is exponential with the mean excess of those rows, so
    the surprise grows without bound. The root mean square is between Fisher's sum of surprises, which many slightly unusual statistics
    raise, and their maximum, which one far statistic decides; it was the best of the three on the development networks. The dependence
    of the statistics does not matter, since the score is calibrated afterwards on other rows.

    Args:
        parts: the scores.
        weights: of their surprises; None for equal ones.

    Raises:
        ConfigError: for parts that are not scores, or other weights than one positive number for each.

    Example:
        >>> import torch
        >>> from pushforward.detection.network import Combined, Energy, Entropy
        >>> score = Combined([Energy(), Entropy()])
        >>> score.names
        ('Energy', 'Entropy')
    """

    def __init__(self, parts: Sequence[NetworkScore], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if not parts:
            raise ConfigError("score must name at least one score.")
        if not isinstance(parts, Iterable) or not all(isinstance(part, NetworkScore) for part in parts):
            raise ConfigError(
                f"the parts of Combined must be scores, such as [Energy(), Entropy()]; got {parts!r:.100}."
            )
        self.parts = nn.ModuleList(parts)
        try:
            values = [1.0] * len(parts) if weights is None else [float(w) for w in weights]
        except (TypeError, ValueError):
            values = []
        if len(values) != len(parts) or not all(0 < w < math.inf for w in values):
            raise ConfigError(f"weights must be {len(parts)} positive numbers; got {weights!r:.100}.")
        self.register_buffer("weights", torch.tensor(values, dtype=torch.float64) / sum(values))
        self.register_buffer("knots", torch.zeros(0, 0, dtype=torch.float64))
        self.register_buffer("excess", torch.zeros(0, dtype=torch.float64))
        self._lines: tuple[Tensor, Tensor] | None = None

    parts: nn.ModuleList
    weights: Tensor
    knots: Tensor
    excess: Tensor

    @property
    def scores(self) -> list[NetworkScore]:
        """The parts."""
        return list(self.parts)  # pyright: ignore[reportReturnType]

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each part, numbered where a class occurs twice."""
        plain = [type(part).__name__ for part in self.parts]
        return tuple(
            f"{name} {plain[:i].count(name) + 1}" if plain.count(name) > 1 else name for i, name in enumerate(plain)
        )

    @property
    def needs_reference(self) -> bool:
        """Whether a common scale must be set: with a single part its own scale does."""
        return len(self.parts) > 1

    def copied(self) -> Combined:
        """A copy that can be fitted by itself; it shares the networks that its parts run."""
        found = Combined([part.copied() for part in self.scores])
        found.weights = self.weights.clone()
        return found

    def fit(self, gathered: Gathered) -> None:
        """Fit every part."""
        for part in self.scores:
            part.fit(gathered)

    def columns(self, reading: Reading) -> Tensor:
        """The statistics of each row, float64, ``(n, parts)``."""
        clean = reading.clean
        columns = torch.stack([part.raw(clean).double() for part in self.scores], 1)
        return finite_or_infinity(columns, reading)

    def set_scale(self, reference: Tensor) -> None:
        """Set the common scale from the statistics of rows that no score was fitted on, ``(m, parts)``.

        Raises:
            InputError: for fewer than 20 rows, or an infinite statistic.
        """
        if len(reference) < SMALLEST_REFERENCE:
            raise InputError(
                f"a combined score needs at least {SMALLEST_REFERENCE} reference rows; got {len(reference)}."
            )
        infinite = (~torch.isfinite(reference)).any(0).nonzero()
        if len(infinite):
            raise InputError(
                f"{self.names[int(infinite[0])]} is infinite on an in-distribution row: leave this score out, or check the weights of the network."
            )
        grid = torch.linspace(0, 1 - _TAIL, _KNOTS, dtype=torch.float64)
        self.knots = torch.quantile(reference, grid, dim=0).T.contiguous()
        top = self.knots[:, -1]
        over = (reference - top).clamp(min=0)
        mean_excess = over.sum(0) / (over > 0).sum(0).clamp(min=1)
        spread = (top - self.knots[:, _KNOTS // 2]).clamp(min=0)
        self.excess = torch.where(mean_excess > 0, mean_excess, torch.where(spread > 0, spread, 1.0))
        self._lines = None

    def prepare(self) -> None:
        """Derive what scoring keeps, here and in every part, so that tracing finds it."""
        self.lines()
        for part in self.scores:
            part.prepare()

    def lines(self) -> tuple[Tensor, Tensor]:
        """The surprise at each knot, and its slope above it, ``(parts, knots)``."""
        if self._lines is None:
            with outside_inference():
                self._lines = self._derived_lines()
        return self._lines

    def _derived_lines(self) -> tuple[Tensor, Tensor]:
        count = self.knots.shape[1]
        levels = -torch.log1p(-torch.linspace(0, 1 - _TAIL, count, dtype=torch.float64)).expand_as(self.knots)
        slopes = levels.diff() / self.knots.diff().clamp(min=1e-300)  # no value lies between equal knots
        return levels.contiguous(), torch.cat((slopes, 1 / self.excess.unsqueeze(1)), 1)

    def surprise(self, columns: Tensor) -> Tensor:
        """``-log P(T >= t)`` of each statistic, nats, ``(n, parts)``."""
        rows = torch.maximum(columns.T, self.knots[:, :1])  # (parts, n), as the knots
        knot = (torch.searchsorted(self.knots, rows.detach().contiguous()) - 1).clamp(min=0)  # of equal knots the first
        level, slope = (line.gather(1, knot) for line in self.lines())
        return (level + slope * (rows - self.knots.gather(1, knot))).T

    def combine(self, columns: Tensor) -> Tensor:
        """The score of each row, ``(n,)``, from its statistics.

        Raises:
            InputError: for several scores without a common scale.
        """
        if not self.needs_reference:
            return columns[:, 0]
        if not self.knots.numel():
            raise InputError(
                "a combined score needs its common scale first: call set_scale, or pass it to pf.NetworkGuard(net, score=...)."
            )
        return (self.surprise(columns).square() @ self.weights).clamp(min=1e-24).sqrt()  # the gradient at 0 is finite

    def forward(self, reading: Reading) -> Tensor:
        """The score of each row, ``(n,)``; raises as :meth:`combine`."""
        return self.combine(self.columns(reading))
