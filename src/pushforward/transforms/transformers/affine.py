"""Shifts and affine functions as transformers, with and without a gate (NICE, Real NVP, MAF, IAF, InFlow)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.numerics import soft_clamp, softsign_clamp
from pushforward.numerics.checks import check_number
from pushforward.registry import register
from pushforward.transforms.transformers.base import Transformer

__all__ = ["AdditiveTransformer", "AffineTransformer", "GatedAffineTransformer", "GatedTransformer"]


@register("transformers")
@dataclass(frozen=True)
class AdditiveTransformer(Transformer):
    """y = x + t (NICE, Dinh et al. 2014, eq. 7); log-derivative 0.

    Example:
        >>> import torch
        >>> from pushforward.transforms import AdditiveTransformer
        >>> f = AdditiveTransformer()
        >>> x = torch.tensor([0.5])
        >>> y, log_slope = f.forward(x, torch.zeros(f.parameters, 1))
        >>> torch.allclose(f.inverse(y, torch.zeros(f.parameters, 1))[0], x, atol=1e-5)
        True
    """

    output_gain = 0.1

    @property
    def parameters(self) -> int:
        """1: the shift."""
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
        max_log_scale: smooth bound on |s|: s = raw / (1 + |raw| / bound), which saturates slowly.

    Raises:
        ConfigError: for a bound outside (0, 20].

    Example:
        >>> import torch
        >>> from pushforward.transforms import AffineTransformer
        >>> f = AffineTransformer()
        >>> x = torch.tensor([0.5])
        >>> y, log_slope = f.forward(x, torch.zeros(f.parameters, 1))
        >>> torch.allclose(f.inverse(y, torch.zeros(f.parameters, 1))[0], x, atol=1e-5)
        True
    """

    max_log_scale: float = 3.0

    def __post_init__(self) -> None:
        check_number("max_log_scale", self.max_log_scale, 0, 20, closed="right")

    @property
    def parameters(self) -> int:
        """2: shift and log-scale."""
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
        # Dividing by the factor of forward keeps its rounding; exp(-s) has a rounding of its own.
        return (y - shift) / torch.exp(log_scale), log_scale


@register("transformers")
@dataclass(frozen=True)
class GatedTransformer(Transformer):
    """y = g x + (1 - g) m with a gate g = sigmoid(s + bias) (IAF, Kingma et al. 2016, eq. 13-14).

    It is not the identity at 0: with the paper's bias of 1 to 2 it starts as a mild contraction.

    Args:
        bias: number added to the gate's logit.
        max_logit: smooth bound on the distance of the logit from ``bias``, so that the inverse cannot overflow.

    Raises:
        ConfigError: for a ``max_logit`` outside (0, 20], or a bias outside [-20, 20].

    Example:
        >>> import torch
        >>> from pushforward.transforms import GatedTransformer
        >>> f = GatedTransformer()
        >>> x = torch.tensor([0.5])
        >>> y, log_slope = f.forward(x, torch.zeros(f.parameters, 1))
        >>> torch.allclose(f.inverse(y, torch.zeros(f.parameters, 1))[0], x, atol=1e-5)
        True
    """

    bias: float = 2.0
    max_logit: float = 4.0

    def __post_init__(self) -> None:
        check_number("max_logit", self.max_logit, 0, 20, closed="right")
        check_number("bias", self.bias, -20, 20, closed="both")

    @property
    def parameters(self) -> int:
        """2: m and the gate's logit."""
        return 2

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """g x + (1 - g) m."""
        gate, log_gate = self._gate(raw)
        return gate * x + (1 - gate) * raw[0], log_gate.expand_as(x)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """(y - (1 - g) m) / g."""
        gate, log_gate = self._gate(raw)
        return (y - (1 - gate) * raw[0]) / gate, log_gate.expand_as(y)

    def _gate(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """g and log g."""
        logit = soft_clamp(raw[1], self.max_logit) + self.bias
        return torch.sigmoid(logit), F.logsigmoid(logit)


@register("transformers")
@dataclass(frozen=True)
class GatedAffineTransformer(Transformer):
    """y = x exp(c s) + c t with a gate c in [0, 1] (InFlow, Kumar et al. 2021, arXiv 2106.12894); log-derivative c s.

    c = 1 is the affine transformer and c = 0 the identity. It is invertible for every c, because its inverse and its
    log-derivative use the same c.

    Args:
        gate: the gate c.
        max_log_scale: smooth bound on |s|: s = bound tanh(raw / bound).

    Raises:
        ConfigError: for a gate outside [0, 1] or a bound outside (0, 20].

    Example:
        >>> import torch
        >>> from pushforward.transforms import GatedAffineTransformer
        >>> f = GatedAffineTransformer(gate=1.0)
        >>> x = torch.tensor([0.5])
        >>> y, log_slope = f.forward(x, torch.zeros(f.parameters, 1))
        >>> torch.allclose(f.inverse(y, torch.zeros(f.parameters, 1))[0], x, atol=1e-5)
        True
    """

    gate: float = 1.0
    max_log_scale: float = 2.0

    def __post_init__(self) -> None:
        check_number("gate", self.gate, 0, 1, closed="both")
        check_number("max_log_scale", self.max_log_scale, 0, 20, closed="right")

    @property
    def parameters(self) -> int:
        """2: shift and log-scale."""
        return 2

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """x exp(c s) + c t."""
        log_scale = self.gate * soft_clamp(raw[1], self.max_log_scale)
        return x * log_scale.exp() + self.gate * raw[0], log_scale.expand_as(x)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """(y - c t) exp(-c s)."""
        log_scale = self.gate * soft_clamp(raw[1], self.max_log_scale)
        return (y - self.gate * raw[0]) * (-log_scale).exp(), log_scale.expand_as(y)
