"""`Report`: what a guard says of some rows, as a page, as JSON, and in a notebook."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pushforward.errors import ConfigError
from pushforward.io.atomic import atomic_write
from pushforward.report.checks import CHECKS, Check
from pushforward.report.text import visible

__all__ = ["Report"]


def check_page_name(path: str | os.PathLike[str], other: str) -> None:
    """Refuse a name for a page that promises another format; a name without an ending promises none.

    Args:
        path: the name.
        other: what else to do, the end of the sentence.

    Raises:
        ConfigError: for another ending than ``.html`` and ``.htm``.
    """
    if Path(path).suffix.lower() not in ("", ".html", ".htm"):
        raise ConfigError(f"a report is a page in HTML: let the name of {os.fspath(path)} end in .html, {other}.")


class Report:
    """What a guard says of some rows: the promise and how it is kept, alarms with reasons, columns that drifted, checks.

    ``guard.report(x)`` makes one. In a notebook it shows itself.

    Args:
        content: plain JSON types.
        pictures: PNG files by name, to which the content refers.

    Attributes:
        checks: the result of each check, a tuple of :class:`~pushforward.report.checks.Check`.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> rng = np.random.default_rng(0)
        >>> guard = pf.Guard(alpha=0.05, random_state=0).fit(rng.normal(size=(500, 2)))
        >>> report = guard.report(rng.normal(2, 1, size=(200, 2)))
        >>> report.passed, [check.name for check in report.failures]
        (False, ['alarm_rate', 'uniform', 'drift', 'range'])
    """

    def __init__(self, content: Mapping[str, Any], pictures: Mapping[str, bytes] | None = None) -> None:
        self._content, self._pictures = dict(content), dict(pictures or {})
        self.checks = tuple(Check(c["name"], c["passed"], c["detail"]) for c in self._content["checks"])

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.passed)

    def failed(self, names: str | Sequence[str]) -> tuple[Check, ...]:
        """Those of the named checks that failed, of one name or several; "any" names all.

        Raises:
            ConfigError: for a name that no check has.
        """
        names = [names] if isinstance(names, str) else names
        unknown = [name for name in names if name not in CHECKS and name != "any"]
        if unknown:
            raise ConfigError(f"there is no check {unknown[0]!r}; the checks are any, {', '.join(CHECKS)}.")
        return tuple(check for check in self.failures if "any" in names or check.name in names)

    def to_dict(self) -> dict[str, Any]:
        """All numbers and texts of the report, as plain JSON types."""
        return json.loads(self.to_json())

    def to_json(self, indent: int | None = None) -> str:
        """The same as JSON; an infinite or absent number is null."""
        return json.dumps(self._content, allow_nan=False, indent=indent)

    def to_html(self) -> str:
        """The page: one file of less than 2 MB with all that it needs; it runs no script and asks for nothing else."""
        from pushforward.report.page import render

        return render(self._content, self._pictures)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page, or for a name that ends in ``.json`` the JSON, to a file, which is complete or absent.

        Raises:
            ConfigError: for a name with another ending than ``.html``, ``.htm`` and ``.json``.
            StorageError: if the file cannot be written.
        """
        as_json = os.fspath(path).lower().endswith(".json")
        if not as_json:
            check_page_name(path, "or, for its numbers, in .json")
        text = self.to_json(indent=1) + "\n" if as_json else self.to_html()
        with atomic_write(path) as file:
            file.write(text.encode())

    def _repr_html_(self) -> str:
        """The page in a frame, so that its styles and those of the notebook do not mix."""
        from markupsafe import escape

        title = escape(visible(self._content["title"]))
        return (
            f'<iframe title="{title}" sandbox="" srcdoc="{escape(self.to_html())}" '
            'style="width:100%;height:720px;border:1px solid #8888;border-radius:6px"></iframe>'
        )

    def __str__(self) -> str:
        lines = [visible(self._content["title"])]
        width = max(len(check.name) for check in self.checks)
        lines += [f"{'ok  ' if c.passed else 'FAIL'} {c.name:{width}}  {c.detail}" for c in self.checks]
        return "\n".join(lines)

    def __repr__(self) -> str:
        rows = self._content["data"]["rows"]
        return f"Report({rows} rows, {len(self.failures)} of {len(self.checks)} checks failed)"
