"""The posterior of one observation as a ``torch.distributions`` object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from pushforward.errors import InputError
from pushforward.inference.real_numbers import as_numbers
from pushforward.models.pyro_distribution import pyro_class
from pushforward.models.sampling import check_sample_shape

if TYPE_CHECKING:
    from pushforward.inference.posterior import SimulationPosterior

__all__ = ["PosteriorDistribution"]


class PosteriorDistribution(Distribution):
    """p(theta | x) of one observation: the prior of a further experiment, or a distribution of Pyro.

    Its event is one vector of parameters, ``(D,)``, without a batch. :meth:`sample` draws from torch's global generator, so
    ``torch.manual_seed`` repeats it, and draws carry no gradient. :meth:`SimulationPosterior.distribution
    <pushforward.inference.SimulationPosterior.distribution>` makes it.

    Args:
        posterior: from simulations.
        x: the observation, with the shape of a simulation.

    Raises:
        InputError: for an observation of another shape, or one that is not finite.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> prior = torch.distributions.Normal(torch.zeros(1), 1.0)
        >>> theta = prior.sample((500,))
        >>> posterior = pf.inference.NPE(prior).fit(theta, theta + torch.randn(500, 1), max_steps=20, progress="silent")
        >>> first = posterior.distribution(torch.tensor([0.5]))
        >>> first.sample((3,)).shape, first.log_prob(torch.zeros(2, 3, 1)).shape
        (torch.Size([3, 1]), torch.Size([2, 3]))
        >>> second = pf.inference.NPE(first)  # for an experiment that comes after the first
        >>> second.prior.features
        1
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore[reportIncompatibleMethodOverride]
    has_rsample = False

    def __new__(cls, *args: Any, **kwargs: Any) -> PosteriorDistribution:
        """An object of the class for Pyro, if the program has imported it."""
        return object.__new__(pyro_class(cls) if cls is PosteriorDistribution else cls)

    def __init__(self, posterior: SimulationPosterior, x: Any) -> None:
        posterior._observation(x)
        self.posterior, self.x = posterior, as_numbers(x, "an observation").clone()
        super().__init__(Size(), Size((posterior.features,)), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The bounds of the prior, as a constraint on whole vectors; gaps between them are not in it."""
        low, high = self.posterior.prior.low, self.posterior.prior.high
        below, above = torch.isfinite(low), torch.isfinite(high)
        if not bool((below | above).any()):
            return constraints.real_vector
        if bool((below & above).all()):
            return constraints.independent(constraints.interval(low, high), 1)
        each = [_constraint(*ends) for ends in zip(low.tolist(), high.tolist(), strict=True)]
        return constraints.independent(constraints.cat(each, dim=-1, lengths=[1] * len(each)), 1)

    def sample(self, sample_shape: int | tuple[int, ...] = ()) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Draws, ``(*sample_shape, D)``."""
        shape = check_sample_shape(sample_shape)
        seed = int(torch.randint(2**62, ()))
        return self.posterior.sample(math.prod(shape), self.x, seed=seed).reshape(*shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, nats, ``(*batch, D)`` to ``batch``; see :meth:`SimulationPosterior.log_prob
        <pushforward.inference.SimulationPosterior.log_prob>`.

        Raises:
            InputError: for another number of parameters.
        """
        value = value if isinstance(value, Tensor) else as_numbers(value, "theta")
        width = self.event_shape[0]
        if value.dim() < 1 or value.shape[-1] != width:
            raise InputError(f"theta must have the shape (*batch, {width}); got {tuple(value.shape)}.")
        return self.posterior.log_prob(value.reshape(-1, width), self.x).reshape(value.shape[:-1])

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> PosteriorDistribution:
        """The distribution itself for an empty batch shape.

        Raises:
            InputError: for any other batch shape.
        """
        if tuple(batch_shape):
            raise InputError(f"a posterior is of one observation: sample({tuple(batch_shape)}) gives as many draws.")
        return self

    def __repr__(self) -> str:
        return f"PosteriorDistribution({self.posterior!r})"


def _constraint(low: float, high: float) -> constraints.Constraint:
    if math.isfinite(low):
        return constraints.interval(low, high) if math.isfinite(high) else constraints.greater_than_eq(low)
    return constraints.less_than(high) if math.isfinite(high) else constraints.real
