"""`Comparison`: two guards on the same rows, in one pass and constant memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pushforward.report.assemble import FORMAT, plain
from pushforward.report.collected import Shown, Worst
from pushforward.report.text import figure, percent, plural, promised_rate

__all__ = ["Comparison", "PairedRows"]

_MOST = 100_000
"""Rows of which the rank correlation is computed; its standard error is then below 0.004."""


@dataclass
class PairedRows:
    """What is collected of the answers of two guards.

    Args:
        shown: number of rows to keep that only one of the guards alarms, for each guard.
        seed: of the sample of rows for the rank correlation.
    """

    shown: int = 10
    seed: int = 0
    rows: int = 0
    table: np.ndarray = field(default_factory=lambda: np.zeros((2, 2), dtype=np.int64))

    def __post_init__(self) -> None:
        self.only = (Worst(self.shown), Worst(self.shown))
        self._rng = np.random.default_rng(self.seed)
        self._keys, self._pairs = np.zeros(0), np.zeros((0, 2))

    def add(
        self, scores: tuple[np.ndarray, np.ndarray], p: tuple[np.ndarray, np.ndarray], alarm: tuple[np.ndarray, np.ndarray],
        content: Callable[[int], Any],
    ) -> None:  # fmt: skip
        """Add a chunk of rows, with the answers of the first and of the second guard.

        Args:
            scores: anomaly scores, each ``(n,)``.
            p: p-values.
            alarm: alarms.
            content: what to keep of the row at a position of the chunk.
        """
        first, second = (values.astype(bool) for values in alarm)
        np.add.at(self.table, (first.astype(int), second.astype(int)), 1)
        for own, mask in ((0, first & ~second), (1, second & ~first)):
            difference = (
                p[1 - own] - p[own]
            )  # the clearest is a small p-value of the guard that alarms and a large one of the other
            places = np.flatnonzero(mask)
            for k in places[np.argsort(-difference[places], kind="stable")][: self.shown]:
                row = self.rows + int(k)
                self.only[own].add(float(difference[k]), row, lambda k=k, row=row, own=own: Shown(
                    row, float(scores[own][k]), float(p[own][k]), (content(int(k)), float(p[0][k]), float(p[1][k]))))  # fmt: skip
        keys = np.concatenate((self._keys, self._rng.random(len(first))))
        pairs = np.concatenate((self._pairs, np.stack(scores, axis=1)))
        if len(keys) > _MOST:
            kept = np.sort(np.argpartition(keys, _MOST)[:_MOST])
            keys, pairs = keys[kept], pairs[kept]
        self._keys, self._pairs = keys, pairs
        self.rows += len(first)

    def rank_correlation(self) -> tuple[float, int]:
        """Spearman's rank correlation of the two scores, NaN if one is constant, and the number of rows that it is of."""
        from scipy.stats import rankdata

        ranks = [rankdata(values) for values in self._pairs.T]
        if len(self._pairs) < 2 or any(np.ptp(r) == 0 for r in ranks):
            return float("nan"), len(self._pairs)
        return float(np.corrcoef(ranks[0], ranks[1])[0, 1]), len(self._pairs)

    def same_rate(self) -> float:
        """P-value that both guards alarm the same fraction of rows like these (McNemar's exact test)."""
        from scipy.stats import binomtest

        one, other = int(self.table[1, 0]), int(self.table[0, 1])
        return float(binomtest(one, one + other).pvalue) if one + other else 1.0


class Comparison:
    """Two guards on the same rows: both rates of alarms, agreement, and rows that only one of them alarms.

    Args:
        guards: facts about the two guards, with their alarms.
        found: what was collected.
        only: the rows that only the first, and only the second guard alarms, as plain JSON types.
        data: facts about the rows.
    """

    def __init__(
        self, guards: tuple[Mapping[str, Any], Mapping[str, Any]], found: PairedRows,
        only: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]], data: Mapping[str, Any],
    ) -> None:  # fmt: skip
        correlation, rows = found.rank_correlation()
        neither, only_b, only_a, both = (int(v) for v in found.table.ravel())
        self._content = plain({
            "format": FORMAT,
            "data": {**data, "rows": found.rows},
            "a": guards[0],
            "b": guards[1],
            "both": both, "only_a": only_a, "only_b": only_b, "neither": neither,
            "agreement": (both + neither) / max(1, found.rows),
            "same_rate_p_value": found.same_rate(),
            "rank_correlation": correlation, "rank_correlation_rows": rows,
            "rows_only_a": list(only[0]), "rows_only_b": list(only[1]),
        })  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """All numbers and texts, as plain JSON types."""
        return json.loads(self.to_json())

    def to_json(self, indent: int | None = None) -> str:
        """The same as JSON."""
        return json.dumps(self._content, allow_nan=False, indent=indent)

    def facts(self) -> dict[str, str]:
        """The numbers in words."""
        c = self._content
        found = {"rows": figure(c["data"]["rows"])}
        for key in ("a", "b"):
            side = c[key]
            band = (
                f"; normal rows {percent(side['interval'][0])} to {percent(side['interval'][1])}"
                if side["interval"]
                else ""
            )
            found[f"alarms of {key.upper()}"] = (
                f"{side['alarms']:,} ({percent(side['fraction'])}; promised {promised_rate(side['alpha'])}{band})"
            )
        found["both alarm"] = f"{c['both']:,}"
        found["only A alarms"] = f"{c['only_a']:,}"
        found["only B alarms"] = f"{c['only_b']:,}"
        found["agreement"] = f"{percent(c['agreement'])} of the rows"
        found["same rate"] = f"p = {figure(c['same_rate_p_value'], 2)} (McNemar's exact test)"
        few = c["rank_correlation_rows"] < c["data"]["rows"]
        sample = f", of {plural(c['rank_correlation_rows'], 'row')} drawn at random" if few else ""
        found["rank correlation"] = f"{figure(c['rank_correlation'], 3)} of the scores (Spearman){sample}"
        return found

    def __str__(self) -> str:
        return "\n".join(f"{name:18} {text}" for name, text in self.facts().items())

    def __repr__(self) -> str:
        c = self._content
        return (
            f"Comparison({c['data']['rows']} rows: both alarm {c['both']}, only A {c['only_a']}, only B {c['only_b']})"
        )
