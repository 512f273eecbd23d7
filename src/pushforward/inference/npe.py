"""Neural posterior estimation: a conditional flow of the parameters given the data."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, InputError
from pushforward.inference.data_scale import DataScale
from pushforward.inference.identity import start_at_identity
from pushforward.inference.method import FlowMaker, SimulationMethod, check_flow, train_members
from pushforward.inference.posterior import SimulationPosterior
from pushforward.inference.priors import Prior
from pushforward.inference.training_data import TrainingData
from pushforward.models import CNF, MAF, NSF, Flow, Model
from pushforward.numerics import logmeanexp
from pushforward.numerics.checks import is_integer
from pushforward.training.config import TrainingConfig
from pushforward.transforms import Chain, EmbedContext, MaskedAutoregressive, Regression, Standardize, Transform

__all__ = ["NPE", "NPEPosterior", "conditional_flow"]


def conditional_flow(
    name: str | FlowMaker, features: int, context: int, *, transform: Transform | None = None,
    embedding: nn.Module | None = None, regression: bool = True,
) -> Flow:  # fmt: skip
    """A conditional flow: a fixed transform of bounded coordinates, then the layers of a model, given an embedded context.

    The flows with a name start with the linear regression of the coordinates on the context
    (:class:`~pushforward.transforms.Regression`), unless there is an embedding, and their layers start as the identity. So
    training starts at the linear-Gaussian posterior, and with few simulations of an almost linear problem it stops there. In
    "nsf" an affine autoregressive layer comes before the splines, so that location and width can depend on the context without
    limits.

    Args:
        name: "nsf" (autoregressive spline flow), "maf", "cnf" (flow matching), or a function of (features, context).
        features: number of coordinates.
        context: width of the context.
        transform: the fixed transform; None for coordinates on all reals.
        embedding: network of the context, with attributes ``inputs`` and ``outputs``.
        regression: whether a flow with a name starts with the regression. It helps where the problem is almost linear, and
            makes others harder, so NPE and NLE try both and let the held-out simulations choose.

    Raises:
        ConfigError: for an unknown flow, a function that returns no model of these widths, or an embedding without widths.

    Example:
        >>> import torch
        >>> from pushforward.inference import conditional_flow
        >>> flow = conditional_flow("maf", 2, 3)
        >>> flow.log_prob(torch.zeros(4, 2), torch.zeros(4, 3)).shape
        torch.Size([4])
    """
    check_flow(name, tuple(_FLOWS))
    _check_embedding(embedding)
    width = context if embedding is None else int(embedding.outputs)  # pyright: ignore[reportArgumentType]
    first: list[Transform] = [] if transform is None else [transform]
    if not isinstance(name, str):
        inner = name(features, width)
        if not isinstance(inner, Model):
            raise ConfigError(
                f"flow must return a model of {features} coordinates with a context of width {width}; it returned {inner!r:.80}."
            )
        if inner.shape != (features,) or inner.context_features != width:
            raise ConfigError(
                f"flow must return a model of {features} coordinates with a context of width {width}; it returned a "
                f"{type(inner).__name__} of the shape {tuple(inner.shape)} with a context of width {inner.context_features}."
            )
    else:
        inner = _FLOWS[name](features, width)
        linear = regression and embedding is None and context <= _WIDEST_REGRESSION
        first.append(Regression(features, context=context) if linear else Standardize(features))
    chain: Transform = inner.chain
    if name == "nsf":
        chain = Chain(MaskedAutoregressive(features, context=width, hidden=(64, 64), activation="tanh"), *chain)
    if name in ("nsf", "maf"):
        start_at_identity(chain)
    if embedding is not None:
        chain = EmbedContext(chain, copy.deepcopy(embedding))
    return Flow(Chain(*first, chain), inner.base)


def _check_embedding(embedding: Any) -> None:
    """A network that says its widths, or None.

    Raises:
        ConfigError: for anything else.
    """
    if embedding is not None and not (
        isinstance(embedding, nn.Module)
        and all(is_integer(getattr(embedding, name, None)) for name in ("inputs", "outputs"))
    ):
        raise ConfigError(
            "embedding must be a network with the attributes inputs and outputs, its widths, such as pf.networks.MLP(20, 4); "
            f"got {embedding!r:.80}."
        )


def _spline_flow(features: int, width: int) -> Model:
    return NSF(
        features, width, layer="autoregressive", layers=3, bins=8, hidden=(64, 64), tail_bound=5.0, standardize=False
    )


def _affine_flow(features: int, width: int) -> Model:
    return MAF(features, width, layers=5, hidden=(64, 64), activation="tanh")


def _continuous_flow(features: int, width: int) -> Model:
    return CNF(features, width, objective="flow-matching", hidden=(128, 128, 128), activation="silu")


_FLOWS: dict[str, FlowMaker] = {"nsf": _spline_flow, "maf": _affine_flow, "cnf": _continuous_flow}
_ROUNDS, _FEWEST, _ESTIMATE = 100, 1000, 10_000
"""Of the rejection of draws where a prior has gaps: rounds, draws of a round at least, and those that estimate the accepted fraction."""
_WIDEST_REGRESSION = 1000
"""Contexts that are wider have no linear regression first."""


class NPE(SimulationMethod["NPEPosterior"]):
    """Neural posterior estimation (Papamakarios and Murray 2016; Greenberg et al. 2019): fit q(theta | x) by maximum likelihood.

    The flow works on the support of the prior: bounded parameters pass through normal quantiles (through logits where the prior crowds
    at a bound), half-bounded ones through logarithms. So no draw lies outside the prior, and sampling needs no rejection. Where the density of the prior has gaps between the bounds, as
    under a constraint on several parameters, draws in them are rejected, and the density is divided by the fraction of the others.

    Args:
        prior: a torch distribution of vectors, or a list of independent ones.
        flow: "nsf", "maf", "cnf" (flow matching), or a function of (features, context width) that returns a conditional model.
        embedding: network that summarizes the data, trained together with the flow, such as
            ``pf.networks.MLP(inputs, outputs)``. It reads scaled and flattened data ``(n, inputs)``, and has its widths as
            attributes ``inputs`` and ``outputs``. For a posterior that is saved, the class of a network of your own needs
            ``@pushforward.registry.register("networks")``. None gives the scaled data to the flow.
        members: number of flows, each trained with its own seed and held-out simulations; the posterior is their mixture.

    Raises:
        ConfigError: for a prior whose support is not a box, an unknown flow, or an embedding without widths.

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
        super().__init__(prior, members=members)
        self.flow, self.embedding = check_flow(flow, tuple(_FLOWS)), embedding
        _check_embedding(embedding)

    @property
    def set_width(self) -> int | None:
        """That of the embedding, such as :class:`~pushforward.networks.SetSummary`; None for networks without it."""
        return getattr(self.embedding, "set_width", None)

    def _fit(self, data: TrainingData, validation: Any, config: TrainingConfig) -> NPEPosterior:
        if self.embedding is not None and int(self.embedding.inputs) != data.width:  # pyright: ignore[reportArgumentType]
            raise ConfigError(
                f"the embedding reads {self.embedding.inputs} numbers, and one simulation, flattened, has {data.width}: build it "
                f"with inputs={data.width}."
            )

        def build(regression: bool) -> Model:
            flow = conditional_flow(
                self.flow, self.prior.features, data.width, transform=self.prior.transform(), embedding=self.embedding,
                regression=regression,
            )  # fmt: skip
            if (
                self.set_width is not None
            ):  # the flow would standardize each number by itself, and the order would matter
                flow.context_initialized.fill_(True)
            return flow

        choices = (True, False) if isinstance(self.flow, str) and self.embedding is None else (True,)
        builds = [functools.partial(build, choice) for choice in choices]
        rows = (data.theta, data.x) if data.loader is None else data.loader
        held_out = validation if data.validation is None else data.validation
        models, results = train_members(builds, rows, held_out, self.members, config, "parameters")
        return NPEPosterior(self.prior, models, data.scale, data.x_shape, results)


