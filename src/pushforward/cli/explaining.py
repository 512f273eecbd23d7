"""The command explain."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pushforward.cli.commands import Quiet, app
from pushforward.cli.files import Decimal, Delimiter, Encoding, Force, Format, OutputFormat, PublicKey

__all__ = ["explain"]

_LONGEST = 10_000
"""Characters of a sentence at most."""


@app.command(epilog="Example: `pushforward explain guard.safetensors new.csv --top 3`")
def explain(
    guard_file: Annotated[Path, typer.Argument(metavar="GUARD", help="Guard file that `fit` wrote.")],
    table: Annotated[str, typer.Argument(help="Table whose alarms to explain; read as by `score`.")],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            help="Table of reasons to write: CSV, TSV, JSON Lines, Parquet or Arrow; - for standard output, as sentences unless --output-format is given.",
        ),
    ] = "-",
    top: Annotated[int, typer.Option(help="Number of columns for each row.", min=1)] = 3,
    every: Annotated[bool, typer.Option("--all", help="Explain every row, and not only the alarms.")] = False,
    rows: Annotated[int, typer.Option(help="Number of rows in memory at a time.", min=1)] = 4096,
    format: Format = None,
    output_format: OutputFormat = None,
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    decimal: Decimal = ".",
    force: Force = False,
    public_key: PublicKey = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each row, on standard output.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Say which columns make each alarm unlike the training rows, in the table's units.

    Rows are counted from 0. For each column: its value, the range of 95 % of the normal rows with such other columns, the
    p-value of the value given the other columns, and its excess, the part of the anomaly score that is due to it.
    """  # fmt: skip
    from pushforward.cli.files import check_output, reading, report, written_format
    from pushforward.cli.parts import one_warning_of_all_parts
    from pushforward.errors import ConfigError
    from pushforward.estimators import Guard
    from pushforward.io import TableWriter, read

    if as_json and (output != "-" or output_format is not None):
        raise ConfigError("--json prints reasons on standard output: use either --json or -o FILE and --output-format.")
    sentences = output == "-" and output_format is None and not as_json
    chosen = None if sentences or as_json else written_format(output, output_format)
    check_output(output, [str(guard_file), table], force, binary=chosen in ("parquet", "arrow"), table=True)
    if read(guard_file, public_key=public_key)[0]["kind"] == "network guard":
        raise ConfigError(
            f"{guard_file} guards a network, and explain is for guards of tables: the column reason of `pushforward score` says why."
        )
    guard = Guard.load(guard_file, public_key=public_key)
    if guard.reads_images:
        raise ConfigError(f"{guard_file} is a guard of images: explain is for guards of tables.")
    parts = _explained(guard, table, rows, every, reading(format, encoding, delimiter, decimal))
    if as_json or sentences:
        with one_warning_of_all_parts():
            _print(parts, top, as_json=as_json, quiet=quiet)
        return
    seen = found = 0
    with one_warning_of_all_parts(), TableWriter(output, chosen) as writer:
        for first, size, positions, _, explanation in parts:
            part = explanation.to_table(top)
            row = part.column("row").to_numpy()
            writer.write(part.set_column(0, "row", [positions[row] + first]))
            seen, found = first + size, found + len(positions)
    if not (quiet or output == "-"):
        report(f"reasons written to {output}", {"rows": seen, "explained": found}, as_json=False, output=output)


def _explained(
    guard: Any, table: str, rows: int, every: bool, options: dict[str, Any]
) -> Iterator[tuple[int, int, Any, dict[str, Any], Any]]:
    """For each chunk: position of its first row, its size, positions of the explained rows in it, their results, reasons."""
    import numpy as np

    from pushforward.data.schema import counted_from
    from pushforward.errors import SchemaWarning, collected
    from pushforward.io import stream_table

    first = 0
    for chunk in stream_table(table, rows=rows, types=guard.schema_.pyarrow_types(), empty=True, **options):
        with counted_from(first):
            found = guard.assess(chunk) if chunk.num_rows else {"alarm": np.empty(0, dtype=bool)}
        positions = np.arange(chunk.num_rows) if every else np.flatnonzero(found["alarm"])
        results = {name: values[positions] for name, values in found.items()}
        with collected(SchemaWarning):  # said by assess
            reasons = guard.explain(chunk.take(positions))
        yield first, chunk.num_rows, positions, results, reasons
        first += chunk.num_rows


def _print(parts: Iterator[Any], top: int, *, as_json: bool, quiet: bool) -> None:
    """Print sentences, or one JSON object for each row."""
    from pushforward.detection.explanation.reason import plain
    from pushforward.report.text import visible

    seen = found = 0
    for first, size, positions, results, explanation in parts:
        for i, position in enumerate(positions):
            row, p_value = first + int(position), float(results["p_value"][i])
            if as_json:
                facts = {"row": row, "anomaly_score": plain(float(results["anomaly_score"][i])), "p_value": p_value,
                         "alarm": bool(results["alarm"][i]),
                         "reasons": [r.to_record() | {"row": row} for r in explanation.reasons(i, top)]}  # fmt: skip
                print(json.dumps(facts, allow_nan=False))
                continue
            print(f"row {row} (p = {p_value:.2g}):")
            for text in explanation.sentences(i, top):
                print(f"  {visible(text, _LONGEST)}")
        seen, found = first + size, found + len(positions)
        sys.stdout.flush()
    if not (as_json or quiet):
        print(f"{found} of {seen} rows explained", file=sys.stderr)
