"""Points of a simplex to the reals, by breaking a stick."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.likelihood import Support
from pushforward.numerics import Noise
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform
from pushforward.transforms.elementwise.functions import spare
from pushforward.transforms.validation import vector_width

__all__ = ["StickBreaking"]


@register("transforms")
class StickBreaking(Transform):
    """Proportions of a whole to the reals: the first D of D + 1 proportions, each positive, with a sum below 1.

    z_i = logit(s_i) + log(D + 1 - i), where s_i = x_i / (1 - x_1 - ... - x_{i-1}) is the part of the remaining stick that is
    broken off. Equal proportions have z = 0. The density refers to the first D proportions; the last one is 1 minus their sum
    (:meth:`complete`). log det dz/dx = -sum_i [log x_i + log(1 - s_i)] (the Stan reference manual, "unit simplex").

    Rows outside the simplex have the contribution -inf. Decoded rows are inside, also where rounding would put them on the border.

    Args:
        features: D, one less than the number of proportions.

    Raises:
        ConfigError: if the event is not a vector.

    Example:
        >>> import torch
        >>> from pushforward.transforms import StickBreaking
        >>> stick = StickBreaking(2)
        >>> stick.encode(torch.tensor([[0.25, 0.25]])).z
        tensor([[-0.4055, -0.6931]])
        >>> stick.complete(torch.tensor([[0.25, 0.25]]))
        tensor([[0.2500, 0.2500, 0.5000]])
    """

    domain = Support(0.0, 1.0, "simplex")

    def __init__(self, features: int) -> None:
        vector_width(features, "StickBreaking")
        super().__init__(features)
        self.features = features

    @staticmethod
    def complete(x: Tensor) -> Tensor:
        """All D + 1 proportions, ``(*batch, D + 1)``."""
        return torch.cat((x, 1 - x.sum(-1, keepdim=True)), -1)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """The logits of the parts that are broken off."""
        limits = torch.finfo(x.dtype)
        smallest = limits.tiny * spare(limits)
        before = torch.cumsum(x, -1) - x
        inside = (x > 0).all(-1) & (x.sum(-1) < 1)
        part = (x / (1 - before).clamp(min=smallest)).clamp(smallest, 1 - limits.eps)
        log_part, log_rest = part.log(), torch.log1p(-part)
        contribution = -(x.clamp(smallest, 1.0).log() + log_rest).sum(-1)
        z = log_part - log_rest + self._center(x)
        return Step(z, torch.where(inside, contribution, -math.inf))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """The proportions."""
        return self.decode_with_contribution(z)[0]

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """The proportions, and the contribution computed from z, which stays accurate near a corner."""
        logit = z - self._center(z)
        log_part, log_rest = F.logsigmoid(logit), F.logsigmoid(-logit)
        log_x = log_part + torch.cumsum(log_rest, -1) - log_rest
        return self._inside(log_x.exp()), -(log_x + log_rest).sum(-1)

    def _inside(self, x: Tensor) -> Tensor:
        """The proportions without their rounding, which can make one of them 0 or their sum 1 or more."""
        limits = torch.finfo(x.dtype)
        x = x.clamp(min=limits.tiny * spare(limits))
        most = 1 - (self.features + 1) * limits.eps
        return x * (most / x.sum(-1, keepdim=True)).clamp(max=1.0)

    def _center(self, like: Tensor) -> Tensor:
        """log(D + 1 - i), which makes z = 0 the middle of the simplex."""
        return torch.arange(self.features, 0, -1, dtype=like.dtype, device=like.device).log()
