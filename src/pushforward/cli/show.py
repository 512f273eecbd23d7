"""What the commands print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from rich.console import Console
from rich.table import Table

__all__ = ["columns", "grid", "pairs"]


class _Console(Console):
    """A console that leaves a closed pipe to the caller; rich would end the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def pairs(title: str, facts: Mapping[str, Any], file: IO[str] | None = None) -> None:
    """Print a title and one line for each fact."""
    console = _Console(file=file)
    console.print(title, style="bold", highlight=False, markup=False)
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(f"  {name}", str(value))
    console.print(table, highlight=False, markup=False)


def grid(title: str, names: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a small table with the first column aligned left and the others aligned right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(names):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    _Console().print(table, highlight=False, markup=False)  # a name such as "speed [m/s]" is no markup


def columns(schema: Any) -> None:
    """Print one line for each column of a fitted table."""
    rows = []
    for column in schema.columns:
        values = f"{len(column.categories)} categories" if column.kind == "categorical" else ""
        if column.lattice is not None and column.kind == "numeric":
            values = f"steps of {column.lattice[1]:g}"
        rows.append((column.name, column.time.split("_")[0] or column.kind, values, "yes" if column.missing else ""))
    grid("columns", ("name", "kind", "values", "missing"), rows)
