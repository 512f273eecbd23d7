"""The commands of the service: serve, audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pushforward.cli.commands import app
from pushforward.cli.files import Force, PublicKey
from pushforward.errors import ConfigError

__all__ = ["audit", "serve"]


@app.command(epilog="Example: `pushforward serve guard.safetensors --port 8000`")
def serve(
    guards: Annotated[
        list[str],
        typer.Argument(metavar="GUARD...", help="Guard files. NAME=FILE gives a model another name than its file."),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine it needs --token-file.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free port.", min=0, max=65535)] = 8000,
    store: Annotated[
        str,
        typer.Option(help="Store: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME.", envvar="PUSHFORWARD_STORE"),
    ] = "sqlite:///pushforward-events.sqlite",
    durability: Annotated[
        str,
        typer.Option(
            help="strict: an answer is sent when its events are on disk. fast: they are written within half a second, and a crash loses that time. none: no events."
        ),
    ] = "fast",
    token_file: Annotated[Path | None, typer.Option(help="File with lines read:TOKEN and admin:TOKEN.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
    max_batch: Annotated[int, typer.Option(help="Rows that are scored together.", min=1)] = 256,
    max_wait: Annotated[
        float, typer.Option(help="Seconds that a request waits to be scored with others.", min=0)
    ] = 0.002,
    queue: Annotated[int, typer.Option(help="Rows that may wait; more are refused with 429.", min=1)] = 4096,
    max_rows: Annotated[
        int | None, typer.Option(help="Rows in one request; by default 4096, or --queue if it is smaller.", min=1)
    ] = None,
    max_body: Annotated[int, typer.Option(help="Bytes in one request.", min=1)] = 16 * 2**20,
    timeout: Annotated[float, typer.Option(help="Seconds in which a request must be answered.")] = 30.0,
    store_inputs: Annotated[
        bool,
        typer.Option(
            "--store-inputs",
            help="Store inputs with their events. Everybody who reads the store or the page then sees them.",
        ),
    ] = False,
    retention_days: Annotated[float | None, typer.Option(help="Age at which events are deleted.")] = None,
    alerts: Annotated[Path | None, typer.Option(help="TOML file of receivers and rules.")] = None,
    audit_key: Annotated[
        Path | None, typer.Option(help="Key that signs the audit chain; made beside an SQLite store by default.")
    ] = None,
    allowed_host: Annotated[list[str] | None, typer.Option(help="Further Host header to accept on loopback.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key of the certificate, PEM.")] = None,
    public_url: Annotated[str | None, typer.Option(help="URL of the page, for links in alerts.")] = None,
    public_key: PublicKey = None,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Write a line to the log for every request, without its content.")
    ] = False,
) -> None:
    """Serve guards over HTTP: scores, the Open Inference Protocol, MLflow's routes, metrics, and a live page."""
    from pushforward.service import ServiceSettings, model_files

    settings = ServiceSettings(
        model_files(guards),
        host=host,
        port=port,
        store=store,
        durability=durability,
        workers=workers,
        token_file=_text(token_file),
        allowed_hosts=tuple(allowed_host or ()),
        tls_cert=_text(tls_cert),
        tls_key=_text(tls_key),
        max_batch=max_batch,
        max_wait=max_wait,
        queue=queue,
        max_rows=min(4096, queue) if max_rows is None else max_rows,
        max_body=max_body,
        timeout=timeout,
        store_inputs=store_inputs,
        retention_days=retention_days,
        alert_file=_text(alerts),
        audit_key=_text(audit_key),
        public_url=public_url,
        public_key=_text(public_key),
        access_log=access_log,
    )
    _need_extra()
    from pushforward.cli.network import refuse_network_guard
    from pushforward.service.server import serve as run

    for _, path in settings.models:
        refuse_network_guard(
            path, public_key, "serve", "call the guard where the network is served, out = guard(inputs)"
        )

    raise typer.Exit(run(settings))


@app.command(epilog="Example: `pushforward audit sqlite:///pushforward-events.sqlite --export events.parquet`")
def audit(
    store: Annotated[
        str, typer.Argument(help="Store of a service: sqlite:///FILE or postgresql://...", envvar="PUSHFORWARD_STORE")
    ],
    public_key: Annotated[
        str | None, typer.Option(help="Key (64 hexadecimal digits) that all signatures must be from.")
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Parquet file to write all stored events to.")] = None,
    force: Force = False,
) -> None:
    """Verify the audit chain of a service: nothing was changed, removed or inserted. Exit code 1 if something was."""
    from pushforward.cli.files import check_output
    from pushforward.cli.show import pairs

    _need_extra()
    from pushforward.service.store import Store
    from pushforward.service.store.audit import verify
    from pushforward.service.store.export import export_events

    opened = Store(store)
    if opened.path is not None and not opened.path.is_file():
        raise ConfigError(f"there is no store {opened.path}.")
    try:
        if export is not None:
            files = [] if opened.path is None else [f"{opened.path}{end}" for end in ("", "-wal", "-shm", ".key")]
            check_output(str(export), [name for name in files if Path(name).exists()], force)
        report = verify(opened, public_key)
        facts = {
            "audit chain": "valid" if report.valid else "NOT VALID",
            "entries": report.entries,
            "signed up to entry": report.sealed,
            "events compared": report.events,
            "entries whose events were deleted after their retention time": report.deleted,
        }
        if export is not None:
            facts["events exported"] = export_events(opened, export)
        pairs(opened.shown, facts)
        if report.key:
            typer.echo(f"  public key of the signatures: {report.key}")  # on one line, to be copied
        for problem in report.problems:
            typer.echo(f"  {problem}")
    finally:
        opened.close()
    if not report.valid:
        raise typer.Exit(1)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _need_extra() -> None:
    """Name the extra if a package of it is absent."""
    from importlib.util import find_spec

    for package in (
        "fastapi",
        "uvicorn",
        "sqlalchemy",
        "alembic",
        "prometheus_client",
        "httpx",
        "orjson",
        "cryptography",
    ):
        if find_spec(package) is None:
            raise ConfigError(f"the service needs {package}: pip install 'pushforward[serve]'.")
