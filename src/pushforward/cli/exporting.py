"""The command export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pushforward.cli.commands import Quiet, app
from pushforward.cli.files import AsJson, Decimal, Delimiter, Encoding, Force, Format, PublicKey

__all__ = ["export"]


@app.command(epilog="Example: `pushforward export guard.safetensors -o guard.onnx --check new.csv`")
def export(
    guard_file: Annotated[Path, typer.Argument(metavar="GUARD", help="Guard file that `fit` wrote.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="File to write: name.onnx for ONNX Runtime, name.pt2 for PyTorch without this library.",
        ),
    ],
    inputs: Annotated[
        str,
        typer.Option(
            help="Inputs of a table: 'columns' (one for each), 'matrix' (one, with codes of categories), or 'auto'."
        ),
    ] = "auto",
    check: Annotated[
        str | None,
        typer.Option(
            help="Rows on which to compare the alarms of the new file with the guard's; read as by `score`. Not for networks."
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(help="For the guard of a network: package.module:function, which returns the network."),
    ] = None,
    example: Annotated[
        str | None, typer.Option(help="For the guard of a network: some of its inputs, a table or images.")
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
    """Write a guard as a graph for another runtime: preprocessing, score, p-value and alarm in one file."""
    from pushforward.cli.files import check_output, local, reading, report
    from pushforward.cli.network import example_inputs, load_guard
    from pushforward.errors import ConfigError
    from pushforward.estimators import Guard
    from pushforward.graphs.files import format_of
    from pushforward.io import read_images, read_table

    format_of(output)
    check_output(str(output), [str(guard_file), *(name for name in (check, example) if name)], force, binary=True)
    guard = load_guard(guard_file, network, public_key)
    options = reading(format, encoding, delimiter, decimal)
    facts: dict[str, Any] = {"output": str(output)}
    agreement = None
    if isinstance(guard, Guard):
        if example is not None:
            raise ConfigError("--example is for the guard of a network.")
        guard.export(output, inputs=inputs)
        if check is not None:
            from pushforward.export import compare

            images = guard.reads_images and local(check)
            rows: Any = read_images(check) if images else read_table(check, **options)
            agreement = compare(guard, output, rows)
    else:
        if check is not None:
            raise ConfigError(
                "--check is for guards of tables and images, and this one guards a network: leave it out."
            )
        if example is None:
            raise ConfigError("the guard of a network needs --example FILE, some of the network's inputs.")
        guard.export(output, example_inputs(example, options, guard))
    facts["megabytes"] = round(output.stat().st_size / 1e6, 3)
    if agreement is not None:
        facts |= {
            "rows": agreement.rows, "alarms": agreement.alarms, "different alarms": agreement.different,
            "of these near the threshold": agreement.different_near,
        }  # fmt: skip
    if as_json or not quiet:
        report(f"graph written to {output}", facts, as_json=as_json, output=str(output), plain=facts)
    if agreement is not None and not agreement.agrees:
        raise ConfigError(
            f"{agreement.different - agreement.different_near} of {agreement.rows} alarms of {output} differ from those of the "
            "guard: report it, with both files."
        )
