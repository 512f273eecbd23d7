"""`guard_report`: from a guard and rows, in parts, to a report."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from pushforward.data import Problem
from pushforward.data.schema import counted_from
from pushforward.detection.table_score import TableScore
from pushforward.errors import InputError, SchemaWarning, collected
from pushforward.estimators.calibration_rows import take
from pushforward.estimators.guard_facts import guard_facts, infinite_scores, promise_sentence
from pushforward.estimators.guard_inputs import listed
from pushforward.estimators.reported_rows import Kept, ReportOptions, rows_of
from pushforward.report import Collected, Report, Subject, assemble
from pushforward.report.text import visible

if TYPE_CHECKING:
    from pushforward.estimators.guard import Guard

__all__ = ["guard_report", "parts_in_memory", "row_parts"]

_CELL = re.compile(r" \(the (?:first|last) is [^)]*\)")
"""A cell of a training row, which a report without values does not show."""
_TYPICAL = 8
_ROWS = 65_536
_EMBEDDED = 1024
"""Inputs of a part of which a network finds the features."""


def row_parts(rows: Any, size: int = _ROWS) -> Iterable[Any]:
    """Parts of rows that are in memory: a tensor, a matrix, a list, or a table or data frame."""
    import narwhals as nw

    if len(rows) == 0:
        raise InputError("there are no rows to report on.")
    by_position = nw.dependencies.is_pandas_dataframe(rows) or nw.dependencies.is_pandas_series(rows)
    for start in range(0, len(rows), size):
        if by_position:  # a column of the frame may be called "slice", and [a:b] may look for labels
            yield rows.iloc[start : start + size]
        else:
            yield rows.slice(start, size) if hasattr(rows, "slice") else rows[start : start + size]


def parts_in_memory(guard: Guard, X: Any) -> Iterable[Any]:
    """Parts of rows that are in memory, each of which ``guard`` reads by itself.

    Raises:
        InputError: for rows that do not fit the guard, or no rows.
    """
    if guard.embed is None:
        return row_parts(guard._read(X))
    X = listed(guard, X)
    if isinstance(X, (list, tuple)) or hasattr(X, "shape"):
        return row_parts(X, _EMBEDDED)
    return [X]


def guard_report(guard: Guard, parts: Iterable[Any], options: ReportOptions) -> Report:
    """Score rows in one pass, in constant memory, and report on them.

    Args:
        guard: fitted.
        parts: of the rows, in what the guard reads.
        options: what to show.

    Raises:
        InputError: for rows that do not fit the guard, or no rows.
    """
    start = time.perf_counter()
    reader = rows_of(guard)
    calibration = {None: ("all rows", guard.calibrator_, guard.level_)}
    found = Collected(calibration, reader.columns, options.alarms)
    found.groups[None].left_out = guard.calibration_.trimmed
    problems: list[Problem] = []
    outside: dict[str, None] = {}  # the sentences in order, each once
    with collected(SchemaWarning):  # the report says it
        for part in parts:
            rows = guard._read(part)
            with counted_from(found.rows):
                encoded, more = reader.encode(rows)
            problems = Problem.merge([*problems, *more])
            if isinstance(guard.score_, TableScore):
                outside |= dict.fromkeys(guard.score_.features.outside(encoded))
            score = guard.score_.score(rows)
            alarm, p = guard._decide(-score) < 0, guard.calibrator_.p_value(score)

            def content(k: int, part: Any = part, rows: Any = rows, encoded: np.ndarray = encoded) -> Kept:
                # Copies, so that no part stays in memory.
                return Kept(take(rows, np.array([k])), encoded[k].copy(), reader.raw(part, k))

            typical = _TYPICAL if reader.pictures and options.values else 0
            new = {problem.column: problem.counted for problem in more if problem.kind == "new"}
            found.add(score, p, alarm, content, encoded=encoded, new=new, typical=typical)
            chosen = found.alarms_to_explain(alarm)
            if len(chosen):
                found.add_reasons(reader.first_reasons(take(rows, chosen), encoded[chosen]))
        if not found.rows:
            raise InputError("there are no rows to report on.")
        pictures: dict[str, bytes] = {}
        alarms = reader.alarms(found.worst, options, pictures)
        typical = [reader.pictured(shown, "typical", pictures) for shown in found.typical]
        typical = [entry for entry in typical if entry["picture"]]
    seconds = time.perf_counter() - start
    noun, nouns = reader.nouns
    facts = guard_facts(guard, options.file, options.guard)
    subject = Subject(
        title=options.heading(),
        guard=facts,
        data={"source": options.name, "seconds": round(seconds, 3), "facts": [[k, v] for k, v in options.data.items()]},
        alpha=guard.alpha,
        guarantee=guard.guarantee,
        delta=guard.delta,
        promised=promise_sentence(
            guard.alpha, guard.guarantee, guard.delta, guard.calibrator_.n, guard.level_, nouns, infinite_scores(guard),
            guard.calibration_.trimmed,
        ),
        promise_is_for=str(guard.calibration_),
        notes=[
            *(str(problem) for problem in problems if options.values or problem.kind not in ("new", "text")),
            *(sentence if options.values else _CELL.sub("", sentence) for sentence in outside),
        ],
        nouns=(noun, nouns),
        values=options.values,
        reference=f"the training {nouns}" if guard.calibration_.times == 0 else f"the {nouns} of the last recalibration",
        column_nouns=reader.column_nouns,
        column_note="" if reader.columns else "The file of this guard has no summary of its training columns, because an early version wrote it: "
        "fit the guard again to see which columns drift.",
    )  # fmt: skip
    examples = {p.column: [visible(e, 40) for e in p.examples] for p in problems if p.kind == "new" and options.values}
    return assemble(subject, found, alarms, typical=typical, pictures=pictures, examples=examples)
