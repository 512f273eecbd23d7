"""`Guard`: knows when a row is not like the training data, at a promised false-alarm rate."""

from __future__ import annotations

import copy
import math
import os
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin

from pushforward.data import Schema, as_images, as_table, duplicate_groups, is_frame, split_indices
from pushforward.detection import ConformalCalibrator, Guarantee, Monitor, benjamini_hochberg, rows_needed
from pushforward.detection.image import ImageScore, fit_image_score, image_score
from pushforward.detection.table import KINDS, fit_table_density
from pushforward.detection.table_features import TableFeatures
from pushforward.detection.table_score import Explanation, TableScore
from pushforward.errors import CalibrationError, ConfigError, InputError, StorageError
from pushforward.estimators.validation import check_array, require_fitted, seed_from
from pushforward.io import pack, read, write
from pushforward.models import Flow
from pushforward.numerics.checks import check_choice, check_integer, check_number, check_positive
from pushforward.training.budget import seconds

__all__ = ["Explanation", "Guard"]


def is_stack(X: Any) -> bool:
    """Whether X is an array of more than two dimensions: a stack of images."""
    return not is_frame(X) and len(getattr(X, "shape", ())) in (3, 4)


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
        draws: noise draws a row where columns are dequantized or missing.
        jitter: training noise, in robust standard deviations; bounds the density on repeated values.
        max_steps: of training, for each flow; None for 2000 on tables and 3000 on images.
        max_time: seconds (or "90s", "5m") of training, all flows together; None for no limit.
        batch_size: of training; None for 256 rows or 64 images.
        lr: learning rate; None for 1e-3 on tables and 2e-3 on images.
        random_state: seed of splits, weights and training; an integer makes the guard reproducible.
        verbose: show progress.

    Attributes:
        score_: what was fitted: a :class:`~pushforward.detection.table_score.TableScore`, or for images a
            :class:`~pushforward.detection.image.ImageScore`.
        schema_: names, types and categories of the columns, of a table.
        layout_: which columns of the table are kept, and what the density sees of them.
        density_: the fitted model of the table.
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
    score_: TableScore | ImageScore

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
        score = getattr(self, "score_", None)
        if isinstance(score, TableScore) and score.frozen:
            raise ConfigError("this is the frozen copy of a guard, which cannot be fitted again: fit a new Guard.")
        if is_stack(X):
            return self._fit_images(X)
        table, named = self._table(X, reset=True)
        seed = seed_from(self.random_state)
        rows = table.num_rows
        parts = self._split(rows, seed)
        train_table = table.take(parts[0])
        schema = Schema.infer(train_table, positional=not named)
        encoded = schema.encode(table, positional=not named)[0]
        train, held_out = self._train_rows(encoded[parts[0]], seed)
        layout = TableFeatures.fit(
            train,
            lattices=[column.lattice for column in schema.columns],
            coded=[column.kind in ("boolean", "categorical") for column in schema.columns],
        )
        if not layout.kept:
            raise InputError("every column of X is constant in the training part, so there is no density to fit.")
        density = fit_table_density(
            layout.matrix(train)[0], layout.matrix(held_out)[0], layout,
            kind=self.model, members=self.members, jitter=self.jitter, seed=seed,
            **self._training(max_steps=2000, batch_size=256, learning_rate=1e-3),
        )  # fmt: skip
        self.score_, self.seed_ = TableScore(schema, layout, density, self.draws), seed
        return self._calibrate(self.score_(encoded[parts[1]]))

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-density of each row, nats, ``(rows,)``: higher is more normal (scikit-learn's sign).

        A lower bound where columns are dequantized or missing; -inf for a row that is infinitely far.
        """
        return -self.anomaly_score(X)

    def anomaly_score(self, X: Any) -> np.ndarray:
        """-log p of each row, nats, ``(rows,)``: higher is more anomalous."""
        require_fitted(self)
        if isinstance(self.score_, ImageScore):
            return self.score_(as_images(X)).numpy()
        return self.score_(self._encode(X), self.calibrator_.scores)

    def p_value(self, X: Any) -> np.ndarray:
        """Conformal p-value of each row, ``(rows,)``: P(p <= a) <= a for rows like the training rows."""
        return self.calibrator_.p_value(self.anomaly_score(X))

    def assess(self, X: Any) -> dict[str, np.ndarray]:
        """All answers from one pass: ``log_prob``, ``anomaly_score``, ``p_value`` and ``alarm``, each ``(rows,)``.

        Without ``log_prob`` for images, where the score is no density of the image.
        """
        score = self.anomaly_score(X)
        density = {} if self.reads_images else {"log_prob": -score}
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
        table = self._tables("explain tells which columns of a table made a row unlikely")
        return table.explain(self._encode(X))

    def sample(self, n_samples: int = 1, random_state: int | None = None) -> Any:
        """Rows drawn from the fitted density, a ``pyarrow.Table`` with the training table's columns.

        The density of a dequantized code or flag has tails beyond its cells; rows that fall there are drawn again.
        """
        table = self._tables("of images a guard holds no density that is worth drawing from")
        check_integer("n_samples", n_samples)
        return table.sample(int(n_samples), seed_from(random_state))

    def compile_scorer(self) -> Guard:
        """A copy that answers for few rows at a time in a small part of the time, and cannot be fitted again.

        A guard scores in batches of 512, filled up where there are fewer rows, so that equal rows get equal scores to the
        last digit. The copy scores the rows that there are, by :func:`~pushforward.compile_scorer`, whose scores differ from
        these in the last digits. Where a score is so near to a calibration score that this could matter (2e-5 of its
        size), the row is scored as the guard does: p-values and alarms are the guard's.

        Raises:
            ConfigError: for a guard of images.

        Example:
            >>> import numpy as np, pushforward as pf
            >>> x = np.random.default_rng(0).normal(size=(500, 2))
            >>> guard = pf.Guard(alpha=0.05, members=2, max_steps=100, random_state=0).fit(x)
            >>> quick = guard.compile_scorer()
            >>> bool(quick.p_value(x[:1]) == guard.p_value(x[:1]))
            True
        """
        quick = copy.copy(self)
        quick.score_ = self._tables("compile_scorer is for guards of tables").compile_scorer()
        return quick

    @property
    def reads_images(self) -> bool:
        """Whether it was fitted on images."""
        return isinstance(getattr(self, "score_", None), ImageScore)

    @property
    def schema_(self) -> Schema:
        """Names, types and categories of the columns of a table."""
        return self._part("schema")

    @property
    def layout_(self) -> TableFeatures:
        """Which columns of the table are kept, and what the density sees of them."""
        return self._part("layout")

    @property
    def density_(self) -> Flow:
        """The fitted model of the table."""
        return self._part("density")

    # -- storage ----------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the guard to one safetensors file, without pickle: weights, columns, calibration, options."""
        require_fitted(self)
        header: dict[str, Any] = {"kind": "guard", "options": self.get_params(), "seed": self.seed_}
        if isinstance(self.score_, ImageScore):
            header["score"], tensors = pack(self.score_, "score.")
        else:
            parts, tensors = self.score_.pack()
            header |= parts | {"named": hasattr(self, "feature_names_in_")}
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
            scores = tensors.pop("calibration").numpy()
            if "score" in header:
                guard.score_ = image_score(header["score"], tensors)
                guard.n_features_in_ = math.prod(guard.score_.shape)
            else:
                guard.score_ = TableScore.unpack(header, tensors, guard.draws)
                guard.n_features_in_ = guard.layout_.width
            if header.get("named"):
                guard.feature_names_in_ = np.asarray([c.name for c in guard.schema_.columns], dtype=object)
        except Exception as error:
            raise StorageError(f"{path} does not hold a guard that pushforward wrote: {error}") from error
        return guard._calibrate(scores)

    # -- parts ------------------------------------------------------------------------------------------------------

    def _check_options(self) -> None:
        check_number("alpha", self.alpha, 0, 1)
        check_choice("guarantee", self.guarantee, ("marginal", "pac"))
        check_number("delta", self.delta, 0, 1)
        if self.model not in (*KINDS, "glow"):
            raise ConfigError(f"model must be one of {', '.join(KINDS)}, or 'glow' for images; got {self.model!r}.")
        for name in ("members", "draws", "max_steps", "batch_size"):
            check_integer(name, getattr(self, name), optional=name in ("max_steps", "batch_size"))
        check_number("validation", self.validation, 0, 1, closed="left")
        if not self.calibration > 0:
            raise ConfigError(f"calibration must be a positive share or number of rows; got {self.calibration!r}.")
        check_positive("lr", self.lr, optional=True)
        check_positive("jitter", self.jitter, zero=True)

    def _training(self, **defaults: Any) -> dict[str, Any]:
        """Options of ``pf.fit``: what the user gave, else the defaults of the kind of data."""
        given = {name: getattr(self, "lr" if name == "learning_rate" else name) for name in defaults}
        return {
            **{name: defaults[name] if value is None else value for name, value in given.items()},
            "max_time": None if self.max_time is None else seconds(self.max_time, "max_time"),
            "ema": None,  # as it was chosen and measured
            "progress": "auto" if self.verbose else "silent",
        }

    def _tables(self, refusal: str) -> TableScore:
        """The score of a guard of tables.

        Raises:
            NotFittedError: before ``fit``.
            ConfigError: for a guard of images.
        """
        require_fitted(self)
        if isinstance(self.score_, ImageScore):
            raise ConfigError(f"{refusal}; this guard reads images.")
        return self.score_

    def _part(self, name: str) -> Any:
        score = self.__dict__.get("score_")
        if not isinstance(score, TableScore):  # what hasattr, and so scikit-learn, expects
            raise AttributeError(f"{name}_ is there once the guard was fitted on a table.")
        return getattr(score, name)

    def _fit_images(self, X: Any) -> Self:
        images, seed = as_images(X), seed_from(self.random_state)
        known, calibration = self._split(len(images), seed)
        held = max(20, round((self.validation or 0.1) * len(known)))
        if len(known) < 2 * held:
            raise InputError(f"a guard of images needs at least {4 * held} of them; got {len(images)}.")
        self.__dict__.pop("feature_names_in_", None)  # of a table before
        self.seed_, self.n_features_in_ = seed, math.prod(images.shape[1:])
        self.score_ = fit_image_score(
            images[known[held:]], images[known[:held]], kind=self.model, seed=seed,
            **self._training(max_steps=3000, batch_size=64, learning_rate=2e-3),
        )  # fmt: skip
        return self._calibrate(self.score_(images[calibration]).numpy())

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
        return self._tables("a table").encode(table, positional=not named, owner=type(self).__name__)

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

    def _calibrate(self, scores: np.ndarray) -> Self:
        self.calibrator_ = ConformalCalibrator(scores)
        self.level_ = self.calibrator_.threshold(self.alpha, self.guarantee, self.delta)
        # An alarm is a score at or above the threshold; scikit-learn's is a decision below 0, so step one ulp inside.
        alarm_at = self.calibrator_.score_threshold(self.alpha, self.guarantee, self.delta)
        self.offset_ = float(np.nextafter(-alarm_at, np.inf))
        return self
