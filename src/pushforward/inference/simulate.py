"""`simulate`: run a simulator on draws of the prior, in parallel if asked for, and record every failure."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.errors import ConfigError, InputError, warn_caller
from pushforward.inference.priors import Prior
from pushforward.inference.processes import LATE, Workers
from pushforward.inference.real_numbers import as_numbers
from pushforward.numerics import seeded
from pushforward.numerics.checks import check_integer, check_positive
from pushforward.training.seeds import mix

__all__ = ["Simulations", "check_simulator", "failed_runs", "run_simulator", "simulate"]

Simulator = Callable[[Tensor], Any]
Array = NDArray[np.float32] | NDArray[np.float64]
Task = tuple[Array, int]
"""Parameters of a batch, and the seed of its runs."""


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

    With ``workers`` a script must call this under ``if __name__ == "__main__":``, or in a function that is called from there,
    and define the simulator at the top level of a module, because each worker loads the script (as for :mod:`multiprocessing`)::

        def simulator(theta): ...

        if __name__ == "__main__":
            runs = pf.inference.simulate(simulator, prior, 10_000, workers=4, timeout=60)

    Args:
        simulator: function of parameters ``(n, D)`` that returns data ``(n, *shape)``, as a tensor or an array. For
            ``workers`` it must be defined at the top level of a module; a lambda or a function inside another is refused.
        prior: a torch distribution, or a list of them.
        simulations: number of runs; with ``theta`` their number is that of its rows, and this one counts for nothing.
        theta: parameters ``(n, D)`` to use in place of draws of the prior; they may lie outside its support.
        seed: of the draws and of torch's and NumPy's global generators while the simulator runs.
        batch_size: runs in each call.
        workers: number of processes; 0 runs in this process. The rows are the same for every number.
        timeout: seconds after which a call of the simulator counts as failed; needs ``workers``. The start of a process does
            not count. A batch that is late is run again row by row, each with this time.

    Raises:
        ConfigError: if ``workers`` cannot load the simulator or the script.
        InputError: for ``theta`` of another width than that of the prior, without rows, or with NaN or infinity; if no run gives finite data, or the data have different shapes.

    Example:
        >>> import torch
        >>> from torch.distributions import Normal
        >>> runs = simulate(lambda theta: theta + torch.randn_like(theta), Normal(torch.zeros(2), 1.0), 100)
        >>> runs.theta.shape, runs.x.shape
        (torch.Size([100, 2]), torch.Size([100, 2]))
    """
    result = run_simulator(
        simulator, prior, simulations, theta=theta, seed=seed, batch_size=batch_size, workers=workers, timeout=timeout
    )
    failed = failed_runs(result)
    if failed:
        warn_caller(f"{failed}. They are kept in the record; fit and check leave them out.")
    return result


def run_simulator(
    simulator: Simulator, prior: Any, simulations: int, *, theta: Any = None, seed: int = 0, batch_size: int = 1000,
    workers: int = 0, timeout: float | None = None,
) -> Simulations:  # fmt: skip
    """As :func:`simulate`, without a warning."""
    check_integer("simulations", simulations)
    check_integer("batch_size", batch_size)
    check_integer("workers", workers, 0)
    check_positive("timeout", timeout, optional=True)
    check_simulator(simulator)
    if timeout is not None and not workers:
        raise InputError("a timeout needs processes: set workers=1 or more.")
    prior = prior if isinstance(prior, Prior) else Prior(prior)
    if theta is None:
        theta = prior.sample(simulations, seed=mix(seed, 300))
    else:
        theta = as_numbers(theta, "theta").float()
        theta = theta[:, None] if theta.dim() == 1 else theta
        if theta.dim() != 2 or theta.shape[1] != prior.features or not len(theta):
            raise InputError(
                f"theta must have the shape (n, {prior.features}), with at least one row; got {tuple(theta.shape)}."
            )
        if not bool(torch.isfinite(theta).all()):
            raise InputError("theta contains NaN or infinity: give finite parameters.")
    if not workers:
        return _all_runs(theta, seed, batch_size, lambda tasks: [_attempt(simulator, task) for task in tasks])
    with Workers(functools.partial(_attempt, simulator), workers, timeout) as processes:
        return _all_runs(theta, seed, batch_size, processes.run)


