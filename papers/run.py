"""Run a recipe from beginning to end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from papers.context import Lab
from papers.datasets import where
from papers.report import Report
from papers.reproduction import BUDGETS, Budget, find
from pushforward.errors import ConfigError

__all__ = ["reproduce"]


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
        name: of the recipe, such as "glow".
        budget: "quick" (at most ten minutes on two cores), "full" (the paper's setting), or "smoke" (seconds; decides
            nothing).
        out: folder for the report, pictures, and the measurements that a stopped run goes on from.
        data: folder with the data sets; by default that of the environment variable ``PUSHFORWARD_DATA``.
        seeds: of measurements with a spread; by default 3, of the longest ones fewer, and 1 for smoke.
        say: called with a line after each measurement.

    Returns:
        The report, which is also written to ``out`` as JSON.

    Raises:
        ConfigError: for a recipe or a budget that there is not.
        StorageError: if data are missing; it says where to get them.
    """
    if budget not in BUDGETS:
        raise ConfigError(f"budget must be one of {', '.join(BUDGETS)}; got {budget!r}.")
    if seeds is not None and seeds < 1:
        raise ConfigError(f"seeds must be at least 1; got {seeds}.")
    entry = find(name)
    lab = Lab(name, budget, Path(out), where(data), seeds, say)
    start = time.perf_counter()
    entry.run(lab)
    report = Report.of(entry, budget, lab.findings, lab.pictures, time.perf_counter() - start, seeds)
    report.write(lab.out)
    return report
