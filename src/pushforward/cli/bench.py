"""The command `bench`: the benchmarks, which live beside the package in a checkout and not in it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import typer

app = typer.Typer(
    help="Measure pushforward, beside other libraries where there are some (in a checkout of the repository).",
    no_args_is_help=True,
)


# Every option is the benchmark's own, --help too.
OWN: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(context_settings=OWN, epilog="Example: `pushforward bench speed time --cases 'nsfc-*'`")
def speed(context: typer.Context) -> None:
    """Time, memory, accuracy and growth of cost; as `python -m benchmarks.speed`, whose --help lists the options."""
    start("benchmarks.speed.__main__", context.args)


@app.command(
    context_settings=OWN, epilog="Example: `pushforward bench ood --data data --sets mnist --picture card.png`"
)
def ood(context: typer.Context) -> None:
    """Out-of-distribution scores on images; as `python -m benchmarks.quality.ood`, whose --help lists the options."""
    start("benchmarks.quality.ood", context.args)


def start(module: str, arguments: list[str]) -> None:
    """Run a benchmark of the checkout."""
    root = str(checkout())
    if root not in sys.path:
        sys.path.insert(0, root)
    importlib.import_module(module).main(arguments)


def checkout() -> Path:
    """The folder that holds the benchmarks: that of an editable install, or the current one.

    Raises:
        ConfigError: if neither is a checkout.
    """
    from pushforward.errors import ConfigError

    for folder in (Path(__file__).resolve().parents[3], Path.cwd()):
        if (folder / "benchmarks" / "speed" / "__main__.py").is_file() and (folder / "src" / "pushforward").is_dir():
            return folder
    raise ConfigError(
        "the benchmarks are not part of the installed package: run this in a checkout of the repository, after "
        "pip install -e '.[bench]' there."
    )
