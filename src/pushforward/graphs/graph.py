"""`Graph`: a guard as a module with named inputs and outputs, and the p-value and the alarm that follow from its score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pushforward.graphs.numeric import Part, count_below, exact, infinite

__all__ = ["OUTPUTS", "Graph", "Promise", "promised", "unique_names", "unit_of"]

OUTPUTS = ("p_value", "alarm", "anomaly_score")
"""Names of the outputs of every graph; that of a network has those of the network before them."""


@dataclass(frozen=True)
class Graph:
    """What is written to a file.

    Attributes:
        module: from the inputs, which are its positional arguments, to a dictionary of outputs.
        example: inputs of a few rows.
        inputs: name of each input.
        outputs: name of each output, in the order of the dictionary.
        facts: metadata of the file, plain JSON types.
        texts: for inputs of codes that a file with text takes as text: the code of each text.
        part: rows that are scored at a time where many must be divided, since intermediate results are large; 0 for all.
    """

    module: nn.Module
    example: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    facts: dict[str, Any]
    texts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    part: int = 256


class Promise(Part):
    """The p-value and the alarm of a score, from the calibration scores.

    A score that exceeds a calibration score by rounding alone counts as equal to it, which can only make the p-value larger.

    Args:
        scores: of calibration, ascending.
        level: p-value at or below which there is an alarm; 0 for no alarms.
        rounding: relative difference of equal scores.
        origin: from which a score is measured for this.
        unit: a smaller score has the rounding of this one.
    """

    def __init__(
        self, scores: np.ndarray, level: float, rounding: float, *, origin: float = 0.0, unit: float = 1.0
    ) -> None:
        super().__init__()
        self.count, self.rounding = len(scores), rounding
        self.most = round(level * (len(scores) + 1))  # calibration scores above that of an alarm, and itself
        self.register_buffer("scores", torch.from_numpy(np.array(scores, dtype=np.float64)))
        self.register_buffer("origin", exact(origin))
        self.register_buffer("least", exact(rounding * unit))

    def forward(self, score: Tensor) -> tuple[Tensor, Tensor]:
        """p-value and alarm of scores ``(n,)``; NaN, which the checks of a score refuse, counts as +inf."""
        score = torch.where(score != score, math.inf, score)
        finite = torch.where(infinite(score), 0.0, score)
        equal = self.least + self.rounding * (finite - self.origin).abs()
        lower = torch.where(infinite(score), score, finite - equal)
        rank = self.count + 1 - count_below(self.scores, lower)
        return rank.to(torch.float64) / (self.count + 1), rank <= self.most


def unit_of(scores: np.ndarray, origin: float = 0.0) -> float:
    """The unit in which calibration scores differ: 1, or their median distance from the origin where that is smaller."""
    finite = scores[np.isfinite(scores)]
    typical = float(np.median(np.abs(finite - origin))) if finite.size else 1.0
    return min(1.0, max(typical, 1e-9 * abs(origin)))  # the digits that float64 has beside the origin


def promised(score: Tensor, promise: Promise) -> dict[str, Tensor]:
    """The outputs that follow from a score."""
    p, alarm = promise(score)
    return {"p_value": p, "alarm": alarm, "anomaly_score": score}


def unique_names(names: Sequence[str], taken: Sequence[str] = OUTPUTS) -> tuple[str, ...]:
    """Names for inputs: those given, but for empty ones and those that are taken, which get a prefix."""
    found: list[str] = []
    for index, name in enumerate(names):
        candidate = name or f"column {index}"
        while candidate in taken or candidate in found or (candidate != name and candidate in names):
            candidate = f"input.{candidate}"
        found.append(candidate)
    return tuple(found)
