"""`Explanation`: which columns made rows unlikely, as reasons, a table, a picture and text."""

from __future__ import annotations

import datetime
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pushforward.detection.explanation.evidence import Evidence
from pushforward.detection.explanation.reason import (
    CELL_KINDS,
    USUAL,
    Reason,
    sentence,
    sentence_of_instant,
    sentence_of_time,
    sentence_of_usual_instant,
    within,
)
from pushforward.display import card, table
from pushforward.errors import ConfigError
from pushforward.numerics.checks import check_integer, is_integer

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Explanation"]

_SHARE = 0.3
_LEAST = 0.1  # nats
_LARGE = 20.0  # nats
_CALENDAR = 1.0  # nats
_SHOWN = 10  # rows in the text of an explanation


class Explanation:
    """Which columns made rows unlikely.

    ``reasons(row)`` gives the columns of one row in the order of their excess, ``to_table()`` and ``to_frame()`` those of all
    rows, and ``plot(row)`` draws one row. ``str`` is a few sentences.

    Args:
        names: of the table's columns.
        nats: how far each cell is beyond what is usual for its column, ``(rows, columns)``, nats; high is unusual.
        evidence: what else is known of each cell.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=500)
        >>> rows = {"flow": x, "pressure": 2 * x + 0.1 * rng.normal(size=500)}
        >>> guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(rows)
        >>> guard.explain({"flow": [0.5], "pressure": [9.0]}).reasons()[0].column
        'pressure'
    """

    def __init__(self, names: tuple[str, ...], nats: np.ndarray, evidence: Evidence | None = None) -> None:
        self.names, self.nats, self.evidence = tuple(names), nats, evidence

    def __len__(self) -> int:
        return len(self.nats)

    def order(self, row: int = 0, k: int | None = None) -> np.ndarray:
        """Positions of the k most unusual columns of a row, the most unusual first; all of them for None.

        Cells that no training row has (categories, missing cells, constants, infinities) are before the others, but for new
        categories of a column of which more than a twentieth of the rows has new ones.

        Raises:
            ConfigError: for a row that does not exist, or a k that is not a positive integer.
        """
        row, k = self._row(row), check_integer("k", k, optional=True)
        seen = np.zeros(len(self.names), dtype=bool)
        if self.evidence is not None:
            categories = self.evidence.kind[row] == CELL_KINDS.index("new category")
            seen = ~self.evidence.is_new(row) | (categories & (self.evidence.p_value[row] > 1 - USUAL))
        return np.lexsort((-self.nats[row], seen))[:k]

    def top(self, row: int = 0, k: int = 3) -> list[tuple[str, float]]:
        """The k most unusual columns of a row, with their excess."""
        return [(self.names[i], float(self.nats[row, i])) for i in self.order(row, k)]

    def reasons(self, row: int = 0, k: int | None = 3) -> list[Reason]:
        """The k most unusual columns of a row, the most unusual first; all of them for None.

        Raises:
            ConfigError: for a row that does not exist, or a k that is not a positive integer.
        """
        row = self._row(row)
        return [self._reason(row, int(column)) for column in self.order(row, k)]

    def sentences(self, row: int = 0, k: int = 3) -> list[str]:
        """The sentences of :meth:`main_reasons`."""
        return [reason.sentence for reason in self.main_reasons(row, k)]

    def main_reasons(self, row: int = 0, k: int = 3) -> list[Reason]:
        """The reasons that matter: at most k, cells that no training row has, and those with three tenths of the largest excess.

        There is always one. A column that only looks unusual because of another one has little excess. After the first, a
        cell that is usual given the other columns, and by itself, is left out.
        """
        found = self.reasons(row, k)
        largest = max((min(r.excess, _LARGE) for r in found), default=0.0)
        least = max(_SHARE * largest, _LEAST)
        return [
            r for i, r in enumerate(found) if i == 0 or not r.is_seen or (r.excess >= least and not self._is_usual(r))
        ]

    def _is_usual(self, reason: Reason) -> bool:
        """Whether a cell is a category that is among the usual ones, or a number in all of its usual ranges that are known."""
        if reason.kind == "category":
            return reason.usual == (reason.value,) or reason.p_value >= 1 - USUAL
        if reason.kind != "number" or self.evidence is None:
            return False
        column = self.names.index(reason.column)
        if self._is_by_calendar(reason.row, column):
            return False
        if isinstance(reason.value, datetime.date):  # instants have no ranges
            return reason.p_value >= 1 - USUAL
        ranges = [pair for pair in (reason.usual, self.evidence.usual_alone(reason.row, column)) if len(pair) == 2]
        return bool(ranges) and all(within(reason.value, pair) for pair in ranges)

    def _is_by_calendar(self, row: int, column: int) -> bool:
        """Whether the place of an instant in the day, the week or the year is what may be unusual."""
        return self.evidence is not None and column in self.evidence.calendar and self.nats[row, column] >= _CALENDAR

    def to_records(self, k: int | None = 3) -> list[dict[str, Any]]:
        """The k most unusual columns of every row as dictionaries of plain JSON types, with their rank from 1."""
        return [{"row": reason.row, "rank": rank} | reason.to_record() for rank, reason in self._ranked(k)]

    def _ranked(self, k: int | None) -> list[tuple[int, Reason]]:
        """The k most unusual columns of every row, with their rank from 1."""
        return [pair for row in range(len(self)) for pair in enumerate(self.reasons(row, k), 1)]

    def to_table(self, k: int | None = 3) -> pa.Table:
        """:meth:`to_records` as a ``pyarrow.Table``, in which infinite numbers stay infinite.

        Values and usual values are text, because columns differ in type.
        """
        import pyarrow as pa

        types = {
            "row": pa.int64(), "rank": pa.int64(), "column": pa.string(), "kind": pa.string(), "excess": pa.float64(),
            "value": pa.string(), "usual_low": pa.string(), "usual_high": pa.string(), "usual_value": pa.string(),
            "p_value": pa.float64(), "sentence": pa.string(),
        }  # fmt: skip
        records = []
        for rank, reason in self._ranked(k):
            far = {"excess": reason.excess} | (
                {"value": reason.value} if reason.kind == "infinite" else {}
            )  # not in JSON
            records.append({"row": reason.row, "rank": rank} | reason.to_record() | far)
        texts = {name for name, kind in types.items() if kind == pa.string()}
        columns = {
            name: [
                None if r[name] is None else str(r[name]) if name in texts else r[name] for r in records
            ]
            for name in types
        }  # fmt: skip
        return pa.table({name: pa.array(columns[name], kind) for name, kind in types.items()})

    def to_frame(self, k: int | None = 3) -> Any:
        """:meth:`to_table` as a ``pandas.DataFrame``.

        Raises:
            ConfigError: without pandas.
        """
        try:
            import pandas  # noqa: F401
        except ImportError as error:
            raise ConfigError("to_frame needs pandas: pip install pandas, or call to_table().") from error
        return self.to_table(k).to_pandas()

    def plot(self, row: int = 0, k: int = 8, ax: Any = None) -> Any:
        """Draw the k most unusual columns of a row: value and usual range, and a bar for the excess.

        Args:
            row: position of the row.
            k: number of columns.
            ax: matplotlib axes to draw in; new ones by default.

        Returns:
            The axes.
        """
        from pushforward import plot

        return plot.explanation(self, row, k=k, ax=ax)

    def __str__(self) -> str:
        if not len(self):
            return "no rows to explain"
        lines = []
        for row in range(min(len(self), _SHOWN)):
            lines += [f"row {row}:", *(f"  {reason.sentence}" for reason in self.main_reasons(row))]
        if len(self) > _SHOWN:
            lines.append(f"... and {len(self) - _SHOWN} more rows")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Explanation({len(self)} rows, {len(self.names)} columns)"

    def _repr_html_(self) -> str:
        cells = [
            (r.row, r.column, f"{r.excess:.1f}", r.sentence)
            for row in range(min(len(self), _SHOWN))
            for r in self.main_reasons(row)
        ]
        more = f"<p>... and {len(self) - _SHOWN} more rows</p>" if len(self) > _SHOWN else ""
        return card("Explanation", (), table(("row", "column", "excess, nats", "reason"), cells) + more)

    def _row(self, row: int) -> int:
        if not is_integer(row) or not -len(self) <= row < len(self):
            raise ConfigError(f"there are {len(self)} rows, so row {row!r} cannot be explained.")
        return int(row) % len(self)

    def _reason(self, row: int, column: int) -> Reason:
        name, excess, evidence = self.names[column], float(self.nats[row, column]), self.evidence
        if evidence is None:
            return Reason(row, name, "number", excess, None, (), math.nan, f"{name} costs {excess:.1f} nats.")
        kind, value, usual = evidence.kind_of(row, column), evidence.value(row, column), evidence.usual(row, column)
        p_value, share = float(evidence.p_value[row, column]), float(evidence.share[row, column])
        alone = evidence.usual_alone(row, column)
        facts = evidence.schema.columns[column]
        if kind == "number" and isinstance(value, datetime.date) and self._is_by_calendar(row, column):
            words = sentence_of_instant(facts, value)
        elif kind == "number" and isinstance(value, datetime.date) and p_value >= 1 - USUAL:
            words = sentence_of_usual_instant(facts, value)
        elif isinstance(value, datetime.time) and p_value < 1 - USUAL and len(usual) == 2 and within(value, usual):
            words = sentence_of_time(
                facts, value
            )  # at noon, where others are late in the evening or early in the morning
        else:
            words = sentence(facts, kind, value, usual, alone, share, p_value)
        return Reason(row, name, kind, excess, value, usual, p_value, words)
