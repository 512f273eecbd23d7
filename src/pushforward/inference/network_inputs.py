"""`NetworkInputs`: parameters as the networks of NLE and NRE read them, by the bounds of the prior of their training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

__all__ = ["NetworkInputs", "bounds_for_json", "edges"]

_SMALLEST = 1e-30
"""Distance from a lower bound of 0, in units of the width, that the transforms to the reals still tell from it in float32."""


@dataclass(frozen=True)
class NetworkInputs:
    """A fixed function of parameters.

    Half-bounded coordinates become logarithms, and bounded ones that crowd at one end, such as log-uniform ones, logits. The others
    stay as they are, because logits of a flat box have tails that simulations rarely reach.

    Attributes:
        low: lower bounds of the prior of the training, ``(D,)``; -inf for none.
        high: upper bounds, inf for none.
        skewed: which bounded coordinates become logits.
    """

    low: Tensor
    high: Tensor
    skewed: Tensor

    def __call__(self, theta: Tensor) -> Tensor:
        """Inputs of a network, ``(n, D)`` to ``(n, D)``; finite outside the bounds too."""
        low, high = self.low.to(theta), self.high.to(theta)
        half_low, half_high = torch.isfinite(low) & ~torch.isfinite(high), torch.isfinite(high) & ~torch.isfinite(low)
        distance = torch.where(half_low, theta - low, torch.where(half_high, high - theta, 1.0))
        logarithm = distance.clamp(min=torch.finfo(theta.dtype).tiny).log()
        result = torch.where(half_low, logarithm, torch.where(half_high, -logarithm, theta))
        if not bool(self.skewed.any()):
            return result
        low_step, high_step = edges(low, high)
        below = torch.maximum(torch.where(self.skewed, theta - low, 1.0), low_step)
        above = torch.maximum(torch.where(self.skewed, high - theta, 1.0), high_step)
        return torch.where(self.skewed, below.log() - above.log(), result)

    def outside(self, theta: Tensor) -> Tensor:
        """Which parameters ``(n, D)`` lie beyond a bound, ``(n,)``."""
        return ((theta < self.low.to(theta)) | (theta > self.high.to(theta))).any(-1)

    def options(self) -> dict[str, Any]:
        """What a file stores, in JSON types: bounds, with None for infinity, and the skewed coordinates."""
        return {**bounds_for_json(self.low, self.high), "skewed": self.skewed.tolist()}

    @classmethod
    def restored(cls, options: Mapping[str, Any], features: int) -> Self:
        """The function that a file describes, in which ``low`` and ``high`` are given.

        The networks of the first files read all bounded parameters as they are.

        Raises:
            ValueError: for another number of parameters.
        """
        skewed = torch.tensor([bool(value) for value in options.get("skewed", [False] * features)])
        low, high = (
            torch.tensor([infinite if value is None else float(value) for value in options[name]])
            for name, infinite in (("low", -math.inf), ("high", math.inf))
        )
        if not len(skewed) == len(low) == len(high) == features:
            raise ValueError("its skewed parameters do not fit the prior")
        return cls(low, high, skewed)


def bounds_for_json(low: Tensor, high: Tensor) -> dict[str, list[float | None]]:
    """Bounds as a file has them, with None for infinity."""

    def finite(values: Sequence[float]) -> list[float | None]:
        return [value if math.isfinite(value) else None for value in values]

    return {"low": finite(low.tolist()), "high": finite(high.tolist())}


def edges(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """How far inside the lower and the upper bounds their type can tell a number from them, ``(D,)`` each.

    Twice the size of a bound, times eps, is more than what the transform to the reals loses there by rounding. Near a bound
    that is small beside the width, as the lower one of a log-uniform prior, numbers are closer together than elsewhere; above
    a lower bound of 0 they are as close as their type has them, so that priors such as Beta(0.1, 1) keep their small draws.
    """
    eps = torch.finfo(low.dtype).eps
    width = (high - low).nan_to_num(posinf=0.0)
    steps = []
    for end in (low, high):
        size = end.abs().nan_to_num(posinf=0.0)
        step = torch.where(size > 0, torch.maximum(2 * size, torch.minimum(4 * size, width)), width)
        steps.append(eps * step.clamp(min=_SMALLEST))
    steps[0] = torch.where(low == 0, _SMALLEST * width.clamp(min=eps), steps[0])
    return steps[0], steps[1]
