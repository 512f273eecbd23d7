"""The default score of tables: a pool of statistics, and an ensemble of flows where a density is asked for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pushforward import io
from pushforward.compiled import CompiledScorer, compile_scorer
from pushforward.data import Schema, duplicate_groups, split_indices
from pushforward.detection.batching import by_batches
from pushforward.detection.explanation import Explanation
from pushforward.detection.input_score import InputScore
from pushforward.detection.table import EFFORTS, Pool, fit_pool, fit_pool_in_time
from pushforward.detection.table.ends import either
from pushforward.detection.table.growth import with_rows
from pushforward.detection.table.robust import rows_to_keep
from pushforward.detection.table_density import KINDS, explainer, fit_table_density
from pushforward.detection.table_features import TableFeatures
from pushforward.detection.table_reasons import explain_rows
from pushforward.errors import (
    ConfigError,
    InputError,
    SchemaWarning,
    StorageError,
    TrainingError,
    in_words,
    warn_caller,
)
from pushforward.models import Ensemble, Flow
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.training import TrainingConfig
from pushforward.training.budget import seconds

__all__ = ["TABLE_TRAINING", "TableScore", "fit_table_score"]

TABLE_TRAINING = TrainingConfig(max_steps=2000, batch_size=256, learning_rate=1e-3, ema=None)
"""Default training of the flows of a table; it was chosen without a moving average of the weights."""

_EXPORTABLE = 1000
"""Rows among which neighbors are searched in a score that is to be exported."""

_NEAR = 1e-6
"""Largest relative difference between the score of a few rows and the score in batches of one size."""

NO_DENSITY = "this guard has no density: fit it with Guard(density=True), on the command line fit --density, which trains flows too."


class TableScore(InputScore):
    """Anomaly score of the rows of a table, nats: c + log(exp(p) + exp(u) - 1) of statistics p and news c and u.

    p is the score of :class:`~pushforward.detection.table.Pool`. Each missing cell in a column that had none, each change of a
    constant column and each unseen category add log(n + 2) nats to c, minus the log of the probability that the rule of
    succession gives to an event that n rows did not show. A column in which s > 0 categories are in one training row each
    always has new ones: an unseen category there adds log((n + 2) / (s + 1)) to u. Such a row is as strange as its values or its
    news; a sum of p and u would hide anomalies of other columns. The statistics read the column's usual value in place of an
    unseen cell. An infinite number makes the score infinite.

    Args:
        features: what is read of a table.
        pool: the statistics.
        density: a model of the feature matrix, or None; it may be a bound from below.
        n_draws: noise draws of the density for each row where columns are dequantized or missing.
        strict: whether the score is infinite for a row with a cell that no training row has: an unseen category, a missing
            cell in a column that had none, a changed constant, or a fraction in a column of integers.
    """

    reads = "tables"

    def __init__(
        self,
        features: TableFeatures,
        pool: Pool,
        density: Flow | None = None,
        n_draws: int = 4,
        strict: bool = False,
    ) -> None:
        self.features, self.pool, self.density, self.n_draws = features, pool, density, n_draws
        self.strict = strict
        self._compiled = False
        self._flow: CompiledScorer | None = None
        self._calibration = np.empty(0)

    @property
    def has_density(self) -> bool:
        """Whether flows were trained."""
        return self.density is not None

    def __repr__(self) -> str:
        flows = 0 if self.density is None else _flows(self.density)
        density = f", {flows} flows" if flows else ""
        return f"TableScore({len(self.features.schema)} columns, {len(self.pool.scales)} statistics{density})"

    def score(self, inputs: Any) -> np.ndarray:
        """Score of each row, nats, float64 ``(n,)``: calibration and new rows take the same path.

        Raises:
            SchemaError: for a column that does not fit; it is named.
            InputError: if ``inputs`` is not a table.
        """
        encoded = self._encode(inputs)
        matrix, news = self.features.impute(encoded)
        usual, cost = self.features.row_costs(encoded, news)
        far = self.features.infinite(encoded).any(1)
        cost = np.where(far, 0.0, cost)
        if self.strict:
            far |= (news | self.features.fractions(encoded)).any(1)
        if far.any():
            matrix = np.where(np.isfinite(matrix), matrix, 0.0)
        if not self._compiled:
            return np.where(far, math.inf, cost + either(self.pool.score(matrix), usual))
        scores = cost + either(self.pool.score(matrix, batch=None), usual)
        margin = _NEAR * (1 + np.abs(scores))
        below, above = (np.searchsorted(self._calibration, scores + side * margin) for side in (-1, 1))
        near = below < above
        if near.any():
            scores[near] = cost[near] + either(self.pool.score(matrix[near]), usual[near])
        return np.where(far, math.inf, scores)

    def log_prob(self, inputs: Any) -> np.ndarray:
        """log p of each row under the density, nats, float64 ``(n,)``; a lower bound where cells are dequantized.

        Raises:
            ConfigError: if there is no density.
        """
        encoded = self._encode(inputs)
        density = self._density()
        rows, cost = torch.from_numpy(self.features.transform(encoded)), self.features.unseen_cost(encoded).sum(1)
        if self._flow is not None:
            parts = [self._flow.value(part, samples=self.n_draws).double() for part in rows.split(512)]
            return torch.cat(parts).numpy() - cost
        value = by_batches(lambda part: density.evaluate(part, samples=self.n_draws).value.double(), rows)
        return value.numpy() - cost

    def explain(self, inputs: Any) -> Explanation:
        """How far each cell is beyond what is usual for its column, and its usual values given the other columns."""
        return explain_rows(self.features, self.pool, inputs, self._encode(inputs))

    def explain_density(self, inputs: Any) -> Explanation:
        """The exact terms of the chain rule under the ensemble's autoregressive flow.

        Raises:
            ConfigError: if there is no density, or its ensemble has no such flow.
        """
        flow = explainer(self._density())
        if flow is None:
            raise ConfigError('this needs the autoregressive flow of model="auto", and this ensemble has none.')
        encoded = self._encode(inputs)
        terms = by_batches(
            lambda part: flow.conditional_log_prob(part, samples=self.n_draws).double(),
            torch.from_numpy(self.features.transform(encoded)),
        )
        nats = self.features.by_column(-terms.numpy()) + self.features.unseen_cost(encoded)
        return Explanation(self.features.schema.names, nats)

    def sample(self, count: int, seed: int) -> Any:
        """Draw rows from the density, a ``pyarrow.Table``.

        The density of dequantized codes, flags, integers and times has tails beyond those that exist; such rows are drawn again.

        Raises:
            ConfigError: if there is no density, or ``count`` is not a positive integer.
            TrainingError: if hardly a row can be decoded.
        """
        density = self._density()
        check_integer("count", count)
        generator = torch.Generator().manual_seed(seed)
        accepted: list[np.ndarray] = []
        while sum(map(len, accepted)) < count:
            drawn = density.sample(max(count, 64), generator=generator).double().numpy()
            rows = self.features.on_lattices(self.features.inverse_transform(drawn))
            accepted.append(rows[np.isfinite(drawn).all(1) & self.features.decodable(rows)])
            if len(accepted) > 1000 and not sum(map(len, accepted)):
                raise TrainingError("samples of the density have no valid codes; fit it longer or with more rows.")
        return self.features.schema.decode(np.concatenate(accepted)[:count])

    def with_rows(self, inputs: Any, most: int, seed: int = 0) -> tuple[TableScore, int]:
        """A score that also measures distances to these rows, and how many of them it took.

        Rows with a cell that no training row has are left out: what a column can contain is decided by ``fit``.

        Args:
            inputs: normal rows.
            most: largest number of rows to store, unless more are stored already.
            seed: of the choice where these are too many.

        Raises:
            ConfigError: if this score stores no rows.
        """
        if not len(self.pool):
            raise ConfigError(
                "this guard stores no training rows, so rows cannot be added: fit it again with all rows."
            )
        encoded = self._encode(inputs)
        matrix, news = self.features.impute(encoded)
        matrix = matrix[~news.any(1) & np.isfinite(matrix).all(1)]
        pool = with_rows(self.pool, matrix, self.features.rows, most, seed)
        features = replace(self.features, rows=self.features.rows + len(matrix))
        return TableScore(features, pool, self.density, self.n_draws, self.strict), len(matrix)

    def reaching(self, inputs: Any) -> TableScore:
        """The same score, for which instants up to those of these rows are no longer later than the rows that it knows.

        Args:
            inputs: normal rows that calibrate it.
        """
        features = self.features.reaching(self.features.schema.encode(inputs, warn=False)[0])
        return TableScore(features, self.pool, self.density, self.n_draws, self.strict)

    def uncompiled(self) -> TableScore:
        """A score with the same pool and density that does not use what was compiled."""
        return TableScore(self.features, self.pool, self.density, self.n_draws, self.strict)

    def compile_scorer(self, calibration: np.ndarray) -> None:
        """Score only the rows that are given from now on, without filling up a batch, in place.

        The numbers differ in the last digits. A row whose score is so close to a calibration score that this could change
        their order is scored in a full batch. The density is compiled too, if there is one.
        """
        self._compiled, self._calibration = True, calibration
        if self.density is not None:
            self._flow = compile_scorer(self.density)

    def pack(self, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Description and tensors for a file."""
        pool, tensors = self.pool.pack(f"{prefix}pool.")
        description = {"features": self.features.to_json(), "pool": pool, "density": None, "n_draws": self.n_draws,
                       "strict": self.strict}  # fmt: skip
        if self.density is not None:
            description["density"], more = io.pack(self.density, f"{prefix}density.")
            tensors |= more
        return description, tensors

    @classmethod
    def unpack(cls, description: Any, tensors: dict[str, Tensor], prefix: str) -> Self:
        """Rebuild a score from what :meth:`pack` returned.

        Raises:
            StorageError: for parts that do not fit each other.
        """
        try:
            features, pool, density, n_draws = (description[n] for n in ("features", "pool", "density", "n_draws"))
            n_draws, strict = check_integer("n_draws", n_draws), description.get("strict", False) is True
        except (TypeError, KeyError, AttributeError, ConfigError) as error:
            raise StorageError(
                f"it describes its score of tables in a form that pushforward never writes: {in_words(error)}"
            ) from error
        features = TableFeatures.from_json(features)
        pool = Pool.unpack(pool, tensors, f"{prefix}pool.")
        if len(pool.coordinates.kind) != len(features.owners):
            raise StorageError(f"its pool does not read the table's {len(features.owners)} features.")
        if not np.array_equal(pool.reasons.group, features.owners):
            raise StorageError("its reasons have the columns of another table: use an intact copy.")
        features.check_matrix(pool.reasons.rows)
        if density is None:
            return cls(features, pool, None, n_draws, strict)
        model = io.unpack(density, tensors, f"{prefix}density.")
        if not isinstance(model, Flow) or model.shape != (features.n_features,) or model.context_features:
            raise StorageError(f"its density is not a flow of the table's {features.n_features} features.")
        return cls(features, pool, model.eval(), n_draws, strict)

    def _encode(self, table: Any) -> np.ndarray:
        encoded = self.features.schema.encode(table, owner="Guard")[0]
        for sentence in (*self.features.outside(encoded), *self.features.changed_constants(encoded)):
            warn_caller(sentence, SchemaWarning)
        return encoded

    def _density(self) -> Flow:
        if self.density is None:
            raise ConfigError(NO_DENSITY)
        return self.density