def _no_draws(found: int, wanted: int) -> InputError:
    return InputError(
        f"only {found} of {wanted} draws were found where the prior has a density; nearly all draws of the flow are rejected: train "
        "on more simulations, or for more steps, or use NLE."
    )


class NPEPosterior(SimulationPosterior):
    """The posterior of :class:`NPE`: a mixture of conditional flows, amortized over observations.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> prior = torch.distributions.Uniform(-torch.ones(1), torch.ones(1))
        >>> theta = prior.sample((200,))
        >>> x = theta + 0.1 * torch.randn(200, 1)
        >>> posterior = pf.inference.NPE(prior).fit(theta, x, max_steps=20, progress="silent")
        >>> posterior.sample(10, x=torch.zeros(1)).shape
        torch.Size([10, 1])
    """

    method: ClassVar[str] = "npe"
    _has_bumps: ClassVar[bool] = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._accepted: dict[bytes, float] = {}

    @classmethod
    def _width_of(cls, network: nn.Module) -> int | None:
        return network.shape[0] if isinstance(network, Model) else None

    def _sample(self, count: int, x: Tensor, generator: torch.Generator) -> Tensor:
        if not self.prior.has_gaps:
            return self.draw(count, x, generator)
        found, missing = [torch.empty(0, self.features)], count
        for _ in range(_ROUNDS):
            draws = self.prior.clamp(self.draw(max(2 * missing, _FEWEST), x, generator))
            found.append(draws[self.prior.contains(draws)][:missing])
            missing -= len(found[-1])
            if not missing:
                return torch.cat(found)
        raise _no_draws(count - missing, count)

    def _accepted_fraction(self, x: Tensor) -> float:
        """The fraction of the flow's draws that lie within the prior, given a scaled observation ``(width,)``; computed once."""
        key = x.numpy().tobytes()
        if key not in self._accepted:
            with torch.no_grad():
                draws = self.prior.clamp(self.draw(_ESTIMATE, x, torch.Generator().manual_seed(0)))
                self._accepted[key] = float(self.prior.contains(draws).double().mean())
        return self._accepted[key]

    def draw(self, count: int, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draws given a scaled observation ``(width,)``, ``(count, D)``."""
        chosen = torch.randint(len(self.networks), (count,), generator=generator)
        result = torch.empty(count, self.features, dtype=torch.float32)
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
        found = logmeanexp(torch.stack(values), 0)
        if self.prior.has_gaps:
            fractions = torch.tensor([self._accepted_fraction(one) for one in ([x] if x.dim() == 1 else x.unbind())])
            if x.dim() == 1 and not bool(fractions):
                raise _no_draws(0, _ESTIMATE)
            found = found - fractions.clamp(min=1 / _ESTIMATE).log()  # of many observations one may have no such draw
        return torch.where(inside, found, -math.inf)

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
        with torch.no_grad():
            draws = result.draw(200, torch.zeros(len(scale.mean)), torch.Generator().manual_seed(0))
        inside = prior.contains(prior.settle(draws))
        if not bool(inside.any() if prior.has_gaps else inside.all()):
            raise InputError(
                "the posterior has draws outside this prior, so it was not trained with it: give the prior of the training."
            )
        return result

    def held_out_log_prob(self) -> float:
        """Mean held-out log-density of the members, nats; NaN for a posterior from a file."""
        values = [r.best_validation for r in self.training if r.best_validation is not None]
        return sum(values) / len(values) if values else math.nan
