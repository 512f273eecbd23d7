"""Options and checks of the files that commands read and write."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pushforward.errors import ConfigError, StorageError

__all__ = [
    "AsJson",
    "Decimal",
    "Delimiter",
    "Encoding",
    "Force",
    "Format",
    "OutputFormat",
    "PublicKey",
    "check_output",
    "local",
    "reading",
    "report",
    "save",
    "written_format",
]

Format = Annotated[
    str | None,
    typer.Option(
        help="Format where the name does not tell, as for '-' (standard input): csv, tsv, jsonl, parquet, arrow, npy or npz."
    ),
]
OutputFormat = Annotated[
    str | None,
    typer.Option(
        help="Format of the output where its name does not tell: csv, tsv, jsonl, parquet or arrow; by default --format, else csv."
    ),
]
Encoding = Annotated[str, typer.Option(help="Encoding of text that is read, such as latin-1 or utf-16.")]
Delimiter = Annotated[
    str | None,
    typer.Option(help="Character between the cells of CSV and TSV that is neither a comma nor a tab; 'tab' for a tab."),
]
Decimal = Annotated[str, typer.Option(help="Character before the fraction of a number in CSV and TSV, '.' or ','.")]
Force = Annotated[bool, typer.Option("--force", help="Allow the output to replace an input.")]
PublicKey = Annotated[
    Path | None,
    typer.Option(
        help="Public key with which the guard file must be signed; else nothing is read.",
        envvar="PUSHFORWARD_PUBLIC_KEY",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")]


def reading(format: str | None, encoding: str, delimiter: str | None, decimal: str = ".") -> dict[str, Any]:
    """The options of :func:`~pushforward.io.read_table` from those of a command."""
    named = {"tab": "\t", "\\t": "\t"}
    return {
        "format": format,
        "encoding": encoding,
        "delimiter": delimiter and named.get(delimiter, delimiter),
        "decimal": decimal,
    }


def local(path: str) -> bool:
    """Whether a path is neither standard input or output nor a URI."""
    return path != "-" and "://" not in path


def written_format(output: str, chosen: str | None, read: str | None = None) -> str | None:
    """The format of an output: the chosen one, for standard output the one that is read, else None: its name tells it.

    Raises:
        ConfigError, StorageError: for a format that tables are not written in.
    """
    from pushforward.io.table_writer import WRITTEN, TableWriter

    readable = read if read in WRITTEN else None
    return TableWriter(output, chosen or (readable if output == "-" else None)).format


def check_output(output: str, inputs: Sequence[str], force: bool, *, binary: bool = False, table: bool = False) -> None:
    """Fail before the work if the output cannot be written, or would replace an input.

    Args:
        output: the path, URI or "-".
        inputs: what the command reads.
        force: whether the output may replace an input.
        binary: whether the output is not text, which a terminal cannot show.
        table: whether the output is a table, which can be written to a URI.

    Raises:
        StorageError: if it cannot be written.
        ConfigError: if it would replace an input, or is not text and standard output is a terminal.
    """
    if output == "-":
        if binary and sys.stdout.isatty():
            raise ConfigError("the output is not text and standard output is a terminal: give -o FILE, or use a pipe.")
        return
    if not local(output):
        if not table:
            raise StorageError(
                f"{output} is not a local file, and only tables are written to a URI: give the name of a file."
            )
        return
    from pushforward.io.files import expanded

    path = expanded(output)
    if path.is_dir():
        raise StorageError(f"{output} is a directory: give the name of a file to write.")
    if not path.parent.is_dir():
        raise StorageError(f"the directory {path.parent} does not exist: make it first.")
    needed = [path] if path.exists() else []
    if not needed or path.is_file():  # a new file is made in the folder, and then replaces the old one
        needed.append(path.resolve().parent)
    if not all(os.access(place, os.W_OK) for place in needed):
        raise StorageError(f"{output} cannot be written: permission denied.")
    for name in () if force else filter(local, inputs):
        given = expanded(name)
        if given.is_dir():
            if path.resolve().is_relative_to(given.resolve()):
                raise ConfigError(
                    f"{output} is in the folder {name}, which is read: choose another place, or add --force."
                )
        elif given.exists() and path.exists() and path.samefile(given):
            raise ConfigError(f"{output} is also read, and would be replaced: choose another name, or add --force.")


def save(guard: Any, output: str) -> None:
    """Write a guard to a file, or to standard output for "-"."""
    if output != "-":
        guard.save(output)
        return
    import tempfile

    from pushforward.io.output import standard_output

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "guard.safetensors")
        guard.save(path)
        with standard_output() as file:
            file.write(path.read_bytes())


def report(
    title: str, facts: Mapping[str, Any], *, as_json: bool, output: str = "", plain: Mapping[str, Any] | None = None
) -> None:
    """Print a summary, on standard error if the result itself is on standard output.

    Args:
        title: first line for people.
        facts: for programs, plain JSON types.
        as_json: whether to print ``facts``, as one line.
        output: where the command wrote its result.
        plain: lines for people; ``facts`` by default.
    """
    stream = sys.stderr if output == "-" else sys.stdout
    if as_json:
        print(json.dumps(facts, allow_nan=False), file=stream, flush=True)
        return
    from pushforward.cli.show import pairs

    pairs(title, facts if plain is None else plain, stream)
