"""An affine law behind a gate, which closes to the identity."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.numerics import soft_clamp
from pushforward.registry import register
from pushforward.transforms.elementwise.transformers import Transformer

__all__ = ["GatedAffineTransformer"]


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
