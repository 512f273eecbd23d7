"""`Likelihood`: distributions of data given the output of a network, as of a decoder or an autoregressive network.

The network gives ``raw``, the parameters of the distribution of one pixel. Pixels are vectors of channels in the last
dimension, ``x`` ``(*, channels)`` and ``raw`` ``(*, outputs(channels))``, and any raw value is legal. A vector of D
coordinates is D pixels of one channel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.likelihood import Counting, Measure, Support
from pushforward.numerics.checks import check_integer

__all__ = ["Likelihood", "check_levels", "check_likelihood"]


class Likelihood(ABC):
    """A family of distributions of one pixel. Subclasses are frozen dataclasses and store no tensors.

    Example:
        >>> import torch
        >>> from pushforward.transforms import CategoricalLikelihood
        >>> family = CategoricalLikelihood(levels=4)
        >>> raw = torch.zeros(1, 2, 2, family.outputs(1))
        >>> family.log_prob(torch.zeros(1, 2, 2, 1), raw).shape
        torch.Size([1, 2, 2, 1])
    """

    joint: bool = False
    """Whether channels depend on each other. If not, ``raw`` is the outputs of the first channel, then of the second, ..."""

    @property
    @abstractmethod
    def support(self) -> Support:
        """The interval in which every coordinate lies."""

    @abstractmethod
    def outputs(self, channels: int) -> int:
        """Number of raw outputs for each pixel."""

    def draws(self, channels: int) -> int:
        """Number of uniform numbers that a sample of one pixel needs."""
        return channels

    @abstractmethod
    def network_input(self, x: Tensor) -> Tensor:
        """x as networks read it: bounded, and of the order of 1."""

    @abstractmethod
    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        """Terms of the chain rule over channels, log p(x_c | x_<c), nats, shaped as x; -inf where x is impossible."""

    @abstractmethod
    def sample(self, raw: Tensor, u: Tensor) -> Tensor:
        """x from uniform noise ``(*, draws(channels))`` in [0, 1); near the median for u = 1/2."""

    @abstractmethod
    def mean(self, raw: Tensor, channels: int) -> Tensor:
        """The mean of each pixel, ``(*, channels)``, or an approximation of it; smooth in ``raw``."""

    def measure(self, dim: int) -> Measure:
        """Measure of data of ``dim`` coordinates."""
        return Counting(dim)


def check_levels(levels: int) -> int:
    """Return the number of gray levels if it is valid.

    Raises:
        ConfigError: if it is not an integer of at least 2.
    """
    check_integer("levels", levels, 2)
    return levels


def check_likelihood(likelihood: Likelihood) -> Likelihood:
    """Return the argument if it is a likelihood.

    Raises:
        ConfigError: for anything else.
    """
    if not isinstance(likelihood, Likelihood):
        raise ConfigError(f"likelihood must be a Likelihood such as LogisticLikelihood(256); got {likelihood!r}.")
    return likelihood
