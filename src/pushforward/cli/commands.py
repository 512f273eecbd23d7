"""The commands: demo, fit, score, sample, info."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from pushforward.errors import ConfigError

app = typer.Typer(
    name="pushforward",
    help="Exact-likelihood density models, and guards that know when an input is unlike the training data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog="Add --debug to any command for a traceback.",
)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")]


def _example(command: str) -> str:
    return f"Example: `{command}`"


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    if version:
        import pushforward

        print(pushforward.__version__)
        raise typer.Exit


@app.command(epilog=_example("pushforward demo -o demo.png"))
def demo(
    data: Annotated[
        str,
        typer.Option(
            help="Data set: images (clothes; the anomalies are digits) or table (patients; the anomalies are ill)."
        ),
    ] = "images",
    output: Annotated[Path, typer.Option("--output", "-o", help="Picture to write.")] = Path("pushforward-demo.png"),
    seed: Annotated[int, typer.Option(help="Seed of the split and the training.")] = 0,
) -> None:
    """Fit, calibrate and score real data with real anomalies. It takes one to two minutes."""
    from pushforward.cli import demo_images as images
    from pushforward.cli import demo_table as tables

    if data not in ("images", "table"):
        raise ConfigError(f"--data must be images or table; got {data!r}.")
    (images if data == "images" else tables).run(output, seed)


@app.command(epilog=_example("pushforward fit train.csv -o guard.safetensors --alpha 0.05"))
def fit(
    table: Annotated[
        Path,
        typer.Argument(
            help="Training data without anomalies, or with few: a table (CSV, TSV, JSON Lines, Parquet, Arrow, NPY, NPZ, or a folder of such files) or images (folder, IDX, NPY, NPZ, Parquet)."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Guard file to write.")],
    alpha: Annotated[float, typer.Option(help="Promised false-alarm rate.")] = 0.01,
    guarantee: Annotated[
        str,
        typer.Option(help="What the rate is promised for: 'marginal' (the average over guards) or 'pac' (this guard)."),
    ] = "marginal",
    delta: Annotated[float, typer.Option(help="Probability that the 'pac' promise fails.")] = 0.05,
    model: Annotated[
        str, typer.Option(help="Model: auto, nice, realnvp, maf or nsf; for images auto, glow or nice.")
    ] = "auto",
    members: Annotated[int, typer.Option(help="Number of flows in the ensemble.")] = 5,
    max_steps: Annotated[
        int | None, typer.Option(help="Training steps of each flow; by default 2000 for tables and 3000 for images.")
    ] = None,
    max_time: Annotated[str | None, typer.Option(help="Longest training time, such as 90s or 5m.")] = None,
    drop: Annotated[list[str] | None, typer.Option(help="Column to leave out. Repeat the option for several.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split and the training.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Fit a guard to a table or to images and write it to one file."""
    from pushforward.errors import InputError
    from pushforward.estimators import Guard
    from pushforward.io import holds_images, read_images, read_table

    start = time.perf_counter()
    _check_output(output)
    images = holds_images(table)
    data: Any = read_images(table) if images else read_table(table)
    if drop and images:
        raise InputError(f"--drop {drop[0]}: {table} contains images, which have no columns.")
    if drop:
        unknown = [name for name in drop if name not in data.column_names]
        if unknown:
            raise InputError(f"--drop {unknown[0]}: {table} has no such column; it has {', '.join(data.column_names)}.")
        data = data.drop_columns(drop)
    guard = Guard(
        alpha,
        guarantee=guarantee,  # pyright: ignore[reportArgumentType]  Guard checks the value
        delta=delta,
        model=model,
        n_estimators=members,
        max_steps=max_steps,
        max_time=max_time,
        random_state=seed,
        verbose=not quiet,
    ).fit(data)
    guard.save(output)
    if not quiet:
        from pushforward.cli.show import pairs

        pairs(f"guard written to {output}", {**summary(guard), "seconds": f"{time.perf_counter() - start:.1f}"})


