"""A recipe: a paper's claims, re-run on real data at a stated budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from pushforward.errors import ConfigError

if TYPE_CHECKING:
    from papers.context import Lab

__all__ = ["BUDGETS", "Budget", "Finding", "Recipe", "find", "recipe", "recipes"]

Budget = Literal["smoke", "quick", "full"]
BUDGETS: tuple[Budget, ...] = ("smoke", "quick", "full")
"""smoke: seconds, to see that a recipe runs; quick: at most ten minutes on two cores; full: the paper's own setting."""


@dataclass(frozen=True)
class Finding:
    """One claim and what became of it here.

    Attributes:
        claim: what the paper says, in words.
        paper: its figure, where one is known for certain; else "".
        ours: what we measured, with its spread.
        held: whether the claim held here; None where this budget cannot tell.
        seconds: that it took.
        note: what a reader must know to compare: other data, fewer steps, what was tried.
    """

    claim: str
    paper: str
    ours: str
    held: bool | None
    seconds: float
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Recipe:
    """A paper and the function that re-runs its claims.

    Attributes:
        name: as the command line calls it.
        title: of the paper, with authors and year.
        data: names of the data sets that it reads.
        full: what the full budget takes, an estimate in words.
        run: from a lab, which says how large to be, to findings (by ``lab.report``).
    """

    name: str
    title: str
    data: tuple[str, ...]
    full: str
    run: Callable[[Lab], None]


_RECIPES: dict[str, Recipe] = {}


def recipe(
    name: str, title: str, *, data: tuple[str, ...] = (), full: str
) -> Callable[[Callable[[Lab], None]], Callable[[Lab], None]]:
    """Register a function as the recipe of a paper."""

    def keep(run: Callable[[Lab], None]) -> Callable[[Lab], None]:
        if name in _RECIPES:
            raise ConfigError(f"there are two recipes named {name!r}.")
        _RECIPES[name] = Recipe(name, title, data, full, run)
        return run

    return keep


def recipes() -> list[Recipe]:
    """All recipes, in the order of their files."""
    import papers.claims  # noqa: F401  (importing a recipe registers it)

    return list(_RECIPES.values())


def find(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        ConfigError: naming those that there are.
    """
    known = {entry.name: entry for entry in recipes()}
    if name not in known:
        raise ConfigError(f"there is no recipe {name!r}; there are {', '.join(known)}.")
    return known[name]
