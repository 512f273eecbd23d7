"""Parts of an input, and their scores."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from pushforward.data.schema import Problem, counted_from
from pushforward.errors import SchemaError

__all__ = [
    "SCORED",
    "Part",
    "column_types",
    "numbered",
    "one_warning_of_all_parts",
    "part_rows",
    "parts_of_input",
    "score_part_of_table",
    "scored_here",
    "scores_of",
    "with_scores",
]

SCORED = ("anomaly_score", "p_value", "alarm")
"""Columns that `pushforward score` adds."""

Part = tuple[Any, Any]
"""A table to write, and what the guard scores: None for the table itself, else images or inputs of a network."""

_IMAGES, _NETWORK = 4096, 1024
"""Most images, and most inputs of a network, in a part."""


def part_rows(guard: Any, rows: int) -> int:
    """The number of rows in a part."""
    from pushforward.estimators import NetworkGuard

    if isinstance(guard, NetworkGuard):
        return min(rows, _NETWORK)
    return min(rows, _IMAGES) if guard.reads_images else rows


def parts_of_input(guard: Any, table: str, rows: int, options: dict[str, Any]) -> Iterator[Part]:
    """The parts of an input, in its order."""
    from pushforward.estimators import NetworkGuard
    from pushforward.estimators.guard_inputs import channels_of
    from pushforward.io import stream_table
    from pushforward.io.images import named_images

    rows = part_rows(guard, rows)
    if isinstance(guard, NetworkGuard):
        from pushforward.cli.network import network_parts

        yield from network_parts(table, rows, options, guard)
    elif guard.reads_images:
        yield from numbered(named_images(table, rows, gray=channels_of(guard) == 1))
    else:
        types = column_types(guard)
        for chunk in stream_table(table, rows=rows, types=types, empty=True, integers=True, **options):
            yield chunk, None


def column_types(guard: Any) -> dict[str, Any]:
    """The types of the columns that a guard of tables, or of a network that reads them by name, knows in a file of text."""
    import pyarrow as pa

    from pushforward.estimators import NetworkGuard

    if isinstance(guard, NetworkGuard):
        return {str(name): pa.float64() for name in getattr(guard, "feature_names_in_", ())}
    return guard.schema_.pyarrow_types()


def numbered(parts: Iterator[tuple[list[str] | None, Any]]) -> Iterator[Part]:
    """Parts of images, each with a table of their numbers, and of their files where they have some."""
    import pyarrow as pa

    first = 0
    for names, part in parts:
        table = pa.table({"image": range(first, first + len(part))})
        yield table if names is None else table.append_column("file", pa.array(names, pa.string())), part
        first += len(part)


def scores_of(guard: Any, part: Part) -> dict[str, Any]:
    """The new columns of a part."""
    from pushforward.estimators import NetworkGuard

    chunk, inputs = part
    if chunk is not None and chunk.num_rows == 0:
        return _no_scores(guard, part)
    if isinstance(guard, NetworkGuard):
        from pushforward.cli.network import network_scores

        return network_scores(guard, inputs)
    return guard.assess(chunk if inputs is None else inputs)


def _no_scores(guard: Any, part: Part) -> dict[str, Any]:
    """The new columns of a table without rows, after a check of its columns."""
    import numpy as np

    from pushforward.estimators import NetworkGuard
    from pushforward.estimators.guard_inputs import read_rows

    numbers = dict(zip(SCORED, (np.empty(0), np.empty(0), np.empty(0, bool)), strict=True))
    if isinstance(guard, NetworkGuard):
        prediction = {"prediction": np.empty(0, np.int64)} if guard.classes_ > 1 else {}
        return prediction | numbers | {"reason": np.empty(0, np.str_)}
    guard.schema_.encode(read_rows(guard, part[0], reset=False))
    return ({"log_prob": np.empty(0)} if guard.score_.has_density else {}) | numbers


@contextlib.contextmanager
def one_warning_of_all_parts() -> Iterator[None]:
    """Add up what the parts of a table say of a column, and say it once, at the end of the ``with`` block.

    Each part must be read once in it. Other warnings come at once, each text once.
    """
    found: list[Problem] = []
    said: set[str] = set()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def keep(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            problem = getattr(message, "problem", None)
            if isinstance(problem, Problem):
                found[:] = Problem.merge([*found, problem])
            elif str(message) not in said:
                said.add(str(message))
                show(message, category, *rest)

        warnings.showwarning = keep
        try:
            yield
        finally:
            warnings.showwarning = show
            for problem in found:
                warnings.warn(problem.as_warning(), stacklevel=2)


def scored_here(guard: Any, parts: Iterator[Part]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The tables of the parts, each with its new columns."""
    first = 0
    for part in parts:
        with counted_from(first):
            scores = scores_of(guard, part)
        yield part[0], scores
        first += part[0].num_rows


def score_part_of_table(
    guard: Any, table: Any, part: Any, rows: int, prefix: str, name: str, integers: Mapping[str, Any] | None = None
) -> Iterator[tuple[Any, int]]:
    """The chunks of a part with their new columns, each with its number of alarms.

    Args:
        guard: a guard of tables, or of a network that reads them.
        table: a :class:`~pushforward.io.PartedTable`.
        part: one of its parts.
        rows: number of rows in a chunk.
        prefix: text before the names of the new columns.
        name: the table in the words of the user.
        integers: the types of the columns of numbers that have only integers in the whole table.
    """
    from pushforward.estimators import NetworkGuard

    types, first = column_types(guard) | dict(integers or {}), 0
    for chunk in table.read(part, part_rows(guard, rows), types, empty=True):
        if chunk.num_rows == 0:
            result = scores_of(guard, (chunk, None))
        elif isinstance(guard, NetworkGuard):
            from pushforward.cli.network import matrix_of, network_scores

            result = network_scores(guard, matrix_of(chunk, name, guard, {"decimal": table.decimal}))
        else:
            with counted_from(first):
                result = guard.assess(chunk)
        first += chunk.num_rows
        yield with_scores(chunk, result, prefix, name), int(result["alarm"].sum())


def with_scores(chunk: Any, result: dict[str, Any], prefix: str, name: str) -> Any:
    """A table with its new columns.

    Raises:
        SchemaError: if it has a column with the name of a new one.
    """
    import pyarrow as pa

    for column, values in result.items():
        if prefix + column in chunk.column_names:
            raise SchemaError(
                f"{name} already has a column {prefix + column!r}: choose other names, for example with --prefix guard_"
            )
        chunk = chunk.append_column(prefix + column, pa.array(values))
    return chunk
