"""Progress on stderr (a bar on a terminal or in a notebook, plain lines elsewhere, or nothing) and the metrics log."""

from __future__ import annotations

import html
import json
import os
import sys
import time
from collections.abc import Iterable
from typing import Any, Literal, get_args

from pushforward.errors import StorageError
from pushforward.training.result import FitResult, TrainingEvent

__all__ = [
    "STYLES",
    "MetricsLog",
    "NotebookBar",
    "PlainLines",
    "PlainTicks",
    "Reporter",
    "RichBar",
    "Style",
    "in_notebook",
    "make_reporter",
]

Style = Literal["auto", "rich", "plain", "silent"]
STYLES: tuple[Style, ...] = get_args(Style)

_BAR_INTERVAL = 0.1
_NOTEBOOK_INTERVAL = 0.5
_LINE_INTERVAL = 10.0
"""Seconds between two updates of the bar on a terminal and in a notebook, and between two plain lines."""


class Reporter:
    """Shows nothing. Subclasses override the methods for what they show."""

    def start(self, steps: int | None) -> None:
        """Training starts, with a budget of ``steps`` steps if that is known."""

    def tick(self, step: int, used: float, elapsed: float) -> None:
        """A step is done; ``used`` is the used fraction of the budget, ``elapsed`` the time in seconds."""

    def event(self, event: TrainingEvent, used: float) -> None:
        """An evaluation is done; ``used`` is the used fraction of the budget."""

    def note(self, text: str) -> None:
        """Show a message."""

    def end(self, result: FitResult | None) -> None:
        """Training ended with a result, or with an error if ``result`` is None."""


class PlainLines(Reporter):
    """Prints a line at an evaluation, at most every ten seconds, and the result at the end."""

    def __init__(self) -> None:
        self.steps: int | None = None
        self.shown = -_LINE_INTERVAL

    def start(self, steps: int | None) -> None:
        """Store the number of steps for the lines."""
        self.steps = steps

    def event(self, event: TrainingEvent, used: float) -> None:
        """Print the main numbers in one line."""
        now = time.monotonic()
        if now - self.shown >= _LINE_INTERVAL:
            self.shown = now
            self.note(f"{_count(event.step, self.steps)}  {_numbers(event)}  {_time_left(used, event.seconds)}")

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)

    def end(self, result: FitResult | None) -> None:
        """Print the result in one line."""
        if result is not None:
            self.note(repr(result))


class PlainTicks(PlainLines):
    """Prints a line at a step, at most every ten seconds: for work without evaluations."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = time.monotonic()  # work of a few seconds prints nothing

    def tick(self, step: int, used: float, elapsed: float) -> None:
        """Print the step and the time left."""
        now = time.monotonic()
        if now - self.shown >= _LINE_INTERVAL:
            self.shown = now
            self.note(f"{_count(step, self.steps)}  {_time_left(used, elapsed)}")


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

    def tick(self, step: int, used: float, elapsed: float) -> None:
        """Move the bar, at most ten times per second."""
        now = time.monotonic()
        if now - self.shown >= _BAR_INTERVAL:
            self.shown = now
            left = _time_left(used, elapsed)
            self.progress.update(self.task, completed=used, count=_count(step, self.steps), left=left)

    def event(self, event: TrainingEvent, used: float) -> None:
        """Show the new numbers beside the bar."""
        self.progress.update(
            self.task, completed=used, count=_count(event.step, self.steps), numbers=_numbers(event),
            left=_time_left(used, event.seconds),
        )  # fmt: skip

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self.progress.console.print(text, highlight=False, markup=False)

    def end(self, result: FitResult | None) -> None:
        """Stop drawing and print the result in one line."""
        self.progress.stop()
        if result is not None:
            self.note(repr(result))


class NotebookBar(Reporter):
    """The same bar as an HTML element that a notebook updates in place; it needs nothing but IPython, which shows it."""

    def __init__(self) -> None:
        from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

        self._html = HTML
        self.steps: int | None = None
        self.shown = 0.0
        self.used = 0.0
        self.numbers = ""
        self.notes: list[str] = []
        self.handle = display(HTML(""), display_id=True)

    def start(self, steps: int | None) -> None:
        """Draw the bar."""
        self.steps = steps
        self._draw(_count(0, steps))

    def tick(self, step: int, used: float, elapsed: float) -> None:
        """Move the bar, at most twice per second."""
        now = time.monotonic()
        if now - self.shown >= _NOTEBOOK_INTERVAL:
            self.shown, self.used = now, used
            self._draw(f"{_count(step, self.steps)}  {self.numbers}  {_time_left(used, elapsed)}")

    def event(self, event: TrainingEvent, used: float) -> None:
        """Store the new numbers for the next drawing."""
        self.numbers = _numbers(event)

    def note(self, text: str) -> None:
        """Show a line below the bar."""
        self.notes.append(text)

    def end(self, result: FitResult | None) -> None:
        """Show the full bar and the result in one line, or that training stopped with an error."""
        self.used = self.used if result is None else 1.0
        self._draw("stopped" if result is None else repr(result))

    def _draw(self, text: str) -> None:
        lines = "<br>".join(html.escape(line) for line in [text, *self.notes])
        bar = (
            f'<progress value="{min(1.0, self.used):.4f}" max="1" style="width:14em;vertical-align:middle"></progress>'
        )
        self.handle.update(self._html(f'<div style="font-size:90%">{bar} {lines}</div>'))


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook; IPython is not imported to find out."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def make_reporter(style: Style, *, evaluations: bool = True) -> Reporter:
    """The reporter of that name; "auto" is a bar on a terminal or in a notebook, and plain lines elsewhere.

    Args:
        style: name.
        evaluations: whether the work has evaluations, at which plain lines are printed; without them they are printed at steps.
    """
    if style == "silent":
        return Reporter()
    if style == "auto" and in_notebook():
        return NotebookBar()
    if style == "rich" or (style == "auto" and sys.stderr.isatty()):
        return RichBar()
    return PlainLines() if evaluations else PlainTicks()


class MetricsLog:
    """Writes one JSON line for each evaluation to a file, when it happens.

    Args:
        path: path of the file, or None for no log.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.path = None if path is None else os.path.expanduser(os.fspath(path))

    def start(self, history: Iterable[TrainingEvent]) -> None:
        """Write the events so far to a new file, so that a resumed run repeats no line and keeps no incomplete one."""
        self._write("w", [event.as_json() for event in history])

    def event(self, event: TrainingEvent) -> None:
        """Append a line."""
        self._write("a", [event.as_json()])

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


def _time_left(used: float, elapsed: float) -> str:
    if not 0 < used < 1:
        return ""
    left = round(elapsed * (1 - used) / used)
    hours, minutes = divmod(left // 60, 60)
    return f"{hours}:{minutes:02d}:{left % 60:02d} left" if hours else f"{minutes}:{left % 60:02d} left"
