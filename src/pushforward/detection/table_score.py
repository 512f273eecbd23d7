"""The default score of tables: -log p of a row under an ensemble of flows."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pushforward import io
from pushforward.compiled import CompiledScorer, compile_scorer
from pushforward.data import Schema, duplicate_groups, split_indices
from pushforward.detection.batching import by_batches
from pushforward.detection.input_score import Explanation, InputScore
from pushforward.detection.table_density import explainer, fit_table_density
from pushforward.detection.table_features import TableFeatures
from pushforward.errors import ConfigError, InputError, StorageError, TrainingError
from pushforward.models import Ensemble, Flow
from pushforward.numerics.checks import check_integer

__all__ = ["TableScore", "fit_table_score"]

_NEAR = 2e-5
"""Largest relative difference between a score of the compiled scorer and the score of the model."""


class TableScore(InputScore):
    """-log p of the rows of a table, nats; a bound from above where cells are dequantized or missing.

    Args:
        features: what the density reads of a table.
        density: a model of the feature matrix; it may be a bound from below.
        n_draws: noise draws for each row where columns are dequantized or missing.
    """

    reads = "tables"
    is_log_prob = True

    def __init__(self, features: TableFeatures, density: Flow, n_draws: int = 4) -> None:
        self.features, self.density, self.n_draws = features, density, n_draws
        self._compiled: CompiledScorer | None = None
        self._calibration = np.empty(0)

    def __repr__(self) -> str:
        flows = len(self.density.base.models) if isinstance(self.density.base, Ensemble) else 1
        return f"TableScore({len(self.features.schema)} columns, {flows} flows)"

    def score(self, inputs: Any) -> np.ndarray:
        """-log p of each row, nats, float64 ``(n,)``: calibration and new rows take the same path.

        Raises:
            SchemaError: for a column that does not fit; it is named.
            InputError: if ``inputs`` is not a table.
        """
        encoded = self._encode(inputs)
        rows, cost = torch.from_numpy(self.features.transform(encoded)), self.features.unseen_cost(encoded).sum(1)
        if self._compiled is None:
            return cost - self._log_prob(rows)
        log_prob = [self._compiled.value(part, samples=self.n_draws).double() for part in rows.split(512)]
        scores = cost - torch.cat(log_prob).numpy()
        uncertain = ~np.isfinite(scores)
        finite = np.where(uncertain, 0.0, scores)
        margin = _NEAR * (1 + np.abs(finite))
        below, above = (np.searchsorted(self._calibration, finite + side * margin) for side in (-1, 1))
        uncertain |= below < above
        if uncertain.any():
            scores[uncertain] = cost[uncertain] - self._log_prob(rows[torch.from_numpy(uncertain)])
        return scores

    def explain(self, inputs: Any) -> Explanation:
        """The exact terms of the chain rule under the ensemble's autoregressive flow.

        Raises:
            ConfigError: if the ensemble has no such flow.
        """
        flow = explainer(self.density)
        if flow is None:
            raise ConfigError('explain needs the autoregressive flow of model="auto", and this ensemble has none.')
        encoded = self._encode(inputs)
        terms = by_batches(
            lambda part: flow.conditional_log_prob(part, samples=self.n_draws).double(),
            torch.from_numpy(self.features.transform(encoded)),
        )
        nats = self.features.by_column(-terms.numpy()) + self.features.unseen_cost(encoded)
        return Explanation(self.features.schema.names, nats)

    def sample(self, count: int, seed: int) -> Any:
        """Draw rows from the density, a ``pyarrow.Table``.

        The density of dequantized codes and flags has tails beyond the codes that exist; such rows are drawn again.

        Raises:
            TrainingError: if hardly a row can be decoded.
        """
        generator = torch.Generator().manual_seed(seed)
        accepted: list[np.ndarray] = []
        while sum(map(len, accepted)) < count:
            drawn = self.density.sample(max(count, 64), generator=generator).double().numpy()
            rows = self.features.inverse_transform(drawn)
            accepted.append(rows[np.isfinite(drawn).all(1) & self.features.decodable(rows)])
            if len(accepted) > 1000 and not sum(map(len, accepted)):
                raise TrainingError("samples of the density have no valid codes; fit it longer or with more rows.")
        return self.features.schema.decode(np.concatenate(accepted)[:count])

    def uncompiled(self) -> TableScore:
        """A score with the same model that does not use the compiled scorer."""
        return TableScore(self.features, self.density, self.n_draws)

    def compile_scorer(self, calibration: np.ndarray) -> None:
        """Score few rows by :func:`~pushforward.compile_scorer` from now on, in place.

        Its numbers differ from the model's in the last digits. A row whose score is so close to a calibration score that
        this could change their order is scored by the model.
        """
        self._compiled, self._calibration = compile_scorer(self.density), calibration

    def pack(self, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Description and tensors for a file."""
        density, tensors = io.pack(self.density, prefix)
        return {"features": self.features.to_json(), "density": density, "n_draws": self.n_draws}, tensors

    @classmethod
    def unpack(cls, description: Any, tensors: dict[str, Tensor], prefix: str) -> Self:
        """Rebuild a score from what :meth:`pack` returned.

        Raises:
            StorageError: for parts that do not fit each other.
        """
        try:
            features, density, n_draws = (description[name] for name in ("features", "density", "n_draws"))
            n_draws = check_integer("n_draws", n_draws)
        except (TypeError, KeyError, ConfigError) as error:
            raise StorageError(f"its score of tables is not one that pushforward writes: {error!r}") from error
        features = TableFeatures.from_json(features)
        model = io.unpack(density, tensors, prefix)
        if not isinstance(model, Flow) or model.shape != (features.n_features,) or model.context_features:
            raise StorageError(f"its density is not a flow of the table's {features.n_features} features.")
        return cls(features, model.eval(), n_draws)

    def _encode(self, table: Any) -> np.ndarray:
        return self.features.schema.encode(table, owner="Guard")[0]

    def _log_prob(self, rows: Tensor) -> np.ndarray:
        """log p of rows of the feature matrix, nats."""
        return by_batches(lambda part: self.density.evaluate(part, samples=self.n_draws).value.double(), rows).numpy()


