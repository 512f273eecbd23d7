"""The commands: demo, fit, score, sample, info."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from pushforward.cli.facts import facts_of, summary, system_facts
from pushforward.cli.files import AsJson, Decimal, Delimiter, Encoding, Force, Format, OutputFormat, PublicKey
from pushforward.errors import ConfigError

app = typer.Typer(
    name="pushforward",
    help="Exact-likelihood density models, and guards that know when an input is unlike the training data.",
    no_args_is_help=True,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog=(
        "Exit codes: 0 done; 1 an error that the message explains; 2 wrong arguments; 3 a check that failed (`report --fail-on`); 70 an unexpected error; 130 "
        "interrupted; 141 the program that reads the output has ended. Add --debug to any command for a traceback."
    ),
)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings and errors.")]


def _example(command: str) -> str:
    return f"Example: `{command}`"


def _print_version(wanted: bool) -> None:
    if wanted:
        import pushforward

        print(pushforward.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    pass


@app.command(epilog=_example("pushforward demo -o demo.png"))
def demo(
    data: Annotated[
        str,
        typer.Option(
            help="What to show: network (one that knows clothes meets digits), images (the same without a network) or table (patients; the anomalies are ill)."
        ),
    ] = "network",
    output: Annotated[Path, typer.Option("--output", "-o", help="Picture to write.")] = Path("pushforward-demo.png"),
    seed: Annotated[int, typer.Option(help="Seed of the divisions and of the training.")] = 0,
) -> None:
    """Fit, calibrate and score real data with real anomalies. It takes seconds for a network or a table, and about a minute for images."""
    from matplotlib.backend_bases import FigureCanvasBase

    from pushforward.cli import demo_images, demo_network, demo_table

    demos = {"network": demo_network, "images": demo_images, "table": demo_table}
    if data not in demos:
        raise ConfigError(f"--data must be network, images or table; got {data!r}.")
    if output.is_dir() or output.suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        raise ConfigError(f"--output must be the name of a picture, such as demo.png or demo.pdf; got {str(output)!r}.")
    demos[data].run(output, seed)


@app.command(epilog=_example("pushforward fit train.csv -o guard.safetensors --alpha 0.05"))
def fit(
    table: Annotated[
        str,
        typer.Argument(
            help="Training data without anomalies, or with few: a table (CSV, TSV, JSON Lines, Parquet, Arrow, NPY, NPZ, a folder of such files, a URI, or - for standard input) or images (folder, IDX, NPY, NPZ, Parquet)."
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Guard file to write; - for standard output.")],
    alpha: Annotated[float, typer.Option(help="Promised false-alarm rate.")] = 0.01,
    guarantee: Annotated[
        str,
        typer.Option(help="What the rate is promised for: 'marginal' (the average over guards) or 'pac' (this guard)."),
    ] = "marginal",
    delta: Annotated[float, typer.Option(help="Probability that the 'pac' promise fails.")] = 0.05,
    effort: Annotated[
        str, typer.Option(help="Work for the score of a table: fast, default or thorough (which implies --density).")
    ] = "default",
    density: Annotated[
        bool, typer.Option("--density", help="Train flows of a table too, for log_prob and `sample`.")
    ] = False,
    model: Annotated[
        str, typer.Option(help="Flows: auto, nice, realnvp, maf or nsf; for images auto, glow or nice.")
    ] = "auto",
    n_estimators: Annotated[int, typer.Option(help="Number of flows in the ensemble of a table.")] = 5,
    max_steps: Annotated[
        int | None, typer.Option(help="Training steps of each flow; by default 2000 for tables and 1500 for images.")
    ] = None,
    max_time: Annotated[str | None, typer.Option(help="Longest training time, such as 90s or 5m.")] = None,
    exportable: Annotated[
        bool, typer.Option("--exportable", help="Fit a score whose exported graph is small and fast; see `export`.")
    ] = False,
    drop: Annotated[
        list[str] | None,
        typer.Option(help="Column to set aside, here and in every table to score. Repeat it for several."),
    ] = None,
    drop_identifiers: Annotated[
        bool, typer.Option("--drop-identifiers", help="Set aside columns with identifiers, free text or row numbers.")
    ] = False,
    max_contamination: Annotated[
        float, typer.Option(help="Upper bound of the fraction of anomalies among the rows, up to 0.25.")
    ] = 0.0,
    no_rows: Annotated[
        bool, typer.Option("--no-rows", help="Store no training rows in the file; the guard then detects less.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Raise an alarm for every category, missing cell, constant or fraction that no training row has.",
        ),
    ] = False,
    groups: Annotated[
        str | None,
        typer.Option(help="Column of groups whose rows depend on each other: the promise is for new groups."),
    ] = None,
    time_column: Annotated[
        str | None, typer.Option("--time", help="Column with the order of time: the latest rows calibrate.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split and the training.")] = 0,
    format: Format = None,
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    decimal: Decimal = ".",
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fit a guard to a table or to images and write it to one file.

    After Ctrl-C the same command goes on with the flows where it was stopped, from the folder OUTPUT.checkpoint, which is deleted
    at the end. (With --max-time a table starts again, since what is fitted depends on the clock.)
    """
    from pushforward.cli.files import check_output, local, reading, report, save
    from pushforward.cli.parts import SCORED
    from pushforward.cli.resuming import checkpoint_folder, goes_on
    from pushforward.data.schema import present_columns
    from pushforward.errors import InputError, warn_caller
    from pushforward.estimators import Guard
    from pushforward.estimators.fit_checkpoint import remove_checkpoint
    from pushforward.estimators.ignored_columns import columns_to_ignore, without
    from pushforward.io import holds_images, read_images, read_table

    start = time.perf_counter()
    check_output(output, [table], force, binary=True)
    images = local(table) and format is None and holds_images(Path(table))
    data: Any = read_images(table) if images else read_table(table, **reading(format, encoding, delimiter, decimal))
    if drop and images:
        raise InputError(f"--drop {drop[0]}: {table} contains images, which have no columns.")
    if drop:
        unknown = [name for name in drop if name not in data.column_names]
        if unknown:
            raise InputError(
                f"--drop {unknown[0]}: {table} has no such column; it has {present_columns(unknown[0], data.column_names)}."
            )
    if not images and (
        taken := [name for name in (*SCORED, "log_prob") if name in data.column_names and name not in (drop or ())]
    ):
        warn_caller(
            f"the table has a column {taken[0]!r}, as `pushforward score` writes it: if the table is such a result, leave its columns out, --drop "
            f"{' --drop '.join(taken)}; otherwise score new rows with --prefix."
        )
    ignore = "auto" if drop_identifiers else drop or None
    if drop and drop_identifiers:
        ignore = [*drop, *columns_to_ignore(without(data, drop), "auto")]
    guard = Guard(
        alpha,
        guarantee=guarantee,  # pyright: ignore[reportArgumentType]  Guard checks the value
        delta=delta,
        effort=effort,
        density=density,
        model=model,
        n_estimators=n_estimators,
        max_steps=max_steps,
        max_time=max_time,
        exportable=exportable,
        ignore=ignore,
        strict=strict,
        max_contamination=max_contamination,
        store_rows=not no_rows,
        random_state=seed,
        verbose=not (quiet or as_json),
    )
    folder = checkpoint_folder(output, guard.get_params(), images)
    with goes_on(folder, quiet or as_json):
        guard.fit(data, groups=groups, time=time_column, checkpoint=folder)
    save(guard, output)
    if folder is not None:
        remove_checkpoint(folder)
    if as_json or not quiet:
        facts = {**summary(guard), "seconds": f"{time.perf_counter() - start:.1f}"}
        report(f"guard written to {output}", {**facts_of(guard), "output": output, "seconds": round(time.perf_counter() - start, 3)},
               as_json=as_json, output=output, plain=facts)  # fmt: skip


