"""Shifts and affine functions as transformers: of couplings, MAF, IAF and InFlow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.numerics import soft_clamp, softsign_clamp
from pushforward.registry import register
from pushforward.transforms.transformers.base import Transformer

__all__ = ["AdditiveTransformer", "AffineTransformer", "GatedAffineTransformer", "GatedTransformer"]


@register("transformers")
@dataclass(frozen=True)
class AdditiveTransformer(Transformer):
    """y = x + t (NICE, Dinh et al. 2014, eq. 7); log-derivative 0."""

    volume = False
    start = 0.1

    @property
    def parameters(self) -> int:
        """The shift."""
        return 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """x + t."""
        return x + raw[0], torch.zeros_like(x)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """y - t."""
        return y - raw[0], torch.zeros_like(y)


@register("transformers")
@dataclass(frozen=True)
class AffineTransformer(Transformer):
    """y = x exp(s) + t with s in (-bound, bound) (Real NVP, Dinh et al. 2016, eq. 7; MAF, Papamakarios et al. 2017, eq. 3).

    Args:
        max_log_scale: bound on |s|, smooth: s = raw / (1 + |raw| / bound), which saturates slowly.
    """

    max_log_scale: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.max_log_scale <= 20:
            raise ConfigError(f"max_log_scale must lie in (0, 20]; got {self.max_log_scale}.")

    @property
    def parameters(self) -> int:
        """Shift and log-scale."""
        return 2

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """x exp(s) + t."""
        shift, log_scale = raw.unbind(0)
        log_scale = softsign_clamp(log_scale, self.max_log_scale)
        return torch.addcmul(shift, x, log_scale.exp()), log_scale

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """(y - t) exp(-s)."""
        shift, log_scale = raw.unbind(0)
        log_scale = softsign_clamp(log_scale, self.max_log_scale)
        return (y - shift) / torch.exp(log_scale), log_scale  # the factor of forward, with its rounding


@register("transformers")
@dataclass(frozen=True)
class GatedTransformer(Transformer):
    """y = g x + (1 - g) m with a gate g = sigmoid(s + bias) (IAF, Kingma et al. 2016, eq. 13-14).

    Not the identity at 0: with the paper's bias of 1 to 2 a step starts as a mild contraction.

    Args:
        bias: added to the gate's logit.
        max_logit: smooth bound on the logit's distance from ``bias``, so that the inverse cannot overflow.

    Raises:
        ConfigError: for a bound that is not positive, or either beyond 20.
    """

    bias: float = 2.0
    max_logit: float = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.max_logit <= 20 or not abs(self.bias) <= 20:
            raise ConfigError(
                f"max_logit must lie in (0, 20] and bias in [-20, 20]; got {self.max_logit} and {self.bias}."
            )

    @property
    def parameters(self) -> int:
        """m and the gate's logit."""
        return 2

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """g x + (1 - g) m."""
        logit = soft_clamp(raw[1], self.max_logit) + self.bias
        gate = torch.sigmoid(logit)
        return gate * x + (1 - gate) * raw[0], F.logsigmoid(logit).expand_as(x)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """(y - (1 - g) m) / g."""
        logit = soft_clamp(raw[1], self.max_logit) + self.bias
        gate = torch.sigmoid(logit)
        return (y - (1 - gate) * raw[0]) / gate, F.logsigmoid(logit).expand_as(y)


@register("transformers")
@dataclass(frozen=True)
class GatedAffineTransformer(Transformer):
    """y = x exp(c s) + c t with a gate c in [0, 1] (InFlow, Kumar et al. 2021, arXiv 2106.12894); log-derivative c s.

    c = 1 is the affine law and c = 0 the identity; the law is invertible for every c, as its inverse and its log-derivative
    have the same c.

    Args:
        gate: c.
        max_log_scale: bound on |s|, smooth: s = bound tanh(raw / bound).

    Raises:
        ConfigError: for a gate outside [0, 1] or a bound outside (0, 20].
    """

    gate: float = 1.0
    max_log_scale: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.gate <= 1:
            raise ConfigError(f"gate must lie in [0, 1]; got {self.gate!r}.")
        if not 0 < self.max_log_scale <= 20:
            raise ConfigError(f"max_log_scale must lie in (0, 20]; got {self.max_log_scale}.")

    @property
    def parameters(self) -> int:
        """Shift and log-scale."""
        return 2

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """x exp(c s) + c t."""
        log_scale = self.gate * soft_clamp(raw[1], self.max_log_scale)
        return x * log_scale.exp() + self.gate * raw[0], log_scale.expand_as(x)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """(y - c t) exp(-c s)."""
        log_scale = self.gate * soft_clamp(raw[1], self.max_log_scale)
        return (y - self.gate * raw[0]) * (-log_scale).exp(), log_scale.expand_as(y)
