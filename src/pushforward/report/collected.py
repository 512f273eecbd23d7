"""What a report collects of a stream of rows: counts of scores, of columns and of reasons, and the most anomalous rows."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pushforward.detection import ConformalCalibrator
from pushforward.detection.column_drift import ColumnTally
from pushforward.detection.column_summary import ColumnSummary
from pushforward.detection.conformal.score_counts import ScoreCounts, Uniformity
from pushforward.errors import InputError

__all__ = ["AlongRows", "Collected", "Group", "Shown", "Worst"]

_MOST_EXPLAINED = 4096
"""Alarms whose first reason is counted."""

_BLOCKS = 64


@dataclass
class Group:
    """Rows that are ranked among one set of calibration scores: all of them, or those of one predicted class.

    Of ``left_out`` larger calibration scores it is not known whether they were of anomalies. What is said of rows like the
    calibration rows holds in both cases.
    """

    name: str
    counts: ScoreCounts
    level: float
    alarms: int = 0
    left_out: int = 0

    def uniformity(self) -> Uniformity:
        """Whether the scores are distributed as the calibration scores."""
        found = [self.counts.uniformity(t) for t in {0, self.left_out}]
        return max(found, key=lambda one: one.p_value)

    def alarm_interval(self, level: float) -> tuple[float, float]:
        """Interval of the fraction of alarms among so many rows like the calibration rows."""
        n = self.counts.calibrator.n
        k = round(self.level * (n + 1))
        return self.counts.interval(k, level, self.left_out)


@dataclass(frozen=True)
class Shown:
    """A row that the report shows: its number, score and p-value, and what is kept of it."""

    row: int
    score: float
    p_value: float
    content: Any


class Worst:
    """The rows with the largest keys of a stream; of equal keys the first rows.

    Args:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._heap: list[tuple[float, int, Shown]] = []

    def add(self, key: float, row: int, make: Callable[[], Shown]) -> None:
        """Add a row, which is made only if it is kept."""
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, (key, -row, make()))
        elif self.size and (key, -row) > self._heap[0][:2]:
            heapq.heapreplace(self._heap, (key, -row, make()))

    def rows(self) -> list[Shown]:
        """The rows, the largest key first."""
        return [shown for _, _, shown in sorted(self._heap, key=lambda item: item[:2], reverse=True)]


