"""Neural likelihood estimation: a conditional flow of the data given the parameters, and posterior draws by tempering."""

from __future__ import annotations

import functools
import hashlib
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, InputError
from pushforward.inference.data_scale import DataScale
from pushforward.inference.evidence import sampled_evidence
from pushforward.inference.method import FlowMaker, SimulationMethod, check_flow, train_members
from pushforward.inference.npe import NPEPosterior, conditional_flow
from pushforward.inference.posterior import SimulationPosterior
from pushforward.inference.priors import Prior
from pushforward.inference.tempering import TemperedSample, temper
from pushforward.inference.training_data import TrainingData
from pushforward.models import Model
from pushforward.numerics import logmeanexp
from pushforward.training.config import TrainingConfig
from pushforward.training.result import FitResult
from pushforward.transforms import Transform

__all__ = ["NLE", "LikelihoodPosterior", "NLEPosterior"]

_PARTICLES = 1000
"""Fewest particles of a tempered sample."""
_LARGEST_ERROR = 0.1
"""Beyond it, in nats, importance sampling around the draws is no better than tempering."""


class LikelihoodPosterior(SimulationPosterior):
    """A posterior from a likelihood, or a ratio, that a network computes; its draws come from tempering.

    Particles start as draws of the prior, or of the posterior of another method (``proposal``), and pass through tempered
    distributions to the posterior with Hamiltonian transitions on the unconstrained reals
    (:func:`~pushforward.inference.tempering.temper`). The number of evaluations is bounded.
    """

    method: ClassVar[str] = "likelihood"
    _has_prior = False

    def __init__(
        self, prior: Prior, networks: Sequence[nn.Module], scale: DataScale, x_shape: tuple[int, ...],
        training: Sequence[FitResult] = (), proposal: NPEPosterior | None = None,
    ) -> None:  # fmt: skip
        super().__init__(prior, networks, scale, x_shape, training)
        self.proposal = proposal
        self._transform: Transform = prior.transform()
        self._evidence: dict[bytes, float] = {}
        self.skewed = prior.skewed
        """Which bounded parameters the networks read as logits."""

    def _stored_networks(self) -> list[nn.Module]:
        return [*self.networks, *(self.proposal.networks if self.proposal is not None else [])]

    def _options(self) -> dict[str, Any]:
        return {"networks": len(self.networks), "skewed": self.skewed.tolist()}

    @classmethod
    def _restore(
        cls,
        prior: Prior,
        networks: list[nn.Module],
        scale: DataScale,
        x_shape: tuple[int, ...],
        options: Mapping[str, Any],
    ) -> Self:
        own, others = networks[: int(options["networks"])], networks[int(options["networks"]) :]
        result = cls(prior, own, scale, x_shape)
        # The networks of earlier files read all bounded parameters as they are.
        result.skewed = torch.tensor([bool(skewed) for skewed in options.get("skewed", [False] * prior.features)])
        if len(result.skewed) != prior.features:
            raise ValueError("its skewed parameters do not fit the prior")
        if others:
            with suppress(InputError):  # another prior than that of the training: draws start from the prior itself
                result.proposal = NPEPosterior._restore(prior, others, scale, x_shape, {})
        return result

    @abstractmethod
    def _log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        """Log-likelihood of scaled data, or log-ratio, of a scaled observation, nats, ``(n, D)`` to ``(n,)``, with gradients."""

    def temper(self, count: int, x: Tensor, generator: torch.Generator) -> TemperedSample:
        """Draws on the unconstrained reals, with the evidence."""
        particles, log_posterior = max(count, _PARTICLES), self._log_posterior(x)

        def log_prior(u: Tensor) -> Tensor:
            theta, contribution = self._transform.decode_with_contribution(u)
            return self.prior.log_prob(self.prior.clamp(theta)) - contribution

        if self.proposal is None:
            seed = int(torch.randint(2**62, (), generator=generator))
            start = self.prior.sample(particles, seed=seed)
            return temper(log_prior, log_posterior, self._transform.encode(start).z, generator)
        proposal = self.proposal

        def log_proposal(u: Tensor) -> Tensor:
            theta, contribution = self._transform.decode_with_contribution(u)
            return proposal._log_prob(self.prior.clamp(theta), x) - contribution

        start = self.prior.clamp(proposal.draw(particles, x, generator))
        return temper(log_proposal, log_posterior, self._transform.encode(start).z, generator)

    def _log_posterior(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """log prior + log likelihood on the unconstrained reals."""

        def log_posterior(u: Tensor) -> Tensor:
            theta, contribution = self._transform.decode_with_contribution(u)
            theta = self.prior.clamp(theta)
            return self.prior.log_prob(theta) - contribution + self._log_likelihood(theta, x)

        return log_posterior

    def _log_evidence(self, x: Tensor) -> float:
        """The evidence of a scaled observation, by importance sampling around tempered draws; by tempering if that fails.

        Tempering alone has an error of 3 to 5 %, importance sampling of less than 1 % with few parameters. The seed depends on x, so
        the errors of different observations are independent, and the same in every session.
        """
        generator = torch.Generator().manual_seed(
            int.from_bytes(hashlib.sha256(x.numpy().tobytes()).digest()[:6], "big")
        )
        tempered = self.temper(_PARTICLES, x, generator)
        found = sampled_evidence(self._log_posterior(x), tempered.points, generator)
        usable = found.reliable and found.log_evidence_error < _LARGEST_ERROR
        return found.log_evidence if usable else tempered.log_evidence

    def _sample(self, count: int, x: Tensor, generator: torch.Generator) -> Tensor:
        points = self.temper(count, x, generator).points
        chosen = torch.randperm(len(points), generator=generator)[:count]
        return self._transform.decode(points[chosen])

    def _log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        if x.dim() == 2:
            raise InputError("NLE and NRE score one observation at a time: pass one x.")
        evidence = self._evidence_of(x)
        inside = self.prior.contains(theta)
        safe = torch.where(inside[:, None], theta, self.prior.middle().to(theta))
        values = self.prior.log_prob(safe) + self._log_likelihood(safe, x) - evidence
        return torch.where(inside, values, -math.inf)

    def _evidence_of(self, x: Tensor) -> float:
        """The evidence of a scaled observation, computed once."""
        key = x.numpy().tobytes()
        if key not in self._evidence:
            with torch.no_grad():
                self._evidence[key] = self._log_evidence(x)
        return self._evidence[key]


class NLE(SimulationMethod["NLEPosterior"]):
    """Neural likelihood estimation (Papamakarios, Sterratt, Murray 2019): fit q(x | theta), then sample prior times likelihood.

    Columns of the data that hold only integers get uniform noise of width 1 in training (dequantization), before they are
    scaled, and the likelihood is evaluated in the middle of the cell.

    Args:
        prior: a torch distribution of vectors, or a list of independent ones.
        flow: "nsf", "maf", or a function of (features, context width) that returns a conditional model.
        members: number of flows; their densities are averaged.

    Raises:
        ConfigError: for a prior whose support is not a box, or an unknown flow.

    Example:
        >>> import torch, pushforward as pf
        >>> from torch.distributions import Normal
        >>> prior = Normal(torch.zeros(2), 1.0)
        >>> theta = prior.sample((500,))
        >>> x = theta + 0.1 * torch.randn(500, 2)
        >>> post = pf.inference.NLE(prior).fit(theta, x, max_steps=30, progress="silent")
        >>> post.sample(100, x=torch.zeros(2), seed=0).shape
        torch.Size([100, 2])
    """

    def __init__(self, prior: Any, *, flow: str | FlowMaker = "nsf", members: int = 1) -> None:
        super().__init__(prior, members=members)
        self.flow = check_flow(flow, ("nsf", "maf"))

    def _fit(self, data: TrainingData, validation: Any, config: TrainingConfig) -> NLEPosterior:
        context, x = self._arrays(data)
        if data.validation is not None:
            raise ConfigError(
                "NLE holds out a fraction of the simulations: give validation as a number between 0 and 1."
            )
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(config.seed + 1))
        rows = _in_cell(x, noise, data.counts, data.scale)

        def build(regression: bool) -> Model:
            return conditional_flow(self.flow, data.width, self.prior.features, regression=regression)

        builds = [
            functools.partial(build, choice) for choice in ((True, False) if isinstance(self.flow, str) else (True,))
        ]
        models, results = train_members(builds, (rows, context), validation, self.members, config, "data")
        return NLEPosterior(self.prior, models, data.scale, data.x_shape, results, counts=data.counts.tolist())