def fit_table_score(
    train: Any,
    validation: Any = 0.1,
    *,
    kind: str = "auto",
    n_estimators: int = 5,
    n_draws: int = 4,
    jitter: float = 0.05,
    seed: int = 0,
    max_steps: int = 2000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    **options: Any,
) -> TableScore:
    """Recognize the columns of a table, choose the features, and fit an ensemble of flows.

    Args:
        train: anything that :func:`~pushforward.data.as_table` takes.
        validation: the fraction of rows that stops the training early (0 for none; equal rows stay together), or another
            table for that.
        kind: of the flows: "auto", "nice", "realnvp", "maf" or "nsf"; see
            :func:`~pushforward.detection.table_density.small_flow`.
        n_estimators: number of flows.
        n_draws: noise draws for each row where columns are dequantized or missing.
        jitter: standard deviation of the training noise, in robust deviations; it bounds the density at repeated values.
        seed: of the split, the weights and the training.
        max_steps: of training, for each flow.
        batch_size: of training.
        learning_rate: of training.
        **options: passed on to ``pf.fit``.

    Raises:
        SchemaError: for a column that cannot be modeled; it is named.
        InputError: if ``train`` is not a table, or if all its columns are constant.
        ConfigError: for an unknown kind, or impossible options.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(300, 2))
        >>> score = fit_table_score(x, kind="nice", n_estimators=1, max_steps=50, progress="silent")
        >>> score.score([[0.0, 0.0], [9.0, 9.0]]).argmax()
        np.int64(1)
    """
    schema, encoded = Schema.infer_encode(train)
    if isinstance(validation, (int, float)):
        encoded, held_out = _split(encoded, validation, seed + 1)
    else:
        held_out = schema.encode(validation)[0]
    features = TableFeatures.fit(schema, encoded)
    if not features.kept:
        raise InputError("every column of the table is constant in the training rows, so there is no density to fit.")
    density = fit_table_density(
        features.transform(encoded), features.transform(held_out), features, kind=kind, n_estimators=n_estimators,
        jitter=jitter, seed=seed, max_steps=max_steps, batch_size=batch_size, learning_rate=learning_rate, **options,
    )  # fmt: skip
    return TableScore(features, density, n_draws)


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
