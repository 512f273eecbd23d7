"""`simulate`: run a simulator on draws of the prior, in parallel if asked for, and record every failure."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushforward.errors import InputError, PushforwardWarning
from pushforward.inference.priors import Prior
from pushforward.inference.real_numbers import as_numbers
from pushforward.numerics.checks import check_integer, check_positive
from pushforward.training.seeds import mix

__all__ = ["Simulations", "simulate"]

Simulator = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Simulations:
    """Parameters with the simulated data, and the runs that failed.

    Attributes:
        theta: parameters of all runs, ``(n, D)``.
        x: data of all runs, ``(n, *shape)``; NaN in the rows of runs that failed.
        failures: why a run failed, by its index.

    Example:
        >>> import torch, pushforward as pf
        >>> prior = torch.distributions.Uniform(-torch.ones(1), torch.ones(1))
        >>> found = pf.inference.simulate(lambda theta: theta + 1, prior, 20)
        >>> found.x.shape, found.failures
        (torch.Size([20, 1]), {})
    """

    theta: Tensor
    x: Tensor
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def valid(self) -> Tensor:
        """Whether each run gave finite data, ``(n,)``."""
        return torch.isfinite(self.x.flatten(1)).all(1)

    def __len__(self) -> int:
        return len(self.theta)

    def __repr__(self) -> str:
        bad = len(self) - int(self.valid.sum())
        return f"Simulations({len(self)} runs, {bad} without finite data, parameters {self.theta.shape[1]}, data {tuple(self.x.shape[1:])})"


def simulate(
    simulator: Simulator,
    prior: Any,
    simulations: int,
    *,
    theta: Any = None,
    seed: int = 0,
    batch_size: int = 1000,
    workers: int = 0,
    timeout: float | None = None,
) -> Simulations:
    """Run a simulator on draws of the prior.

    A batch that raises an error is run again row by row, so only the rows at fault are lost. Failed rows and rows with NaN
    are kept, and a warning counts them.

    Args:
        simulator: function of parameters ``(n, D)`` that returns data ``(n, *shape)``, as a tensor or an array. For
            ``workers`` it must be a function that can be pickled, such as one at the top of a module.
        prior: a torch distribution, or a list of them.
        simulations: number of runs.
        theta: parameters ``(n, D)`` to use in place of draws of the prior.
        seed: of the draws and of torch's and NumPy's global generators while the simulator runs.
        batch_size: runs in each call.
        workers: number of processes; 0 runs in this process.
        timeout: seconds after which a call counts as failed; needs ``workers``.

    Raises:
        InputError: if no run gives finite data, or the data have different shapes.

    Example:
        >>> import torch
        >>> from torch.distributions import Normal
        >>> runs = simulate(lambda theta: theta + torch.randn_like(theta), Normal(torch.zeros(2), 1.0), 100)
        >>> runs.theta.shape, runs.x.shape
        (torch.Size([100, 2]), torch.Size([100, 2]))
    """
    check_integer("simulations", simulations)
    check_integer("batch_size", batch_size)
    check_integer("workers", workers, 0)
    check_positive("timeout", timeout, optional=True)
    if timeout is not None and not workers:
        raise InputError("a timeout needs processes: set workers=1 or more.")
    if theta is None:
        theta = (prior if isinstance(prior, Prior) else Prior(prior)).sample(simulations, seed=mix(seed, 300))
    else:
        theta = as_numbers(theta, "theta").float()
        theta = theta[:, None] if theta.dim() == 1 else theta
        if theta.dim() != 2:
            raise InputError(f"theta must have the shape (n, D); got {tuple(theta.shape)}.")
    chunks = list(torch.arange(len(theta)).split(batch_size))
    tasks = [(simulator, theta[rows], mix(seed, 301, int(rows[0]))) for rows in chunks]
    results = _in_processes(tasks, workers, timeout) if workers else [_attempt(task) for task in tasks]
    retry = [
        (row, (simulator, theta[row : row + 1].clone(), mix(seed, 301, int(row))))
        for rows, result in zip(chunks, results, strict=True) if isinstance(result, str) and len(rows) > 1
        for row in rows.tolist()
    ]  # fmt: skip
    again = _in_processes([task for _, task in retry], workers, timeout) if workers else [_attempt(t) for _, t in retry]
    rows_found: dict[int, Tensor] = {}
    failures: dict[int, str] = {}
    for rows, result in zip(chunks, results, strict=True):
        if not isinstance(result, str):
            rows_found.update(zip(rows.tolist(), result, strict=True))
        elif len(rows) == 1:
            failures[int(rows[0])] = result
    for (row, _), result in zip(retry, again, strict=True):
        if isinstance(result, str):
            failures[row] = result
        else:
            rows_found[row] = result[0]
    return _collect(theta, rows_found, failures)


def _collect(theta: Tensor, found: dict[int, Tensor], failures: dict[int, str]) -> Simulations:
    shapes = {tuple(x.shape) for x in found.values()}
    if not found:
        reason = next(iter(failures.values()), "no run")
        raise InputError(
            f"every run of the simulator failed; the first: {reason.rstrip('.')}. It gets parameters of the shape (n, {theta.shape[1]}), one "
            "row for each run, and must return data of the shape (n, ...)."
        )
    if len(shapes) > 1:
        raise InputError(f"the simulator returns data of different shapes: {sorted(shapes)[:3]}.")
    wide = any(x.dtype is torch.float64 for x in found.values())
    x = torch.full((len(theta), *shapes.pop()), torch.nan, dtype=torch.float64 if wide else torch.float32)
    for row, value in found.items():
        x[row] = value
    result = Simulations(theta, x, failures)
    bad = len(theta) - int(result.valid.sum())
    if bad == len(theta):
        raise InputError(
            "no run of the simulator gave finite data: run it once with a draw of the prior, and check the numbers."
        )
    if bad:
        first = next(iter(failures.items()), None)
        reason = "" if first is None else f"; run {first[0]}: {first[1]}"
        warnings.warn(
            f"{bad} of {len(theta)} runs gave no finite data ({len(failures)} errors{reason}). They are kept in the record, "
            "and training leaves them out.",
            PushforwardWarning,
            stacklevel=3,
        )
    return result


def _attempt(task: tuple[Simulator, Tensor, int]) -> Tensor | str:
    """The data of a batch; or why there are none."""
    simulator, theta, seed = task
    try:
        state = np.random.get_state()  # noqa: NPY002  simulators may use the global generator
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
            try:
                x = simulator(theta)
            finally:
                np.random.set_state(state)  # noqa: NPY002
        x = as_numbers(x, "what a simulator returns").cpu()
        if x.dim() == 1 and len(theta) > 1 and len(x) == len(theta):
            x = x[:, None]
        if x.dim() == 0 or len(x) != len(theta):
            return f"it returned the shape {tuple(x.shape)} for {len(theta)} parameters"
        return x.reshape(len(theta), *(x.shape[1:] or (1,)))
    except Exception as error:  # a simulator may raise anything, and no other run may be lost
        return f"{type(error).__name__}: {str(error)[:200]}"


def _in_processes(tasks: list[Any], workers: int, timeout: float | None) -> list[Tensor | str]:
    results: list[Tensor | str] = []
    context = multiprocessing.get_context("spawn")
    pool = context.Pool(workers)
    try:
        waiting = [pool.apply_async(_attempt, (task,)) for task in tasks]
        index = 0
        while index < len(tasks):
            try:
                results.append(waiting[index].get(timeout))
            except multiprocessing.TimeoutError:
                results.append(f"it did not end within {timeout:g} s")
                pool.terminate()  # a process that hangs cannot be asked to stop
                pool = context.Pool(workers)
                waiting = [*waiting[: index + 1], *(pool.apply_async(_attempt, (task,)) for task in tasks[index + 1 :])]
            except Exception as error:
                results.append(f"{type(error).__name__}: {str(error)[:200]}")
            index += 1
    finally:
        pool.terminate()
        pool.join()
    return results
