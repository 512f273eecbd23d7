"""Distributions of integer pixels: categorical, Bernoulli, and mixtures of discretized logistics."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.likelihood import Support
from pushforward.numerics import log1mexp, soft_clamp
from pushforward.numerics.checks import check_integer, check_number
from pushforward.registry import register
from pushforward.transforms.stochastic.likelihoods import Likelihood, check_levels

__all__ = ["BernoulliLikelihood", "CategoricalLikelihood", "DiscreteLikelihood", "LogisticLikelihood"]


class DiscreteLikelihood(Likelihood):
    """Integers 0, ..., levels - 1."""

    levels: int

    @property
    def support(self) -> Support:
        """0 to levels - 1."""
        return Support(0.0, float(self.levels - 1))

    def network_input(self, x: Tensor) -> Tensor:
        """x scaled to [-1, 1]."""
        return x.clamp(0, self.levels - 1) * (2 / (self.levels - 1)) - 1

    def possible(self, x: Tensor, terms: Tensor) -> Tensor:
        """The terms where x is an integer in range, and -inf elsewhere."""
        return torch.where((x == torch.floor(x)) & self.support.contains(x), terms, -math.inf)


@register("likelihoods")
@dataclass(frozen=True)
class CategoricalLikelihood(DiscreteLikelihood):
    """p(x = k) = softmax(raw)_k in each channel (van den Oord et al. 2016, arXiv 1601.06759, sec. 3.4).

    Args:
        levels: number of values.

    Raises:
        ConfigError: for fewer than two levels.

    Example:
        >>> import torch
        >>> CategoricalLikelihood(4).log_prob(torch.tensor([[2.0]]), torch.zeros(1, 4))      # -log 4
        tensor([[-1.3863]])
    """

    levels: int = 256

    def __post_init__(self) -> None:
        check_levels(self.levels)

    def outputs(self, channels: int) -> int:
        """A logit for each level of each channel."""
        return channels * self.levels

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        """log softmax(raw) at x."""
        logits = raw.unflatten(-1, (x.shape[-1], self.levels))
        index = torch.nan_to_num(x.detach()).clamp(0, self.levels - 1).long().unsqueeze(-1)  # NaN has no index
        return self.possible(x, torch.log_softmax(logits, -1).gather(-1, index).squeeze(-1))

    def sample(self, raw: Tensor, u: Tensor) -> Tensor:
        """The first level whose cumulative probability exceeds u."""
        logits = raw.unflatten(-1, (u.shape[-1], self.levels))
        cumulative = torch.softmax(logits, -1).cumsum(-1)
        return (cumulative <= u.unsqueeze(-1)).sum(-1).clamp(max=self.levels - 1).to(u.dtype)

    def mean(self, raw: Tensor, channels: int) -> Tensor:
        """Sum of k p(k)."""
        levels = torch.arange(self.levels, dtype=raw.dtype, device=raw.device)
        return (torch.softmax(raw.unflatten(-1, (channels, self.levels)), -1) * levels).sum(-1)


@register("likelihoods")
@dataclass(frozen=True)
class BernoulliLikelihood(DiscreteLikelihood):
    """p(x = 1) = sigmoid(raw) in each channel, for data that are 0 or 1.

    Example:
        >>> import torch
        >>> BernoulliLikelihood().log_prob(torch.tensor([[1.0, 0.5]]), torch.zeros(1, 2))
        tensor([[-0.6931,    -inf]])
    """

    levels: int = field(default=2, init=False)

    def outputs(self, channels: int) -> int:
        """A logit for each channel."""
        return channels

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        """log sigmoid(raw) where x is 1, log sigmoid(-raw) where it is 0."""
        return self.possible(x, F.logsigmoid(torch.where(x.detach() > 0.5, raw, -raw)))

    def sample(self, raw: Tensor, u: Tensor) -> Tensor:
        """1 with probability sigmoid(raw)."""
        return (u > torch.sigmoid(-raw)).to(u.dtype)

    def mean(self, raw: Tensor, channels: int) -> Tensor:
        """p(x = 1)."""
        return torch.sigmoid(raw)


@register("likelihoods")
@dataclass(frozen=True)
class LogisticLikelihood(DiscreteLikelihood):
    """Mixture of discretized logistics (PixelCNN++, Salimans et al. 2017, arXiv 1701.05517, eq. 1-3).

    With x scaled to [-1, 1] and h = 1 / (levels - 1), half the distance of two levels,

        p(x) = sum_k w_k prod_c [ sigma((x_c - m_kc + h) / s_kc) - sigma((x_c - m_kc - h) / s_kc) ],

    where level 0 has the whole lower tail and the last level the whole upper tail, so that the sum is 1. The mean of a channel
    depends linearly on the channels before it: m_kc = mu_kc + sum_{b<c} tanh(a_kcb) x_b (eq. 3). The logarithm of a bin is
    log sigma(u) + log sigma(-l) + log(1 - exp(l - u)), exact for narrow bins too. At raw = 0 the means are evenly spaced.

    Args:
        levels: number of values.
        components: number of components K.
        max_log_scale: smooth bound on |log s + log K|.

    Raises:
        ConfigError: for fewer than two levels, no component, or a bound that is not in (0, 20].

    Example:
        >>> import torch
        >>> likelihood = LogisticLikelihood(levels=4, components=2)
        >>> x = torch.arange(4.0)[:, None]
        >>> likelihood.log_prob(x, torch.ones(4, likelihood.outputs(1))).exp().sum()
        tensor(1.)
    """

    joint = True
    levels: int = 256
    components: int = 5
    max_log_scale: float = 7.0

    def __post_init__(self) -> None:
        check_levels(self.levels)
        check_integer("components", self.components)
        check_number("max_log_scale", self.max_log_scale, 0, 20, closed="right")

    def outputs(self, channels: int) -> int:
        """Weights, means and log-scales of each component, and the coefficients of each pair of channels."""
        return self.components * (1 + 2 * channels + channels * (channels - 1) // 2)

    def draws(self, channels: int) -> int:
        """One for the component, and one for each channel."""
        return 1 + channels

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        """log p(x_c | x_<c): differences of the log-probabilities of the first c and the first c - 1 channels."""
        log_weight, mean, log_scale, slope = self._split(raw, x.shape[-1])
        scaled = self.network_input(x)
        mean = mean + (slope * scaled[..., None, :, None]).sum(-2)
        log_bins = self._log_bin(scaled.unsqueeze(-1), mean, log_scale)
        prefix = torch.logsumexp(log_weight.unsqueeze(-2) + log_bins.cumsum(-2), -1)
        return self.possible(x, prefix - F.pad(prefix[..., :-1], (1, 0)))

    def sample(self, raw: Tensor, u: Tensor) -> Tensor:
        """A component, then channel after channel by the inverse of its distribution function."""
        channels = u.shape[-1] - 1
        log_weight, mean, log_scale, slope = self._split(raw, channels)
        cumulative = log_weight.exp().cumsum(-1)
        chosen = (cumulative <= u[..., :1]).sum(-1, keepdim=True).clamp(max=self.components - 1)
        picked = chosen.unsqueeze(-2)
        mean = mean.gather(-1, picked.expand(*mean.shape[:-1], 1)).squeeze(-1)
        scale = log_scale.gather(-1, picked.expand(*mean.shape, 1)).squeeze(-1).exp()
        slope = slope.gather(-1, picked.unsqueeze(-2).expand(*slope.shape[:-1], 1)).squeeze(-1)
        tiny = torch.finfo(u.dtype).eps
        standard = torch.logit(u[..., 1:].clamp(tiny, 1 - tiny))
        levels: list[Tensor] = []
        for c in range(channels):
            value = mean[..., c] + scale[..., c] * standard[..., c]
            for b, earlier in enumerate(levels):
                value = value + slope[..., c, b] * self.network_input(earlier)
            level = torch.round((value + 1) * ((self.levels - 1) / 2))
            levels.append(level.clamp(0, self.levels - 1))
        return torch.stack(levels, -1)

    def mean(self, raw: Tensor, channels: int) -> Tensor:
        """Mean of the clamped values before rounding; each channel given the means of the channels before it.

        It is the integral of P(value > t) over the range of the levels. Without clamping, the mean of a pixel that is almost
        surely black may lie thousands of levels below 0.
        """
        log_weight, mean, log_scale, slope = self._split(raw, channels)
        means: list[Tensor] = []
        for c in range(channels):
            centers = mean[..., c, :]
            for b, earlier in enumerate(means):
                centers = centers + slope[..., c, b, :] * earlier.unsqueeze(-1)
            scale = log_scale[..., c, :].exp()
            # From the nearer end of the range, so that nothing cancels.
            side = torch.where(centers > 0, 1.0, -1.0).to(centers.dtype)
            far, near = (1 + side * centers) / scale, (1 - side * centers) / scale
            clamped = side * (1 + scale * (F.softplus(-far) - F.softplus(near)))
            means.append((log_weight.exp() * clamped).sum(-1))
        return (torch.stack(means, -1) + 1) * ((self.levels - 1) / 2)

    def _split(self, raw: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log w ``(*, K)``, means and log-scales ``(*, channels, K)``, coefficients ``(*, channels, channels, K)``."""
        count = self.components
        logits, mean, log_scale, slope = raw.split(
            (count, channels * count, channels * count, raw.shape[-1] - count - 2 * channels * count), -1
        )
        spread = (2 * torch.arange(count, device=raw.device) + 1).to(raw.dtype) / count - 1
        mean = mean.unflatten(-1, (channels, count)) + spread
        log_scale = soft_clamp(log_scale.unflatten(-1, (channels, count)), self.max_log_scale) - math.log(count)
        pairs = torch.tanh(slope).unflatten(-1, (channels * (channels - 1) // 2, count)) if channels > 1 else None
        rows: list[Tensor] = []
        none = torch.zeros_like(mean[..., 0, :])
        for c in range(channels):
            row = [none] * channels
            for b in range(c):
                assert pairs is not None
                row[b] = pairs[..., c * (c - 1) // 2 + b, :]
            rows.append(torch.stack(row, -2))
        return torch.log_softmax(logits, -1), mean, log_scale, torch.stack(rows, -3)

    def _log_bin(self, scaled: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        """Log-probability of the bin around ``scaled``, exact in log space."""
        half = 1 / (self.levels - 1)
        rate = torch.exp(-log_scale)
        centered = scaled - mean
        below = F.logsigmoid((centered + half) * rate)  # log P(value < upper edge)
        above = F.logsigmoid((half - centered) * rate)  # log P(value > lower edge)
        lowest, highest = scaled < half - 1, scaled > 1 - half
        inner = below + above + log1mexp(2 * half * rate)
        return torch.where(lowest, below, torch.where(highest, above, inner))
