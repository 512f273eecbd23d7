"""`Guard`: an outlier detector with a promised false-alarm rate, for tables and images."""

from __future__ import annotations

import math
import os
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin

from pushforward import io
from pushforward.data import Schema, as_images, as_table, is_frame, split_indices
from pushforward.detection import ConformalCalibrator, Guarantee, Monitor, benjamini_hochberg, rows_needed
from pushforward.detection.image_score import ImageScore, fit_image_score
from pushforward.detection.input_score import Explanation, InputScore
from pushforward.detection.table_density import KINDS
from pushforward.detection.table_features import TableFeatures
from pushforward.detection.table_score import TableScore, fit_table_score
from pushforward.errors import CalibrationError, ConfigError, SchemaError, StorageError
from pushforward.estimators.recalibration import CalibrationRecord
from pushforward.estimators.validation import check_array, require_fitted, seed_from
from pushforward.models import Flow
from pushforward.numerics.checks import check_choice, check_integer, check_number, check_positive
from pushforward.training.budget import seconds

__all__ = ["Explanation", "Guard"]

_SCORES: dict[str, type[InputScore]] = {cls.reads: cls for cls in (TableScore, ImageScore)}
"""The classes of a guard's score, by the name of its inputs in a file."""


class Guard(OutlierMixin, BaseEstimator):
    """Outlier detector with a guaranteed false-alarm rate (split conformal prediction over a density).

    ``fit`` divides its rows at random into three parts: one trains a density (for a table, a small ensemble of flows over
    preprocessed columns), one stops the training early, and one is used for nothing but calibration. The anomaly score of
    a row is s = -log p, and its p-value is (1 + #{calibration s_i >= s}) / (n + 1), so a tie raises the p-value. For rows
    like the training rows P(p <= a) <= a (Vovk et al. 2005, prop. 2.4; Bates et al. 2023), whatever the density; a better
    density detects more anomalies at the same false-alarm rate.

    X is one of

    - a data frame (pandas, polars, pyarrow and others) with numeric, integer, boolean, categorical and missing cells;
    - a 2-D array of numbers, NaN where missing;
    - a stack of images: integers ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)``.

    The likelihood of a flow is misleading on images (Nalisnick et al. 2019), so the score of an image is -log q of
    statistics: the path of a flow, code lengths of a compressor, and distances from the training images
    (:func:`~pushforward.detection.image_score.fit_image_score`). To use features of your own network, give them as a table.

    Args:
        alpha: promised false-alarm rate of ``predict``.
        guarantee: "marginal": at most alpha on average over calibration sets. "pac": with probability 1 - ``delta``
            over the calibration set, at most alpha for this guard from now on.
        delta: of the "pac" guarantee.
        model: the flows: "auto" (additive, affine and autoregressive spline flows together), "nice", "realnvp", "maf"
            or "nsf"; for images "auto", "glow" or "nice".
        n_estimators: number of flows in the ensemble of a table.
        calibration: fraction (or number) of rows for calibration. A fraction is raised to what ``alpha`` needs, at most
            to half.
        validation: fraction of the other rows for early stopping; for images also for the density of the statistics.
        n_draws: noise draws for each row of a table, where columns are dequantized or missing.
        jitter: training noise of a table, in robust standard deviations; it bounds the density at repeated values.
        max_steps: of training, for each flow; None for 2000 on tables and 3000 on images.
        max_time: seconds (or "90s", "5m") of training, all flows together; None for no limit.
        batch_size: of training; None for 256 rows or 64 images.
        learning_rate: of training; None for 1e-3 on tables and 2e-3 on images.
        random_state: seed of splits, weights and training; an integer makes the guard reproducible.
        verbose: whether to show progress.

    Attributes:
        score_: the fitted score: a :class:`~pushforward.detection.table_score.TableScore`, or for images an
            :class:`~pushforward.detection.image_score.ImageScore`.
        schema_: names, types and categories of the columns of a table.
        table_features_: which columns of a table the density reads, and what unseen cells cost.
        density_: the fitted model of a table.
        calibrator_: the calibration scores.
        calibration_: which rows calibrated the guard; its text says which rows the promise refers to.
        level_: p-value at or below which ``predict`` raises an alarm; ``alpha`` or, for "pac", less.
        offset_: ``decision_function(x) = score_samples(x) - offset_``.
        n_features_in_: number of columns, or of pixels times channels.
        feature_names_in_: names of the columns, if X had names.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> x = np.random.default_rng(0).normal(size=(500, 2))
        >>> guard = pf.Guard(alpha=0.05, n_estimators=2, max_steps=100, random_state=0).fit(x)
        >>> guard.predict([[0.0, 0.0], [9.0, 9.0]])
        array([ 1, -1])
    """

    n_features_in_: int
    feature_names_in_: np.ndarray
    score_: InputScore
    calibration_: CalibrationRecord

    def __init__(
        self,
        alpha: float = 0.01,
        *,
        guarantee: Guarantee = "marginal",
        delta: float = 0.05,
        model: str = "auto",
        n_estimators: int = 5,
        calibration: float | int = 0.25,
        validation: float = 0.1,
        n_draws: int = 4,
        jitter: float = 0.05,
        max_steps: int | None = None,
        max_time: float | str | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        random_state: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.alpha = alpha
        self.guarantee: Guarantee = guarantee
        self.delta = delta
        self.model = model
        self.n_estimators = n_estimators
        self.calibration = calibration
        self.validation = validation
        self.n_draws = n_draws
        self.jitter = jitter
        self.max_steps = max_steps
        self.max_time = max_time
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        """scikit-learn's tags: NaN is a missing value."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    # -- fitting ----------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit on rows that are (nearly all) normal.

        Args:
            X: a table ``(rows, columns)`` or a stack of images, see above.
            y: ignored; scikit-learn passes it.

        Raises:
            CalibrationError: if the rows are too few for ``alpha``; it says how many are needed.
            InputError: for data that cannot be read; a SchemaError names the column.
            ConfigError: for impossible options.
        """
        self._check_options()
        rows, seed = self._read(X, reset=True), seed_from(self.random_state)
        fitted, calibration = self._split(len(rows), seed)
        try:
            self.score_ = self._fit_score(_take(rows, fitted), seed)
        except SchemaError:
            Schema.infer(rows)  # raises the same error with the row numbers of X
            raise
        self.seed_ = seed
        self._calibrate(self.score_.score(_take(rows, calibration)))
        self.calibration_ = CalibrationRecord(self.calibrator_.n)
        return self

    def recalibrate(self, X: Any, note: str = "") -> Self:
        """Calibrate on new normal rows, without training; the promise then refers to rows like these.

        For a guard whose normal rows have changed a little, or that moves to another place. The score stays as it is, so
        anomalies that it did not see before it does not see now. The guard is then not compiled.

        Args:
            X: normal rows that nothing of the guard has seen, as for :meth:`fit`, at least as many as ``alpha`` needs.
            note: what these rows are; it is stored with the guard.

        Raises:
            CalibrationError: if the rows are too few; it says how many are needed. The guard is then unchanged.
            InputError: for rows that do not fit the guard.

        Example:
            >>> import numpy as np, pushforward as pf
            >>> rng = np.random.default_rng(0)
            >>> guard = pf.Guard(alpha=0.05, n_estimators=1, max_steps=50, random_state=0).fit(rng.normal(size=(500, 2)))
            >>> print(guard.recalibrate(rng.normal(1, 2, size=(300, 2)), note="sensor 2").calibration_)
            rows like the 300 rows of the last recalibration (sensor 2), and no longer rows like the training rows
        """
        require_fitted(self)
        score = self.score_.uncompiled()
        self._calibrate(score.score(self._read(X)))
        self.score_ = score
        self.calibration_ = CalibrationRecord(self.calibrator_.n, self.calibration_.times + 1, str(note))
        return self

    # -- answers ----------------------------------------------------------------------------------------------------

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-density of each row, nats, ``(rows,)``: higher is more normal (scikit-learn's sign).

        A lower bound where columns are dequantized or missing; -inf for a row that is infinitely far. For images the
        negative anomaly score, which is not a density of the image.
        """
        return -self.anomaly_score(X)

    def anomaly_score(self, X: Any) -> np.ndarray:
        """Anomaly score of each row, ``(rows,)``: higher is more anomalous; -log p in nats for a table."""
        require_fitted(self)
        return self.score_.score(self._read(X))

    def p_value(self, X: Any) -> np.ndarray:
        """Conformal p-value of each row, ``(rows,)``: P(p <= a) <= a for rows like the training rows."""
        return self.calibrator_.p_value(self.anomaly_score(X))

    def assess(self, X: Any) -> dict[str, np.ndarray]:
        """All results of one pass: ``log_prob`` (of tables), ``anomaly_score``, ``p_value`` and ``alarm``, each ``(rows,)``."""
        score = self.anomaly_score(X)
        log_prob = {"log_prob": -score} if self.score_.is_log_prob else {}
        return log_prob | {
            "anomaly_score": score,
            "p_value": self.calibrator_.p_value(score),
            "alarm": -score - self.offset_ < 0,
        }

    def decision_function(self, X: Any) -> np.ndarray:
        """``score_samples(X) - offset_``: negative is an alarm."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """+1 for normal rows and -1 for alarms, at the promised false-alarm rate."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def select(self, X: Any, fdr: float = 0.1) -> np.ndarray:
        """Select anomalies in a batch with a bound on the fraction of normal rows among them: boolean ``(rows,)``.

        Benjamini-Hochberg on the conformal p-values: the expected fraction of normal rows among the selected ones is at
        most ``fdr`` (Bates et al. 2023, thm. 2).
        """
        return benjamini_hochberg(self.p_value(X), fdr)

    def monitor(self, alpha: float = 0.01, *, betting: str = "mixture", seed: int = 0) -> Monitor:
        """A monitor of a stream of inputs, which detects drift and a growing fraction of anomalies.

        Give it scores in the order of time, ``monitor.update(guard.anomaly_score(rows))``. On a stream like the training
        rows, the probability that ``monitor.alarm`` is ever raised is at most ``alpha``, however long the stream is. The
        monitor starts from the calibration scores and can be saved to a file of its own, to continue later.

        Args:
            alpha: bound on the probability of a false alarm at any time.
            betting: see :class:`~pushforward.detection.Monitor`.
            seed: of the random tie-breaking.
        """
        require_fitted(self)
        return Monitor(self.calibrator_.scores, alpha, betting=betting, seed=seed)

    def explain(self, X: Any) -> Explanation:
        """Which columns made a row unlikely: -log p(x_i | x_<i), nats, in the order of the columns.

        Exact terms of the chain rule under the ensemble's autoregressive flow; each column is judged given the columns
        before it. The terms add up to that flow's -log p (averaged over noise draws), not to the ensemble's.

        Raises:
            ConfigError: if the ensemble has no such flow (``model`` other than "auto"), or for a guard of images.
        """
        require_fitted(self)
        return self.score_.explain(self._read(X))

    def sample(self, n_samples: int = 1, random_state: int | None = None) -> Any:
        """Draw rows from the fitted density: a ``pyarrow.Table`` with the training table's columns.

        The density of dequantized codes and flags has tails beyond the codes that exist; such rows are drawn again.

        Raises:
            ConfigError: unless ``n_samples`` is a positive integer, or for a guard of images.
        """
        require_fitted(self)
        return self.score_.sample(check_integer("n_samples", n_samples), seed_from(random_state))

    def compile(self) -> Self:
        """Make this guard fast for few rows at a time, by :func:`~pushforward.compile_scorer`, and return it.

        Without this a guard scores in batches of one size, and fills up the last one, so that equal rows get exactly
        equal scores. The compiled scorer scores only the rows that it gets. Its scores differ from the model's in the last
        digits, by less than 2e-5 of their size; a row whose score is that close to a calibration score is scored by the
        model, so p-values and alarms do not change.

        ``fit`` and ``load`` return a guard that is not compiled, and ``save`` writes the same file with or without it.

        Raises:
            ConfigError: for a guard of images.

        Example:
            >>> import numpy as np, pushforward as pf
            >>> x = np.random.default_rng(0).normal(size=(500, 2))
            >>> guard = pf.Guard(alpha=0.05, n_estimators=2, max_steps=100, random_state=0).fit(x)
            >>> before = guard.p_value(x[:1])
            >>> bool(guard.compile().p_value(x[:1]) == before)
            True
        """
        require_fitted(self)
        self.score_.compile_scorer(self.calibrator_.scores)
        return self

    @property
    def reads_images(self) -> bool:
        """Whether it was fitted on images."""
        return "score_" in vars(self) and self.score_.reads == "images"

    @property
    def schema_(self) -> Schema:
        """Names, types and categories of the columns of a table."""
        return self._table_score("schema_").features.schema

    @property
    def table_features_(self) -> TableFeatures:
        """Which columns of a table the density reads, and what unseen cells cost."""
        return self._table_score("table_features_").features

    @property
    def density_(self) -> Flow:
        """The fitted model of a table."""
        return self._table_score("density_").density

    # -- storage ----------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the guard to one safetensors file, without pickle: weights, columns, calibration, options."""
        require_fitted(self)
        score, tensors = self.score_.pack("score.")
        header = {
            "kind": "guard",
            "options": self.get_params(),
            "seed": self.seed_,
            "named": hasattr(self, "feature_names_in_"),
            "reads": self.score_.reads,
            "score": score,
            "calibrated": self.calibration_.to_json(),
        }
        io.write(path, header, tensors | {"calibration": torch.from_numpy(self.calibrator_.scores.copy())})

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, public_key: Any = None) -> Guard:
        """Read a guard from a file; a file that was changed on purpose can make this fail and do nothing else.

        Args:
            path: the file.
            public_key: file of the key with which the file must be signed, see :func:`~pushforward.io.sign`. The
                signature is verified on the bytes that are read, before anything in them is used.

        Raises:
            SignatureError: if a key is given, and the file is not signed with it or was changed since.
            StorageError: if the file is damaged, was not written by pushforward, or has a newer format.
        """
        header, tensors = io.read(path, kind="guard", public_key=public_key)
        try:
            guard = cls(**header["options"])
            guard._check_options()
            guard.seed_ = int(header["seed"])
            scores = tensors.pop("calibration").numpy()
            guard.score_ = _SCORES[header["reads"]].unpack(header["score"], tensors, "score.")
            if isinstance(guard.score_, ImageScore):
                guard.n_features_in_ = math.prod(guard.score_.shape)
            else:
                guard.n_features_in_ = len(guard.schema_)
                if header["named"]:
                    guard.feature_names_in_ = np.asarray(guard.schema_.names, dtype=object)
            guard.calibration_ = CalibrationRecord.from_json(header.get("calibrated"), len(scores))
            return guard._calibrate(scores)
        except Exception as error:  # the content is not trusted; every failure means the same to the caller
            raise StorageError(f"{path} does not contain a guard that pushforward wrote: {error}") from error

    # -- parts ------------------------------------------------------------------------------------------------------

    def _check_options(self) -> None:
        check_number("alpha", self.alpha, 0, 1)
        check_number("delta", self.delta, 0, 1)
        check_number("validation", self.validation, 0, 1, closed="left")
        check_choice("guarantee", self.guarantee, ("marginal", "pac"))
        if self.model not in (*KINDS, "glow"):
            raise ConfigError(f"model must be one of {', '.join(KINDS)}, or 'glow' for images; got {self.model!r}.")
        for name in ("n_estimators", "n_draws", "max_steps", "batch_size"):
            check_integer(name, getattr(self, name), optional=name in ("max_steps", "batch_size"))
        if not self.calibration > 0:
            raise ConfigError(f"calibration must be a positive fraction or number of rows; got {self.calibration!r}.")
        check_positive("learning_rate", self.learning_rate, optional=True)
        check_positive("jitter", self.jitter, zero=True)

    def _read(self, X: Any, *, reset: bool = False) -> Any:
        """X as the score reads it: a tensor of images, a pyarrow table, or a float64 matrix.

        Args:
            X: what the user gave.
            reset: whether this is ``fit``, which sets ``n_features_in_`` and ``feature_names_in_``.
        """
        if self._is_stack(X) if reset else self.reads_images:
            images = as_images(X)
            if reset:
                self._set_features(math.prod(images.shape[1:]), None)
            return images
        if is_frame(X):
            table = as_table(X)
            if reset:
                self._set_features(table.num_columns, table.column_names)
            return table
        matrix = check_array(self, X, reset=reset, finite="allow-nan" if reset else False, names=False)
        if reset:
            self._set_features(matrix.shape[1], None)
        return matrix

    @staticmethod
    def _is_stack(X: Any) -> bool:
        """Whether X is an array of three or four dimensions: a stack of images."""
        return not is_frame(X) and len(getattr(X, "shape", ())) in (3, 4)

    def _set_features(self, count: int, names: list[str] | None) -> None:
        self.n_features_in_ = count
        vars(self).pop("feature_names_in_", None)
        if names is not None:
            self.feature_names_in_ = np.asarray(names, dtype=object)

    def _fit_score(self, rows: Any, seed: int) -> InputScore:
        """Fit the score of tables or of images with this guard's options; None is the default of the kind of data."""
        options = {
            "validation": self.validation,
            "kind": self.model,
            "seed": seed,
            "max_time": None if self.max_time is None else seconds(self.max_time, "max_time"),
            "ema": None,  # the defaults were chosen and measured without it
            "progress": "auto" if self.verbose else "silent",
        }
        for name in ("max_steps", "batch_size", "learning_rate"):
            if getattr(self, name) is not None:
                options[name] = getattr(self, name)
        if isinstance(rows, torch.Tensor):
            return fit_image_score(rows, **options)
        return fit_table_score(
            rows, n_estimators=self.n_estimators, n_draws=self.n_draws, jitter=self.jitter, **options
        )

    def _split(self, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the rows that fit the score (training and early stopping) and of those for calibration."""
        needed = rows_needed(self.alpha, self.guarantee, self.delta)
        requested = self.calibration if self.calibration >= 1 else round(self.calibration * rows)
        count = max(int(requested), needed)
        if count > max(rows // 2, int(requested)) or rows - count < 2:
            raise CalibrationError(
                f"alpha={self.alpha:g} with the {self.guarantee!r} guarantee needs {needed} calibration rows, at most half "
                f"of the rows: give at least {max(2 * needed, needed + 2)} rows, or a larger alpha (X has n_samples = {rows})."
            )
        fitted, calibration = split_indices(rows, (rows - count, count), seed=seed)
        return fitted, calibration

    def _calibrate(self, scores: np.ndarray) -> Self:
        calibrator = ConformalCalibrator(scores)
        level = calibrator.threshold(self.alpha, self.guarantee, self.delta)
        # Here a score at the threshold is an alarm; scikit-learn's alarm is a decision below 0, so move by one ulp.
        alarm_at = calibrator.score_threshold(self.alpha, self.guarantee, self.delta)
        self.calibrator_, self.level_ = calibrator, level  # after the errors, which leave the guard as it was
        self.offset_ = float(np.nextafter(-alarm_at, np.inf))
        return self

    def _table_score(self, attribute: str) -> TableScore:
        score = vars(self).get("score_")
        if not isinstance(score, TableScore):  # an AttributeError is what hasattr needs
            raise AttributeError(f"a Guard has {attribute} after it was fitted on a table.")
        return score


def _take(rows: Any, index: np.ndarray) -> Any:
    """These rows of a tensor, a matrix or a pyarrow table."""
    return rows[index] if isinstance(rows, (torch.Tensor, np.ndarray)) else rows.take(index)
