"""The command `reproduce`: re-run the papers' claims."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pushforward.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from pushforward.experiments import Report

__all__ = ["run"]

PAGE = "papers.md"


def run(
    paper: Annotated[str | None, typer.Argument(help="Name of a recipe, as --list shows them.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the recipes and stop.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Run every recipe, then write the page of all.")] = False,
    budget: Annotated[
        str, typer.Option(help="quick (ten minutes at most), full (the paper's setting) or smoke.")
    ] = "quick",
    data: Annotated[Path | None, typer.Option(help="Data folder; else that of PUSHFORWARD_DATA.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for reports, pictures and measurements.")] = Path(
        "runs/papers"
    ),
    seeds: Annotated[int | None, typer.Option(help="Seeds of measurements with a spread.")] = None,
    write_page: Annotated[
        Path | None, typer.Option("--page", help="With --all: the page to write; else papers.md in --out.")
    ] = None,
) -> None:
    """Re-run a paper's claims on real data, and say which held."""
    from pushforward.cli.show import grid
    from pushforward.experiments import page, read_reports, recipes, reproduce

    if listing:
        rows = [(entry.name, entry.title, ", ".join(entry.data) or "–", entry.full) for entry in recipes()]
        grid("Recipes", ("name", "paper", "data", "full budget takes"), rows)
        return
    if every == (paper is not None):
        raise ConfigError("name one recipe, or give --all; --list shows them.")
    options: dict[str, Any] = {"budget": budget, "out": out, "data": data, "seeds": seeds}
    if paper is not None:
        show(reproduce(paper, **options), out)
        return
    names = [entry.name for entry in recipes()]
    absent: list[str] = []
    for name in names:
        try:
            show(reproduce(name, **options), out)
        except StorageError as error:  # other recipes may have their data
            absent.append(name)
            print(f"{name}: {error}")
    target = write_page or out / PAGE
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(read_reports(out, names, budget)))
    print(f"page: {target}")
    if absent:
        raise StorageError(f"not run for want of data: {', '.join(absent)}.")


def show(report: Report, out: Path) -> None:
    """A report on the terminal."""
    from pushforward.experiments import markdown

    print(f"\n{report.title}\n{report.machine}; {report.seconds:.0f} s\n\n{markdown(report)}\n")
    for name in report.pictures:
        print(f"picture: {out / name}")