class NLEPosterior(LikelihoodPosterior):
    """The posterior of :class:`NLE`.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> prior = torch.distributions.Uniform(-torch.ones(1), torch.ones(1))
        >>> theta = prior.sample((200,))
        >>> x = theta + 0.1 * torch.randn(200, 1)
        >>> posterior = pf.inference.NLE(prior).fit(theta, x, max_steps=20, progress="silent")
        >>> posterior.sample(10, x=torch.zeros(1)).shape
        torch.Size([10, 1])
    """

    method: ClassVar[str] = "nle"

    @classmethod
    def _width_of(cls, network: nn.Module) -> int | None:
        return network.context_features if isinstance(network, Model) else None

    def __init__(self, *args: Any, counts: Sequence[bool] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        width = math.prod(self.x_shape)
        self.counts = torch.tensor([False] * width if counts is None else list(counts))

    def log_likelihood(self, theta: Any, x: Any) -> Tensor:
        """log q(x | theta) of an observation for each row of parameters, nats, ``(n, D)`` to ``(n,)``, with gradients to theta.

        A density in the units of x. Columns of counts have the density in the middle of a cell of width 1, which is nearly their
        probability.

        Args:
            theta: parameters within the prior, ``(n, D)``.
            x: one observation, with the shape of a simulation.

        Raises:
            InputError: for a wrong shape, or an observation that is not finite.

        Example:
            >>> import torch, pushforward as pf
            >>> _ = torch.manual_seed(0)
            >>> prior = torch.distributions.Normal(torch.zeros(1), 1.0)
            >>> theta = prior.sample((500,))
            >>> posterior = pf.inference.NLE(prior).fit(theta, 100 * theta + torch.randn(500, 1), max_steps=20, progress="silent")
            >>> posterior.log_likelihood(torch.zeros(3, 1), x=[5.0]).shape
            torch.Size([3])
        """
        rows = self._parameters(theta)
        scaled = self._observation(x)
        with torch.set_grad_enabled(torch.is_grad_enabled() and isinstance(theta, Tensor) and theta.requires_grad):
            return self._log_likelihood(rows, scaled) + self._log_slope(scaled)

    def log_evidence(self, x: Any) -> float:
        """log p(x) of an observation under this simulator and prior, nats: the log of the mean likelihood over the prior.

        The difference of two simulators' values for one observation is the log of their Bayes factor. It is computed as
        :meth:`log_prob <SimulationPosterior.log_prob>` does, which states the errors; the error of the network comes on top.

        Raises:
            InputError: as for :meth:`log_likelihood`.
        """
        scaled = self._observation(x)
        with torch.no_grad():
            return self._evidence_of(scaled) + float(self._log_slope(scaled))

    def _log_slope(self, x: Tensor) -> Tensor:
        """Log of the volume of the scaled data for a unit of the data, at a scaled observation."""
        return self.scale.log_slope(self.scale.inverse(x) + 0.5 * self.counts).sum().float()

    def _log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        """Log-likelihood of a scaled observation ``(width,)``, or of one for each row, as a density of scaled data."""
        context = self.prior.inputs(theta, self.skewed)
        rows = _in_cell(x, 0.5, self.counts, self.scale).expand(len(theta), -1)
        values = [network(rows, context) for network in self.networks]
        return logmeanexp(torch.stack(values), 0) if len(values) > 1 else values[0]

    def _options(self) -> dict[str, Any]:
        return super()._options() | {"counts": self.counts.tolist()}

    @classmethod
    def _restore(
        cls,
        prior: Prior,
        networks: list[nn.Module],
        scale: DataScale,
        x_shape: tuple[int, ...],
        options: Mapping[str, Any],
    ) -> Self:
        result = super()._restore(prior, networks, scale, x_shape, options)
        # Earlier files have the half widths of the cells, 0 for columns that are no counts.
        counts = [bool(count) for count in options["counts" if "counts" in options else "half_steps"]]
        if len(counts) != math.prod(x_shape):
            raise ValueError("its counts do not fit the data")
        result.counts = torch.tensor(counts)
        return result


def _in_cell(x: Tensor, place: Tensor | float, counts: Tensor, scale: DataScale) -> Tensor:
    """Scaled data with ``place``, between 0 and 1, added to the columns of counts before the scaling."""
    if not bool(counts.any()):
        return x
    return torch.where(counts, scale(scale.inverse(x) + place), x)
