"""The command line of the reproductions: ``python -m papers NAME``."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from papers.measurements import SHARED, add_lacking, measurements_file
from papers.report import (
    Report,
    index,
    longer_run,
    markdown,
    page,
    pictures_of_longer_runs,
    read_reports,
    shorter_run,
)
from papers.reproduction import Budget, checked
from papers.run import reproduce, reproductions
from pushforward.errors import ConfigError, PushforwardError, StorageError

__all__ = ["app", "main"]

PAGE = "papers.md"
INTERRUPTED = 130
"""Exit code after an interrupt from the keyboard."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def run(
    paper: Annotated[str | None, typer.Argument(help="Name of a reproduction, as --list shows them.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the reproductions and stop.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Run every reproduction, then write the pages of all.")] = False,
    budget: Annotated[
        str, typer.Option(help="quick (half an hour at most), long (hours), full (the paper's setting) or smoke.")
    ] = "quick",
    data: Annotated[Path | None, typer.Option(help="Data folder; else that of PUSHFORWARD_DATA.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for reports, pictures and measurements.")] = Path(
        "runs/papers"
    ),
    seeds: Annotated[int | None, typer.Option(help="Seeds of measurements with a spread.")] = None,
    hours: Annotated[
        float,
        typer.Option(
            help="Begin no further measurement after this time, and report what is finished; the same command goes on."
        ),
    ] = math.inf,
    resume: Annotated[
        Path | None,
        typer.Option(help="Folder with the measurements of an earlier run to go on from, such as docs/papers."),
    ] = None,
    write_page: Annotated[
        Path | None,
        typer.Option(
            "--page",
            help="Index to write from the reports in --out, such as docs/papers.md, with one page for each paper in a folder of the "
            "same name. Reports, measurements of long runs and pictures are copied to that folder, and earlier reports there keep "
            "their pages. Without a name or --all nothing is run.",
        ),
    ] = None,
) -> None:
    """Re-run a paper's claims on real data, and report which were confirmed."""
    if listing:
        table = Table(title="Reproductions", title_justify="left")
        for name in ("name", "paper", "data", "time of the full budget"):
            table.add_column(name)
        for entry in reproductions():
            table.add_row(entry.name, entry.title, ", ".join(entry.data) or "–", entry.full)
        Console().print(table, highlight=False)
        return
    if (every and paper is not None) or not (every or paper or write_page):
        raise ConfigError("name one reproduction, or give --all; --list shows the names.")
    names = [entry.name for entry in reproductions()]
    target = out / PAGE if write_page is None else _index_file(write_page)
    absent: list[str] = []
    for name in names if every else [paper] if paper else []:
        try:
            show(
                reproduce(name, budget=checked(budget), out=out, data=data, seeds=seeds, hours=hours, resume=resume),
                out,
            )
        except StorageError as error:
            if not every:
                raise
            absent.append(name)  # other reproductions may have their data
            print(f"{name}: {error}")
    if every or write_page:
        print(f"page: {write_all(names, checked(budget), out, target)}")
    if absent:
        raise StorageError(f"not run for the reasons above: {', '.join(absent)}; mend them and repeat the command.")


def _index_file(path: Path) -> Path:
    """The file of the index, whose name ends with ``.md``; a page is refused before a run of hours if it cannot be written."""
    target = path if path.suffix == ".md" else path.with_name(f"{path.name}.md")
    folder = next(each for each in (target.parent, *target.parent.absolute().parents) if each.exists())
    if target.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise StorageError(f"{target} cannot be written: give --page a file in a folder that you may write to.")
    return target


def write_all(names: Sequence[str], budget: Budget, out: Path, target: Path) -> Path:
    """Write the index and one page for each report, in a folder with the name of the index, with its pictures.

    Nothing is copied if the index is in ``out`` itself; the pages are then beside it. Else reports, pictures and the measurements of
    long and full runs are copied, with which another machine can go on; of a file that the run shares with other papers, those that the
    folder lacks. The page of a report also has what a longer run found that was stopped. A reproduction without a report in ``out``
    keeps its report in that folder.

    Raises:
        StorageError: if there is no report.
    """
    same_folder = target.parent.resolve() == out.resolve()
    folder = target.parent if same_folder else target.with_suffix("")
    new = read_reports(out, names, budget)
    if not new and not read_reports(folder, names, budget):
        raise StorageError(
            f"{out} has no finished report with this budget: run a reproduction first, or go on with it."
        )
    try:
        if not same_folder:
            _copy_all(names, new, out, folder)
        reports = read_reports(folder, names, budget)
        shorter = {report.name: shorter_run(folder, report) for report in reports}
        longer = {report.name: longer_run(folder, report) for report in reports}
        for report in reports:
            (folder / f"{report.name}.md").write_text(page(report, longer[report.name], shorter[report.name]))
        target.write_text(index(reports, "" if same_folder else f"{folder.name}/", shorter, longer))
    except OSError as error:
        raise StorageError(
            f"the pages were not written, and the reports in {out} are kept: {error}. Give --page another file."
        ) from error
    return target


def _copy_all(names: Sequence[str], new: Sequence[Report], out: Path, folder: Path) -> None:
    """Copy reports, their pictures, and measurements of long runs; a picture of a longer run stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for report in (each for found in new for each in (found, longer_run(out, found)) if each is not None):
        kept = pictures_of_longer_runs(folder, report)
        for name in (report.file, *(name for name in report.pictures if name not in kept)):
            shutil.copyfile(out / name, folder / name)
    for name, each in itertools.product((*names, SHARED), ("long", "full")):
        file = out / measurements_file(name, each)
        if file.with_suffix(".json").exists():
            shutil.copyfile(file, folder / file.name)
        elif file.exists():
            # Of other papers too: a copy from the start of the run, and the folder may have more by now.
            add_lacking(folder / file.name, file)


def show(report: Report, out: Path) -> None:
    """Print a report."""
    print(f"\n{report.title}\n{report.machine}; {report.seconds:.0f} s\n\n{markdown(report)}\n")
    for name in report.pictures:
        print(f"picture: {out / name}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; an expected failure is one line on stderr and exit code 1."""
    try:
        result = typer.main.get_command(app).main(
            args=None if arguments is None else list(arguments), prog_name="python -m papers", standalone_mode=False
        )
    except PushforwardError as error:
        print(f"papers: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        print(f"papers: {error.format_message()}", file=sys.stderr)  # pyright: ignore[reportAttributeAccessIssue]
        return 2
    if result == INTERRUPTED:
        print("papers: interrupted; the same command goes on from what it has measured.", file=sys.stderr)
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    # In long trainings the squares of tiny gradients fall below the smallest normal number, and arithmetic with such numbers made
    # steps up to three times slower. Here and not in main: tests call main in a process that they share.
    torch.set_flush_denormal(True)
    sys.exit(main())
