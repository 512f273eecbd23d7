"""The statistics of a table's pool that read no neighbors, and tail scales, as modules."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pushforward.data.calendar import DIGITS_OF_SINE
from pushforward.detection.table.ends import COST, FARTHEST, SMALLEST, Ends
from pushforward.detection.table.linear import Linear
from pushforward.detection.table.mixture import Mixture
from pushforward.detection.table.tail_scale import TailScale
from pushforward.detection.table.tails import Tails
from pushforward.graphs.numeric import Part, count_below, exact, log_sum_exp, tolerance

__all__ = ["EndsGraph", "LinearGraph", "MixtureGraph", "TailScaleGraph", "TailsGraph"]

_ROUNDING = 4e-9
"""Relative difference below which two values of a statistic are equal: distances have eight digits."""

_ROUNDING_OF_SINE = 1.5 * 10**-DIGITS_OF_SINE
"""Cos and sin of one instant can differ by one unit of the last decimal in two runtimes, and many training rows can have the same one."""


class LinearGraph(Part):
    """:class:`~pushforward.detection.table.linear.Linear` as a module.

    Args:
        part: fitted.
        wanted: names of statistics.
    """

    def __init__(self, part: Linear, wanted: set[str]) -> None:
        super().__init__()
        self.wanted = set(wanted)
        self.register_buffer("mean", torch.from_numpy(part.mean))
        if self.wanted - {"residual"}:
            self.register_buffer("precision", torch.from_numpy(part.precision))
            self.register_buffer("root", self.precision.diagonal().sqrt())
        if "residual" in self.wanted:
            self.register_buffer("residual", torch.from_numpy(part.residual))

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        """The wanted statistics of rows ``(n, d)``, each ``(n,)``."""
        offset, found = rows - self.mean, {}
        if self.wanted - {"residual"}:
            weighted = offset @ self.precision
            z = weighted.abs() / self.root
            found["mahalanobis"] = (offset * weighted).sum(1).clamp(min=0.0).sqrt()
            found["conditional_sum"] = z.square().sum(1)
            found["conditional_max"] = z.amax(1)
        if "residual" in self.wanted:
            found["residual"] = (offset @ self.residual).square().sum(1).sqrt()
        return {name: found[name] for name in sorted(self.wanted)}


class TailsGraph(Part):
    """:class:`~pushforward.detection.table.tails.Tails` as a module; cos and sin within rounding of a training value are equal to it.

    Args:
        part: fitted.
        wanted: names of statistics.
        circle: whether each coordinate is a cos or sin of an instant, ``(d,)``.
    """

    def __init__(self, part: Tails, wanted: set[str], circle: np.ndarray) -> None:
        super().__init__()
        self.wanted, self.count, self._has_circle = set(wanted), len(part.values), bool(circle.any())
        self.register_buffer("columns", torch.from_numpy(part.values.T.copy()))
        if self._has_circle:
            self.register_buffer("near", torch.from_numpy(np.where(circle, _ROUNDING_OF_SINE, 0.0)).unsqueeze(1))

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        """The wanted statistics of rows ``(n, d)``, each ``(n,)``."""
        points = rows.T
        highest, lowest = (points + self.near, points - self.near) if self._has_circle else (points, points)
        below = count_below(self.columns, highest, right=True)
        above = self.count - count_below(self.columns, lowest)
        fewest = torch.minimum(below, above).to(rows.dtype)
        terms = -((fewest + 0.5) / (self.count + 1)).log()
        found = {"tail_max": terms.amax(0)}
        if "tail_3" in self.wanted:
            found["tail_3"] = terms.T.topk(min(3, len(self.columns)), 1).values.sum(1)
        return {name: found[name] for name in sorted(self.wanted)}


class MixtureGraph(Part):
    """:class:`~pushforward.detection.table.mixture.Mixture` as a module.

    Args:
        part: fitted.
        wanted: names of statistics.
    """

    def __init__(self, part: Mixture, wanted: set[str]) -> None:
        super().__init__()
        for name in ("mean", "directions", "factors", "weights"):
            self.register_buffer(name, torch.from_numpy(getattr(part, name)))
        self.register_buffer("centers", torch.from_numpy(part.means).unsqueeze(1))
        self.has_remaining = bool(part.remaining[0] > 0)
        self.register_buffer("precision", exact(0.5 / float(part.remaining[0] or 1.0)))

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        """-log density of rows ``(n, d)`` without its constant."""
        offset = rows - self.mean
        z = offset @ self.directions
        y = (z.unsqueeze(0) - self.centers) @ self.factors
        value = -log_sum_exp(self.weights - 0.5 * y.square().sum(2).T)
        if self.has_remaining:
            beyond = (offset.square().sum(1) - z.square().sum(1)).clamp(min=0.0)
            value = value + beyond * self.precision
        return {"mixture": value}


class EndsGraph(Part):
    """:class:`~pushforward.detection.table.ends.Ends` as a module.

    Args:
        part: fitted.
    """

    def __init__(self, part: Ends) -> None:
        super().__init__()
        arrays = {
            "ends": part.ends, "origin": part.origin, "slope": part.slope, "distances": part.distances, "nearest": part.nearest,
            "short": part.short > 0, "positive": part.positive,
        }  # fmt: skip
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(array.copy()))
        constants = {
            "smallest": SMALLEST, "farthest": FARTHEST, "level": part.level[0] - COST, "mean": part.mean[0], "inside": -1.0,
            "nothing": 0.0,
        }  # fmt: skip
        for name, value in constants.items():
            self.register_buffer(name, exact(float(value)))

    def forward(self, rows: Tensor) -> Tensor:
        """u of rows of coordinates ``(n, d)``, nats, ``(n,)``."""
        under, over = rows < self.ends[0], rows > self.ends[1]
        r = rows - self.origin
        r = torch.where(self.positive, torch.maximum(r, self.nearest), r.abs())
        distance = torch.maximum(r, self.smallest).log()
        slope = torch.where(under, self.slope[0], self.slope[1])
        size = slope * (distance - torch.where(under, self.distances[0], self.distances[1])).abs()
        beyond = (under & self.short[0]) | (over & self.short[1])
        excess = torch.where(beyond, torch.minimum(size, self.farthest), self.inside).amax(1)
        u = torch.maximum(self.level + excess / self.mean, self.nothing)
        return torch.where(excess >= 0, u, self.nothing)


class TailScaleGraph(Part):
    """:class:`~pushforward.detection.table.tail_scale.TailScale` as a module; values within rounding of each other are equal.

    Args:
        part: fitted.
    """

    def __init__(self, part: TailScale) -> None:
        super().__init__()
        self.count, self.logarithmic = len(part.values), bool(part.floor.size)
        constants = {"start": part.start, "mean": part.mean, "level": part.level}
        for name, value in (constants | ({"floor": part.floor[0]} if self.logarithmic else {})).items():
            self.register_buffer(name, exact(float(value)))
        self.register_buffer("values", torch.from_numpy(part.values))

    def forward(self, statistic: Tensor) -> Tensor:
        """-log tail probability of values of the statistic, nats, ``(n,)``."""
        if self.logarithmic:
            statistic = torch.maximum(statistic, self.floor).log()
        lower = statistic - tolerance(statistic, _ROUNDING)
        at_least = (self.count - count_below(self.values, lower)).to(statistic.dtype)
        inside = -((at_least + 0.5) / (self.count + 1)).log()
        beyond = self.level + (statistic - self.start) / self.mean
        return torch.where(lower > self.start, beyond, torch.minimum(inside, self.level))
