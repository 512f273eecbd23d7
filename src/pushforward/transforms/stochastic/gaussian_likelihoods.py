"""Distributions of real pixels: normal, and mixtures of normals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.likelihood import REAL, Lebesgue, Measure, Support
from pushforward.numerics import bound_square, soft_clamp
from pushforward.numerics.checks import check_integer, check_number
from pushforward.registry import register
from pushforward.transforms.stochastic.likelihoods import Likelihood

__all__ = ["GaussianLikelihood", "GaussianMixtureLikelihood"]


@register("likelihoods")
@dataclass(frozen=True)
class GaussianLikelihood(Likelihood):
    """x = m + s e in each channel, e standard normal; m and log s are learned.

    Args:
        max_log_scale: smooth bound on |log s|, so that s cannot collapse on a constant pixel.

    Raises:
        ConfigError: for a bound that is not in (0, 20].

    Example:
        >>> import torch
        >>> GaussianLikelihood().log_prob(torch.zeros(1, 1), torch.zeros(1, 2))              # -log(2 pi) / 2
        tensor([[-0.9189]])
    """

    max_log_scale: float = 5.0

    def __post_init__(self) -> None:
        check_number("max_log_scale", self.max_log_scale, 0, 20, closed="right")

    @property
    def support(self) -> Support:
        """The reals."""
        return REAL

    def outputs(self, channels: int) -> int:
        """Mean and log-scale of each channel."""
        return 2 * channels

    def seen(self, x: Tensor) -> Tensor:
        """x clamped to [-10, 10]."""
        return x.clamp(-10, 10)

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        """log N(x; m, s^2)."""
        mean, log_scale = self._split(raw)
        e = bound_square((x - mean) * torch.exp(-log_scale), 1024)
        return -0.5 * e * e - log_scale - 0.5 * math.log(2 * math.pi)

    def sample(self, raw: Tensor, u: Tensor) -> Tensor:
        """m + s ndtri(u)."""
        mean, log_scale = self._split(raw)
        tiny = torch.finfo(u.dtype).eps / 2
        return mean + log_scale.exp() * torch.special.ndtri(u.clamp(tiny, 1 - tiny))

    def mean(self, raw: Tensor, channels: int) -> Tensor:
        """m."""
        return self._split(raw)[0]

    def measure(self, dim: int) -> Measure:
        """Volume."""
        return Lebesgue(dim)

    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = raw.unflatten(-1, (-1, 2)).unbind(-1)
        return mean, soft_clamp(log_scale, self.max_log_scale)


@register("likelihoods")
@dataclass(frozen=True)
class GaussianMixtureLikelihood(Likelihood):
    """p(x) = sum_k w_k N(x; m_k, s_k^2) in each channel; weights, means and log-scales are learned.

    At raw = 0 the components are spread over half of the standard normal's quantiles, and the whole has mean 0 and variance 1.

    Args:
        components: K.
        max_log_scale: smooth bound on how far log s goes from its start, so that no component collapses onto a value.

    Raises:
        ConfigError: for no component, or a bound that is not in (0, 20].

    Example:
        >>> import torch
        >>> GaussianMixtureLikelihood(1).log_prob(torch.zeros(1, 1), torch.zeros(1, 3))      # -log(2 pi) / 2
        tensor([[-0.9189]])
    """

    components: int = 10
    max_log_scale: float = 5.0

    def __post_init__(self) -> None:
        check_integer("components", self.components)
        check_number("max_log_scale", self.max_log_scale, 0, 20, closed="right")

    @property
    def support(self) -> Support:
        """The reals."""
        return REAL

    def outputs(self, channels: int) -> int:
        """Logit, mean and log-scale of each component of each channel."""
        return 3 * self.components * channels

    def seen(self, x: Tensor) -> Tensor:
        """x clamped to [-10, 10]."""
        return x.clamp(-10, 10)

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        """log sum_k w_k N(x; m_k, s_k^2)."""
        log_weight, mean, log_scale = self._split(raw)
        e = bound_square((x.unsqueeze(-1) - mean) * torch.exp(-log_scale), 1024)
        return torch.logsumexp(log_weight - 0.5 * e * e - log_scale, -1) - 0.5 * math.log(2 * math.pi)

    def sample(self, raw: Tensor, u: Tensor) -> Tensor:
        """m_k + s_k ndtri(v): the component k whose share of [0, 1) holds u, and v the part of that share below u."""
        log_weight, mean, log_scale = self._split(raw)
        weight = log_weight.double().exp()
        cumulative = weight.cumsum(-1)
        k = (cumulative <= u.unsqueeze(-1)).sum(-1, keepdim=True).clamp(max=self.components - 1)
        share, end = weight.gather(-1, k).squeeze(-1), cumulative.gather(-1, k).squeeze(-1)
        tiny = torch.finfo(u.dtype).eps / 2
        v = (1 - (end - u) / share.clamp(min=1e-300)).clamp(tiny, 1 - tiny)
        return mean.gather(-1, k).squeeze(-1) + (log_scale.gather(-1, k).squeeze(-1).exp() * torch.special.ndtri(v)).to(
            u.dtype
        )

    def mean(self, raw: Tensor, channels: int) -> Tensor:
        """sum_k w_k m_k."""
        log_weight, mean, _ = self._split(raw)
        return (log_weight.exp() * mean).sum(-1)

    def measure(self, dim: int) -> Measure:
        """Volume."""
        return Lebesgue(dim)

    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and log-scales, ``(*, channels, K)``."""
        logits, mean, log_scale = raw.unflatten(-1, (-1, 3, self.components)).unbind(-2)
        # Equal components would stay equal for ever: they start spread, each as wide as makes the variance of the whole 1.
        middle = (torch.arange(self.components, dtype=torch.float64, device=raw.device) + 0.5) / self.components
        spread = 0.5 * torch.special.ndtri(middle)
        width = (0.5 * torch.log1p(-spread.square().mean())).to(raw.dtype)
        log_scale = soft_clamp(log_scale, self.max_log_scale) + width
        return torch.log_softmax(logits, -1), mean + spread.to(raw.dtype), log_scale
