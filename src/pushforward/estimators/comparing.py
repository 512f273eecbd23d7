"""`compare_guards`: two guards on the same rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pushforward.data import is_frame
from pushforward.errors import ConfigError, InputError, SchemaWarning
from pushforward.estimators.calibration_rows import take
from pushforward.estimators.reported_rows import ReportOptions, rows_of
from pushforward.estimators.reporting import row_parts
from pushforward.report.checks import LEVEL
from pushforward.report.collected import Shown
from pushforward.report.comparison import Comparison, PairedRows

if TYPE_CHECKING:
    from pushforward.estimators.guard import Guard

__all__ = ["compare_guards", "compare_parts"]


def compare_guards(a: Guard, b: Guard, X: Any, *, shown: int = 10, values: bool = True) -> Comparison:
    """Compare the alarms of two guards on the same rows.

    Args:
        a: a fitted guard.
        b: another, of the same kind of data.
        X: rows or images, as both guards read them.
        shown: number of rows to show that only one of the guards alarms, for each.
        values: whether to show the cells that are reasons.

    Raises:
        ConfigError: for one guard of a table and one of images.
        InputError: for rows that do not fit both guards, or no rows.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(500, 2))
        >>> a, b = (pf.Guard(alpha=alpha, random_state=0).fit(x) for alpha in (0.1, 0.05))
        >>> found = compare_guards(a, b, rng.normal(size=(1000, 2)))
        >>> found.to_dict()["only_b"]  # the same score with a smaller rate
        0
    """
    return compare_parts(a, b, row_parts(X if is_frame(X) else a._read(X)), shown=shown, values=values)


def compare_parts(
    a: Guard, b: Guard, parts: Iterable[Any], *, shown: int = 10, values: bool = True, name: str = "",
    files: tuple[str, str] = ("", ""),
) -> Comparison:  # fmt: skip
    """The same for rows that come in parts, in constant memory.

    Args:
        a: the first guard.
        b: the second.
        parts: of the rows.
        shown: number of rows to show, for each guard.
        values: whether to show the cells that are reasons.
        name: what the rows are called.
        files: names of the guards' files.

    Raises:
        ConfigError: for one guard of a table and one of images.
        InputError: for rows that do not fit both guards, or no rows.
    """
    if a.reads_images != b.reads_images:
        raise ConfigError("one of the guards reads tables and the other images: there are no rows for both.")
    guards, readers, found = (a, b), (rows_of(a), rows_of(b)), PairedRows(shown)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchemaWarning)
        for part in parts:
            rows = tuple(guard._read(part) for guard in guards)
            scores = tuple(guard.score_.score(own) for guard, own in zip(guards, rows, strict=True))
            p = tuple(guard.calibrator_.p_value(s) for guard, s in zip(guards, scores, strict=True))
            alarm = tuple(guard._decide(-s) < 0 for guard, s in zip(guards, scores, strict=True))
            encoded = tuple(reader.encode(own)[0] for reader, own in zip(readers, rows, strict=True))

            def content(k: int, rows: Any = rows, encoded: Any = encoded) -> Any:
                return [(take(own, np.array([k])), e[k].copy()) for own, e in zip(rows, encoded, strict=True)]

            found.add(scores, p, alarm, content)  # pyright: ignore[reportArgumentType]  pairs
        if not found.rows:
            raise InputError("there are no rows to compare the guards on.")
        only = tuple(_rows(readers[k], found.only[k].rows(), k, values) for k in (0, 1))
    sides = tuple(_side(guard, int(found.table.sum(1 - k)[1]), found.rows, files[k]) for k, guard in enumerate(guards))
    return Comparison(sides, found, only, {"source": name})  # pyright: ignore[reportArgumentType]  pairs


def _rows(reader: Any, worst: Sequence[Shown], own: int, values: bool) -> list[dict[str, Any]]:
    """Rows that only one guard alarms, with its reasons."""
    shown = [Shown(row.row, row.score, row.p_value, row.content[0][own]) for row in worst]
    entries = reader.alarms(shown, ReportOptions(values=values), {})
    return [
        {"row": row.row, "p_a": row.content[1], "p_b": row.content[2], "sentence": entry["sentence"], "reasons": entry["reasons"]}
        for row, entry in zip(worst, entries, strict=True)
    ]  # fmt: skip


def _side(guard: Guard, alarms: int, rows: int, file: str) -> dict[str, Any]:
    from pushforward.detection import false_alarm_distribution

    interval = None
    if guard.level_ > 0:
        n = guard.calibrator_.n
        distribution = false_alarm_distribution(n, guard.alpha, guard.guarantee, guard.delta)
        interval = list(distribution.realized_interval(min(rows, 200_000), LEVEL))
    return {"file": file, "alpha": guard.alpha, "guarantee": guard.guarantee, "level": guard.level_, "alarms": alarms,
            "fraction": alarms / rows, "interval": interval, "promise_is_for": str(guard.calibration_)}  # fmt: skip
