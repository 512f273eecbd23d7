"""`compare_guards`: two guards on the same rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pushforward.data import as_table, is_frame
from pushforward.data.schema import counted_from
from pushforward.detection import false_alarm_distribution
from pushforward.detection.network.reading import move
from pushforward.errors import ConfigError, InputError, SchemaWarning, collected
from pushforward.estimators.calibration_rows import take
from pushforward.estimators.feature_names import names_of
from pushforward.estimators.guard import Guard
from pushforward.estimators.guard_facts import trimmed_scores
from pushforward.estimators.network_guard import NetworkGuard
from pushforward.estimators.network_reporting import one_input, shown_input
from pushforward.estimators.reported_rows import Kept, ReportOptions, rows_of
from pushforward.estimators.reporting import parts_in_memory, row_parts
from pushforward.numerics.checks import check_integer
from pushforward.report.checks import LEVEL
from pushforward.report.collected import Shown
from pushforward.report.comparison import Comparison, PairedRows

__all__ = ["compare_guards", "compare_parts"]

_MOST = 200_000
"""Rows for which the interval of the fraction of alarms is computed; more make it hardly narrower."""


def compare_guards(
    a: Guard | NetworkGuard, b: Guard | NetworkGuard, X: Any, *, shown: int = 10, values: bool = True
) -> Comparison:
    """Compare the alarms of two guards on the same rows.

    Args:
        a: a fitted guard.
        b: another, of the same kind of data: two of tables, two of images, or two of networks with the same inputs.
        X: rows or images, as both guards read them.
        shown: number of rows to show that only one of the guards alarms, for each.
        values: whether to show the cells that are reasons.

    Raises:
        ConfigError: for anything but two guards of the same kind of data, or a negative ``shown``.
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
    _check_guards(a, b)
    if isinstance(a, NetworkGuard):
        # Each guard finds columns by its own names, and reads arrays in the type of its own network.
        by_itself = isinstance(X, np.ndarray) or names_of(X) is not None
        if by_itself and not hasattr(X, "__len__"):
            X = as_table(X)
        parts: Iterable[Any] = (
            row_parts(X, a.batch_size) if by_itself else (inputs for inputs, _ in a._batches(X, "the data"))
        )
    else:
        if isinstance(X, Mapping) or not hasattr(X, "__len__"):  # columns by name, or a frame that was not computed yet
            X = as_table(X)
        parts = row_parts(X) if is_frame(X) else parts_in_memory(a, X)
    return compare_parts(a, b, parts, shown=shown, values=values)


def compare_parts(
    a: Guard | NetworkGuard, b: Guard | NetworkGuard, parts: Iterable[Any], *, shown: int = 10, values: bool = True,
    name: str = "", files: tuple[str, str] = ("", ""),
) -> Comparison:  # fmt: skip
    """The same for rows that come in parts, in constant memory.

    Args:
        a: the first guard.
        b: the second.
        parts: of the rows; for networks, batches of inputs.
        shown: number of rows to show, for each guard.
        values: whether to show the cells that are reasons.
        name: what the rows are called.
        files: names of the guards' files.

    Raises:
        ConfigError: for guards of different kinds of data.
        InputError: for rows that do not fit both guards, or no rows.
    """
    _check_guards(a, b)
    check_integer("shown", shown, 0)
    sides = (_side_of(a), _side_of(b))
    if sides[0].reads != sides[1].reads:
        raise ConfigError(f"A reads {sides[0].reads} and B reads {sides[1].reads}: there are no rows for both.")
    found = PairedRows(shown)
    with collected(SchemaWarning):
        for part in parts:
            with counted_from(found.rows):
                one, other = (side.answer(part) for side in sides)

            def content(k: int, one: _Answer = one, other: _Answer = other) -> Any:
                return one.content(k), other.content(k)

            found.add((one.score, other.score), (one.p, other.p), (one.alarm, other.alarm), content)
        if not found.rows:
            raise InputError("there are no rows to compare the guards on.")
        only_a, only_b = (_rows(side, found.only[k].rows(), k, values) for k, side in enumerate(sides))
    facts_a, facts_b = (
        _facts(side, int(found.table.sum(1 - k)[1]), found.rows, files[k]) for k, side in enumerate(sides)
    )
    return Comparison((facts_a, facts_b), found, (only_a, only_b), {"source": name})


