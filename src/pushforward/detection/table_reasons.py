"""Explain the score of a table's rows: the excess of each cell, and its usual values given the other columns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pushforward.data import as_table, is_positional
from pushforward.data.column import CODED
from pushforward.detection.explanation import CELL_KINDS, Evidence, Explanation
from pushforward.detection.table import Pool
from pushforward.detection.table_features import TableFeatures
from pushforward.errors import SchemaWarning, collected

__all__ = ["explain_rows"]

_KIND = {name: k for k, name in enumerate(CELL_KINDS)}


def explain_rows(features: TableFeatures, pool: Pool, inputs: Any, encoded: np.ndarray) -> Explanation:
    """Explain rows of a table.

    Args:
        features: of the fitted table.
        pool: the fitted statistics.
        inputs: the table, for the text of categories that no training row has.
        encoded: the same rows, ``(n, columns)``.
    """
    matrix, news = features.impute(encoded)
    kept = list(features.kept)
    coded = np.array([column.kind in CODED for column in features.schema.columns])
    infinite = ~np.isfinite(matrix)
    matrix = np.where(infinite, 0.0, matrix)
    unknown = news[:, kept] | infinite[:, : len(kept)]
    flags = np.full(len(kept), -1)
    flags[list(features.indicators)] = len(kept) + np.arange(len(features.indicators))
    cells = pool.report_cells(matrix, unknown, coded[kept], flags)

    def spread(values: np.ndarray) -> np.ndarray:
        found = np.full(news.shape, np.nan)
        found[:, kept] = values
        return found

    cost = features.cost(encoded, news)
    nats = cost.copy()
    nats[:, kept] += np.where(infinite[:, : len(kept)], math.inf, cells.excess)
    facts = {name: spread(getattr(cells, name)) for name in ("low", "high", "own_low", "own_high", "p_value", "share")}
    for k, *_ in features.instants:  # their distance in time is no news, so no range of them is
        for name in ("low", "high", "own_low", "own_high"):
            facts[name][:, kept[k]] = np.nan
    for column, value in features.constants:
        facts["low"][:, column] = facts["high"][:, column] = value
    facts["p_value"][news | np.isinf(encoded)] = 1.0 / (features.rows + 2)
    finite = news & np.isfinite(cost)
    facts["p_value"][finite] = np.exp(-cost[finite])
    kind = _kinds(features, encoded, news)
    calendar = frozenset(kept[k] for k, _ in features.calendar)
    texts = _texts(features, inputs, kind == _KIND["new category"])
    return Explanation(
        features.schema.names, nats, Evidence(features.schema, encoded, kind, texts=texts, calendar=calendar, **facts)
    )


def _kinds(features: TableFeatures, encoded: np.ndarray, news: np.ndarray) -> np.ndarray:
    """What each cell is, as an index in ``CELL_KINDS``."""
    coded = np.array([column.kind in CODED for column in features.schema.columns])
    kind = np.where(coded, _KIND["category"], _KIND["number"]) * np.ones(news.shape, dtype=int)
    missing = np.isnan(encoded)
    kind[missing] = _KIND["missing"]
    kind[np.isinf(encoded) & ~coded] = _KIND["infinite"]
    kind[features.fractions(encoded)] = _KIND["fraction"]
    kind[missing & news] = _KIND["new missing"]
    kind[np.isinf(encoded) & coded] = _KIND["new category"]
    constant = np.zeros(len(coded), dtype=bool)
    constant[[column for column, _ in features.constants]] = True
    kind[news & constant & ~missing & np.isfinite(encoded)] = _KIND["changed constant"]
    return kind


def _texts(features: TableFeatures, inputs: Any, new: np.ndarray) -> dict[tuple[int, int], str]:
    """The text of cells whose category no training row has."""
    if not new.any():
        return {}
    with collected(SchemaWarning):  # the caller has seen the warnings of this table
        table = as_table(inputs, index=features.schema.names)
    names = None if is_positional(table) or features.schema.positional else features.schema.names
    texts = {}
    for column in np.flatnonzero(new.any(0)):
        cells = table.column(int(column)) if names is None else table.column(names[column])
        for row in np.flatnonzero(new[:, column]):
            texts[int(row), int(column)] = str(cells[int(row)].as_py())
    return texts
