"""The command report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pushforward.cli.commands import Quiet, app
from pushforward.cli.files import Decimal, Delimiter, Encoding, Force, Format, PublicKey
from pushforward.errors import ConfigError

__all__ = ["CHECK_FAILED", "Network", "Rows", "digest_of", "parts_of", "report", "source_name", "write_text"]

CHECK_FAILED = 3
"""Exit code of `report` if a check of --fail-on failed."""

_IMAGES = 4096
"""Most images in memory at a time, where the file can be read in parts."""

Network = Annotated[
    str | None, typer.Option(help="package.module:function that returns the network, for the guard of a network.")
]
Rows = Annotated[int, typer.Option(help="Number of rows in memory at a time.", min=1)]


@app.command(
    epilog="Example: `pushforward report guard.safetensors march.parquet -o march.html --json march.json --fail-on alarm_rate,drift`"
)
def report(
    guard_file: Annotated[Path, typer.Argument(metavar="GUARD", help="Guard file that `fit` wrote.")],
    table: Annotated[
        str,
        typer.Argument(
            help="Rows to report on, of any number, read as by `score`: a table, a folder, a URI, or - for standard input; for a guard of images, images."
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="Page to write, one HTML file; - for standard output.")
    ] = "report.html",
    json_output: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Also write the numbers as JSON; - for standard output."),
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHECK[,CHECK]",
            help="Exit with code 3 if one of these checks fails: any, promise, alarm_rate, uniform, drift, categories, missing, range or classes.",
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    alarms: Annotated[
        int, typer.Option(help="Number of alarms to show, the most anomalous first.", min=1, max=1000)
    ] = 20,
    show_rows: Annotated[
        bool, typer.Option("--show-rows", help="Show whole rows of these alarms; else only the cells that are reasons.")
    ] = False,
    hide_values: Annotated[
        bool, typer.Option("--hide-values", help="Show no cell of a row and no picture, only columns and findings.")
    ] = False,
    rows: Rows = 65_536,
    format: Format = None,
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    decimal: Decimal = ".",
    network: Network = None,
    label: Annotated[
        str | None,
        typer.Option(help="Column with the true class, for the guard of a network; it is not given to the network."),
    ] = None,
    public_key: PublicKey = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Report on rows: the promise and how it is kept, alarms with reasons, columns that drifted, checks.

    The page is one file of less than 2 MB that opens offline. Exit code 3: a check of --fail-on failed; the report is written.
    """
    from pushforward.cli.files import check_output, reading
    from pushforward.cli.network import load_guard
    from pushforward.estimators.reported_rows import ReportOptions
    from pushforward.io.files import expanded
    from pushforward.report import CHECKS
    from pushforward.report.document import check_page_name

    named = [name.strip() for item in fail_on or () for name in item.split(",") if name.strip()]
    if fail_on and not named:  # a variable of a script that is not set
        raise typer.BadParameter(f"--fail-on names no check; the checks are any, {', '.join(CHECKS)}.")
    unknown = [name for name in named if name != "any" and name not in CHECKS]
    if unknown:
        raise typer.BadParameter(f"there is no check {unknown[0]!r}; the checks are any, {', '.join(CHECKS)}.")
    outputs = [name for name in (output, json_output) if name is not None]
    if len({name if name == "-" else expanded(name).resolve() for name in outputs}) < len(outputs):
        raise ConfigError(f"-o and --json are both {output}: give them different names.")
    for name in outputs:
        check_output(name, [str(guard_file), table], force)
    if output != "-":
        check_page_name(output, "and give --json FILE for its numbers")
    guard = load_guard(guard_file, network, public_key)
    options = ReportOptions(
        title=title, name=source_name(table), file=guard_file.name, alarms=alarms, show_rows=show_rows,
        values=not hide_values, guard={"Digest of the guard's file": digest_of(guard_file)}, data=_data_facts(table),
    )  # fmt: skip
    found = _made(guard, table, rows, reading(format, encoding, delimiter, decimal), label, options)
    write_text(found.to_html(), output)
    if json_output is not None:
        write_text(found.to_json(indent=1) + "\n", json_output)
    if not quiet:
        _say(found, output, "-" in outputs)
    if found.failed(named):
        raise typer.Exit(CHECK_FAILED)


def _made(guard: Any, table: str, rows: int, options: dict[str, Any], label: str | None, shown: Any) -> Any:
    from pushforward.estimators import NetworkGuard
    from pushforward.estimators.network_reporting import network_report
    from pushforward.estimators.reporting import guard_report

    if isinstance(guard, NetworkGuard):
        from pushforward.cli.network import labeled_batches

        return network_report(guard, labeled_batches(table, min(rows, 1024), options, label, guard), shown)
    if label is not None:
        raise ConfigError("--label is for the guard of a network: other guards predict no class.")
    return guard_report(guard, parts_of(guard, table, rows, options), shown)


def parts_of(guard: Any, table: str, rows: int, options: dict[str, Any]) -> Iterator[Any]:
    """Parts of a file for a guard of a table or of images, in constant memory."""
    from pushforward.estimators.guard_inputs import channels_of
    from pushforward.io import stream_images, stream_table

    if not guard.reads_images:
        yield from stream_table(table, rows=rows, types=guard.schema_.pyarrow_types(), **options)
        return
    yield from stream_images(table, min(rows, _IMAGES), gray=channels_of(guard) == 1)


def source_name(table: str) -> str:
    """What rows are called: the last part of their path."""
    return "standard input" if table == "-" else table.rstrip("/").rsplit("/", 1)[-1]


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, as ``sha256sum`` prints it."""
    import hashlib

    from pushforward.io.files import expanded

    with expanded(path).open("rb") as file:
        return f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"


def _data_facts(table: str) -> dict[str, str]:
    """The digest of a local file, which ``sha256sum`` prints too."""
    from pushforward.cli.files import local
    from pushforward.io.files import expanded

    path = expanded(table)
    return {"Digest of these rows' file": digest_of(path)} if local(table) and path.is_file() else {}


def write_text(text: str, output: str) -> None:
    """Write text to a local file, which is complete or absent, or to standard output for "-".

    Raises:
        StorageError: if it cannot be written.
    """
    from pushforward.io.atomic import atomic_write
    from pushforward.io.files import expanded
    from pushforward.io.output import standard_output

    with standard_output() if output == "-" else atomic_write(expanded(output)) as file:
        file.write(text.encode())


def _say(found: Any, output: str, piped: bool) -> None:
    """Print the checks, on standard error if a result is on standard output."""
    import sys

    from pushforward.cli.show import pairs

    lines = {("✓ " if check.passed else "✗ ") + check.name: check.detail for check in found.checks}
    pairs(f"report written to {output}", lines, sys.stderr if piped else sys.stdout)