def fit_table_score(
    train: Any,
    validation: Any = 0.1,
    *,
    effort: str = "default",
    density: bool = False,
    kind: str = "auto",
    n_estimators: int = 5,
    n_draws: int = 4,
    jitter: float = 0.05,
    exportable: bool = False,
    strict: bool = False,
    contamination: float = 0.0,
    store_rows: bool = True,
    config: TrainingConfig = TABLE_TRAINING,
    note: Callable[[str], None] = lambda text: None,
) -> TableScore:
    """Recognize the columns of a table, fit a pool of statistics, and on request an ensemble of flows.

    Args:
        train: anything that :func:`~pushforward.data.as_table` takes.
        validation: of the density: the fraction of rows that stops the training early (0 for none; equal rows stay
            together), or another table for that. The pool reads all rows of ``train``.
        effort: "fast", "default" or "thorough": a fixed amount of work of the pool.
        density: whether to train the flows, which ``log_prob`` and ``sample`` need.
        kind: of the flows: "auto", "nice", "realnvp", "maf" or "nsf"; see
            :func:`~pushforward.detection.table_density.small_flow`.
        n_estimators: number of flows.
        n_draws: noise draws for each row where columns are dequantized or missing.
        jitter: standard deviation of the training noise, in robust deviations; it bounds the density at repeated values.
        exportable: whether neighbors are searched among at most 1,000 rows, so that a graph of the score is small and fast.
        strict: see :class:`TableScore`.
        store_rows: see :func:`~pushforward.detection.table.fit_pool`.
        contamination: upper bound of the fraction of anomalies; some rows are left out
            (:func:`~pushforward.detection.table.robust.rows_to_keep`), and the statistics are of many neighbors.
        config: options of the flows' training; ``max_steps`` is for each flow. ``seed`` also determines the choice of rows,
            the split and the first weights. ``max_time`` is for everything: the pool is smaller then, and the flows train
            for what is left. It is exceeded only where reading the table and the smallest pool take longer.
        note: called with the name of each phase of the pool.

    Raises:
        SchemaError: for a column that cannot be modeled; it is named.
        InputError: if ``train`` is not a table, or if all its columns are constant, also without the rows that are left out.
        ConfigError: for an unknown effort or kind.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(300, 2))
        >>> score = fit_table_score(x)
        >>> score.score([[0.0, 0.0], [9.0, 9.0]]).argmax()
        np.int64(1)
    """
    check_choice("effort", effort, tuple(EFFORTS))
    check_choice("model", kind, KINDS)
    start = time.monotonic()
    schema, encoded = Schema.infer_encode(train)
    features = TableFeatures.fit(schema, encoded)
    if not features.kept:
        raise InputError(
            "every column of the table is constant in the training rows, so there is nothing to learn: give rows in which some column varies."
        )
    sizes, seed = EFFORTS[effort], config.seed
    if exportable:
        sizes = replace(sizes, reference=min(sizes.reference, _EXPORTABLE), scale=min(sizes.scale, _EXPORTABLE))
    if contamination:
        kept = rows_to_keep(features, features.impute(encoded)[0], contamination, seed)
        present = ~np.isnan(encoded)
        alone = present.any(0) & ~present[kept].any(0)  # a column must not lose all its values
        kept |= present[:, alone].any(1)
        encoded = encoded[kept]
        features = TableFeatures.fit(schema, encoded)
        if not features.kept:
            raise InputError(
                f"every column of the table is constant in the training rows but for the {int((~kept).sum())} farthest ones, which "
                "max_contamination leaves out, so there is nothing to learn: give rows in which some column varies, or a smaller "
                "max_contamination."
            )
    chosen = encoded
    if len(encoded) > sizes.rows:
        chosen = encoded[np.random.default_rng(seed).choice(len(encoded), sizes.rows, replace=False)]
    matrix = features.impute(chosen)[0]
    limit = None if config.max_time is None else seconds(config.max_time)
    options: dict[str, Any] = {"store_rows": store_rows, "robust": contamination > 0, "note": note}
    if limit is None:
        pool = fit_pool(features, matrix, sizes=sizes, seed=seed, **options)
    else:
        left = limit - (time.monotonic() - start)
        pool = fit_pool_in_time(features, matrix, left * (0.3 if density else 1.0), sizes=sizes, seed=seed, **options)
    if not density:
        return TableScore(features, pool, None, n_draws, strict)
    if isinstance(validation, (int, float)):
        encoded, held_out = _split(encoded, validation, config.seed + 1)
    else:
        held_out = schema.encode(validation)[0]
    if limit is not None:
        config = replace(config, max_time=max(0.0, limit - (time.monotonic() - start)))
    note("flows")
    model = fit_table_density(
        features.transform(encoded), features.transform(held_out), features, kind=kind, n_estimators=n_estimators,
        jitter=jitter, config=config,
    )  # fmt: skip
    return TableScore(features, pool, model, n_draws, strict)


def _flows(density: Flow) -> int:
    return len(density.base.models) if isinstance(density.base, Ensemble) else 1


def _split(encoded: np.ndarray, validation: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and rows for early stopping; equal rows go to one part, so that stopping can detect overfitting."""
    if validation == 0 or len(encoded) < 20:
        return encoded, encoded[:0]
    groups = duplicate_groups(encoded)
    if groups.max() == 0:  # all rows are equal, which is an error with a sentence of its own
        return encoded, encoded[:0]
    train, held_out = split_indices(len(encoded), (1.0 - validation, float(validation)), seed=seed, groups=groups)
    if len(train) < 2:
        return encoded, encoded[:0]
    return encoded[train], encoded[held_out]
