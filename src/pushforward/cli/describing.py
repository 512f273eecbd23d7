"""The commands card and diff."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pushforward.cli.commands import Quiet, app
from pushforward.cli.files import AsJson, Decimal, Delimiter, Encoding, Force, Format, PublicKey
from pushforward.cli.reporting import Network, Rows, digest_of, parts_of, source_name, write_text
from pushforward.errors import ConfigError

__all__ = ["card", "diff"]


@app.command(epilog="Example: `pushforward card guard.safetensors --report march.json -o CARD.md`")
def card(
    guard_file: Annotated[Path, typer.Argument(metavar="GUARD", help="Guard file that `fit` wrote, or of a network.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Markdown to write; - for standard output.")] = "-",
    reports: Annotated[
        list[Path] | None,
        typer.Option("--report", help="JSON that `report --json` wrote, whose figures to show. Repeat it for several."),
    ] = None,
    public_key: PublicKey = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write the model card of a guard: data, promise, measured figures, limits."""
    from pushforward.cli.files import check_output
    from pushforward.errors import StorageError
    from pushforward.estimators import Guard
    from pushforward.estimators.cards import guard_card, network_card
    from pushforward.io import read
    from pushforward.io.files import expanded
    from pushforward.io.strict_json import parse

    check_output(output, [str(guard_file), *map(str, reports or ())], force)
    header, tensors = read(guard_file, public_key=public_key)
    found = []
    for path in reports or ():
        try:
            found.append(parse(path.read_bytes()))
        except (OSError, ValueError, RecursionError) as error:
            raise StorageError(f"{path} is not a report as JSON: {str(error)[:200]}") from None
    more = {
        "Digest of the guard's file": digest_of(guard_file),
        "Size of the guard's file": f"{expanded(guard_file).stat().st_size / 1e6:.2f} MB",
    }
    if header["kind"] == "guard":
        text = guard_card(Guard.load(guard_file, public_key=public_key), guard_file.name, more, found)
    elif header["kind"] == "network guard":
        text = network_card(header, tensors["calibration"].numpy(), guard_file.name, more, found)
    else:
        raise ConfigError(f"{guard_file} contains a {header['kind']}; a card is of a guard.")
    write_text(text, output)
    if not quiet and output != "-":
        print(f"model card written to {output}")


@app.command(epilog="Example: `pushforward diff old.safetensors new.safetensors march.csv`")
def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="Guard file.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another guard file, of the same kind of data.")],
    table: Annotated[str, typer.Argument(help="Rows for both, read as by `score`.")],
    shown: Annotated[
        int, typer.Option("--rows-shown", help="Rows to show that only one guard alarms, for each.", min=0, max=1000)
    ] = 5,
    hide_values: Annotated[bool, typer.Option("--hide-values", help="Show no cell of a row.")] = False,
    rows: Rows = 65_536,
    format: Format = None,
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    decimal: Decimal = ".",
    network: Network = None,
    network_b: Annotated[
        str | None, typer.Option("--network-b", help="The network of B, if it is another one than that of A.")
    ] = None,
    public_key: PublicKey = None,
    as_json: AsJson = False,
) -> None:
    """Compare two guards on the same rows: both rates of alarms, rank correlation, and rows that only one alarms."""
    from pushforward.cli.files import reading
    from pushforward.cli.network import load_guard
    from pushforward.cli.show import pairs
    from pushforward.estimators.comparing import compare_parts

    names = (network, network_b or network)
    guards = [load_guard(path, name, public_key) for path, name in zip((first, second), names, strict=True)]
    options = reading(format, encoding, delimiter, decimal)
    found = compare_parts(
        guards[0], guards[1], _common_parts(guards, table, rows, options), shown=shown, values=not hide_values,
        name=source_name(table), files=(first.name, second.name),
    )  # fmt: skip
    if as_json:
        print(found.to_json())
        return
    pairs(f"A = {first.name}, B = {second.name}, on {source_name(table)}", found.facts())
    content = found.to_dict()
    for own, other in (("a", "b"), ("b", "a")):
        lines = {f"row {row['row']}": _line(row, own, other) for row in content[f"rows_only_{own}"]}
        if lines:
            count = content[f"only_{own}"]
            what = "all" if len(lines) == count else f"{len(lines)} of {count}"
            pairs(f"only {own.upper()} alarms: {what}", lines)


def _common_parts(guards: list[Any], table: str, rows: int, options: dict[str, Any]) -> Iterator[Any]:
    """Parts of a file for two guards; a column that they read in different types is read as text."""
    import numpy as np
    import pyarrow as pa

    from pushforward.cli.network import labeled_batches, numbers_of
    from pushforward.cli.parts import column_types
    from pushforward.estimators import NetworkGuard
    from pushforward.estimators.feature_names import in_order
    from pushforward.io import holds_images, stream_table

    if isinstance(guards[0], NetworkGuard):
        rows = min(rows, 1024)
        if all(hasattr(guard, "feature_names_in_") for guard in guards):  # each finds its columns by name
            names = dict.fromkeys(name for guard in guards for name in guard.feature_names_in_)
            yield from (
                numbers_of(in_order(names, chunk), table, options)
                for chunk in stream_table(table, rows=rows, types=dict.fromkeys(names, pa.float64()), **options)
            )
        elif holds_images(Path(table)):
            yield from (inputs for inputs, _ in labeled_batches(table, rows, options, None, guards[0]))
        else:  # an array, which each reads in the type of its own network
            for chunk in stream_table(
                table, rows=rows, types=column_types(guards[0]) | column_types(guards[1]), **options
            ):
                chunk = in_order(getattr(guards[0], "feature_names_in_", None), chunk)
                yield np.stack([column.to_numpy() for column in numbers_of(chunk, table, options).columns], 1)
        return
    if guards[0].reads_images or guards[1].reads_images:
        yield from parts_of(guards[0], table, rows, options)
        return
    first, second = (guard.schema_.pyarrow_types() for guard in guards)
    types = {name: kind for name, kind in (second | first).items() if second.get(name, kind) == first.get(name, kind)}
    yield from stream_table(table, rows=rows, types=types, **options)


def _line(row: dict[str, Any], own: str, other: str) -> str:
    from pushforward.report.text import figure, visible

    reasons = [r["sentence"] or _phrase(r) for r in row["reasons"][:2]]
    p = f"p = {figure(row[f'p_{own}'], 2)}, and {figure(row[f'p_{other}'], 2)} by {other.upper()}"
    return f"{p}: {' '.join(map(visible, reasons)) or row['sentence']}"


def _phrase(reason: dict[str, Any]) -> str:
    from pushforward.report.text import visible

    value = "" if reason["value"] in (None, "missing") else f" = {reason['value']}"
    return f"{visible(reason['column'], 40)}{value} ({reason['finding']})"
