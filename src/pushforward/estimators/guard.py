"""`Guard`: knows when a row is not like the training data, at a promised false-alarm rate."""

from __future__ import annotations

import copy
import math
import os
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin

from pushforward.data import Schema, as_images, as_table, duplicate_groups, is_frame, split_indices
from pushforward.detection import ConformalCalibrator, Guarantee, Monitor, benjamini_hochberg, rows_needed
from pushforward.detection.batches import by_batches
from pushforward.detection.image import ImageScore, fit_image_score
from pushforward.detection.layout import Layout
from pushforward.detection.table import KINDS, explainer, fit_table_density
from pushforward.errors import (
    CalibrationError,
    ConfigError,
    InputError,
    PushforwardError,
    StorageError,
    TrainingError,
)
from pushforward.estimators.checks import check_array, require_fitted, seed_from
from pushforward.models import Flow
from pushforward.serving import Frozen, freeze
from pushforward.storage import pack, read, unpack, write
from pushforward.training.budget import seconds

__all__ = ["Explanation", "Guard"]


def is_stack(X: Any) -> bool:
    """Whether X is an array of more than two dimensions: a stack of images."""
    return not is_frame(X) and len(getattr(X, "shape", ())) in (3, 4)


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


class Guard(OutlierMixin, BaseEstimator):
    """Outlier detector with a guaranteed false-alarm rate (split conformal prediction over a density).

    ``fit`` divides its rows at random into three parts: one trains a density (a small ensemble of flows over careful
    preprocessing of the columns), one stops the training early, and one is used for nothing but calibration. The
    anomaly score of a row is s = -log p, and its p-value is (1 + #{calibration s_i >= s}) / (n + 1), ties counted
    against the row. For rows like the training rows P(p <= a) <= a (Vovk et al. 2005, prop. 2.4; Bates et al. 2023),
    whatever the density is worth; a better density catches more anomalies at that price.

    X is a data frame (pandas, polars, pyarrow and friends; numeric, integer, boolean, categorical and missing cells), a
    2-D array of numbers with NaN for missing, or a stack of images: integers, ``(n, h, w)``, ``(n, h, w, c)`` or
    ``(n, c, h, w)``. For images a plain likelihood would be fooled (Nalisnick et al. 2019), so there the score is
    -log q of what a flow, a compressor and distances from the training images say of an image
    (:func:`~pushforward.detection.image.fit_image_score`); features of images from a network of yours are a table.

    Args:
        alpha: promised false-alarm rate of ``predict``.
        guarantee: "marginal": at most alpha on average over calibration sets. "pac": with probability 1 - ``delta``
            over the calibration set, at most alpha for this very guard from now on.
        delta: of the "pac" guarantee.
        model: the flows: "auto" (additive, affine and autoregressive spline ones together), "nice", "realnvp", "maf"
            or "nsf"; for images "auto", "glow" or "nice".
        members: flows in the ensemble, of tables.
        calibration: share (or number) of rows for calibration; the share grows to what ``alpha`` needs, at most half.
        validation: share of rows for early stopping; of images also for the density of the statistics.
        draws: noise draws a row where columns are dequantised or missing.
        jitter: training noise, in robust standard deviations; bounds the density on repeated values.
        max_steps: of training, for each flow; None for 2000 on tables and 3000 on images.
        max_time: seconds (or "90s", "5m") of training, all flows together; None for no limit.
        batch_size: of training; None for 256 rows or 64 images.
        lr: learning rate; None for 1e-3 on tables and 2e-3 on images.
        random_state: seed of splits, weights and training; an integer makes the guard reproducible.
        verbose: show progress.

    Attributes:
        schema_: names, types and categories of the columns, of a table.
        density_: the fitted model of the table.
        score_: the fitted :class:`~pushforward.detection.image.ImageScore`, of images.
        calibrator_: the calibration scores.
        level_: p-value at or below which ``predict`` raises an alarm; ``alpha`` or, for "pac", less.
        offset_: ``decision_function(x) = score_samples(x) - offset_``.
        n_features_in_: columns.
        feature_names_in_: their names, where X had any.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> x = np.random.default_rng(0).normal(size=(500, 2))
        >>> guard = pf.Guard(alpha=0.05, members=2, max_steps=100, random_state=0).fit(x)
        >>> guard.predict([[0.0, 0.0], [9.0, 9.0]])
        array([ 1, -1])
    """

    n_features_in_: int
    feature_names_in_: np.ndarray
    _frozen: Frozen | None = None

    def __init__(
        self,
        alpha: float = 0.01,
        *,
        guarantee: Guarantee = "marginal",
        delta: float = 0.05,
        model: str = "auto",
        members: int = 5,
        calibration: float | int = 0.25,
        validation: float = 0.1,
        draws: int = 4,
        jitter: float = 0.05,
        max_steps: int | None = None,
        max_time: float | str | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        random_state: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.alpha = alpha
        self.guarantee: Guarantee = guarantee
        self.delta = delta
        self.model = model
        self.members = members
        self.calibration = calibration
        self.validation = validation
        self.draws = draws
        self.jitter = jitter
        self.max_steps = max_steps
        self.max_time = max_time
        self.batch_size = batch_size
        self.lr = lr
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        """scikit-learn's tags: NaN stands for a missing value."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    # -- fitting ----------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit on rows that are (nearly all) normal.

        Args:
            X: data frame or array, ``(rows, columns)``.
            y: ignored, for scikit-learn.

        Raises:
            CalibrationError: if the rows cannot support ``alpha``; it says how many are needed.
            InputError: for a table that cannot be read; SchemaError names the column.
            ConfigError: for impossible options.
        """
        self._check_options()
        if self._frozen is not None:
            raise ConfigError("this is the frozen copy of a guard, which cannot be fitted again: fit a new Guard.")
        if is_stack(X):
            return self._fit_images(X)
        self._forget("score_")
        table, named = self._table(X, reset=True)
        seed = seed_from(self.random_state)
        rows = table.num_rows
        parts = self._split(rows, seed)
        train_table = table.take(parts[0])
        schema = Schema.infer(train_table, positional=not named)
        encoded = schema.encode(table, positional=not named)[0]
        train, held_out = self._train_rows(encoded[parts[0]], seed)
        layout = Layout.fit(
            train,
            lattices=[column.lattice for column in schema.columns],
            coded=[column.kind in ("boolean", "categorical") for column in schema.columns],
        )
        if not layout.kept:
            raise InputError("every column of X is constant in the training part, so there is no density to fit.")
        self.schema_, self.layout_, self.seed_ = schema, layout, seed
        self.density_ = fit_table_density(
            layout.matrix(train)[0], layout.matrix(held_out)[0], layout,
            kind=self.model, members=self.members, jitter=self.jitter, seed=seed,
            **self._training(max_steps=2000, batch_size=256, lr=1e-3),
        )  # fmt: skip
        return self._calibrate(self._scores(encoded[parts[1]]))

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-density of each row, nats, ``(rows,)``: higher is more normal (scikit-learn's sign).

        A lower bound where columns are dequantised or missing; -inf for a row that is infinitely far.
        """
        return -self.anomaly_score(X)

    def anomaly_score(self, X: Any) -> np.ndarray:
        """-log p of each row, nats, ``(rows,)``: higher is more anomalous."""
        require_fitted(self)
        if hasattr(self, "score_"):
            return self.score_(as_images(X)).numpy()
        return self._scores(self._encode(X))

    def p_value(self, X: Any) -> np.ndarray:
        """Conformal p-value of each row, ``(rows,)``: P(p <= a) <= a for rows like the training rows."""
        return self.calibrator_.p_value(self.anomaly_score(X))

    def assess(self, X: Any) -> dict[str, np.ndarray]:
        """All answers from one pass: ``log_prob``, ``anomaly_score``, ``p_value`` and ``alarm``, each ``(rows,)``.

        Without ``log_prob`` for images, where the score is no density of the image.
        """
        score = self.anomaly_score(X)
        density = {} if hasattr(self, "score_") else {"log_prob": -score}
        return density | {
            "anomaly_score": score,
            "p_value": self.calibrator_.p_value(score),
            "alarm": -score - self.offset_ < 0,
        }

    def decision_function(self, X: Any) -> np.ndarray:
        """``score_samples(X) - offset_``: negative means alarm."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """+1 for normal rows and -1 for alarms, at the promised false-alarm rate."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def select(self, X: Any, fdr: float = 0.1) -> np.ndarray:
        """Anomalies in a batch with a bounded share of false ones: boolean ``(rows,)``.

        Benjamini-Hochberg on the conformal p-values: the expected share of normal rows among the selected is at most
        ``fdr`` (Bates et al. 2023, thm. 2).
        """
        return benjamini_hochberg(self.p_value(X), fdr)

    def monitor(self, alpha: float = 0.01, *, betting: str = "mixture", seed: int = 0) -> Monitor:
        """A watch over a stream of inputs, which finds drift or a rising share of anomalies.

        Feed it scores in the order of time, ``monitor.update(guard.anomaly_score(rows))``: ``monitor.alarm`` is ever raised on
        a stream like the training rows with probability at most ``alpha``, however long it is. It starts from the
        calibration scores, has a file of its own, and goes on where it stopped.

        Args:
            alpha: bound on the probability of a false alarm at any time.
            betting: see :class:`~pushforward.detection.Monitor`.
            seed: of the random ties.
        """
        require_fitted(self)
        return Monitor(self.calibrator_.scores, alpha, betting=betting, seed=seed)

    def explain(self, X: Any) -> Explanation:
        """Which columns made a row unlikely: -log p(x_i | x_<i), nats, in the order of the columns.

        Exact terms of the chain rule under the ensemble's autoregressive flow; each column is judged given the columns
        before it. The terms add up to that flow's -log p (averaged over noise draws), not to the ensemble's.

        Raises:
            ConfigError: if the ensemble holds no such flow (``model`` other than "auto").
        """
        require_fitted(self)
        if hasattr(self, "score_"):
            raise ConfigError("explain tells which columns of a table made a row unlikely; this guard reads images.")
        flow = explainer(self.density_)
        if flow is None:
            raise ConfigError(
                f'explain needs the autoregressive member of model="auto"; this guard has {self.model!r}.'
            )
        matrix, surprise = self.layout_.matrix(self._encode(X))
        terms = by_batches(
            lambda part: flow.conditional_log_prob(part, samples=self.draws).double(), torch.from_numpy(matrix)
        )
        nats = self.layout_.by_column(-terms.numpy()) + surprise
        return Explanation(tuple(column.name for column in self.schema_.columns), nats)

    def sample(self, n_samples: int = 1, random_state: int | None = None) -> Any:
        """Rows drawn from the fitted density, a ``pyarrow.Table`` with the training table's columns.

        The density of a dequantised code or flag has tails beyond its cells; rows that fall there are drawn again.
        """
        require_fitted(self)
        if not isinstance(n_samples, (int, np.integer)) or n_samples < 1:
            raise ConfigError(f"n_samples must be a positive integer; got {n_samples!r}.")
        if hasattr(self, "score_"):
            raise ConfigError("this guard reads images, of which it holds no density that is worth drawing from.")
        generator = torch.Generator().manual_seed(seed_from(random_state))
        legal: list[np.ndarray] = []
        while sum(map(len, legal)) < n_samples:
            drawn = self.density_.sample(max(int(n_samples), 64), generator=generator)
            rows = self.layout_.unmatrix(drawn.double().numpy())
            fits = np.isfinite(drawn.double().numpy()).all(1)
            for place in self.layout_.coded:
                column = self.schema_.columns[place]
                code = np.nan_to_num(rows[:, place])  # a missing flag or category is a legal cell
                fits &= (code >= 0) & (code < max(2, len(column.categories)))
            legal.append(rows[fits])
            if len(legal) > 1000 and not sum(map(len, legal)):
                raise TrainingError("the density puts no mass on legal rows; fit it longer or with more rows.")
        return self.schema_.decode(np.concatenate(legal)[:n_samples])

    def freeze(self) -> Guard:
        """A copy that answers for few rows at a time in a small part of the time, and cannot be fitted again.

        A guard scores in batches of 512, filled up where there are fewer rows, so that equal rows get equal scores to the
        last digit. The copy scores the rows that there are, by :func:`~pushforward.freeze`, whose scores differ from
        these in the last digits. Where a score is so near to a calibration score that this could matter (2e-5 of its
        size), the row is scored as the guard does: p-values and alarms are the guard's.

        Raises:
            ConfigError: for a guard of images.

        Example:
            >>> import numpy as np, pushforward as pf
            >>> x = np.random.default_rng(0).normal(size=(500, 2))
            >>> guard = pf.Guard(alpha=0.05, members=2, max_steps=100, random_state=0).fit(x)
            >>> quick = guard.freeze()
            >>> bool(quick.p_value(x[:1]) == guard.p_value(x[:1]))
            True
        """
        require_fitted(self)
        if hasattr(self, "score_"):
            raise ConfigError("freeze is for guards of tables; this guard reads images.")
        quick = copy.copy(self)
        quick.density_, quick._frozen = copy.deepcopy(self.density_), freeze(self.density_)
        return quick

    # -- storage ----------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the guard to one safetensors file, without pickle: weights, columns, calibration, options."""
        require_fitted(self)
        header: dict[str, Any] = {"kind": "guard", "options": self.get_params(), "seed": self.seed_}
        if hasattr(self, "score_"):
            header["score"], tensors = pack(self.score_, "score.")
        else:
            header["density"], tensors = pack(self.density_, "density.")
            header["schema"], header["layout"] = self.schema_.to_json(), self.layout_.to_json()
            header["named"] = hasattr(self, "feature_names_in_")
        write(path, header, tensors | {"calibration": torch.from_numpy(self.calibrator_.scores.copy())})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Guard:
        """Read a guard back; the file can hold anything and do nothing but fail.

        Raises:
            StorageError: if the file is damaged, foreign, or of a newer format.
        """
        header, tensors = read(path, kind="guard")
        try:
            guard = cls(**header["options"])
            guard._check_options()
            guard.seed_ = int(header["seed"])
            if "score" in header:
                return guard._load_images(path, header["score"], tensors)
            schema_json, layout_json, density = header["schema"], header["layout"], header["density"]
            scores = tensors.pop("calibration").numpy()
            named = bool(header["named"])
        except StorageError:
            raise
        except Exception as error:
            raise StorageError(f"{path} does not hold a guard that pushforward wrote: {error}") from error
        guard.schema_, guard.layout_ = Schema.from_json(schema_json), Layout.from_json(layout_json)
        flow = unpack(density, tensors, "density.")
        if not isinstance(flow, Flow) or flow.shape != (guard.layout_.features,):
            raise StorageError(f"{path} holds a density that does not fit its table.")
        if len(guard.schema_.columns) != guard.layout_.width:
            raise StorageError(f"{path} holds a layout that does not fit its columns.")
        guard.density_ = flow.eval()
        guard.n_features_in_ = guard.layout_.width
        if named:
            guard.feature_names_in_ = np.asarray([c.name for c in guard.schema_.columns], dtype=object)
        return guard._calibrate(scores)

    # -- parts ------------------------------------------------------------------------------------------------------

    def _check_options(self) -> None:
        if not isinstance(self.alpha, (int, float)) or not 0 < self.alpha < 1:
            raise ConfigError(f"alpha must lie in (0, 1); got {self.alpha!r}.")
        if self.guarantee not in ("marginal", "pac"):
            raise ConfigError(f"guarantee must be 'marginal' or 'pac'; got {self.guarantee!r}.")
        if not isinstance(self.delta, (int, float)) or not 0 < self.delta < 1:
            raise ConfigError(f"delta must lie in (0, 1); got {self.delta!r}.")
        if self.model not in (*KINDS, "glow"):
            raise ConfigError(f"model must be one of {', '.join(KINDS)}, or 'glow' for images; got {self.model!r}.")
        for name in ("members", "draws", "max_steps", "batch_size"):
            value = getattr(self, name)
            if value is None and name in ("max_steps", "batch_size"):
                continue
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} must be a positive integer; got {value!r}.")
        if not isinstance(self.validation, (int, float)) or not 0 <= self.validation < 1:
            raise ConfigError(f"validation must be a share in [0, 1); got {self.validation!r}.")
        if not self.calibration > 0:
            raise ConfigError(f"calibration must be a positive share or number of rows; got {self.calibration!r}.")
        if (self.lr is not None and not self.lr > 0) or not self.jitter >= 0:
            raise ConfigError("lr must be positive and jitter not negative.")

    def _training(self, **defaults: Any) -> dict[str, Any]:
        """Options of ``pf.fit``: what the user gave, else the defaults of the kind of data."""
        given = {name: getattr(self, name) for name in defaults}
        return {
            **{name: defaults[name] if value is None else value for name, value in given.items()},
            "max_time": None if self.max_time is None else seconds(self.max_time, "max_time"),
            "progress": "auto" if self.verbose else "silent",
        }

    def _forget(self, *names: str) -> None:
        """Drop what a fit on another kind of data left."""
        for name in names:
            self.__dict__.pop(name, None)

    def _fit_images(self, X: Any) -> Self:
        images, seed = as_images(X), seed_from(self.random_state)
        known, calibration = self._split(len(images), seed)
        held = max(20, round((self.validation or 0.1) * len(known)))
        if len(known) < 2 * held:
            raise InputError(f"a guard of images needs at least {4 * held} of them; got {len(images)}.")
        self._forget("schema_", "layout_", "density_", "feature_names_in_")
        self.seed_, self.n_features_in_ = seed, math.prod(images.shape[1:])
        self.score_ = fit_image_score(
            images[known[held:]], images[known[:held]], kind=self.model, seed=seed,
            **self._training(max_steps=3000, batch_size=64, lr=2e-3),
        )  # fmt: skip
        return self._calibrate(self.score_(images[calibration]).numpy())

    def _load_images(self, path: Any, description: Any, tensors: dict[str, torch.Tensor]) -> Self:
        scores = tensors.pop("calibration").numpy()
        score = unpack(description, tensors, "score.")
        if not isinstance(score, ImageScore):
            raise StorageError(f"{path} does not hold a score of images.")
        try:
            score(torch.zeros(1, *score.shape, dtype=torch.uint8))  # what was fitted has the sizes that belong together
        except (PushforwardError, RuntimeError, IndexError) as error:
            raise StorageError(f"{path} holds a score whose parts do not fit each other: {error}") from error
        self.score_, self.n_features_in_ = score, math.prod(score.shape)
        return self._calibrate(scores)

    def _table(self, X: Any, *, reset: bool) -> tuple[Any, bool]:
        """X as a pyarrow table, and whether its columns have names."""
        if is_frame(X):
            table = as_table(X)
            if reset:
                self.n_features_in_ = table.num_columns
                self.feature_names_in_ = np.asarray(table.column_names, dtype=object)
            return table, True
        array = check_array(self, X, reset=reset, finite="allow-nan" if reset else False, names=False)
        if reset and hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return as_table(array), False

    def _encode(self, X: Any) -> np.ndarray:
        table, named = self._table(X, reset=False)
        return self.schema_.encode(table, positional=not named, owner=type(self).__name__)[0]

    def _split(self, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows for the density (training and early stopping) and rows for calibration."""
        needed = rows_needed(self.alpha, self.guarantee, self.delta)
        asked = self.calibration if self.calibration >= 1 else round(self.calibration * rows)
        count = max(int(asked), needed)
        if count > max(rows // 2, int(asked)) or rows - count < 2:
            raise CalibrationError(
                f"alpha={self.alpha:g} with the {self.guarantee!r} guarantee needs {needed} calibration rows, at most half "
                f"of the table: give at least {max(2 * needed, needed + 2)} rows, or a larger alpha (X has n_samples = {rows})."
            )
        parts = split_indices(rows, (rows - count, count), seed=seed)
        return parts[0], parts[1]

    def _train_rows(self, encoded: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Training rows and early-stopping rows; equal rows stay on one side, or stopping would never see overfitting."""
        if self.validation == 0 or len(encoded) < 20:
            return encoded, encoded[:0]
        groups = duplicate_groups(encoded)
        train, held_out = split_indices(
            len(encoded), (1 - self.validation, self.validation), seed=seed + 1, groups=groups
        )[:2]
        if len(train) < 2:
            return encoded, encoded[:0]
        return encoded[train], encoded[held_out]

    def _scores(self, encoded: np.ndarray) -> np.ndarray:
        """-log p of encoded rows: the one path for calibration and for scoring."""
        matrix, surprise = self.layout_.matrix(encoded)
        rows, surprised = torch.from_numpy(matrix), surprise.sum(1)
        if self._frozen is None:
            return surprised - self._values(rows)
        quick = [self._frozen.value(part, samples=self.draws).double() for part in rows.split(512)]
        scores = surprised - torch.cat(quick).numpy() if quick else surprised
        close = ~np.isfinite(scores)
        at = np.where(close, 0.0, scores)
        known, reach = self.calibrator_.scores, 2e-5 * (1 + np.abs(at))
        close |= np.searchsorted(known, at - reach, "left") < np.searchsorted(known, at + reach, "right")
        if close.any():
            scores[close] = surprised[close] - self._values(rows[torch.from_numpy(close)])
        return scores

    def _values(self, rows: torch.Tensor) -> np.ndarray:
        """log p of the density's rows, in batches of one size."""
        return by_batches(lambda part: self.density_.evaluate(part, samples=self.draws).value.double(), rows).numpy()

    def _calibrate(self, scores: np.ndarray) -> Self:
        self.calibrator_ = ConformalCalibrator(scores)
        self.level_ = self.calibrator_.threshold(self.alpha, self.guarantee, self.delta)
        # An alarm is a score at or above the threshold; scikit-learn's is a decision below 0, so step one ulp inside.
        alarm_at = self.calibrator_.score_threshold(self.alpha, self.guarantee, self.delta)
        self.offset_ = float(np.nextafter(-alarm_at, np.inf))
        return self