def check_simulator(value: Any) -> None:
    """A function, such as a simulator.

    Raises:
        ConfigError: for anything else.
    """
    if not callable(value):
        raise ConfigError(f"simulator must be a function of parameters that returns data; got {type(value).__name__}.")


def failed_runs(*simulations: Simulations) -> str:
    """How many runs gave no finite data, and why the first error; empty if all did."""
    total, bad = sum(map(len, simulations)), sum(len(each) - int(each.valid.sum()) for each in simulations)
    if not bad:
        return ""
    failures = [failure for each in simulations for failure in each.failures.items()]
    first = f"run {failures[0][0]}" if failures and len(simulations) == 1 else "the first"
    reason = f"; {first}: {failures[0][1]}" if failures else ""
    said = f"{bad} of {total} runs of the simulator gave no finite data ({len(failures)} error{'s' if len(failures) != 1 else ''}{reason})"
    if not failures and bad > total / 2:  # hardly an accident
        said += "; if NaN stands for observations that a run does not have, give 0 there, and a column that is 1 where there is one"
    return said


def _all_runs(
    theta: Tensor, seed: int, batch_size: int, run: Callable[[Sequence[Task]], Sequence[Array | str]]
) -> Simulations:
    """All batches, then the rows of those that failed."""
    chunks = list(torch.arange(len(theta)).split(batch_size))
    results = run([(theta[rows].numpy(), mix(seed, 301, int(rows[0]))) for rows in chunks])
    retry = [
        row
        for rows, result in zip(chunks, results, strict=True) if isinstance(result, str) and len(rows) > 1
        for row in rows.tolist()
    ]  # fmt: skip
    again = run([(theta[row : row + 1].numpy(), mix(seed, 301, row)) for row in retry])
    rows_found: dict[int, Tensor] = {}
    failures: dict[int, str] = {}
    for rows, result in zip(chunks, results, strict=True):
        if not isinstance(result, str):
            rows_found.update(zip(rows.tolist(), torch.from_numpy(result), strict=True))
        elif len(rows) == 1:
            failures[int(rows[0])] = result
    for row, result in zip(retry, again, strict=True):
        if isinstance(result, str):
            failures[row] = result
        else:
            rows_found[row] = torch.from_numpy(result)[0]
    return _collect(theta, rows_found, failures)


def _collect(theta: Tensor, found: dict[int, Tensor], failures: dict[int, str]) -> Simulations:
    shapes = {tuple(x.shape) for x in found.values()}
    if not found:
        reason = next(iter(failures.values()), "no run").rstrip(".")
        advice = (
            "Give more time (timeout=), or run the simulator once by itself."
            if reason.startswith(LATE)
            else f"It gets parameters of the shape (n, {theta.shape[1]}), one row for each run, and must return data of the shape (n, ...)."
        )
        raise InputError(f"every run of the simulator failed; the first: {reason}. {advice}")
    if len(shapes) > 1:
        raise InputError(f"the simulator returns data of different shapes: {sorted(shapes)[:3]}.")
    wide = any(x.dtype is torch.float64 for x in found.values())
    x = torch.full((len(theta), *shapes.pop()), torch.nan, dtype=torch.float64 if wide else torch.float32)
    for row, value in found.items():
        x[row] = value
    result = Simulations(theta, x, failures)
    if not bool(result.valid.any()):
        raise InputError(
            "no run of the simulator gave finite data: run it once with a draw of the prior, and check the numbers."
        )
    return result


def _attempt(simulator: Simulator, task: Task) -> Array | str:
    """The data of a batch, as an array, which every process can send; or why there are none."""
    theta, seed = torch.from_numpy(task[0].copy()), task[1]
    try:
        state = np.random.get_state()  # noqa: NPY002  simulators may use the global generator
        with seeded(seed):
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
        return x.reshape(len(theta), *(x.shape[1:] or (1,))).numpy()
    except Exception as error:  # a simulator may raise anything, and no other run may be lost
        return f"{type(error).__name__}: {str(error)[:200]}"
