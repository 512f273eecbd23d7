"""Find the reproductions, and run one from beginning to end."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import papers.claims  # noqa: F401  (each import registers a reproduction)
from benchmarks.common.datasets import where
from papers.experiment import Experiment, UnfinishedError
from papers.measurements import SHARED, measurements_file
from papers.report import Report
from papers.reproduction import Budget, Reproduction, checked, registered
from pushforward.errors import ConfigError, StorageError

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
    hours: float = math.inf,
    resume: str | os.PathLike[str] | None = None,
    say: Callable[[str], object] = print,
) -> Report:
    """Re-run a paper's claims on real data.

    Args:
        name: name of the reproduction, such as "glow".
        budget: "quick" (minutes, at most half an hour on one core), "long" (hours; a stopped run goes on), "full" (the
            paper's setting), or "smoke" (seconds; decides nothing).
        out: folder for the report, the pictures, and the measurements from which a stopped run resumes.
        data: folder with the data sets; by default that of the environment variable ``PUSHFORWARD_DATA``.
        seeds: number of seeds of measurements with a spread; by default 3 (from 1 to 5 for some, 1 for smoke). One seed confirms no
            comparison of two models.
        hours: no further measurement begins after this time. The report then has the claims that are finished, and a further call
            goes on.
        resume: folder with measurements and pictures of an earlier run, perhaps of another machine, such as "docs/papers". Those that
            ``out`` does not have are copied there. Without measurements of this reproduction and budget the run starts anew.
        say: function that is called with a line after each measurement.

    Returns:
        The report, which is also written to ``out`` as JSON.

    Raises:
        ConfigError: for an unknown reproduction or budget.
        StorageError: if data are missing, if ``resume`` is not a folder, if ``out`` cannot be written, or if another process runs the
            same in ``out``; it says what to do.
    """
    checked(budget)
    if seeds is not None and seeds < 1:
        raise ConfigError(f"seeds must be at least 1; got {seeds}.")
    if not hours > 0:
        raise ConfigError(f"hours must be greater than 0; got {hours:g}.")
    entry = find(name)
    with _folder(Path(out), name, budget):
        if resume is not None:
            _copy((name, SHARED, *entry.reads), budget, Path(resume), Path(out), say)
        start, end = time.perf_counter(), time.monotonic() + 3600 * hours
        experiment = Experiment(name, budget, Path(out), where(data), seeds, say, end=end)
        unfinished = ""
        try:
            entry.run(experiment)
        except UnfinishedError as error:
            unfinished = str(error)
            say(f"stopped after {hours:g} hours, before {unfinished}: the same command goes on")
        unfinished = unfinished or experiment.left_out
        report = Report.of(
            entry, budget, experiment.findings, experiment.pictures, time.perf_counter() - start, seeds,
            experiment.costs.machines, unfinished,
        )  # fmt: skip
        report.write(experiment.out)
    return report


@contextmanager
def _folder(out: Path, name: str, budget: Budget) -> Iterator[None]:
    """Make the folder of a run, which no other process uses for the same reproduction and budget meanwhile."""
    lock = out / f".{name}-{budget}.lock"
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    except OSError as error:
        raise StorageError(f"{out} cannot be written ({error}): give --out a folder that you may write to.") from error
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"another process runs {name} with the budget {budget} in {out}: wait for its end, or give --out another folder."
            ) from error
        except (ImportError, OSError):  # a system or a disk without such locks
            pass
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _copy(names: Sequence[str], budget: Budget, source: Path, out: Path, say: Callable[[str], object]) -> None:
    """Copy the measurements under each name of an earlier run, and the pictures of the first, which is that of the reproduction."""
    if not source.is_dir():
        raise StorageError(f"{source} is not a folder: give resume a folder with measurements, such as docs/papers.")
    files = [source / measurements_file(each, budget) for each in names]
    if not any((folder / files[0].name).exists() for folder in (source, out)):
        say(f"{source} has no {files[0].name}: the run starts anew")
    for file in (*files, *source.glob(f"{names[0]}-*.png")):
        if file.exists() and not (out / file.name).exists():
            shutil.copyfile(file, out / file.name)
