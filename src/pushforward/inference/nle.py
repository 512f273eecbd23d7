"""Neural likelihood estimation: a conditional flow of the data given the parameters, and posterior draws by tempering."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, InputError, warn_caller
from pushforward.inference.data_scale import DataScale
from pushforward.inference.evidence import sampled_evidence
from pushforward.inference.method import FlowMaker, SimulationMethod, check_flow, train_members
from pushforward.inference.modes import find_modes, laplace_draws, mixture_log_prob
from pushforward.inference.network_inputs import NetworkInputs, bounds_for_json
from pushforward.inference.npe import NPEPosterior, conditional_flow
from pushforward.inference.posterior import SimulationPosterior
from pushforward.inference.priors import Prior
from pushforward.inference.targets import Target
from pushforward.inference.tempering import TemperedSample, temper
from pushforward.inference.training_data import TrainingData
from pushforward.inference.weights import ImportanceWeights
from pushforward.models import Model
from pushforward.numerics import logmeanexp
from pushforward.numerics.checks import check_seed
from pushforward.training.config import TrainingConfig
from pushforward.training.result import FitResult
from pushforward.transforms import Transform

__all__ = ["NLE", "LikelihoodPosterior", "NLEPosterior"]

_PARTICLES = 1000
"""Fewest particles of a tempered sample."""
_PLACES = 16
"""Points of a cell of counts. Flows have no hard edges, so that the middle of a cell alone is too high or too low by 10 % and more."""
_ROWS_AT_ONCE = 20_000
"""Rows that a network reads at once where it reads several for each row of parameters."""
_EXAMINED = 1000
"""Draws of another prior that are compared with the bounds of the first."""
_STARTS = 6
"""Particles from which the modes of a posterior are searched that lies far from all starting points."""
_INFLATED = 1.5
"""Deviations of the normal distributions around these modes, in those of the Laplace approximations."""
_HOPELESS = 0.02
"""Temperature at which all particles are away from where they began, below which further ones do not come to 1."""
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
        self.inputs = NetworkInputs(prior.low, prior.high, prior.skewed)
        """Parameters as the networks read them, which depends on the prior of the training and on no other."""

    def _stored_networks(self) -> list[nn.Module]:
        return [*self.networks, *(self.proposal.networks if self.proposal is not None else [])]

    def _options(self) -> dict[str, Any]:
        return {"networks": len(self.networks), **self.inputs.options()}

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
        bounds = bounds_for_json(
            prior.low, prior.high
        )  # for earlier files without a prior: that of the training is given
        result.inputs = NetworkInputs.restored({**bounds, **options}, prior.features)
        if others:
            with suppress(InputError):  # another prior than that of the training: draws start from the prior itself
                result.proposal = NPEPosterior._restore(prior, others, scale, x_shape, {})
        return result

    def _adapted(self, another: bool) -> Self:
        same_bounds = torch.equal(self.inputs.low, self.prior.low) and torch.equal(self.inputs.high, self.prior.high)
        if same_bounds and not another:
            return self
        self.proposal = None  # it has no draws where only the other prior has some
        beyond = float(self.inputs.outside(self.prior.sample(_EXAMINED, seed=0)).float().mean())
        if beyond:
            warn_caller(
                f"{100 * beyond:.2g} % of the draws of this prior lie outside the bounds of the prior of the training, where the networks "
                "saw no simulations, so that the likelihood means nothing: train with the wider prior."
            )
        return self

    @abstractmethod
    def _log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        """Log-likelihood of scaled data, or log-ratio, of a scaled observation, nats, ``(n, D)`` to ``(n,)``, with gradients."""

    def temper(self, count: int, x: Tensor, generator: torch.Generator) -> TemperedSample:
        """Draws on the unconstrained reals, with the evidence."""
        particles, rough = max(count, _PARTICLES), self._log_posterior(x, rough=True)

        def log_prior(u: Tensor) -> Tensor:
            theta, contribution = self._transform.decode_with_contribution(u)
            return self.prior.log_prob(self.prior.clamp(theta)) - contribution

        proposal, start = self.proposal, None
        if proposal is not None:
            with suppress(InputError):  # its draws may all lie in gaps of the prior
                start = self.prior.clamp(proposal._sample(particles, x, generator))
        if proposal is None or start is None:
            seed = int(torch.randint(2**62, (), generator=generator))
            start = self.prior.sample(particles, seed=seed)
            found = self._temper(log_prior, rough, self._transform.encode(start).z, generator)
        else:

            def log_proposal(u: Tensor) -> Tensor:
                theta, contribution = self._transform.decode_with_contribution(u)
                return proposal._log_prob(self.prior.clamp(theta), x) - contribution

            found = self._temper(log_proposal, rough, self._transform.encode(start).z, generator)
        if self._is_rough:
            last = temper(rough, self._log_posterior(x), found.points, generator, transitions=1, final_transitions=1)
            evidence, complete = found.log_evidence + last.log_evidence, found.complete and last.complete
            found = dataclasses.replace(last, log_evidence=evidence, complete=complete)
        if not found.complete:
            warn_caller(
                "the sampler did not come to the posterior of this observation with certainty, so do not trust its draws and its density: "
                "the observation lies far from everything that was simulated, so check its units, or simulate with a wider prior."
            )
        return found

    def _temper(
        self,
        log_start: Callable[[Tensor], Tensor],
        log_target: Callable[[Tensor], Tensor],
        points: Tensor,
        generator: torch.Generator,
    ) -> TemperedSample:
        """Tempering from ``points``; where the target is far from them all, from normal distributions around its modes.

        Where these are not like the target, both are tried.
        """
        found = temper(log_start, log_target, points, generator, stop_outside=True)
        if found.complete:
            return found
        target = Target(lambda u: log_target(u.to(points.dtype)), self.features)
        try:
            modes = find_modes(target, _apart(found.points, _STARTS))
        except InputError:  # the target rises without end
            return temper(log_start, log_target, points, generator)

        def log_normal(u: Tensor) -> Tensor:
            return mixture_log_prob(modes, u.double(), inflate=_INFLATED).to(u.dtype)

        near = laplace_draws(modes, len(points), generator, inflate=_INFLATED).to(points.dtype)
        with torch.no_grad():
            ratios = (log_target(near) - log_normal(near)).double().nan_to_num(nan=-math.inf)
        again = temper(log_normal, log_target, near, generator)
        # as many modes as starts mean that there are more, as on a ridge
        if len(modes) < _STARTS and ImportanceWeights.of(ratios).reliable:
            return again
        if found.temperatures[-1] > _HOPELESS:
            if found.temperatures[-1] < 1.0:
                found = temper(log_start, log_target, points, generator)
            else:
                found = dataclasses.replace(found, complete=True)
            if found.log_evidence > again.log_evidence:  # estimates that are much too large are rare, others are not
                return found
        return dataclasses.replace(again, complete=False)

    @property
    def _is_rough(self) -> bool:
        """Whether there is a faster likelihood, which differs a little, for all temperatures but the last."""
        return False

    def _rough_log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        """The faster likelihood."""
        return self._log_likelihood(theta, x)

    def _log_posterior(self, x: Tensor, rough: bool = False) -> Callable[[Tensor], Tensor]:
        """log prior + log likelihood on the unconstrained reals."""
        log_likelihood = self._rough_log_likelihood if rough else self._log_likelihood

        def log_posterior(u: Tensor) -> Tensor:
            theta, contribution = self._transform.decode_with_contribution(u)
            theta = self.prior.clamp(theta)
            return self.prior.log_prob(theta) - contribution + log_likelihood(theta, x)

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
    scaled, and the likelihood is the mean density at 16 points of the cell, which is nearly its probability.

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
        >>> theta = prior.sample((200,))
        >>> x = theta + 0.5 * torch.randn(200, 2)
        >>> post = pf.inference.NLE(prior).fit(theta, x, max_steps=10, progress="silent")
        >>> post.sample(10, x=torch.zeros(2), seed=0).shape
        torch.Size([10, 2])
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
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(check_seed(config.seed + 1)))
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

        A density in the units of x. For columns of counts it is the mean density at 16 points of a cell of width 1, which is nearly
        their probability.

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

    def _log_slope(self, x: Tensor, place: Tensor | float = 0.5) -> Tensor:
        """Log of the volume of the scaled data for a unit of the data, at a scaled observation, or at a place in its cell."""
        return self.scale.log_slope(self.scale.inverse(x) + place * self.counts).sum(-1).float()

    def _log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        """Log-likelihood of a scaled observation ``(width,)``, or of one for each row, as a density of scaled data."""
        return self._mean_density(theta, x, self._places())

    @property
    def _is_rough(self) -> bool:
        return bool(self.counts.any())

    def _rough_log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        return self._mean_density(theta, x, torch.where(self.counts, 0.5, 0.0)[None])

    def _mean_density(self, theta: Tensor, x: Tensor, places: Tensor) -> Tensor:
        """Log of the mean density over networks and places in the cell ``(k, width)``, as a density at the scaled middle."""
        size = max(1, _ROWS_AT_ONCE // len(places))
        if len(places) > 1 and len(theta) > size:  # so that memory does not grow with the places
            observed = x.split(size) if x.dim() == 2 else [x] * math.ceil(len(theta) / size)
            parts = zip(theta.split(size), observed, strict=True)
            return torch.cat([self._mean_density(part, one, places) for part, one in parts])
        context = self.inputs(theta)
        cells = torch.stack([_in_cell(x, place, self.counts, self.scale) for place in places])
        rows = cells[:, None].expand(-1, len(theta), -1) if x.dim() == 1 else cells
        slopes = torch.stack([self._log_slope(x, place) for place in places]) - self._log_slope(x)
        values = [
            network(rows.flatten(0, 1).to(device), context.repeat(len(places), 1).to(device))
            .cpu()
            .view(len(places), -1)
            + slopes.view(len(places), -1)
            for network, device in ((each, next(each.parameters()).device) for each in self.networks)
        ]
        return logmeanexp(torch.cat(values), 0) if len(values) * len(places) > 1 else values[0][0]

    def _places(self) -> Tensor:
        """Points of a cell of width 1 at which the density is averaged, ``(k, width)``; 0 for columns that are no counts."""
        number = int(self.counts.sum())
        if not number:
            return torch.zeros(1, len(self.counts))
        places = torch.zeros(_PLACES, len(self.counts))
        if number == 1:
            places[:, self.counts] = (torch.arange(_PLACES)[:, None] + 0.5) / _PLACES
        else:
            places[:, self.counts] = torch.quasirandom.SobolEngine(number, scramble=True, seed=0).draw(_PLACES)
        return places

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


def _apart(points: Tensor, count: int) -> Tensor:
    """Some of the points ``(n, D)`` that are far from each other, so that each group of them has one."""
    scaled = points / points.std(0).clamp(min=1e-30)
    chosen, distances = [0], torch.full((len(points),), math.inf, dtype=points.dtype)
    while len(chosen) < count:
        distances = torch.minimum(distances, (scaled - scaled[chosen[-1]]).norm(dim=1))
        chosen.append(int(distances.argmax()))
    return points[chosen]


def _in_cell(x: Tensor, place: Tensor | float, counts: Tensor, scale: DataScale) -> Tensor:
    """Scaled data with ``place``, between 0 and 1, added to the columns of counts before the scaling."""
    if not bool(counts.any()):
        return x
    return torch.where(counts, scale(scale.inverse(x) + place), x)