class AlongRows:
    """Alarms along the rows: their number in at most 64 equal blocks, whatever the chunks in which rows come."""

    def __init__(self) -> None:
        self.size, self.rows = 1, 0
        self._alarms = np.zeros(0, dtype=np.int64)

    def add(self, alarm: np.ndarray) -> None:
        """Add the alarms of a chunk."""
        total = self.rows + len(alarm)
        while total > _BLOCKS * self.size:
            even = np.append(self._alarms, np.zeros(len(self._alarms) % 2, dtype=np.int64))
            self._alarms, self.size = even.reshape(-1, 2).sum(1), 2 * self.size
        blocks = np.zeros(-(-total // self.size), dtype=np.int64)
        blocks[: len(self._alarms)] = self._alarms
        np.add.at(blocks, (self.rows + np.flatnonzero(alarm)) // self.size, 1)
        self._alarms, self.rows = blocks, total

    def blocks(self, smallest: float = 1) -> list[tuple[int, int, int]]:
        """First row, number of rows and number of alarms of each block; the last one may be shorter.

        Args:
            smallest: wished number of rows of a block; blocks are joined to reach it as long as at least eight are left.
        """
        join = 1
        while join * self.size < smallest and self.rows > 8 * join * self.size:
            join *= 2
        size = join * self.size
        return [
            (a, min(size, self.rows - a), int(self._alarms[k * join : (k + 1) * join].sum()))
            for k, a in enumerate(range(0, self.rows, size))
        ]


@dataclass
class Collected:
    """Constant memory for any number of rows.

    Args:
        calibrations: by group, its name, calibrator and the p-value at or below which there is an alarm.
        columns: the training columns; empty if the guard has none.
        shown: number of alarms to keep.

    Example:
        >>> import numpy as np
        >>> from pushforward.detection import ConformalCalibrator
        >>> from pushforward.report import Collected
        >>> calibrator = ConformalCalibrator(np.arange(99.0))
        >>> collected = Collected({None: ("all rows", calibrator, calibrator.threshold(0.05))})
        >>> collected.rows, collected.alarms
        (0, 0)
    """

    calibrations: Mapping[Any, tuple[str, ConformalCalibrator, float]]
    columns: Sequence[ColumnSummary] = ()
    shown: int = 20
    rows: int = 0
    groups: dict[Any, Group] = field(init=False)
    tallies: list[ColumnTally] = field(init=False)
    typical: list[Shown] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.groups = {key: Group(n, ScoreCounts(c), level) for key, (n, c, level) in self.calibrations.items()}
        self.tallies = [ColumnTally(summary) for summary in self.columns]
        self.along = AlongRows()
        self._worst = Worst(self.shown)
        self._reasons: list[str] = []
        self._numbered, self._step = 0, 1

    @property
    def alarms(self) -> int:
        """Number of alarms."""
        return sum(group.alarms for group in self.groups.values())

    @property
    def worst(self) -> list[Shown]:
        """The alarms with the highest scores, the highest first; of equal scores the first row."""
        return self._worst.rows()

    def add(
        self,
        score: np.ndarray,
        p_value: np.ndarray,
        alarm: np.ndarray,
        content: Callable[[int], Any],
        *,
        encoded: np.ndarray | None = None,
        new: Mapping[str, Any] | None = None,
        group: np.ndarray | None = None,
        typical: int = 0,
    ) -> None:
        """Add a chunk of rows.

        Args:
            score: of each row, ``(n,)``.
            p_value: of each row.
            alarm: of each row.
            content: what to keep of the row at a position of the chunk; it is called for few rows.
            encoded: the columns as float64, ``(n, d)``.
            new: for each column with categories that no training row had, these with their counts.
            group: the key of each row's group; None if there is one group.
            typical: number of rows with a p-value near 1/2 to keep.

        Raises:
            InputError: for arrays of other lengths or types.
        """
        self._check(score, p_value, alarm, encoded, group)
        for key, found in self.groups.items():
            own = np.ones(len(score), dtype=bool) if group is None else group == key
            found.counts.add(score[own])
            found.alarms += int(alarm[own].sum())
        if encoded is not None and self.tallies:
            for tally, values in zip(self.tallies, encoded.T, strict=True):
                tally.add(values, (new or {}).get(tally.summary.column.name))
        self.along.add(alarm)
        places = np.flatnonzero(alarm)
        for k in places[np.argsort(-score[places], kind="stable")][: self.shown]:
            self._worst.add(float(score[k]), self.rows + int(k), lambda k=k: self._row(k, score, p_value, content))
        wanted = typical - len(self.typical)
        if wanted > 0:
            middle = np.flatnonzero(np.abs(p_value - 0.5) <= 0.1)[:wanted]
            self.typical += [self._row(k, score, p_value, content) for k in middle]
        self.rows += len(score)

    def alarms_to_explain(self, alarm: np.ndarray) -> np.ndarray:
        """Positions of the alarms of a chunk whose first reason is counted: every k-th alarm, at most 4096 in all.

        k is a power of 2 that grows with the number of alarms, so the sample does not depend on the chunks. Call it once for
        each chunk, and then :meth:`add_reasons`.
        """
        places = np.flatnonzero(alarm)
        numbers = self._numbered + np.arange(len(places))
        self._numbered += len(places)
        while self._numbered > _MOST_EXPLAINED * self._step:
            self._reasons, self._step = self._reasons[::2], 2 * self._step
        return places[numbers % self._step == 0]

    def add_reasons(self, names: Sequence[str]) -> None:
        """Count the first reason of each alarm that :meth:`alarms_to_explain` named."""
        self._reasons += names

    @property
    def first_reasons(self) -> Counter[str]:
        """How often each reason is the first one, in the alarms that were explained."""
        return Counter(self._reasons)

    def _check(
        self,
        score: np.ndarray,
        p_value: np.ndarray,
        alarm: np.ndarray,
        encoded: np.ndarray | None,
        group: np.ndarray | None,
    ) -> None:
        shapes = {"score": score.shape, "p_value": p_value.shape, "alarm": alarm.shape}
        shapes |= {} if group is None else {"group": group.shape}
        if score.ndim != 1 or len(set(shapes.values())) > 1:
            raise InputError(f"give one number for each row; got the shapes {shapes}.")
        if alarm.dtype != bool:
            raise InputError(f"alarm must be an array of True and False; got {alarm.dtype}.")
        if encoded is not None and self.tallies and encoded.shape != (len(score), len(self.tallies)):
            raise InputError(
                f"encoded must have the shape {(len(score), len(self.tallies))}, a number for each row and column; got {encoded.shape}."
            )

    def _row(self, k: Any, score: np.ndarray, p_value: np.ndarray, content: Callable[[int], Any]) -> Shown:
        return Shown(self.rows + int(k), float(score[k]), float(p_value[k]), content(int(k)))
