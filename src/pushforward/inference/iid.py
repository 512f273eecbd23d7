"""The posterior given several independent observations of the same parameters, from a likelihood of one of them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from pushforward.errors import ConfigError, InputError
from pushforward.inference.nle import LikelihoodPosterior, NLEPosterior
from pushforward.inference.real_numbers import as_numbers
from pushforward.numerics.checks import check_integer

__all__ = ["IIDPosterior", "iid"]


def iid(posterior: LikelihoodPosterior, count: int) -> IIDPosterior:
    """The posterior of NLE or NRE given ``count`` independent observations of the same parameters.

    p(theta | x_1, ..., x_m) is proportional to p(theta) times the product of q(x_i | theta): no simulation of several observations
    is needed, and the number of them is free. The errors of the network add up too, so train on more simulations than one
    observation needs, and test the result with :func:`~pushforward.inference.check` on simulators of as many observations.

    Args:
        posterior: of :class:`~pushforward.inference.NLE` or :class:`~pushforward.inference.NRE`, for one observation.
        count: m, the number of observations; they are given as ``(m, *x_shape)``.

    Raises:
        ConfigError: for a posterior of NPE, which has no likelihood of one observation.

    Example:
        >>> import torch, pushforward as pf
        >>> prior = torch.distributions.Normal(torch.zeros(1), 1.0)
        >>> theta = prior.sample((500,))
        >>> posterior = pf.inference.NLE(prior).fit(theta, theta + torch.randn(500, 1), max_steps=30, progress="silent")
        >>> many = pf.inference.iid(posterior, 4)
        >>> many.sample(100, x=torch.tensor([[0.5], [1.5], [0.9], [1.1]]), seed=0).shape
        torch.Size([100, 1])
    """
    check_integer("count", count)
    if not isinstance(posterior, LikelihoodPosterior) or isinstance(posterior, IIDPosterior):
        raise ConfigError(
            f"iid takes the posterior of NLE or NRE for one observation; got {type(posterior).__name__}. NPE reads several observations "
            "as one datum, with pf.networks.SetSummary."
        )
    return IIDPosterior(posterior, count)


class IIDPosterior(LikelihoodPosterior):
    """What :func:`iid` returns: a posterior whose observations are ``(m, *x_shape)``. It is not saved: save that of one observation.

    Attributes:
        single: the posterior for one observation.
        count: m.

    Example:
        >>> import torch, pushforward as pf
        >>> prior = torch.distributions.Normal(torch.zeros(1), 1.0)
        >>> theta = prior.sample((500,))
        >>> posterior = pf.inference.NLE(prior).fit(theta, theta + torch.randn(500, 1), max_steps=30, progress="silent")
        >>> pf.inference.iid(posterior, 3).log_likelihood(torch.zeros(2, 1), x=torch.ones(3, 1)).shape
        torch.Size([2])
    """

    method: ClassVar[str] = "iid"

    def __init__(self, single: LikelihoodPosterior, count: int) -> None:
        scale = single.scale.repeated(count)
        super().__init__(single.prior, single.networks, scale, (count, *single.x_shape), single.training)
        self.single, self.count, self.inputs = single, count, single.inputs

    def log_likelihood(self, theta: Any, x: Any) -> Tensor:
        """Sum of log q(x_i | theta) for each row of parameters, nats, ``(n, D)`` to ``(n,)``; see :meth:`NLEPosterior.log_likelihood`.

        Raises:
            ConfigError: for a posterior of NRE, which knows likelihoods up to a function of x.
            InputError: for a wrong shape, or an observation that is not finite.
        """
        rows, scaled = self._parameters(theta), self._observation(x)
        slope = self._log_slope(scaled)
        with torch.set_grad_enabled(torch.is_grad_enabled() and isinstance(theta, Tensor) and theta.requires_grad):
            return self._log_likelihood(rows, scaled) + slope

    def log_evidence(self, x: Any) -> float:
        """log p(x_1, ..., x_m), nats; see :meth:`NLEPosterior.log_evidence`.

        Raises:
            ConfigError, InputError: as for :meth:`log_likelihood`.
        """
        scaled = self._observation(x)
        slope = self._log_slope(scaled)
        with torch.no_grad():
            return self._evidence_of(scaled) + float(slope)

    def save(self, path: Any, *, prior: bool = True) -> None:
        """Refused.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "a posterior of several observations is not saved: save that of one (.single), and call iid again."
        )

    def _log_slope(self, x: Tensor) -> Tensor:
        """Log of the volume of the scaled data for a unit of the data."""
        if not isinstance(self.single, NLEPosterior):
            raise ConfigError("NRE knows the likelihood up to a function of x, and this needs all of it: use NLE.")
        return self.single._log_slope(x.view(self.count, -1)).sum()

    def _observation(self, x: Any, rows: int | None = None) -> Tensor:
        values = as_numbers(x, "the observations").cpu()
        if values.shape == (1, *self.x_shape):
            values = values[0]
        if values.dim() == 1 and self.x_shape == (len(values), 1):
            values = values[:, None]
        if tuple(values.shape) != self.x_shape:
            raise InputError(f"{self.count} observations have the shape {self.x_shape}; got {tuple(values.shape)}.")
        return torch.cat([self.single._observation(value) for value in values])

    def _log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        return self._sum(self.single._log_likelihood, theta, x)

    @property
    def _is_rough(self) -> bool:
        return self.single._is_rough

    def _rough_log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        return self._sum(self.single._rough_log_likelihood, theta, x)

    def _sum(self, log_likelihood: Any, theta: Tensor, x: Tensor) -> Tensor:
        """The sum over the observations, a part of them at a time, so that memory does not grow with their number.

        The networks read equal observations, such as counts, once.
        """
        rows, times = x.view(self.count, -1), torch.ones(self.count)
        different, repeats = rows.unique(dim=0, return_counts=True)
        if len(different) < self.count:
            rows, times = different, repeats
        size = max(1, _ROWS_AT_ONCE // max(1, len(theta)))
        total = theta.new_zeros(len(theta))
        for part, some in zip(rows.split(size), times.split(size), strict=True):
            pairs = theta.repeat(len(part), 1), part.repeat_interleave(len(theta), 0)
            values = log_likelihood(*pairs).view(len(part), -1)
            total = total + (some.to(values)[:, None] * values).sum(0)
        return total


_ROWS_AT_ONCE = 20_000
"""Pairs of parameters and an observation that a network reads at once."""
