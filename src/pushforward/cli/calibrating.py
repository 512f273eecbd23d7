"""The commands recalibrate and update."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pushforward.cli.commands import Quiet, app
from pushforward.cli.facts import facts_of, summary
from pushforward.cli.files import AsJson, Decimal, Delimiter, Encoding, Force, Format, PublicKey

__all__ = ["recalibrate", "update"]


@app.command(
    epilog="Example: `pushforward recalibrate guard.safetensors march.csv -o march.safetensors --note 'plant 2, March'`"
)
def recalibrate(
    guard_file: Annotated[Path, typer.Argument(metavar="GUARD", help="Guard file that `fit` wrote.")],
    table: Annotated[str, typer.Argument(help="New normal rows, which the guard has not seen; read as by `fit`.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Guard file to write; - for standard output.")],
    note: Annotated[str, typer.Option(help="What the rows are; it is stored in the file.")] = "",
    groups: Annotated[
        str | None,
        typer.Option(help="Column of groups whose rows depend on each other: one row of each group calibrates."),
    ] = None,
    format: Format = None,
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    decimal: Decimal = ".",
    public_key: PublicKey = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Calibrate a guard on new normal rows, without training: the promise then refers to rows like these."""
    from pushforward.cli.files import check_output, local, reading, report, save
    from pushforward.cli.network import refuse_network_guard
    from pushforward.estimators import Guard
    from pushforward.estimators.guard_inputs import channels_of
    from pushforward.io import read_images, read_table

    check_output(output, [str(guard_file), table], force, binary=True)
    refuse_network_guard(
        guard_file, public_key, "recalibrate", "call guard.recalibrate(inputs) in Python, with the network"
    )
    guard = Guard.load(guard_file, public_key=public_key)
    images = guard.reads_images and local(table)
    gray = images and channels_of(guard) == 1
    rows: Any = (
        read_images(table, gray=gray) if images else read_table(table, **reading(format, encoding, delimiter, decimal))
    )
    save(guard.recalibrate(rows, note, groups=groups), output)
    if as_json or not quiet:
        facts = {**facts_of(guard), "output": output}
        report(f"guard written to {output}", facts, as_json=as_json, output=output, plain=summary(guard))


@app.command(epilog="Example: `pushforward update guard.safetensors may.csv -o may.safetensors --note May`")
def update(
    guard_file: Annotated[Path, typer.Argument(metavar="GUARD", help="Guard file that `fit` wrote.")],
    table: Annotated[str, typer.Argument(help="New normal rows, which the guard has not seen; read as by `fit`.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Guard file to write; - for standard output.")],
    note: Annotated[str, typer.Option(help="What the rows are; it is stored in the file.")] = "",
    groups: Annotated[
        str | None,
        typer.Option(help="Column of groups whose rows depend on each other: whole groups calibrate, as in `fit`."),
    ] = None,
    time_column: Annotated[
        str | None, typer.Option("--time", help="Column with the order of time: the latest rows calibrate.")
    ] = None,
    format: Format = None,
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    decimal: Decimal = ".",
    public_key: PublicKey = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Add normal rows to a guard of a table: some become neighbors of its score, the others calibrate it again."""
    from pushforward.cli.files import check_output, reading, report, save
    from pushforward.cli.network import refuse_network_guard
    from pushforward.errors import ConfigError
    from pushforward.estimators import Guard
    from pushforward.io import read_table

    check_output(output, [str(guard_file), table], force, binary=True)
    refuse_network_guard(guard_file, public_key, "update", "call guard.recalibrate(inputs) in Python, with the network")
    guard = Guard.load(guard_file, public_key=public_key)
    if guard.reads_images:
        raise ConfigError(f"{guard_file} is a guard of images: update adds rows to guards of tables.")
    rows = read_table(table, **reading(format, encoding, delimiter, decimal))
    save(guard.update(rows, note, groups=groups, time=time_column), output)
    if as_json or not quiet:
        facts = {**facts_of(guard), "output": output}
        report(f"guard written to {output}", facts, as_json=as_json, output=output, plain=summary(guard))
