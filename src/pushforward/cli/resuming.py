"""The checkpoint of `fit`, and what it says when it is interrupted."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from pushforward.cli.files import local

__all__ = ["Interrupted", "checkpoint_folder", "goes_on", "stopped"]


class Interrupted(Exception):
    """Ctrl-C, after which the same command goes on from a checkpoint. The argument parser handles KeyboardInterrupt itself."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder


def checkpoint_folder(output: str, options: dict[str, Any], images: bool) -> str | None:
    """The folder of checkpoints beside the output; None where there is nothing to continue.

    Args:
        output: of the command.
        options: of the guard.
        images: whether it is fitted to images.
    """
    from pushforward.estimators.fit_checkpoint import trains

    timed = options["max_time"] is not None and not images
    return f"{output}.checkpoint" if local(output) and not timed and trains(options, images) else None


@contextmanager
def goes_on(folder: str | None, quiet: bool) -> Iterator[None]:
    """Inside the ``with`` block, Ctrl-C after the first checkpoint raises :class:`Interrupted`.

    A fit that fails before it leaves no empty folder.

    Args:
        folder: of checkpoints, or None.
        quiet: whether to say nothing where it goes on from an earlier run.
    """
    from pushforward.io.files import expanded

    if folder is not None and not quiet and _has_files(folder):
        print(f"going on from {folder}", file=sys.stderr, flush=True)
    new = folder is not None and not expanded(folder).exists()
    try:
        yield
    except BaseException as error:
        if folder is not None and isinstance(error, KeyboardInterrupt) and _has_files(folder):
            raise Interrupted(folder) from None
        if folder is not None and new:
            with suppress(OSError):  # it is not there, or not empty
                expanded(folder).rmdir()
        raise


def stopped(error: Interrupted, arguments: Sequence[str]) -> str:
    """What to say after Ctrl-C: the command that goes on.

    Args:
        error: the interruption.
        arguments: the words after ``pushforward``.
    """
    return f"stopped; {error.folder} has a checkpoint, and this goes on: {shlex.join(['pushforward', *arguments])}"


def _has_files(folder: str) -> bool:
    from pushforward.io.files import expanded

    path = expanded(folder)
    return path.is_dir() and any(path.glob("*.safetensors*"))
