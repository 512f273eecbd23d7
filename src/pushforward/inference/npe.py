"""Neural posterior estimation: a conditional flow of the parameters given the data."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.inference.posterior import SimulationPosterior
from pushforward.inference.priors import Prior
from pushforward.inference.training_data import TrainingData, training_data
from pushforward.models import CNF, MAF, NSF, Flow, Model
from pushforward.numerics import logmeanexp
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.training.config import TrainingConfig, TrainingOptions, make_config, with_options
from pushforward.training.fit import fit
from pushforward.training.result import FitResult
from pushforward.transforms import Chain, EmbedContext, Transform

__all__ = ["NPE", "NPEPosterior", "conditional_flow"]

FlowMaker = Callable[[int, int], Model]
_FLOWS = ("nsf", "maf", "cnf")


def conditional_flow(
    name: str | FlowMaker, features: int, context: int, *, transform: Transform | None = None,
    embedding: nn.Module | None = None,
) -> Flow:  # fmt: skip
    """A conditional flow: a fixed transform of bounded coordinates, then the layers of a model, given an embedded context.

    Args:
        name: "nsf" (autoregressive spline flow), "maf", "cnf" (flow matching), or a function of (features, context).
        features: number of coordinates.
        context: width of the context.
        transform: the fixed transform; None for coordinates on all reals.
        embedding: network of the context, with attributes ``inputs`` and ``outputs``.
    """
    width = context if embedding is None else int(embedding.outputs)  # pyright: ignore[reportArgumentType]
    if not isinstance(name, str):
        inner = name(features, width)
    elif name == "nsf":
        inner = NSF(features, width, layer="autoregressive", layers=3, bins=8, hidden=(64, 64), tail_bound=5.0)
    elif name == "maf":
        inner = MAF(features, width, layers=5, hidden=(64, 64), activation="tanh")
    else:
        inner = CNF(features, width, objective="flow-matching", hidden=(128, 128, 128), activation="silu")
    chain: Transform = inner.chain
    if embedding is not None:
        chain = EmbedContext(chain, copy.deepcopy(embedding))
    return Flow(Chain(*([] if transform is None else [transform]), chain), inner.base)


class NPE:
    """Neural posterior estimation (Papamakarios and Murray 2016; Greenberg et al. 2019): fit q(theta | x) by maximum likelihood.

    The flow works on the support of the prior: bounded parameters pass through logits, half-bounded ones through logarithms.
    So no draw lies outside the prior, and sampling needs no rejection.

    Args:
        prior: a torch distribution of vectors, or a list of independent ones.
        flow: "nsf", "maf", "cnf" (flow matching), or a function of (features, context width) that returns a conditional model.
        embedding: network that summarizes the data, trained together with the flow, such as
            ``pf.networks.MLP(inputs, outputs)``; None gives the scaled data to the flow.
        members: number of flows, each trained with its own seed and held-out simulations; the posterior is their mixture.

    Raises:
        ConfigError: for a prior whose support is not a box, or an unknown flow.

    Example:
        >>> import torch, pushforward as pf
        >>> from torch.distributions import Uniform
        >>> prior = Uniform(-torch.ones(2), torch.ones(2))
        >>> theta = prior.sample((500,))
        >>> x = theta + 0.1 * torch.randn(500, 2)
        >>> post = pf.inference.NPE(prior).fit(theta, x, max_steps=30, progress="silent")
        >>> post.sample(100, x=torch.zeros(2)).shape, post.log_prob(torch.zeros(1, 2), x=torch.zeros(2)).shape
        (torch.Size([100, 2]), torch.Size([1]))
    """

    def __init__(
        self, prior: Any, *, flow: str | FlowMaker = "nsf", embedding: nn.Module | None = None, members: int = 1
    ) -> None:
        self.prior = Prior(prior)
        if isinstance(flow, str):
            check_choice("flow", flow, _FLOWS)
        elif not callable(flow):
            raise ConfigError(f"flow must be one of {_FLOWS} or a function of (features, context); got {flow!r:.80}.")
        self.flow, self.embedding = flow, embedding
        self.members = check_integer("members", members)

    @with_options
    def fit(
        self,
        theta: Any = None,
        x: Any = None,
        *,
        simulator: Callable[[Tensor], Any] | None = None,
        simulations: int = 1000,
        validation: Any = 0.1,
        config: TrainingConfig | None = None,
        **options: Unpack[TrainingOptions],
    ) -> NPEPosterior:
        """Train on simulations, or on runs of a simulator.

        Args:
            theta: parameters ``(n, D)``; or :class:`~pushforward.inference.Simulations`; or a ``DataLoader`` of pairs
                (theta, x), for data larger than memory.
            x: data ``(n, *shape)``. Rows with NaN are left out, with a warning.
            simulator: function of parameters that returns data, in place of theta and x.
            simulations: number of runs of the simulator.
            validation: fraction held out, or another ``DataLoader``.
            config: options of the run; the options below replace its values.
            options: fields of :class:`TrainingConfig`.

        Raises:
            InputError: for data that do not fit the prior.
            ConfigError: for a value that an option does not take.
        """
        config = make_config(config, options)
        data = training_data(self.prior, theta, x, simulator, simulations, config.seed, validation)
        networks, results = [], []
        for member in range(self.members):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed + 7919 * member)
                model = conditional_flow(
                    self.flow,
                    self.prior.features,
                    data.width,
                    transform=self.prior.transform(),
                    embedding=self.embedding,
                )
            seeded = dataclasses.replace(config, seed=config.seed + member)
            results.append(train_conditional(model, data, seeded, validation))
            networks.append(model)
        return NPEPosterior(self.prior, networks, data.scale, data.x_shape, results)


def train_conditional(model: Model, data: TrainingData, config: TrainingConfig, validation: Any) -> FitResult:
    """Train q(theta | x) on the simulations."""
    if data.loader is not None:
        return fit(model, data.loader, validation=data.validation, config=config)
    return fit(model, (data.theta, data.x), validation=validation, config=config)


class NPEPosterior(SimulationPosterior):
    """The posterior of :class:`NPE`: a mixture of conditional flows, amortized over observations."""

    method: ClassVar[str] = "npe"

    def _sample(self, count: int, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.draw(count, x, generator)

    def draw(self, count: int, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draws given a scaled observation ``(width,)``, ``(count, D)``."""
        chosen = torch.randint(len(self.networks), (count,), generator=generator)
        result = torch.empty(count, self.features)
        for index, network in enumerate(self.networks):
            rows = (chosen == index).nonzero()[:, 0]
            if len(rows):
                device = next(network.parameters()).device
                own = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
                result[rows] = network.sample(len(rows), x.to(device), generator=own).float().cpu()  # pyright: ignore[reportCallIssue]
        return result

    def _log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        context = x if x.dim() == 2 else x.expand(len(theta), -1)
        inside = self.prior.contains(theta)
        safe = torch.where(inside[:, None], theta, self.prior.middle().to(theta))
        values = []
        for network in self.networks:
            device = next(network.parameters()).device
            values.append(network.log_prob(safe.to(device), context.to(device)).cpu())  # pyright: ignore[reportCallIssue]
        return torch.where(inside, logmeanexp(torch.stack(values), 0), -math.inf)

    def held_out_log_prob(self) -> float:
        """Mean held-out log-density of the members, nats; NaN for a posterior from a file."""
        values = [r.best_validation for r in self.training if r.best_validation is not None]
        return sum(values) / len(values) if values else math.nan
