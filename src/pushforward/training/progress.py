"""Showing progress on stderr: a rich bar on a terminal, plain lines elsewhere, or nothing; and the metrics log."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from typing import Any, Literal

from pushforward.errors import ConfigError, StorageError
from pushforward.training.result import FitResult, TrainingEvent

__all__ = ["MetricsLog", "PlainLines", "Reporter", "RichBar", "Style", "make_reporter"]

Style = Literal["auto", "rich", "plain", "silent"]

_TICK = 0.1
_LINE = 10.0


class Reporter:
    """Shows nothing; the other reporters override what they show."""

    def start(self, steps: int | None) -> None:
        """Training begins, of ``steps`` steps if that is known."""

    def tick(self, step: int, spent: float, elapsed: float) -> None:
        """A step is done, and ``spent`` of the budget in [0, 1]."""

    def event(self, event: TrainingEvent, spent: float) -> None:
        """An evaluation is done."""

    def note(self, text: str) -> None:
        """Something that the user should read."""

    def end(self, result: FitResult | None) -> None:
        """Training ended, with a result or with an error."""


class PlainLines(Reporter):
    """A line at an evaluation, but at most one in ten seconds besides the first and the last."""

    def __init__(self) -> None:
        self.steps: int | None = None
        self.shown = -_LINE

    def start(self, steps: int | None) -> None:
        """Remember the number of steps."""
        self.steps = steps

    def event(self, event: TrainingEvent, spent: float) -> None:
        """A line of the main numbers."""
        now = time.monotonic()
        if now - self.shown >= _LINE:
            self.shown = now
            self.note(f"{_count(event.step, self.steps)}  {_numbers(event)}  {_left(spent, event.seconds)}")

    def note(self, text: str) -> None:
        """A line."""
        print(text, file=sys.stderr, flush=True)

    def end(self, result: FitResult | None) -> None:
        """The result in a line."""
        if result is not None:
            self.note(repr(result))


class RichBar(Reporter):
    """A progress bar with loss, held-out log-likelihood, the best so far, and the time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.fields[count]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("[dim]{task.fields[left]}"),
        )
        self.progress = Progress(*columns, console=Console(stderr=True), refresh_per_second=8)
        self.steps: int | None = None
        self.shown = 0.0
        self.task = self.progress.add_task("fit", total=1.0, count="", numbers="", left="")

    def start(self, steps: int | None) -> None:
        """Draw the bar."""
        self.steps = steps
        self.progress.start()

    def tick(self, step: int, spent: float, elapsed: float) -> None:
        """Move the bar, at most ten times a second."""
        now = time.monotonic()
        if now - self.shown >= _TICK:
            self.shown = now
            left = _left(spent, elapsed)
            self.progress.update(self.task, completed=spent, count=_count(step, self.steps), left=left)

    def event(self, event: TrainingEvent, spent: float) -> None:
        """Change the numbers."""
        self.progress.update(
            self.task, completed=spent, count=_count(event.step, self.steps), numbers=_numbers(event),
            left=_left(spent, event.seconds),
        )  # fmt: skip

    def note(self, text: str) -> None:
        """A line above the bar."""
        self.progress.console.print(text, highlight=False, markup=False)

    def end(self, result: FitResult | None) -> None:
        """Stop drawing, and show the result in a line."""
        self.progress.stop()
        if result is not None:
            self.note(repr(result))


def make_reporter(style: Style) -> Reporter:
    """The reporter of that name; "auto" is a bar on a terminal and plain lines elsewhere.

    Raises:
        ConfigError: for another name.
    """
    if style == "silent":
        return Reporter()
    if style == "rich" or (style == "auto" and sys.stderr.isatty()):
        return RichBar()
    if style in ("auto", "plain"):
        return PlainLines()
    raise ConfigError(f"progress must be 'auto', 'rich', 'plain' or 'silent'; got {style!r}.")


class MetricsLog:
    """A file of one JSON line an evaluation, written as it happens.

    Args:
        path: of the file, or None for no log.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.path = None if path is None else os.path.expanduser(os.fspath(path))

    def start(self, history: Iterable[TrainingEvent]) -> None:
        """Begin the file anew with the events so far, so that a resumed run repeats no line and keeps no torn one."""
        self._write("w", [event.plain() for event in history])

    def event(self, event: TrainingEvent) -> None:
        """Add a line."""
        self._write("a", [event.plain()])

    def _write(self, mode: str, lines: list[dict[str, Any]]) -> None:
        if self.path is None:
            return
        try:
            with open(self.path, mode, encoding="utf-8") as file:
                file.writelines(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        except OSError as error:
            raise StorageError(f"cannot write the log {self.path}: {error.strerror or error}.") from error


def _count(step: int, steps: int | None) -> str:
    return f"step {step}" if steps is None else f"step {step}/{steps}"


def _numbers(event: TrainingEvent) -> str:
    parts = [] if event.loss is None else [f"loss {event.loss:.4f}"]
    if event.validation is not None:
        parts.append(f"held-out {event.validation:.4f}")
    if event.best is not None:
        parts.append(f"best {event.best:.4f} nats")
    return "  ".join(parts)


def _left(spent: float, elapsed: float) -> str:
    if not 0 < spent < 1:
        return ""
    left = round(elapsed * (1 - spent) / spent)
    hours, minutes = divmod(left // 60, 60)
    return f"{hours}:{minutes:02d}:{left % 60:02d} left" if hours else f"{minutes}:{left % 60:02d} left"
