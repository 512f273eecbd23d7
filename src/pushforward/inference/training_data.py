"""`training_data`: simulations as networks read them, from arrays, simulators and loaders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from pushforward.errors import ConfigError, InputError, warn_caller
from pushforward.inference.data_scale import DataScale
from pushforward.inference.priors import Prior
from pushforward.inference.real_numbers import as_numbers
from pushforward.inference.simulate import Simulations, failed_runs, run_simulator
from pushforward.training.seeds import Purpose, mix, preserved, seed_loading
from pushforward.training.sources import reseed

__all__ = ["TrainingData", "finite_simulations", "training_data"]

_ROWS_FOR_SCALE = 20_000


@dataclass(frozen=True)
class TrainingData:
    """Parameters, flat scaled data, and how the data are scaled; or loaders of them.

    Attributes:
        theta: ``(n, D)``; None with a loader.
        x: ``(n, width)``; None with a loader.
        scale: the scaling.
        counts: which columns hold only integers, and more than one, ``(width,)``; of a loader, in the rows that were read.
        x_shape: shape of one simulation.
        loader: of training pairs.
        validation: held-out rows, as networks read them: a loader of pairs, or a pair (theta, x); None for a fraction.
    """

    theta: Tensor | None
    x: Tensor | None
    scale: DataScale
    counts: Tensor
    x_shape: tuple[int, ...]
    loader: DataLoader | None = None
    validation: Any = None

    @property
    def width(self) -> int:
        """Number of numbers in one simulation."""
        return math.prod(self.x_shape)


def training_data(
    prior: Prior, theta: Any, x: Any, simulator: Callable[[Tensor], Any] | None, simulations: int, seed: int,
    validation: Any, set_width: int | None = None,
) -> TrainingData:  # fmt: skip
    """Check simulations and scale their data; ``set_width`` as for :meth:`DataScale.of`.

    Raises:
        ConfigError: unless there are either simulations or a simulator, or for data beside what has its own.
        InputError: for shapes that do not fit, parameters outside the prior, or too few finite rows.
    """
    if isinstance(theta, DataLoader):
        if x is not None or simulator is not None:
            raise ConfigError("a DataLoader gives pairs (theta, x): leave x and simulator out.")
        with preserved(torch.device("cpu")):
            return _from_loader(prior, theta, seed, validation, set_width)
    theta, x = finite_simulations(prior, theta, x, simulator, simulations, seed)
    flat = x.flatten(1)
    scale = DataScale.of(flat, set_width)
    shape = tuple(x.shape[1:])
    held_out = None
    if isinstance(validation, DataLoader):
        held_out = DataLoader(_Mapped(prior, validation, scale), batch_size=None)
    elif isinstance(validation, tuple):
        if len(validation) != 2:
            raise ConfigError(
                f"validation must be a fraction, a pair (theta, x) or a DataLoader; got {len(validation)} parts."
            )
        theta_out, x_out = finite_simulations(prior, *validation, None, 0, seed, least=1)
        if tuple(x_out.shape[1:]) != shape:
            raise InputError(
                f"the held-out simulations have the shape {tuple(x_out.shape[1:])}, and the others {shape}: give the same data."
            )
        held_out = theta_out, scale(x_out.flatten(1))
    return TrainingData(theta, scale(flat), scale, _counts(flat), shape, None, held_out)


def _counts(x: Tensor) -> Tensor:
    """Which columns hold only integers, and more than one."""
    return (x == x.round()).all(0) & (x.amax(0) > x.amin(0))


def finite_simulations(
    prior: Prior,
    theta: Any,
    x: Any,
    simulator: Callable[[Tensor], Any] | None,
    simulations: int,
    seed: int,
    least: int = 20,
) -> tuple[Tensor, Tensor]:
    """Parameters, float32, and data of the simulations that are finite.

    Raises:
        ConfigError: unless there are either simulations or a simulator, or for data beside a simulator or ``Simulations``.
        InputError: for shapes that do not fit, parameters outside the prior, or too few finite rows.
    """
    if (theta is None) == (simulator is None):
        raise ConfigError("fit needs either simulations, fit(theta, x), or a simulator, fit(simulator=...).")
    if x is not None and (simulator is not None or isinstance(theta, Simulations)):
        source = "the simulator makes its own data" if simulator is not None else "Simulations have their own data"
        raise ConfigError(f"{source}: leave x out.")
    failed = ""
    if simulator is not None:
        theta = run_simulator(simulator, prior, simulations, seed=seed)
        failed = failed_runs(theta)
    if isinstance(theta, Simulations):
        theta, x = theta.theta, theta.x
    if x is None:
        hint = ": pass a simulator as simulator=" if callable(theta) else ""
        raise ConfigError(f"fit(theta, x) needs the data x of the parameters theta{hint}.")
    theta, x = as_numbers(theta, "theta").float(), as_numbers(x, "x")
    if theta.dim() == 1 and prior.features == 1:
        theta = theta[:, None]
    if x.dim() == 1:
        x = x[:, None]
    if theta.dim() != 2 or theta.shape[1] != prior.features:
        proportions = theta.dim() == 2 and theta.shape[1] > prior.features and prior.has_proportions
        hint = ": leave out the last of the proportions, which is 1 minus the sum of the others" if proportions else ""
        raise InputError(
            f"theta must have the shape (n, {prior.features}), one row for each simulation; got {tuple(theta.shape)}{hint}."
        )
    if not x.flatten(1).shape[1]:
        raise InputError(f"x must have at least one number for each simulation; got the shape {tuple(x.shape)}.")
    if len(theta) != len(x):
        raise InputError(
            f"there are {len(theta)} parameters and {len(x)} data: give one row of x for each row of theta."
        )
    finite = torch.isfinite(x.flatten(1)).all(1) & torch.isfinite(theta).all(1)
    if int(finite.sum()) < least:
        found = f"there are {len(x)} simulations"
        if not bool(finite.all()):
            found = f"only {int(finite.sum())} of {len(x)} simulations are finite"
        raise InputError(f"{found}; at least {least} are needed.")
    if not bool(finite.all()):
        what = failed or f"{int((~finite).sum())} of {len(x)} simulations contain NaN or infinity"
        warn_caller(
            f"{what}; training leaves them out. If their parameters differ from the others, the posterior is that given a finite "
            "simulation."
        )
    theta, x = prior.settle(theta[finite]), x[finite]
    outside = ~prior.contains(theta)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise InputError(
            f"{int(outside.sum())} rows of theta lie outside the prior; the first is row {row}, {theta[row].tolist()}. Use "
            "the prior from which they were drawn."
        )
    return theta, x


def _from_loader(prior: Prior, loader: DataLoader, seed: int, validation: Any, set_width: int | None) -> TrainingData:
    """Loaders of scaled rows; the scales are those of the first rows, which follow from the seed, so that a resumed run has them too."""
    if not isinstance(validation, DataLoader):
        raise ConfigError("a DataLoader cannot be split: pass another one as validation=.")
    rows: list[Tensor] = []
    x_shape: tuple[int, ...] = ()
    seed = mix(seed, Purpose.INITIALIZE)
    reseed(loader, seed, 0)
    seed_loading(seed)
    for theta, x in loader:
        if theta.shape[1:] != (prior.features,):
            raise InputError(f"the loader's theta must have the shape (n, {prior.features}); got {tuple(theta.shape)}.")
        x_shape = tuple(x.shape[1:]) or (1,)
        rows.append(x.reshape(len(x), -1).double())
        if sum(map(len, rows)) >= _ROWS_FOR_SCALE:
            break
    if not rows:
        raise InputError("the DataLoader yields no batch: give one with at least one row.")
    some = torch.cat(rows)
    some = some[torch.isfinite(some).all(1)]
    if len(some) < 20:
        raise InputError(f"only {len(some)} simulations of the DataLoader are finite; at least 20 are needed.")
    scale = DataScale.of(some, set_width)
    own, held_out = (DataLoader(_Mapped(prior, each, scale), batch_size=None) for each in (loader, validation))
    return TrainingData(None, None, scale, _counts(some), x_shape, own, held_out)


class _Mapped(IterableDataset):
    """The batches of a loader of (theta, x), finite rows only, with flat scaled x."""

    def __init__(self, prior: Prior, loader: DataLoader, scale: DataScale) -> None:
        self.prior, self.loader, self.scale = prior, loader, scale

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for theta, x in self.loader:
            flat = x.reshape(len(x), -1)
            finite = torch.isfinite(flat).all(1) & torch.isfinite(theta).all(1)
            if not bool(finite.any()):
                continue
            inside = self.prior.settle(theta[finite].float())
            if not bool((within := self.prior.contains(inside)).all()):
                first = inside[int((~within).nonzero()[0])].tolist()
                raise InputError(
                    f"{int((~within).sum())} of {len(inside)} parameters in a batch of the DataLoader lie outside the prior; the first "
                    f"is {first}. Use the prior from which they were drawn."
                )
            yield inside, self.scale(flat[finite].double())
