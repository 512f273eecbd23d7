"""`SimulationMethod`: what NPE, NLE and NRE share: the prior, the data, and the training of several networks."""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, Unpack

import torch
from torch import Tensor

from pushforward.errors import ConfigError, warn_caller
from pushforward.inference.posterior import SimulationPosterior
from pushforward.inference.priors import Prior
from pushforward.inference.training_data import TrainingData, training_data
from pushforward.models import Model
from pushforward.numerics import seeded
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.training.budget import seconds
from pushforward.training.config import TrainingConfig, TrainingOptions, make_config, with_options
from pushforward.training.fit import fit
from pushforward.training.lattice_warning import lattice_columns, repeated_value
from pushforward.training.result import FitResult
from pushforward.training.seeds import mix

__all__ = ["FlowMaker", "SimulationMethod", "check_flow", "share", "split_rows", "train_members"]

P = TypeVar("P", bound=SimulationPosterior)
_EXAMINED_ROWS = 10_000
"""Simulations in which a lattice is looked for."""
FlowMaker = Callable[[int, int], Model]
"""A function of (features, context width) that returns a conditional model."""


class SimulationMethod(ABC, Generic[P]):
    """A way to learn a posterior from simulations. A subclass says what its networks learn.

    Args:
        prior: a torch distribution of vectors, or a list of independent ones.
        members: number of networks, each trained with its own seed and held-out simulations.

    Raises:
        ConfigError: for a prior whose support is not a box, or whose density is not finite at its own draws.
    """

    def __init__(self, prior: Any, *, members: int = 1) -> None:
        self.prior = Prior(prior)
        if not bool(self.prior.contains(self.prior.sample(64, seed=0)).any()):
            raise ConfigError(
                "the density of the prior is 0, infinite or NaN at each of its own draws, because float32 cannot hold the square of a "
                "very small or very large scale: choose another unit for such parameters."
            )
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
    ) -> P:
        """Train on simulations, or on runs of a simulator.

        Args:
            theta: parameters ``(n, D)``; or :class:`~pushforward.inference.Simulations`; or, for NPE, a ``DataLoader`` of
                pairs (theta, x), for data larger than memory.
            x: data ``(n, *shape)``; None with a ``DataLoader`` or ``Simulations``. Rows with NaN are left out, with a warning.
            simulator: function of parameters that returns data, in place of theta and x.
            simulations: number of runs of the simulator.
            validation: fraction held out, and for NPE and NLE 0 for none; or, for NPE, held-out simulations as a pair (theta, x), or
                another ``DataLoader``, which a ``DataLoader`` needs.
            config: options of the run; the options below replace its values.
            options: fields of :class:`TrainingConfig`. NPE and NLE train several networks: two with different architectures, of which
                held-out rows choose one, unless ``flow`` is a function, and ``members``. Then ``max_time`` is the time of all in equal
                parts, each writes a log of its own, "LOG.0", "LOG.1" and so on, and each calls ``callback``.

        Raises:
            InputError: for data that do not fit the prior.
            ConfigError: for a value that an option does not take.
        """
        config = make_config(config, options)
        data = training_data(self.prior, theta, x, simulator, simulations, config.seed, validation, self.set_width)
        return self._fit(data, validation, config)

    @property
    def set_width(self) -> int | None:
        """Numbers in a row, if a datum is a set of rows whose order is free; else None."""
        return None

    @abstractmethod
    def _fit(self, data: TrainingData, validation: Any, config: TrainingConfig) -> P:
        """Train on checked and scaled simulations."""

    def _arrays(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Parameters as networks read them ``(n, D)``, and scaled data ``(n, width)``.

        Raises:
            ConfigError: for a ``DataLoader``.
        """
        if data.theta is None or data.x is None:
            raise ConfigError(f"{type(self).__name__} trains on arrays; NPE reads a DataLoader.")
        return self.prior.inputs(data.theta), data.x


def check_flow(flow: str | FlowMaker, names: tuple[str, ...]) -> str | FlowMaker:
    """The name of a flow, or a function that builds one.

    Raises:
        ConfigError: for anything else.
    """
    if isinstance(flow, str):
        check_choice("flow", flow, names)
    elif not callable(flow):
        raise ConfigError(f"flow must be one of {names} or a function of (features, context); got {flow!r:.80}.")
    return flow


def train_members(
    builds: Sequence[Callable[[], Model]], rows: Any, validation: Any, members: int, config: TrainingConfig, kind: str
) -> tuple[list[Model], list[FitResult]]:
    """Models that differ in their initial weights, the order of the rows, and the rows held out.

    The first member is trained with each of several architectures; the one with the best held-out value is that of all
    members. With a checkpoint, or without held-out rows, it is the first.

    Args:
        builds: functions that build an untrained model.
        rows: (x, context), or a ``DataLoader`` of such pairs.
        validation: fraction held out, or another ``DataLoader``.
        members: number of models.
        config: options of the runs; the seed of member k is larger by k.
        kind: what the columns of x are, "parameters" or "data".

    Warns:
        PushforwardWarning: once, for columns of x that lie on a lattice.

    Returns:
        The trained models, and the results of their runs.
    """
    if config.checkpoint is not None and members > 1:
        raise ConfigError(
            f"{members} members train one after the other, and a checkpoint stores one run: use members=1."
        )
    if config.checkpoint is not None or validation is None:
        builds = builds[:1]
    if isinstance(rows, tuple):
        _warn_of_lattice(builds[0], rows[0], kind)
    several = len(builds) + members - 1
    if several > 1:
        configs = [share(config, several, str(k)) for k in range(several)]
    else:
        configs = [config]
    tried = [
        _train_member(build, rows, validation, 0, own)
        for build, own in zip(builds, configs[: len(builds)], strict=True)
    ]
    values = [-math.inf if result.best_validation is None else result.best_validation for _, result in tried]
    best = max(range(len(tried)), key=values.__getitem__)
    trained = [
        tried[best],
        *(
            _train_member(builds[best], rows, validation, k, own)
            for k, own in enumerate(configs[len(builds) :], start=1)
        ),
    ]
    return [model for model, _ in trained], [result for _, result in trained]


def share(config: TrainingConfig, runs: int, name: str) -> TrainingConfig:
    """The options of one of several runs: an equal part of the time of all, and a log of its own."""
    time = None if config.max_time is None else seconds(config.max_time) / runs
    log = None if config.log is None else f"{os.fspath(config.log)}.{name}"
    return dataclasses.replace(config, max_time=time, log=log)


def _train_member(
    build: Callable[[], Model], rows: Any, validation: Any, member: int, config: TrainingConfig
) -> tuple[Model, FitResult]:
    with seeded(config.seed + 7919 * member):
        model = build()
    data, held_out = rows, validation
    if isinstance(rows, tuple) and is_fraction(validation):
        training, test = split_rows(len(rows[0]), validation, config.seed, member)
        data = tuple(part[training] for part in rows)
        held_out = tuple(part[test] for part in rows)
    own = dataclasses.replace(config, seed=config.seed + member)
    with warnings.catch_warnings():
        for said in ("lies on a lattice", "is .* in .* of .* rows"):  # said before, for posteriors
            warnings.filterwarnings("ignore", message=f"column .* {said}")
        return model, fit(model, data, validation=held_out, config=own)


def _warn_of_lattice(build: Callable[[], Model], x: Tensor, kind: str) -> None:
    with torch.random.fork_rng(devices=[]):
        model = build()
    found = list(lattice_columns(model, x[:_EXAMINED_ROWS]))
    if not found:
        _warn_of_one_value(model, x[:_EXAMINED_ROWS], kind)
        return
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    name, advice = f"parameter {found[0]}", "draw the parameters from the prior instead of from a grid"
    if kind == "data":
        name = f"column {found[0]} of the data"
        advice = "let the simulator return numbers that are not rounded, or add noise as wide as the rounding to them"
    warn_caller(
        f"{name}{more} has only {len(x[:, found[0]].unique())} distinct values in {len(x)} simulations, on a "
        f"lattice, and a density there is a spike at each value: {advice}."
    )


def _warn_of_one_value(model: Model, x: Tensor, kind: str) -> None:
    repeated = repeated_value(model, x)
    if repeated is None:
        return
    index, _, most, constant = repeated  # the value is a scaled one
    name = f"column {index} of the data" if kind == "data" else f"parameter {index}"
    advice = "leave it out"
    if not constant:
        advice = "use NPE, whose density is that of the parameters" if kind == "data" else "give it a continuous prior"
    warn_caller(
        f"{name} has one value in {most} of {len(x)} simulations, and a density there is a spike, whose height means nothing: {advice}."
    )


def is_fraction(validation: Any) -> bool:
    """Whether this is a fraction that holds out rows; ``fit`` checks everything else."""
    return isinstance(validation, float) and 0 < validation < 1


def split_rows(count: int, fraction: float, seed: int, member: int) -> tuple[Tensor, Tensor]:
    """Indices of the rows on which a member trains, and of those held out; at least one of each."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(mix(seed, 501, member)))
    held = min(max(1, int(fraction * count + 0.5)), count - 1)
    return order[held:], order[:held]
