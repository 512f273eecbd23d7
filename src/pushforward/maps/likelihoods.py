"""Laws of data given the raw output of a network: categorical, Bernoulli, discretised logistic mixtures, Gaussian.

A decoder or an autoregressive network gives ``raw``; the law turns it into a distribution of one pixel. Pixels are vectors
of channels in the last dimension, ``x`` ``(*, channels)`` and ``raw`` ``(*, outputs(channels))``, and any raw value is legal.
A plain vector of D coordinates is D pixels of one channel.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.measure import REAL, Counting, Lebesgue, Measure, Support
from pushforward.numerics import bound_square, log1mexp, soft_clamp
from pushforward.registry import register

__all__ = ["BernoulliLikelihood", "CategoricalLikelihood", "GaussianLikelihood", "Likelihood", "LogisticLikelihood",
           "check_levels", "check_likelihood"]  # fmt: skip


class Likelihood(ABC):
    """A family of distributions of one pixel. Subclasses are frozen dataclasses and hold no tensors."""

    joint: bool = False
    """Whether channels depend on each other. If not, ``raw`` is one channel's outputs after the other's."""

    @property
    @abstractmethod
    def support(self) -> Support:
        """Where every coordinate lies."""

    @abstractmethod
    def outputs(self, channels: int) -> int:
        """Raw outputs for each pixel."""

    def draws(self, channels: int) -> int:
        """Uniform numbers that a sample of one pixel takes."""
        return channels

    @abstractmethod
    def seen(self, x: Tensor) -> Tensor:
        """What networks see of x: bounded, and of the order of 1."""

    @abstractmethod
    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        """Terms of the chain rule over channels, log p(x_c | x_<c), nats, shaped as x; -inf where x is impossible."""

    @abstractmethod
    def sample(self, raw: Tensor, u: Tensor) -> Tensor:
        """x from uniform noise ``(*, draws(channels))`` in [0, 1); about the median where u is 1/2."""

    def measure(self, dim: int) -> Measure:
        """Measure of data of ``dim`` coordinates."""
        return Counting(dim)


class _Discrete(Likelihood):
    """Integers 0, ..., levels - 1."""

    levels: int

    @property
    def support(self) -> Support:
        """0 to levels - 1."""
        return Support(0.0, float(self.levels - 1))

    def seen(self, x: Tensor) -> Tensor:
        """x scaled to [-1, 1]."""
        return x.clamp(0, self.levels - 1) * (2 / (self.levels - 1)) - 1

    def possible(self, x: Tensor, terms: Tensor) -> Tensor:
        """The terms where x is an integer in range, else -inf."""
        return torch.where((x == torch.floor(x)) & self.support.contains(x), terms, -math.inf)


@register("likelihoods")
@dataclass(frozen=True)
class CategoricalLikelihood(_Discrete):
    """p(x = k) = softmax(raw)_k in each channel (van den Oord et al. 2016, arXiv 1601.06759, sec. 3.4).

    Args:
        levels: number of values.

    Raises:
        ConfigError: for fewer than two levels.
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
        index = x.detach().clamp(0, self.levels - 1).long().unsqueeze(-1)
        return self.possible(x, torch.log_softmax(logits, -1).gather(-1, index).squeeze(-1))

    def sample(self, raw: Tensor, u: Tensor) -> Tensor:
        """The first level whose cumulative probability exceeds u."""
        logits = raw.unflatten(-1, (u.shape[-1], self.levels))
        cumulative = torch.softmax(logits, -1).cumsum(-1)
        return (cumulative <= u.unsqueeze(-1)).sum(-1).clamp(max=self.levels - 1).to(u.dtype)


@register("likelihoods")
@dataclass(frozen=True)
class BernoulliLikelihood(_Discrete):
    """p(x = 1) = sigmoid(raw) in each channel, for data that are 0 or 1."""

    @property
    def levels(self) -> int:
        """Two."""
        return 2

    def outputs(self, channels: int) -> int:
        """A logit for each channel."""
        return channels

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        """log sigmoid(raw) where x is 1, log sigmoid(-raw) where it is 0."""
        return self.possible(x, F.logsigmoid(torch.where(x.detach() > 0.5, raw, -raw)))

    def sample(self, raw: Tensor, u: Tensor) -> Tensor:
        """1 with probability sigmoid(raw)."""
        return (u > torch.sigmoid(-raw)).to(u.dtype)


