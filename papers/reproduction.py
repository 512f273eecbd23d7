"""A reproduction: a paper's claims, re-run on real data at a stated budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from pushforward.errors import ConfigError

if TYPE_CHECKING:
    from papers.experiment import Experiment

__all__ = ["BUDGETS", "Budget", "Finding", "Reproduction", "checked", "registered", "reproduction"]

Budget = Literal["smoke", "quick", "long", "full"]
BUDGETS: tuple[Budget, ...] = ("smoke", "quick", "long", "full")
"""smoke: seconds, to see that a reproduction runs; quick: minutes, at most half an hour on one core; long: hours, in parts that
resume; full: the paper's own setting."""


def checked(budget: str) -> Budget:
    """The same budget.

    Raises:
        ConfigError: for an unknown one.
    """
    if budget not in BUDGETS:
        raise ConfigError(f"budget must be one of {', '.join(BUDGETS)}; got {budget!r}.")
    return cast("Budget", budget)


@dataclass(frozen=True)
class Finding:
    """One claim of a paper and the result of its check.

    Attributes:
        claim: what the paper says, in words.
        paper: the number in the paper if it is known for certain, else "".
        ours: the measurement, with its spread.
        confirmed: whether the claim was confirmed here; None if this budget cannot decide it.
        seconds: time that it took.
        note: what a reader must know for a comparison: other data, fewer steps, what was tried.
        figures: numbers by name, for the summary of the page (`papers/summaries.py`).
        cpu: CPU seconds of the measurements of its block, in this run or an earlier one; None in reports that did not record it.
        cpu_complete: False if the CPU time of some of them is not known, so that ``cpu`` is a lower bound.
        block: number of its block: findings that rest on the same measurements are of one.
        seeds: number of seeds of its models, 0, 1, and so on; the smallest where models have different ones, of which the note says more; 0
            where nothing is random; None in reports that did not record it.
    """

    claim: str
    paper: str
    ours: str
    confirmed: bool | None
    seconds: float
    note: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    cpu: float | None = None
    cpu_complete: bool = True
    block: int = 0
    seeds: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; figures only where there are any."""
        content = asdict(self)
        if not self.figures:
            del content["figures"]
        return content


@dataclass(frozen=True)
class Reproduction:
    """A paper and the function that re-runs its claims.

    Attributes:
        name: name on the command line.
        title: title of the paper, with authors and year.
        data: names of the data sets that it reads.
        full: estimated time of the full budget, in words.
        run: function of an experiment, which has the budget, that adds findings with ``experiment.report``.
        reads: names of other reproductions whose measurements it reads, where they are in the same folder.
    """

    name: str
    title: str
    data: tuple[str, ...]
    full: str
    run: Callable[[Experiment], None]
    reads: tuple[str, ...] = ()


_REPRODUCTIONS: dict[str, Reproduction] = {}


def reproduction(
    name: str, title: str, *, data: tuple[str, ...] = (), full: str, reads: tuple[str, ...] = ()
) -> Callable[[Callable[[Experiment], None]], Callable[[Experiment], None]]:
    """Register a function as the reproduction of a paper."""

    def keep(run: Callable[[Experiment], None]) -> Callable[[Experiment], None]:
        if name in _REPRODUCTIONS:
            raise ConfigError(f"there are two reproductions named {name!r}.")
        _REPRODUCTIONS[name] = Reproduction(name, title, data, full, run, reads)
        return run

    return keep


def registered() -> dict[str, Reproduction]:
    """The reproductions that have been imported, by name."""
    return dict(_REPRODUCTIONS)
