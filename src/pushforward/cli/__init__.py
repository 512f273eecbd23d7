"""The command line. Each command calls the library and prints or writes its result."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main", "program"]


def program() -> NoReturn:
    """Run the command of this process, and end the process with the exit code of :func:`main`.

    A command that does not succeed may leave a thread of pyarrow that waits for standard input. If input comes while the
    interpreter ends, that thread cannot go on, and the process would be aborted or wait for ever. So it is ended at once, after
    the functions that are registered for its end.
    """
    try:
        code = main()
    except SystemExit as error:
        if not isinstance(error.code, int):
            raise
        code = error.code
    if code:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. A failure prints one line on stderr and gives a non-zero exit code.

    Args:
        arguments: the words after ``pushforward``, those of the process by default. ``--debug`` gives tracebacks.

    Returns:
        The exit code: 0, 1 for an error that the message explains, 2 for wrong arguments, 3 for a check that failed
        (``report --fail-on``), 70 for an unexpected error, 130 for an interruption, 141 for a closed pipe. ``score`` exits with
        143 at SIGTERM.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    return _run(arguments, debug)


def _run(arguments: list[str], debug: bool) -> int:
    import warnings

    from typer.main import get_command

    from pushforward.cli import calibrating, describing, evaluating, explaining, exporting, selecting, serving, signing  # noqa: F401  they add their commands to the app
    from pushforward.cli.commands import app
    from pushforward.cli.resuming import Interrupted, stopped
    from pushforward.errors import PushforwardError, PushforwardWarning

    _prepare_streams()
    said: set[str] = set()  # the parts of a table may all have the same thing to say

    def show(message: Warning | str, category: type[Warning], *rest: object) -> None:
        if (debug or issubclass(category, PushforwardWarning)) and str(message) not in said:
            said.add(str(message))
            _say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", PushforwardWarning)
        warnings.showwarning = show  # pyright: ignore[reportAttributeAccessIssue]
        try:
            result = get_command(app).main(args=arguments, prog_name="pushforward", standalone_mode=False)
            sys.stdout.flush()  # a closed pipe is found here, and not when the interpreter ends
            if result == 130:  # what the argument parser makes of Ctrl-C
                _say("stopped.")
            return result if isinstance(result, int) else 0
        except KeyboardInterrupt:
            _say("stopped.")
            return 130
        except Interrupted as error:
            _say(stopped(error, arguments))
            return 130
        except (BrokenPipeError, SystemExit) as error:  # for a closed pipe the argument parser calls sys.exit(1)
            if not isinstance(error if isinstance(error, OSError) else error.__context__, BrokenPipeError):
                raise
            from pushforward.io.output import discard_standard_output

            discard_standard_output()
            return 141
        except Exception as error:
            if debug:
                raise
            if hasattr(error, "format_message"):  # an error of the argument parser
                _say(error.format_message().replace("\n", " ") or "see --help.")  # pyright: ignore[reportAttributeAccessIssue]
                return int(getattr(error, "exit_code", 2))
            if isinstance(error, (PushforwardError, OSError)):
                _say(" ".join(str(error).split()))
                return 1
            if type(error).__name__ == "Abort":
                _say("stopped.")
                return 130
            _say(f"unexpected error: {type(error).__name__}: {' '.join(str(error).split())}. Run again with --debug and "
                 "report it.")  # fmt: skip
            return 70


class _Nowhere(io.TextIOBase):
    """Takes the place of a standard stream that the caller closed. It has no buffer, so a result for standard output is an error."""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"a stream of text takes text; got {type(text).__name__}")
        return len(text)


def _prepare_streams() -> None:
    """Make the standard streams such that text for people is never the reason why a command fails.

    Python has None for a stream that is closed, and prints to standard output what is meant for a standard error of None.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, _Nowhere())
    if getattr(sys.stdout, "errors", None) == "strict":
        with contextlib.suppress(AttributeError, OSError, ValueError):  # it is of a program that called this one
            sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]


def _say(text: str) -> None:
    print(f"pushforward: {text}", file=sys.stderr, flush=True)