@register("likelihoods")
@dataclass(frozen=True)
class LogisticLikelihood(_Discrete):
    """Mixture of discretised logistics (PixelCNN++, Salimans et al. 2017, arXiv 1701.05517, eq. 1-3).

    With x scaled to [-1, 1] and half a step h = 1 / (levels - 1),

        p(x) = sum_k w_k prod_c [ sigma((x_c - m_kc + h) / s_kc) - sigma((x_c - m_kc - h) / s_kc) ],

    where level 0 takes the whole lower tail and the last level the whole upper one, so that it sums to 1. The mean of a
    channel is shifted by the channels before it: m_kc = mu_kc + sum_{b<c} tanh(a_kcb) x_b (eq. 3). The logarithm of a bin is
    log sigma(u) + log sigma(-l) + log(1 - exp(l - u)), exact however narrow the bin. At raw = 0 the means are spread evenly.

    Args:
        levels: number of values.
        components: K.
        max_log_scale: smooth bound on |log s + log K|.

    Raises:
        ConfigError: for fewer than two levels, no component, or a bound that is not in (0, 20].
    """

    levels: int = 256
    components: int = 5
    max_log_scale: float = 7.0

    def __post_init__(self) -> None:
        check_levels(self.levels)
        if not isinstance(self.components, int) or isinstance(self.components, bool) or self.components < 1:
            raise ConfigError(f"components must be an integer of at least 1; got {self.components!r}.")
        if not 0 < self.max_log_scale <= 20:
            raise ConfigError(f"max_log_scale must lie in (0, 20]; got {self.max_log_scale!r}.")

    joint = True

    def outputs(self, channels: int) -> int:
        """Weights, means and log-scales of each component, and the coefficients of each pair of channels."""
        return self.components * (1 + 2 * channels + channels * (channels - 1) // 2)

    def draws(self, channels: int) -> int:
        """One for the component, and one for each channel."""
        return 1 + channels

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        """log p(x_c | x_<c): differences of the log-probabilities of longer and longer prefixes of the channels."""
        log_weight, mean, log_scale, slope = self._split(raw, x.shape[-1])
        seen = self.seen(x)
        mean = mean + (slope * seen[..., None, :, None]).sum(-2)
        each = self._log_bin(seen.unsqueeze(-1), mean, log_scale)
        prefix = torch.logsumexp(log_weight.unsqueeze(-2) + each.cumsum(-2), -1)
        return self.possible(x, prefix - F.pad(prefix[..., :-1], (1, 0)))

    def sample(self, raw: Tensor, u: Tensor) -> Tensor:
        """A component, then each channel in turn by the inverse of its distribution function."""
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
            for b, before in enumerate(levels):
                value = value + slope[..., c, b] * self.seen(before)
            level = torch.round((value + 1) * ((self.levels - 1) / 2))
            levels.append(level.clamp(0, self.levels - 1))
        return torch.stack(levels, -1)

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

    def _log_bin(self, seen: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        """Log-probability of the bin around ``seen``, exact in log space."""
        half = 1 / (self.levels - 1)
        rate = torch.exp(-log_scale)
        centred = seen - mean
        below = F.logsigmoid((centred + half) * rate)  # log P(value < upper edge)
        above = F.logsigmoid((half - centred) * rate)  # log P(value > lower edge)
        lowest, highest = seen < half - 1, seen > 1 - half
        inner = below + above + log1mexp(2 * half * rate)
        return torch.where(lowest, below, torch.where(highest, above, inner))


@register("likelihoods")
@dataclass(frozen=True)
class GaussianLikelihood(Likelihood):
    """x = m + s e in each channel, e standard normal; m and log s are learned.

    Args:
        max_log_scale: smooth bound on |log s|, so that s cannot collapse on a constant pixel.

    Raises:
        ConfigError: for a bound that is not in (0, 20].
    """

    max_log_scale: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.max_log_scale <= 20:
            raise ConfigError(f"max_log_scale must lie in (0, 20]; got {self.max_log_scale!r}.")

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

    def measure(self, dim: int) -> Measure:
        """Volume."""
        return Lebesgue(dim)

    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = raw.unflatten(-1, (-1, 2)).unbind(-1)
        return mean, soft_clamp(log_scale, self.max_log_scale)


def check_levels(levels: int) -> int:
    """A number of grey levels.

    Raises:
        ConfigError: unless it is an integer of at least 2.
    """
    if not isinstance(levels, int) or isinstance(levels, bool) or levels < 2:
        raise ConfigError(f"levels must be an integer of at least 2; got {levels!r}.")
    return levels


def check_likelihood(likelihood: Likelihood) -> Likelihood:
    """The law, if it is one.

    Raises:
        ConfigError: for anything else.
    """
    if not isinstance(likelihood, Likelihood):
        raise ConfigError(f"likelihood must be a law such as LogisticLikelihood(256); got {likelihood!r}.")
    return likelihood