@app.command(epilog=_example("zcat new.csv.gz | pushforward score guard.safetensors - --format csv | head"))
def score(
    guard_file: Annotated[Path, typer.Argument(metavar="GUARD", help="Guard file that `fit` wrote.")],
    table: Annotated[
        str,
        typer.Argument(
            help="Table to score, of any length, because it is read in chunks: a file, a folder, a URI, or - for standard input; for a guard of images, images."
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", help="Table to write: CSV, TSV, JSON Lines, Parquet or Arrow; - for standard output."
        ),
    ] = "-",
    rows: Annotated[int, typer.Option(help="Number of rows in memory at a time.", min=1)] = 65_536,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that score, of one thread each; the output is the same. By default 1, and with --ray as many as the cluster has CPUs. An input of at most two parts of --rows rows starts none.",
            min=1,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Score on a Ray cluster, into a folder of Parquet files; the same command goes on after an interruption. 'local' starts one on this machine, 'auto' finds the one that runs.",
        ),
    ] = None,
    gpus: Annotated[float, typer.Option(help="GPUs of each worker of Ray, for the guard of a network.", min=0)] = 0,
    prefix: Annotated[str, typer.Option(help="Text before the names of the new columns.")] = "",
    format: Format = None,
    output_format: OutputFormat = None,
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    decimal: Decimal = ".",
    force: Force = False,
    public_key: PublicKey = None,
    as_json: AsJson = False,
    network: Annotated[
        str | None,
        typer.Option(help="package.module:function that returns the network, for the guard of a network."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Add anomaly_score, p_value and alarm to each row of a table, and log_prob if the guard has a density.

    For images it writes a table with the number of each image, counted from 0, its file where it has one (its path in the folder), anomaly_score,
    p_value and alarm. The guard of a network needs --network, and adds prediction and reason.
    """
    from pushforward.cli.files import check_output, reading, report, written_format
    from pushforward.cli.network import load_guard
    from pushforward.cli.scoring import score_file
    from pushforward.cli.workers import GuardSource

    if gpus and ray is None:
        raise ConfigError("--gpus is for --ray.")
    chosen = None
    if ray is None:
        chosen = written_format(output, output_format, format)
        check_output(output, [str(guard_file), table], force, binary=chosen in ("parquet", "arrow"), table=True)
    elif output_format not in (None, "parquet"):
        raise ConfigError("with --ray the output is a folder of Parquet files.")
    source = GuardSource.of(guard_file, network, public_key)
    guard = load_guard(guard_file, network, public_key)
    options = reading(format, encoding, delimiter, decimal)
    if ray is not None:
        from pushforward.cli.ray_scoring import score_with_ray

        found = score_with_ray(
            guard,
            source,
            table,
            output,
            address=ray,
            workers=workers,
            gpus=gpus,
            rows=rows,
            prefix=prefix,
            options=options,
        )
    else:
        found = score_file(
            guard,
            table,
            output,
            rows=rows,
            prefix=prefix,
            format=chosen,
            options=options,
            workers=workers or 1,
            source=source,
        )
    if as_json or not (quiet or output == "-"):
        fraction = f"{found['alarms']} ({found['alarm_fraction']:.2%})"
        plain = {"rows": found["rows"], "alarms": fraction, "promised": f"{100 * guard.alpha:.3g}% of normal rows",
                 "seconds": f"{found['seconds']:.1f}"}  # fmt: skip
        report(f"scores written to {output}", found, as_json=as_json, output=output, plain=plain)


@app.command(epilog=_example("pushforward sample guard.safetensors -n 100 -o new.csv"))
def sample(
    file: Annotated[Path, typer.Argument(help="Guard or model file.")],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", help="Table to write: CSV, TSV, JSON Lines, Parquet or Arrow; - for standard output."
        ),
    ] = "-",
    number: Annotated[int, typer.Option("--number", "-n", help="Number of rows to sample.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    output_format: OutputFormat = None,
    force: Force = False,
    public_key: PublicKey = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Sample rows from a fitted density, with the columns of the training table."""
    from pushforward.cli.files import check_output, report, written_format
    from pushforward.data import as_table
    from pushforward.estimators import FlowDensity, Guard
    from pushforward.io import TableWriter, load, read

    chosen = written_format(output, output_format)
    check_output(output, [str(file)], force, binary=chosen in ("parquet", "arrow"), table=True)
    kind = read(file, public_key=public_key)[0]["kind"]
    if kind == "guard":
        samples = Guard.load(file, public_key=public_key).sample(number, random_state=seed)
    elif kind == "density":
        samples = as_table(FlowDensity.load(file, public_key=public_key).sample(number, random_state=seed))
    else:
        model = load(file, public_key=public_key)
        samples = as_table(model.sample(number, seed=seed).reshape(number, -1).numpy())
    with TableWriter(output, chosen) as writer:
        writer.write(samples)
    if as_json or not (quiet or output == "-"):
        facts = {"rows": number, "columns": samples.num_columns}
        report(f"samples written to {output}", facts, as_json=as_json, output=output)


@app.command(epilog=_example("pushforward info guard.safetensors"))
def info(
    file: Annotated[Path | None, typer.Argument(help="Any file that pushforward wrote.")] = None,
    system: Annotated[bool, typer.Option("--system", help="Print versions and the native kernels in use.")] = False,
    public_key: PublicKey = None,
    as_json: AsJson = False,
) -> None:
    """Print what a file contains, or with --system the versions and the native kernels in use."""
    from pushforward.cli.files import report
    from pushforward.cli.show import columns
    from pushforward.estimators import FlowDensity, Guard
    from pushforward.estimators.guard_file import describe_file
    from pushforward.io import load, read

    if system == (file is not None):
        raise ConfigError("info takes either a file or --system.")
    if file is None:
        report("system", system_facts(), as_json=as_json)
        return
    header = read(file, public_key=public_key)[0]
    facts: dict[str, Any] = {
        "kind": header["kind"],
        "written by": ", ".join(f"{k} {v}" for k, v in header["versions"].items()),
    }
    if header["kind"] == "guard":
        guard, lacks = describe_file(Guard, file, public_key)
        machine = {**facts, **facts_of(guard), "lacks": sorted(lacks)}
        report(str(file), machine, as_json=as_json, plain={**facts, **summary(guard), **lacks})
        if not (guard.reads_images or as_json):
            columns(guard.schema_)
    elif header["kind"] == "network guard":
        from pushforward.cli.network import summary as network_summary

        report(str(file), {**facts, **network_summary(header)}, as_json=as_json)
    elif header["kind"] in ("model", "density"):
        if header["kind"] == "model":
            model = load(file, public_key=public_key)
        else:
            model = FlowDensity.load(file, public_key=public_key).model_
        size = sum(p.numel() for p in model.parameters())
        facts |= {"model": type(model).__name__, "shape": str(tuple(model.shape)), "fast": model.fast,
                  "likelihood": f"{model.kind.value} on {model.measure}", "parameters": size}  # fmt: skip
        report(str(file), facts, as_json=as_json)
    else:
        report(str(file), facts, as_json=as_json)
