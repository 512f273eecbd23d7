"""The command `reproduce`: re-run the papers' claims."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from pushforward.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from papers import Report
    from papers.reproduction import Budget

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
        Path | None,
        typer.Option(
            "--page",
            help="Page to write of the reports in --out, and of those that an earlier page kept in a folder of its name, "
            "where pictures and reports go; alone, runs nothing.",
        ),
    ] = None,
) -> None:
    """Re-run a paper's claims on real data, and say which held."""
    from papers import recipes, reproduce
    from pushforward.cli.show import grid

    if listing:
        rows = [(entry.name, entry.title, ", ".join(entry.data) or "–", entry.full) for entry in recipes()]
        grid("Recipes", ("name", "paper", "data", "full budget takes"), rows)
        return
    if (every and paper is not None) or not (every or paper or write_page):
        raise ConfigError("name one recipe, or give --all; --list shows them.")
    names = [entry.name for entry in recipes()]
    absent: list[str] = []
    for name in names if every else [paper] if paper else []:
        try:
            show(reproduce(name, budget=cast("Budget", budget), out=out, data=data, seeds=seeds), out)
        except StorageError as error:
            if not every:
                raise
            absent.append(name)  # other recipes may have their data
            print(f"{name}: {error}")
    if every or write_page:
        print(f"page: {write_all(names, budget, out, write_page or out / PAGE)}")
    if absent:
        raise StorageError(f"not run for want of data: {', '.join(absent)}.")


def write_all(names: Sequence[str], budget: str, out: Path, target: Path) -> Path:
    """The page of all reports; they and their pictures go to a folder of the page's name, unless they lie beside it.

    A recipe that ``out`` holds no report of keeps the one in that folder.

    Raises:
        StorageError: if there is no report to write of.
    """
    from papers import page, read_reports

    beside = target.parent.resolve() == out.resolve()
    folder = target.parent if beside else target.with_suffix("")
    new = read_reports(out, names, budget)
    if new and not beside:
        folder.mkdir(parents=True, exist_ok=True)
        for report in new:
            for name in (report.file, *report.pictures):
                shutil.copyfile(out / name, folder / name)
    reports = read_reports(folder, names, budget)
    if not reports:
        raise StorageError(f"{out} holds no report of this budget; run a recipe first.")
    target.write_text(page(reports, "" if beside else f"{folder.name}/"))
    return target


def show(report: Report, out: Path) -> None:
    """A report on the terminal."""
    from papers import markdown

    print(f"\n{report.title}\n{report.machine}; {report.seconds:.0f} s\n\n{markdown(report)}\n")
    for name in report.pictures:
        print(f"picture: {out / name}")
