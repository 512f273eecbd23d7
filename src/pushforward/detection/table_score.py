"""The guard's score of tables: -log p under a density over carefully treated columns, and what else it can tell."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from pushforward.compiled import CompiledScorer, compile_scorer
from pushforward.data import Schema
from pushforward.detection.batching import by_batches
from pushforward.detection.table import explainer
from pushforward.detection.table_features import TableFeatures
from pushforward.errors import ConfigError, StorageError, TrainingError
from pushforward.io import pack, unpack
from pushforward.models import Flow

__all__ = ["Explanation", "TableScore"]

_NEAR = 2e-5
"""Relative distance within which a frozen score may be on the other side of a score than the exact one."""


class Explanation(NamedTuple):
    """Which columns made rows unlikely.

    Attributes:
        names: of the table's columns.
        nats: -log p(column | columns before it) of each row, ``(rows, columns)``; high is unlikely.
    """

    names: tuple[str, ...]
    nats: np.ndarray

    def top(self, row: int = 0, k: int = 3) -> list[tuple[str, float]]:
        """The k columns that made one row most unlikely, with their nats."""
        order = np.argsort(-self.nats[row], kind="stable")[:k]
        return [(self.names[i], float(self.nats[row, i])) for i in order]


class TableScore:
    """-log p of the rows of a table, nats: higher is more anomalous.

    Rows are "encoded": a float64 array ``(rows, columns)`` with the codes of the schema.

    Args:
        schema: names, types and categories of the columns.
        layout: which columns are kept, and what the density sees of them.
        density: of the layout's matrix.
        draws: noise draws a row where columns are dequantized or missing.
    """

    def __init__(self, schema: Schema, layout: TableFeatures, density: Flow, draws: int) -> None:
        self.schema, self.layout, self.density, self.draws = schema, layout, density, draws
        self._frozen: CompiledScorer | None = None

    @property
    def frozen(self) -> bool:
        """Whether this is the quick copy."""
        return self._frozen is not None

    def encode(self, table: Any, *, positional: bool, owner: str) -> np.ndarray:
        """A pyarrow table as an encoded array.

        Raises:
            SchemaError: naming the column that does not fit.
        """
        return self.schema.encode(table, positional=positional, owner=owner)[0]

    def __call__(self, encoded: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
        """Scores ``(rows,)``: the one path for calibration and for scoring.

        Args:
            encoded: the rows.
            known: sorted calibration scores. A frozen score that is near to one of them, or not finite, is found as the
                unfrozen would be.
        """
        matrix, surprise = self.layout.matrix(encoded)
        rows, surprised = torch.from_numpy(matrix), surprise.sum(1)
        if self._frozen is None or known is None:
            return surprised - self._values(rows)
        quick = [self._frozen.value(part, samples=self.draws).double() for part in rows.split(512)]
        scores = surprised - torch.cat(quick).numpy() if quick else surprised
        close = ~np.isfinite(scores)
        at = np.where(close, 0.0, scores)
        reach = _NEAR * (1 + np.abs(at))
        close |= np.searchsorted(known, at - reach, "left") < np.searchsorted(known, at + reach, "right")
        if close.any():
            scores[close] = surprised[close] - self._values(rows[torch.from_numpy(close)])
        return scores

    def _values(self, rows: torch.Tensor) -> np.ndarray:
        """log p of the density's rows, in batches of one size."""
        return by_batches(lambda part: self.density.evaluate(part, samples=self.draws).value.double(), rows).numpy()

    def explain(self, encoded: np.ndarray) -> Explanation:
        """Exact terms of the chain rule under the density's autoregressive flow.

        Raises:
            ConfigError: if it holds none.
        """
        flow = explainer(self.density)
        if flow is None:
            raise ConfigError('explain needs the autoregressive member of model="auto", which this density has not.')
        matrix, surprise = self.layout.matrix(encoded)
        terms = by_batches(
            lambda part: flow.conditional_log_prob(part, samples=self.draws).double(), torch.from_numpy(matrix)
        )
        nats = self.layout.by_column(-terms.numpy()) + surprise
        return Explanation(tuple(column.name for column in self.schema.columns), nats)

    def sample(self, count: int, seed: int) -> Any:
        """Rows drawn from the density, a ``pyarrow.Table``; those beyond the cells of codes and flags are drawn again.

        Raises:
            TrainingError: if hardly a row is legal.
        """
        generator = torch.Generator().manual_seed(seed)
        legal: list[np.ndarray] = []
        while sum(map(len, legal)) < count:
            drawn = self.density.sample(max(count, 64), generator=generator).double().numpy()
            rows = self.layout.unmatrix(drawn)
            fits = np.isfinite(drawn).all(1)
            for place in self.layout.coded:
                code = np.nan_to_num(rows[:, place])  # a missing flag or category is a legal cell
                fits &= (code >= 0) & (code < max(2, len(self.schema.columns[place].categories)))
            legal.append(rows[fits])
            if len(legal) > 1000 and not sum(map(len, legal)):
                raise TrainingError("the density puts no mass on legal rows; fit it longer or with more rows.")
        return self.schema.decode(np.concatenate(legal)[:count])

    def compile_scorer(self) -> TableScore:
        """A copy whose density is one compiled program for few rows."""
        quick = copy.copy(self)
        quick.density, quick._frozen = copy.deepcopy(self.density), compile_scorer(self.density)
        return quick

    def pack(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Header and tensors for a file."""
        density, tensors = pack(self.density, "density.")
        return {"density": density, "schema": self.schema.to_json(), "layout": self.layout.to_json()}, tensors

    @classmethod
    def unpack(cls, header: dict[str, Any], tensors: dict[str, torch.Tensor], draws: int) -> Self:
        """What :meth:`pack` gave.

        Raises:
            StorageError: for parts that do not fit each other.
        """
        schema, layout = Schema.from_json(header["schema"]), TableFeatures.from_json(header["layout"])
        density = unpack(header["density"], tensors, "density.")
        if not isinstance(density, Flow) or density.shape != (layout.features,):
            raise StorageError("its density does not fit its table.")
        if len(schema.columns) != layout.width:
            raise StorageError("its layout does not fit its columns.")
        return cls(schema, layout, density.eval(), draws)
