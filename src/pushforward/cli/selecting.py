"""The command selective."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pushforward.cli.commands import Quiet, app
from pushforward.cli.files import AsJson, Decimal, Delimiter, Encoding, Force, Format, OutputFormat, PublicKey
from pushforward.cli.reporting import Network, Rows
from pushforward.errors import ConfigError

__all__ = ["selective"]

_BATCH = 1024
"""Most inputs of a network in memory at a time."""


@app.command(
    epilog="Example: `pushforward selective guard.safetensors new.csv --network models:net --calibration held_out.csv --label class --error 0.05 -o answers.csv`"
)
def selective(
    guard_file: Annotated[
        Path, typer.Argument(metavar="GUARD", help="File of the guard of a network that classifies.")
    ],
    table: Annotated[str, typer.Argument(help="Inputs to answer, read as by `score`.")],
    calibration: Annotated[
        str, typer.Option(help="Rows with labels, that neither the network nor the guard has seen.", metavar="FILE")
    ],
    label: Annotated[
        str, typer.Option(help="Column of --calibration with the true class, a number; the network does not read it.")
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Table to write; - for standard output.")] = "-",
    error: Annotated[
        float | None,
        typer.Option(
            help="Largest share of wrong answers among the accepted ones; without it no answer is rejected but those with an alarm."
        ),
    ] = None,
    coverage: Annotated[
        float, typer.Option(help="Smallest share of inputs whose set of classes contains the true one.")
    ] = 0.9,
    delta: Annotated[float, typer.Option(help="Probability that the promised error fails.")] = 0.05,
    rows: Rows = 65_536,
    prefix: Annotated[str, typer.Option(help="Text before the names of the new columns.")] = "",
    format: Format = None,
    output_format: OutputFormat = None,
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    decimal: Decimal = ".",
    network: Network = None,
    public_key: PublicKey = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Answer with a promised error: accept or reject each answer of a network, and give a set of classes.

    Adds prediction, accept, classes (the set, separated by spaces), p_value and alarm to each row. Both promises are for inputs like
    those of --calibration that raise no alarm. An answer with an alarm is rejected.
    """
    from pushforward.cli.files import check_output, reading, report, written_format
    from pushforward.cli.network import labeled_batches, load_guard
    from pushforward.estimators import NetworkGuard
    from pushforward.io import TableWriter

    chosen = written_format(output, output_format, format)
    check_output(
        output, [str(guard_file), table, calibration], force, binary=chosen in ("parquet", "arrow"), table=True
    )
    guard = load_guard(guard_file, network, public_key)
    if not isinstance(guard, NetworkGuard):
        raise ConfigError(f"selective needs the guard of a network that classifies, and {guard_file} is none.")
    options = reading(format, encoding, delimiter, decimal)
    held_out = labeled_batches(calibration, min(rows, _BATCH), options, label, guard)
    fitted = guard.selective(held_out, coverage=coverage, risk=error, delta=delta)
    total = alarms = accepted = 0
    with TableWriter(output, chosen) as writer:
        for chunk, result in _answers(guard, fitted, table, min(rows, _BATCH), options, prefix):
            writer.write(chunk)
            total, alarms = total + len(result["alarm"]), alarms + int(result["alarm"].sum())
            accepted += int(result["accept"].sum())
    if as_json or not (quiet or output == "-"):
        from pushforward.report.text import confidence

        facts = {
            "rows": total,
            "alarms": alarms,
            "accepted": accepted,
            "error": error,
            "coverage": coverage,
            "delta": delta,
            "output": output,
        }
        plain = {
            "rows": total,
            "alarms": alarms,
            "accepted": accepted,
            "promised": f"sets contain the class of {coverage:.2%} of inputs without an alarm"
            + (
                ""
                if error is None
                else f"; at most {error:.2%} of the accepted answers are wrong, with probability {confidence(delta)}"
            ),
        }
        report(f"answers written to {output}", facts, as_json=as_json, output=output, plain=plain)


def _answers(
    guard: Any, fitted: Any, table: str, rows: int, options: dict[str, Any], prefix: str
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The parts of a file with their new columns."""
    from pushforward.cli.network import network_parts
    from pushforward.cli.parts import with_scores

    for chunk, inputs in network_parts(table, rows, options, guard):
        out = guard(inputs)
        sets = fitted.sets(out.logits.double().nan_to_num().numpy())
        accept = ~out.alarm if fitted.rule is None else out.accept(fitted)
        result = {
            "prediction": out.prediction.numpy(),
            "accept": accept.numpy(),
            "classes": [" ".join(str(k) for k in row.nonzero()[0]) for row in sets],
            "p_value": out.p_value.numpy(),
            "alarm": out.alarm.numpy(),
        }
        yield with_scores(chunk, result, prefix, table), result