@app.command(epilog=_example("pushforward score guard.safetensors new.csv -o scores.csv"))
def score(
    guard_file: Annotated[Path, typer.Argument(metavar="GUARD", help="Guard file that `fit` wrote.")],
    table: Annotated[
        Path,
        typer.Argument(
            help="Table to score, of any length, because it is read in chunks; for a guard of images, images."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write: CSV, Parquet or Arrow.")],
    rows: Annotated[int, typer.Option(help="Number of rows in memory at a time.", min=1)] = 65_536,
    prefix: Annotated[str, typer.Option(help="Text before the names of the new columns.")] = "",
    network: Annotated[
        str | None,
        typer.Option(help="package.module:function that returns the network, for the guard of a network."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Add log_prob, anomaly_score, p_value and alarm to each row of a table.

    For images it writes a table with the number of each image, counted from 0, anomaly_score, p_value and alarm. The guard of a network
    needs --network, and adds prediction and reason.
    """
    import pyarrow as pa

    from pushforward.errors import SchemaError
    from pushforward.estimators import Guard, NetworkGuard
    from pushforward.io import TableWriter, read, read_images, stream_table

    _check_output(output)
    around_network = read(guard_file)[0]["kind"] == "network guard"
    if around_network and network is None:
        raise ConfigError(
            f"{guard_file} guards a network: name the function that returns it, --network package.module:function."
        )
    if network is not None and not around_network:
        raise ConfigError(f"--network is for the guard of a network, and {guard_file} is none.")
    start, total, alarms = time.perf_counter(), 0, 0
    guard: Any
    if network is not None:
        from pushforward.cli.network import load_network, scored_parts

        guard = NetworkGuard.load(guard_file, load_network(network))
        scored = scored_parts(guard, table, min(rows, 1024))
    else:
        guard = Guard.load(guard_file)
        scored = None
    if scored is not None:
        chunks: Iterable[tuple[Any, Any]] = scored
    elif guard.reads_images:
        images = read_images(table)
        parts = ((k, images[k : k + rows]) for k in range(0, len(images), rows))
        chunks = ((pa.table({"image": range(k, k + len(x))}), x) for k, x in parts)
    else:
        stream = stream_table(table, rows=rows, types=guard.schema_.pyarrow_types())
        chunks = ((chunk, chunk) for chunk in stream)
    with TableWriter(output) as writer:
        for chunk, inputs in chunks:
            result: dict[str, Any] = inputs if scored is not None else guard.assess(inputs)  # pyright: ignore[reportAssignmentType]
            for name, values in result.items():
                if prefix + name in chunk.column_names:
                    raise SchemaError(
                        f"{table} already has a column {prefix + name!r}: choose other names, for example with --prefix guard_"
                    )
                chunk = chunk.append_column(prefix + name, pa.array(values))
            writer.write(chunk)
            total += chunk.num_rows
            alarms += int(result["alarm"].sum())
    if not quiet:
        from pushforward.cli.show import pairs

        fraction = f"{alarms} ({alarms / total:.2%})" if total else "0"
        pairs(
            f"scores written to {output}",
            {"rows": total, "alarms": fraction, "promised": f"{guard.alpha:.2%} of normal rows",
             "seconds": f"{time.perf_counter() - start:.1f}"},
        )  # fmt: skip


@app.command(epilog=_example("pushforward sample guard.safetensors -n 100 -o new.csv"))
def sample(
    file: Annotated[Path, typer.Argument(help="Guard or model file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write: CSV, Parquet or Arrow.")],
    number: Annotated[int, typer.Option("--number", "-n", help="Number of rows to sample.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Sample rows from a fitted density, with the columns of the training table."""
    from pushforward.cli.show import pairs
    from pushforward.data import as_table
    from pushforward.estimators import FlowDensity, Guard
    from pushforward.io import TableWriter, load, read

    _check_output(output)
    kind = read(file)[0]["kind"]
    if kind == "guard":
        samples = Guard.load(file).sample(number, random_state=seed)
    elif kind == "density":
        samples = as_table(FlowDensity.load(file).sample(number, random_state=seed))
    else:
        samples = as_table(load(file).sample(number, seed=seed).reshape(number, -1).numpy())
    with TableWriter(output) as writer:
        writer.write(samples)
    if not quiet:
        pairs(f"samples written to {output}", {"rows": number, "columns": samples.num_columns})


@app.command(epilog=_example("pushforward info guard.safetensors"))
def info(
    file: Annotated[Path | None, typer.Argument(help="Any file that pushforward wrote.")] = None,
    system: Annotated[bool, typer.Option("--system", help="Print versions and the native kernels in use.")] = False,
) -> None:
    """Print what a file contains, or with --system the versions and the native kernels in use."""
    from pushforward.cli.show import columns, pairs
    from pushforward.estimators import FlowDensity, Guard
    from pushforward.io import load, read

    if system == (file is not None):
        raise ConfigError("info takes either a file or --system.")
    if file is None:
        pairs("system", _system())
        return
    header = read(file)[0]
    facts: dict[str, Any] = {
        "kind": header["kind"],
        "written by": ", ".join(f"{k} {v}" for k, v in header["versions"].items()),
    }
    if header["kind"] == "guard":
        guard = Guard.load(file)
        pairs(str(file), {**facts, **summary(guard)})
        if not guard.reads_images:
            columns(guard.schema_)
    elif header["kind"] == "network guard":
        from pushforward.cli.network import summary as network_summary

        pairs(str(file), {**facts, **network_summary(header)})
    elif header["kind"] in ("model", "density"):
        model = load(file) if header["kind"] == "model" else FlowDensity.load(file).model_
        size = sum(p.numel() for p in model.parameters())
        pairs(str(file), {**facts, "model": type(model).__name__, "shape": str(tuple(model.shape)),
                          "likelihood": f"{model.kind.value} on {model.measure}", "fast": model.fast,
                          "parameters": f"{size:,}"})  # fmt: skip
    else:
        pairs(str(file), facts)


def _system() -> dict[str, Any]:
    """Versions, and the native kernels in use."""
    import platform

    import torch

    import pushforward
    from pushforward.kernels import description

    kernels = description()
    levels = f"{', '.join(kernels['levels'])} ({'with' if kernels['openmp'] else 'without'} OpenMP)"
    return {
        "pushforward": pushforward.__version__,
        "torch": torch.__version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "kernels in use": f"native, {kernels['level']}" if kernels["level"] else f"plain: {kernels['reason']}",
        "kernels installed": levels if kernels["installed"] else "none",
        "kernels asked for": kernels["mode"],
        "threads": kernels["threads"],
    }


def summary(guard: Any) -> dict[str, Any]:
    """The facts about a fitted guard that a user needs."""
    from pushforward.detection.conformal.guarantees import false_alarm_distribution

    calibrated = len(guard.calibrator_.scores)
    low, high = false_alarm_distribution(calibrated, guard.alpha, guard.guarantee, guard.delta).interval(0.95)
    promise = f"at most {guard.alpha:.2%}"
    promise += " on average" if guard.guarantee == "marginal" else f", with probability {1 - guard.delta:.0%}"
    alarms = {
        "calibration rows": calibrated,
        "false alarms": f"{promise} ({guard.guarantee}); 95% of such guards have a rate of {low:.2%} to {high:.2%}",
    }
    if guard.reads_images:
        return {"images": " x ".join(map(str, guard.score_.shape)), **alarms, "score": repr(guard.score_)}
    return {
        "columns": guard.n_features_in_,
        "training rows": guard.table_features_.rows,
        **alarms,
        "density": f"{guard.model} x {guard.n_estimators}, {guard.density_.kind.value} on {guard.density_.measure}",
    }


def _check_output(path: Path) -> None:
    """Fail before the work if the output cannot be written."""
    from pushforward.errors import StorageError

    if path.is_dir():
        raise StorageError(f"{path} is a directory: give the name of a file to write.")
    if not path.parent.is_dir():
        raise StorageError(f"the directory {path.parent} does not exist: make it first.")
