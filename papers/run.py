"""Find the reproductions, and run one from beginning to end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import papers.claims  # noqa: F401  (each import registers a reproduction)
from benchmarks.common.datasets import where
from papers.experiment import Experiment
from papers.report import Report
from papers.reproduction import Budget, Reproduction, checked, registered
from pushforward.errors import ConfigError

__all__ = ["find", "reproduce", "reproductions"]


def reproductions() -> list[Reproduction]:
    """All reproductions, in the order of their files."""
    return list(registered().values())


def find(name: str) -> Reproduction:
    """The reproduction of a name.

    Raises:
        ConfigError: for an unknown name; it lists the known ones.
    """
    known = registered()
    if name not in known:
        raise ConfigError(f"there is no reproduction {name!r}; there are {', '.join(known)}.")
    return known[name]


def reproduce(
    name: str,
    *,
    budget: Budget = "quick",
    out: str | os.PathLike[str] = "runs/papers",
    data: str | os.PathLike[str] | None = None,
    seeds: int | None = None,
    say: Callable[[str], object] = print,
) -> Report:
    """Re-run a paper's claims on real data.

    Args:
        name: name of the reproduction, such as "glow".
        budget: "quick" (at most ten minutes on two cores), "long" (hours on two cores; a stopped run goes on), "full" (the
            paper's setting), or "smoke" (seconds; decides nothing).
        out: folder for the report, the pictures, and the measurements from which a stopped run resumes.
        data: folder with the data sets; by default that of the environment variable ``PUSHFORWARD_DATA``.
        seeds: number of seeds of measurements with a spread; by default 3 (from 1 to 5 for some, 1 for smoke). One seed confirms no
            comparison of two models.
        say: function that is called with a line after each measurement.

    Returns:
        The report, which is also written to ``out`` as JSON.

    Raises:
        ConfigError: for an unknown reproduction or budget.
        StorageError: if data are missing; it says where to get them.
    """
    checked(budget)
    if seeds is not None and seeds < 1:
        raise ConfigError(f"seeds must be at least 1; got {seeds}.")
    entry = find(name)
    experiment = Experiment(name, budget, Path(out), where(data), seeds, say)
    start = time.perf_counter()
    entry.run(experiment)
    report = Report.of(entry, budget, experiment.findings, experiment.pictures, time.perf_counter() - start, seeds)
    report.write(experiment.out)
    return report
