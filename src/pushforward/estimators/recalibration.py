"""New calibration rows for a fitted guard, and what its promise then refers to."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Self

from pushforward.errors import StorageError

__all__ = ["CalibrationRecord"]


@dataclass(frozen=True)
class CalibrationRecord:
    """Which rows calibrated a guard, so that a reader of its file knows what the promise refers to.

    Attributes:
        rows: number of calibration rows.
        times: how often the guard was calibrated again after ``fit``.
        note: what the user said of the rows.
        chosen: how they were chosen: "random", "latest" (in the order of time) or a number of "groups", each with one row.
        trimmed: number of the largest calibration scores that were left out as those of anomalies; ``rows`` are the others.
        higher: how much higher the rate of false alarms can be if these were normal rows.

    Example:
        >>> print(CalibrationRecord(500, 1, "plant 2, March"))
        rows like the 500 rows of the last recalibration (plant 2, March), and no longer rows like the training rows
    """

    rows: int
    times: int = 0
    note: str = ""
    chosen: str = "random"
    trimmed: int = 0
    higher: float = 0.0

    def __str__(self) -> str:
        if not self.trimmed:
            return self._rows()
        return (
            f"{self._rows()}; the {self.trimmed} largest of {self.rows + self.trimmed} calibration scores were left out as "
            f"those of anomalies: if they were normal rows, the rate is at most {self.higher:.2%} higher"
        )

    @property
    def by_group(self) -> bool:
        """Whether the promise is for rows of new groups."""
        return self.chosen.endswith(" groups")

    def _rows(self) -> str:
        note = f" ({self.note})" if self.note else ""
        if self.by_group:
            one = f"{self.rows} groups" == self.chosen  # files of before have all rows of the groups
            each = f"one row of each of {self.chosen} was" if one else f"{self.rows} rows of {self.chosen} were"
            if self.times == 0:
                return f"rows of new groups like those of the training rows ({each} kept for calibration)"
            return f"rows of new groups like those of the last recalibration{note} ({each} kept), and no longer rows like the training rows"
        if self.times == 0 and self.chosen == "latest":
            return f"rows like the latest training rows ({self.rows} of them were kept for calibration)"
        if self.times == 0:
            return f"rows like the training rows ({self.rows} of them were kept for calibration)"
        return (
            f"rows like the {self.rows} rows of the last recalibration{note}, and no longer rows like the training rows"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any, rows: int) -> Self:
        """Rebuild a record from a file, which is not trusted; None, of a file without one, is a guard as ``fit`` left it.

        Raises:
            StorageError: for content that :meth:`to_json` does not give.
        """
        if data is None:
            return cls(rows)
        if not isinstance(data, dict) or set(data) - {"chosen", "trimmed", "higher"} != {"rows", "times", "note"}:
            raise StorageError("its record of the calibration is not one that pushforward writes.")
        times, note = data["times"], data["note"]
        if data["rows"] != rows or type(times) is not int or times < 0 or not isinstance(note, str):
            raise StorageError("its record of the calibration does not fit its calibration scores.")
        chosen = data.get("chosen", "random")
        if not isinstance(chosen, str) or not re.fullmatch(r"random|latest|[0-9]{1,12} groups", chosen):
            raise StorageError("its record of the calibration is not one that pushforward writes.")
        trimmed = data.get("trimmed", 0)
        if type(trimmed) is not int or not 0 <= trimmed <= rows:
            raise StorageError("its record of the calibration is not one that pushforward writes.")
        higher = data.get("higher", trimmed / (rows + 1))  # files of before lack it
        if type(higher) not in (int, float) or not 0 <= higher <= 1:
            raise StorageError("its record of the calibration is not one that pushforward writes.")
        return cls(rows, times, note[:1000], chosen, trimmed, float(higher))
