"""Laws of data given the raw output of a network: categorical, Bernoulli, Gaussian.

A decoder or an autoregressive network gives ``raw``; the law turns it into a distribution of one pixel. Pixels are vectors
of channels in the last dimension, ``x`` ``(*, channels)`` and ``raw`` ``(*, outputs(channels))``, and any raw value is legal.
A plain vector of D coordinates is D pixels of one channel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.likelihood import Counting, Measure, Support
from pushforward.numerics.checks import check_integer

__all__ = ["Likelihood", "check_levels", "check_likelihood"]


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


def check_levels(levels: int) -> int:
    """A number of gray levels.

    Raises:
        ConfigError: unless it is an integer of at least 2.
    """
    check_integer("levels", levels, 2)
    return levels


def check_likelihood(likelihood: Likelihood) -> Likelihood:
    """The law, if it is one.

    Raises:
        ConfigError: for anything else.
    """
    if not isinstance(likelihood, Likelihood):
        raise ConfigError(f"likelihood must be a law such as LogisticLikelihood(256); got {likelihood!r}.")
    return likelihood
