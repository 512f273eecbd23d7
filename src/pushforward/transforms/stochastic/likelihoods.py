"""Laws of data given the raw output of a network: categorical, Bernoulli, Gaussian.

A decoder or an autoregressive network gives ``raw``; the law turns it into a distribution of one pixel. Pixels are vectors
of channels in the last dimension, ``x`` ``(*, channels)`` and ``raw`` ``(*, outputs(channels))``, and any raw value is legal.
A plain vector of D coordinates is D pixels of one channel.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.likelihood import REAL, Counting, Lebesgue, Measure, Support
from pushforward.numerics import bound_square, soft_clamp
from pushforward.registry import register

__all__ = ["BernoulliLikelihood", "CategoricalLikelihood", "DiscreteLikelihood", "GaussianLikelihood", "Likelihood",
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

    @abstractmethod
    def mean(self, raw: Tensor, channels: int) -> Tensor:
        """A center of the law of each pixel, ``(*, channels)``, that is smooth in ``raw``: its mean, or nearly."""

    def measure(self, dim: int) -> Measure:
        """Measure of data of ``dim`` coordinates."""
        return Counting(dim)


class DiscreteLikelihood(Likelihood):
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
        index = x.detach().clamp(0, self.levels - 1).long().unsqueeze(-1)
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

    def mean(self, raw: Tensor, channels: int) -> Tensor:
        """m."""
        return self._split(raw)[0]

    def measure(self, dim: int) -> Measure:
        """Volume."""
        return Lebesgue(dim)

    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = raw.unflatten(-1, (-1, 2)).unbind(-1)
        return mean, soft_clamp(log_scale, self.max_log_scale)


def check_levels(levels: int) -> int:
    """A number of gray levels.

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
