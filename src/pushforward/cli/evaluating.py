"""The command evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pushforward.cli.commands import app
from pushforward.cli.files import AsJson, Decimal, Delimiter, Encoding, Format, PublicKey
from pushforward.cli.reporting import Network, Rows, parts_of, source_name
from pushforward.errors import ConfigError, SchemaError

__all__ = ["evaluate"]


@app.command(epilog="Example: `pushforward evaluate guard.safetensors labeled.csv --label fault --anomaly yes`")
def evaluate(
    guard_file: Annotated[Path, typer.Argument(metavar="GUARD", help="Guard file that `fit` wrote, or of a network.")],
    table: Annotated[
        str,
        typer.Argument(
            help="Rows that the guard was not fitted on; read as by `score`. With --anomalies, normal rows."
        ),
    ],
    label: Annotated[
        str | None, typer.Option(help="Column that says which rows are anomalies; the guard does not read it.")
    ] = None,
    anomaly: Annotated[
        str | None,
        typer.Option(help="Label of anomalies; by default true, 1 among 0 and 1, or -1 among -1 and 1."),
    ] = None,
    anomalies: Annotated[str | None, typer.Option(help="Table or images of anomalies, instead of --label.")] = None,
    rows: Rows = 65_536,
    format: Format = None,
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    decimal: Decimal = ".",
    network: Network = None,
    public_key: PublicKey = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a guard on known anomalies: AUROC, AUPR, the share caught and the false alarms, each with its interval.

    Rows without a label are left out. The intervals are at 95 %: of AUROC and AUPR by resampling the rows, of shares exact
    (Clopper and Pearson).
    """
    from pushforward.cli.files import reading
    from pushforward.cli.network import load_guard
    from pushforward.cli.show import pairs

    if (label is None) == (anomalies is None):
        raise ConfigError("say which rows are anomalies: give --label COLUMN, or --anomalies FILE.")
    if anomaly is not None and label is None:
        raise ConfigError("--anomaly is the label of anomalies in the column of --label, which is missing.")
    guard = load_guard(guard_file, network, public_key)
    options = reading(format, encoding, delimiter, decimal)
    sources = [(table, False)] if anomalies is None else [(table, False), (anomalies, True)]
    found = _evaluated(guard, sources, rows, options, label, anomaly)
    if as_json:
        print(found.to_json())
        return
    title = f"{guard_file.name} on {source_name(table)}" + (
        "" if anomalies is None else f" and {source_name(anomalies)}"
    )
    pairs(title, found.facts())
    for note in found.notes:
        print(f"note: {note}")


def _evaluated(
    guard: Any,
    sources: list[tuple[str, bool]],
    rows: int,
    options: dict[str, Any],
    label: str | None,
    anomaly: str | None,
) -> Any:
    """The evaluation of a guard on files, whose rows are scored in parts."""
    import numpy as np

    from pushforward.cli.parts import one_warning_of_all_parts
    from pushforward.data.schema import counted_from
    from pushforward.estimators import NetworkGuard
    from pushforward.estimators.evaluating import anomalous_rows, evaluate_answers

    scores, alarms, labels = [], [], []
    for source, odd in sources:
        before = len(labels)
        with one_warning_of_all_parts():
            for part, given in _labeled(guard, source, rows, options, label):
                if isinstance(guard, NetworkGuard):
                    out = guard(part)
                    score, alarm = out.score.numpy(), out.alarm.numpy()
                else:
                    with counted_from(len(labels) - before):
                        score = guard.anomaly_score(part)
                    alarm = guard._decide(-score) < 0
                scores.append(score)
                alarms.append(alarm)
                labels += [odd] * len(score) if given is None else given
    if not labels:
        raise ConfigError(f"{sources[0][0]} has no rows to evaluate.")
    values = np.empty(len(labels), dtype=object)
    values[:] = labels
    return evaluate_answers(guard, np.concatenate(scores), np.concatenate(alarms), *anomalous_rows(values, anomaly))


def _labeled(guard: Any, source: str, rows: int, options: dict[str, Any], label: str | None) -> Any:
    """Parts of a file for a guard, each with the labels of its rows, or None without a column of labels."""
    from pushforward.cli.network import check_label, labeled_batches
    from pushforward.data.schema import present_columns
    from pushforward.estimators import NetworkGuard

    if isinstance(guard, NetworkGuard):
        yield from labeled_batches(source, min(rows, 1024), options, label, guard, classes=False)
        return
    if label is None:
        yield from ((part, None) for part in parts_of(guard, source, rows, options))
        return
    if guard.reads_images:
        raise ConfigError(f"--label {label}: images have no columns; give the anomalies by --anomalies.")
    check_label(guard, label)
    for part in parts_of(guard, source, rows, options):
        if label not in part.column_names:
            raise SchemaError(f"{source} has no column {label!r}; it has {present_columns(label, part.column_names)}.")
        yield part.drop_columns([label]), part.column(label).to_pylist()
