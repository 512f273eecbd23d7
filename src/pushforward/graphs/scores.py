"""Scores of :mod:`pushforward.detection.scores` as modules that can be traced, and which of them cannot."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from pushforward.detection.image_score import ImageScore, prepare
from pushforward.detection.scores import CodeLength, DoSE, Log, Statistic, SurpriseSum, TwoSided
from pushforward.detection.scores.model_outputs import far_rows
from pushforward.detection.scores.two_sided import TwoSidedScore, two_sided
from pushforward.errors import ConfigError
from pushforward.graphs.numeric import Part, infinite, log_sum_exp, tolerance
from pushforward.models import Model
from pushforward.transforms.discrete.dequantize import LatticeDequantize, UniformDequantize, VariationalDequantize

__all__ = ["ImageGraph", "StatisticGraph", "require_graph"]

_REFIT = "fit the guard with Guard(exportable=True), on the command line fit --exportable, which leaves it out."


class StatisticGraph(Part):
    """The columns of a statistic for any number of rows, without checks and without batches.

    Args:
        statistic: fitted.

    Raises:
        ConfigError: for a part that no other runtime has; it says which one and what to do.
    """

    rounding = 1e-6
    """Relative difference below which two scores are equal: networks compute in float32."""

    def __init__(self, statistic: Statistic) -> None:
        super().__init__()
        require_graph(statistic)
        self.statistic = statistic
        self.parts = nn.ModuleList()
        if isinstance(statistic, (Log, TwoSided)):
            self.parts.append(StatisticGraph(statistic.statistic))
        elif isinstance(statistic, SurpriseSum):
            self.parts.extend(StatisticGraph(part) for part in statistic.used())
        elif isinstance(statistic, DoSE):
            self.parts.extend(StatisticGraph(part) for part in statistic.statistics)  # pyright: ignore[reportArgumentType]
            if statistic.density == "kde":
                constant = 0.5 * math.log(2 * math.pi) + math.log(statistic.points.shape[1])
                self.register_buffer("offsets", -statistic.bandwidths.log() - constant)
            else:
                volumes = torch.linalg.slogdet(statistic.whitenings)[1]
                constant = 0.5 * statistic.means.shape[1] * math.log(2 * math.pi)
                self.register_buffer("offsets", statistic.log_weights + volumes - constant)

    def forward(self, x: Tensor) -> Tensor:
        """The columns, float64, ``(n, columns)``; of a score, one column."""
        statistic = self.statistic
        if isinstance(statistic, Log):
            return self.parts[0](x).clamp(min=1e-9).log()
        if isinstance(statistic, DoSE):
            return self._dose(statistic, x)[:, None]
        if isinstance(statistic, SurpriseSum):
            return statistic.combine(torch.cat([part(x) for part in self.parts], 1)).sum(1, keepdim=True)
        if isinstance(statistic, TwoSidedScore):
            number = self.number(x)
            near = torch.where(infinite(number), 0.0, tolerance(number, self.rounding))
            ranked = [two_sided(number + side * near, statistic.reference) for side in (-1.0, 1.0)]
            return torch.minimum(*ranked)[:, None]  # a value within rounding of a reference value is equal to it
        return statistic._values(x).double()

    def number(self, x: Tensor) -> Tensor:
        """The number that a two-sided score ranks, ``(n,)``."""
        statistic = self.statistic
        if isinstance(statistic, TwoSided):
            return torch.where(far_rows(x), torch.inf, self.parts[0](x)[:, 0])
        assert isinstance(statistic, TwoSidedScore)
        return statistic._number(x).double()

    def _dose(self, statistic: DoSE, x: Tensor) -> Tensor:
        two = [isinstance(part, TwoSidedScore) for part in statistic.statistics]
        parts: list[Any] = list(self.parts)
        columns = [part.number(x)[:, None] if ranks else part(x) for part, ranks in zip(parts, two, strict=True)]
        values = torch.cat(columns, 1)
        far = far_rows(x) | ~torch.isfinite(values).all(1)
        rows = (torch.where(far[:, None], statistic.center, values) - statistic.center) / statistic.scale
        if statistic.density == "kde":
            deviation = (rows.unsqueeze(2) - statistic.points) / statistic.bandwidths.unsqueeze(1)
            log_q = (log_sum_exp(-0.5 * deviation.square()) + self.offsets).sum(1)
        else:
            white = (rows - statistic.means.unsqueeze(1)) @ statistic.whitenings
            log_q = log_sum_exp(self.offsets - 0.5 * white.square().sum(2).T)
        return torch.where(far, torch.inf, -log_q)


class ImageGraph(Part):
    """:class:`~pushforward.detection.image_score.ImageScore` as a module of integer images.

    Args:
        score: fitted.

    Raises:
        ConfigError: for a part that no other runtime has.
    """

    rounding = StatisticGraph.rounding

    def __init__(self, score: ImageScore) -> None:
        super().__init__()
        self.pool, self.shift, self.offset, self.top = score.pool, score.shift, score.offset, score.top
        self.inner = StatisticGraph(score.inner)

    def forward(self, x: Tensor) -> Tensor:
        """The score of images ``(n, channels, height, width)``, float64, ``(n,)``."""
        x = x.to(torch.int64)
        far = ((x < self.offset) | (x > self.top)).flatten(1).any(1)
        inside = torch.where(far[:, None, None, None], self.offset, x)
        small = prepare(inside, self.pool, self.shift, self.offset)
        return torch.where(far, torch.inf, self.inner(small)[:, 0])


def require_graph(statistic: Statistic) -> None:
    """Check that a statistic, without its parts, can be traced.

    Raises:
        ConfigError: if not; it says why and what to do.
    """
    name = type(statistic).__name__
    if isinstance(statistic, CodeLength):
        codecs = " and ".join(statistic.codecs)
        raise ConfigError(
            f"the code length of {codecs} cannot be exported, because a graph has no file compressor: {_REFIT}"
        )
    if {"backward", "Jacobian", "ensemble"} & set(statistic.needs):
        raise ConfigError(
            f"{name} cannot be exported, because it differentiates a model or uses several: use another score."
        )
    model = getattr(statistic, "model", None)
    if isinstance(model, Model) and getattr(statistic, "noise", "row") == "row":
        dequantizes = (UniformDequantize, LatticeDequantize, VariationalDequantize)
        if any(isinstance(part, dequantizes) for part in model.modules()):
            raise ConfigError(
                f"{name} of a model with dequantization cannot be exported, because its noise is a hash of each row: use "
                'noise="middle" where the score has it, or fit the guard with Guard(exportable=True), on the command line fit --exportable.'
            )