class _Answer(NamedTuple):
    """What a guard says of a part of the rows, and what to keep of one of them."""

    score: np.ndarray
    p: np.ndarray
    alarm: np.ndarray
    content: Callable[[int], Any]


class _Side(ABC):
    """One of the two guards."""

    reads: str
    calibration: int | None
    """Calibration rows; None if they are divided by class."""

    def __init__(self, guard: Any) -> None:
        self.guard = guard

    @abstractmethod
    def answer(self, part: Any) -> _Answer:
        """Scores, p-values and alarms."""

    @abstractmethod
    def entries(self, shown: Sequence[Shown], values: bool) -> list[dict[str, Any]]:
        """What is said of some alarms."""


class _Rows(_Side):
    def __init__(self, guard: Guard) -> None:
        super().__init__(guard)
        self.reader = rows_of(guard)
        self.reads = guard.score_.reads if guard.embed is None else "inputs of a network that embeds"
        self.calibration = guard.calibrator_.n if guard.level_ > 0 else None

    def answer(self, part: Any) -> _Answer:
        rows = self.guard._read(part)
        score, encoded = self.guard.score_.score(rows), self.reader.encode(rows)[0]
        p, alarm = self.guard.calibrator_.p_value(score), self.guard._decide(-score) < 0
        return _Answer(score, p, alarm, lambda k: Kept(take(rows, np.array([k])), encoded[k].copy()))

    def entries(self, shown: Sequence[Shown], values: bool) -> list[dict[str, Any]]:
        return self.reader.alarms(shown, ReportOptions(values=values), {})


class _Inputs(_Side):
    reads = "inputs of a network"

    def __init__(self, guard: NetworkGuard) -> None:
        super().__init__(guard)
        self.calibration = None if guard.per_class else guard.calibrators_[None].n

    def answer(self, part: Any) -> _Answer:
        part = move(self.guard._in_order(part), None, self.guard.reader_.dtype)
        out = self.guard(part)
        score, p, alarm = (values.numpy() for values in (out.score, out.p_value, out.alarm))
        return _Answer(score, p, alarm, lambda k: one_input(self.guard, part, out, k))

    def entries(self, shown: Sequence[Shown], values: bool) -> list[dict[str, Any]]:
        return [shown_input(self.guard, row, ReportOptions(values=False), "alarm", {}) for row in shown]


def _check_guards(*guards: Any) -> None:
    for name, guard in zip("AB", guards, strict=True):
        if not isinstance(guard, (Guard, NetworkGuard)):
            raise ConfigError(f"{name} must be a fitted Guard or NetworkGuard; got {type(guard).__name__}.")


def _side_of(guard: Guard | NetworkGuard) -> _Side:
    return _Inputs(guard) if isinstance(guard, NetworkGuard) else _Rows(guard)


def _rows(side: _Side, worst: Sequence[Shown], own: int, values: bool) -> list[dict[str, Any]]:
    """Rows that only one guard alarms, with its reasons."""
    entries = side.entries([Shown(row.row, row.score, row.p_value, row.content[0][own]) for row in worst], values)
    return [
        {"row": row.row, "p_a": row.content[1], "p_b": row.content[2], "sentence": entry["sentence"], "reasons": entry["reasons"]}
        for row, entry in zip(worst, entries, strict=True)
    ]  # fmt: skip


def _facts(side: _Side, alarms: int, rows: int, file: str) -> dict[str, Any]:
    guard, interval = side.guard, None
    if side.calibration is not None:
        distribution = false_alarm_distribution(
            side.calibration, guard.alpha, guard.guarantee, guard.delta, trimmed_scores(guard)
        )
        interval = list(distribution.realized_interval(min(rows, _MOST), LEVEL))
    return {"file": file, "alpha": guard.alpha, "guarantee": guard.guarantee, "calibration_rows": side.calibration,
            "alarms": alarms, "fraction": alarms / rows, "interval": interval}  # fmt: skip
