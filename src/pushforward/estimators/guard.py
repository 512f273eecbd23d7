"""`Guard`: an outlier detector with a promised false-alarm rate, for tables and images."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
import time as clock
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from pushforward import io
from pushforward.data import Schema
from pushforward.detection import Guarantee
from pushforward.detection.certified import Certificate, certify_scores
from pushforward.detection.conformal.trimming import trimmed_bound
from pushforward.detection.custom_score import CustomScore
from pushforward.detection.explanation import Explanation
from pushforward.detection.input_score import InputScore
from pushforward.detection.network import Embedder
from pushforward.detection.smoothed_score import SmoothedScore
from pushforward.detection.table import EFFORTS
from pushforward.detection.table_features import TableFeatures
from pushforward.detection.table_score import NO_DENSITY, TableScore
from pushforward.display import table
from pushforward.errors import CalibrationError, ConfigError, SchemaError, SchemaWarning, collected, warn_caller
from pushforward.estimators.calibration_rows import (
    score_in_time,
    split_rows,
    take,
    trim,
    warn_of_rows_left_out,
    warn_of_trimming,
)
from pushforward.estimators.conformal_detector import ConformalDetector
from pushforward.estimators.dependent_rows import (
    check_one_of,
    check_same_kind,
    column_apart,
    labels_of,
    one_of_each,
    warn_of_dependence,
)
from pushforward.estimators.exporting import export_guard
from pushforward.estimators.extreme_units import warn_of_extreme_units
from pushforward.estimators.guard_file import check_writable, guard_contents, plain_options, read_guard
from pushforward.estimators.guard_inputs import listed, read_rows
from pushforward.estimators.guard_options import check_image_options, check_options, fit_score
from pushforward.estimators.lone_instants import warn_of_lone_instants
from pushforward.estimators.recalibration import CalibrationRecord
from pushforward.estimators.score_option import OwnScore, params_of
from pushforward.estimators.text_columns import warn_of_texts
from pushforward.estimators.training_data import TrainingData
from pushforward.estimators.validation import require_fitted, seed_from
from pushforward.models import Flow
from pushforward.numerics.checks import check_integer
from pushforward.report.text import plural
from pushforward.training.budget import seconds

if TYPE_CHECKING:
    from pushforward.report import Report

__all__ = ["Certificate", "Explanation", "Guard"]

_OF_CALIBRATION = re.compile(r"(\d+ )?columns? .* no row had .*at fit|.* are (after|before) the normal rows")
"""How warnings of values begin that only calibration rows have."""
_IMAGES = 0.25
"""Fraction of images that calibrates by default."""

_FITTING = 0.6
"""Fraction of ``max_time`` after which a score of a table should be fitted; the rest is for calibration."""


_SHOWN = 50
"""As many columns are shown in a notebook at most."""


class Guard(ConformalDetector):
    """Outlier detector with a guaranteed false-alarm rate (split conformal prediction over an anomaly score).

    ``fit`` divides its rows at random: one part fits an anomaly score, and one is used for nothing but calibration. The
    p-value of a row with the score s is (1 + #{calibration s_i >= s}) / (n + 1), so a tie raises the p-value. For rows
    like the training rows P(p <= a) <= a (Vovk et al. 2005, prop. 2.4; Bates et al. 2023), whatever the score; a better
    score detects more anomalies at the same false-alarm rate.

    The score of a table is a weighted sum of statistics: distances to the nearest training rows, Gaussians of those rows,
    Mahalanobis distance and its relatives, tails of columns, and a Gaussian mixture. Each is -log of a tail probability,
    in nats, and no anomalies are needed for the weights (:class:`~pushforward.detection.table.Pool`). ``density=True``
    also trains an ensemble of flows, for ``log_prob`` and ``sample``. The file of a guard contains training rows, because
    distances need them.

    X is one of

    - a data frame (pandas, polars, pyarrow and others) with numeric, integer, boolean, categorical and missing cells;
    - a 2-D array of numbers, NaN where missing;
    - a stack of images: integers ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)``, or a list of such images of one size;
    - with ``embed``: whatever that network takes, for example a list of photographs of any size.

    The likelihood of a flow is misleading on images (Nalisnick et al. 2019), so the score of an image is a sum of two
    surprises: of statistics of its pixels (the path of a flow, code lengths of a compressor, and distances from the training
    images), and of a network that learned from the training images to recognize how an image was turned, mirrored or changed
    (:func:`~pushforward.detection.image_score.fit_image_score`). Where only the meaning of an image is unusual, use ``embed``.

    Args:
        alpha: promised false-alarm rate of ``predict``.
        guarantee: "marginal": at most alpha on average over calibration sets. "pac": with probability 1 - ``delta``
            over the calibration set, at most alpha for this guard from now on.
        delta: of the "pac" guarantee.
        effort: "fast", "default" or "thorough": how much work goes into the score of a table, in numbers of rows and never
            by a clock, so that results are reproducible. "thorough" implies ``density``.
        density: whether to train flows of a table too.
        model: the flows: "auto" (additive, affine and autoregressive spline flows together), "nice", "realnvp", "maf"
            or "nsf"; for images "auto", "glow" or "nice".
        n_estimators: number of flows in the ensemble of a table.
        calibration: fraction (or number) of rows for calibration. A fraction is raised to what ``alpha`` needs, if half
            of the rows are enough for that; it gives at most half of the rows, and at most 10,000 unless ``alpha`` needs
            more. None is a tenth of a table, but at least 100 rows or, of fewer than 400, a quarter; of images it is a
            quarter. With more rows the realized rate of false alarms is closer to ``alpha``, and with fewer the score has
            more rows to learn from.
        validation: fraction of the other rows for early stopping of flows; for images also for the density of the
            statistics.
        n_draws: noise draws for each row of a table, where columns are dequantized or missing.
        jitter: training noise of a table, in robust standard deviations; it bounds the density at repeated values.
        max_steps: of training, for each flow; None for 2000 on tables and 1500 on images.
        max_time: seconds (or "90s", "5m") of ``fit`` on a table, calibration included; for images, of training. The only
            option that reads a clock: what is fitted depends on the speed of the computer. None for no limit.
        batch_size: of training; None for 256 rows or 64 images.
        learning_rate: of training; None for 1e-3 on tables and 2e-3 on images.
        smoothing: None, or the standard deviation of noise for a guard with certificates against attacks (:meth:`certify`):
            of pixels from 0 to 1, or of numeric columns in units of their standard deviations. Its score is the median of a
            fast score under noise, so the options of the flows above do not matter. A dictionary gives ``sigma`` and other
            options of :func:`~pushforward.detection.smoothed_score.fit_smoothed_score`.
        exportable: whether to fit a score whose graph is small and fast in other runtimes (:meth:`export`): of a table,
            neighbors among at most 1,000 rows instead of 5,000; of images, no code lengths. Guards of tables can be exported
            without it too, unless they are very wide. What it costs is in docs/measurements.md.
        ignore: columns of a data frame to set aside, by name; "auto" sets aside identifiers and free text, with a warning
            that names them. None sets none aside: these columns are then an error.
        strict: whether every cell that no training row has raises an alarm: an unseen category, a missing cell in a column
            that had none, a changed constant, or a fraction in a column of integers. (A calibration row with such a cell
            weakens this: alarms of all normal rows together stay within the promise.)
        max_contamination: upper bound of the fraction of anomalies among the rows of a table, up to 0.25. All the
            weight of the score then goes to statistics of many neighbors (half of it goes there without a bound), and it is
            fitted without the rows that are farthest from the others: a quarter of this fraction, or more, up to this
            fraction, if these are far. Of the calibration scores those that
            are far beyond the others are left out, at most this fraction. If these were anomalies, the promise holds as it
            is; if they were normal rows, the false-alarm rate can be higher, by at most what ``calibration_`` says.
        store_rows: whether the score of a table may measure distances to training rows, for which the guard and its file
            contain up to 5,000 of them (1,000 with effort "fast", 20,000 with "thorough"). Without them it detects less (docs/measurements.md); the values of each
            column are still stored, sorted by themselves.
        embed: None, or a pretrained network whose features are the rows of the table: a module, a function, or an
            :class:`~pushforward.detection.network.Embedder`, which also says how inputs are prepared. The file of the guard
            does not contain the network. The last digits of features, and so of scores, depend on the batch.
        score: None, or a score of your own for tables of numbers, features or images: a detector of scikit-learn, PyOD or
            pytorch-ood, a :class:`~pushforward.detection.scores.Score`, or a function of rows in which higher is less like the
            training data. What has ``fit`` is fitted, as a copy, to the rows that do not calibrate; columns are float64, with NaN
            where missing. It must read each row by itself. The signs of the libraries are known
            (:func:`~pushforward.detection.scorers.scorer_of`). The guard gives it p-values, alarms, ``monitor``, ``recalibrate``,
            ``evaluate`` and ``report``; ``save`` says what a file cannot contain.
        random_state: seed of splits, weights and training; an integer makes the guard reproducible.
        verbose: whether to show progress.

    Where a table has too few rows for ``alpha``, ``fit`` warns and ``predict`` raises no alarm, which keeps the promise.

    Attributes:
        score_: the fitted score: a :class:`~pushforward.detection.table_score.TableScore`, for images an
            :class:`~pushforward.detection.image_score.ImageScore`, or with ``score`` a
            :class:`~pushforward.detection.custom_score.CustomScore`, whose ``scorer`` is the fitted detector.
        schema_: names, types and categories of the columns of a table.
        table_features_: which columns of a table the density reads, and what unseen cells cost.
        density_: the fitted flows of a table, with ``density=True``.
        ignored_: columns of the training table that are set aside.
        calibrator_: the calibration scores.
        calibration_: which rows calibrated the guard; its text says which rows the promise refers to.
        training_: number, digest and distribution of the training rows; None after loading a file that lacks them.
        level_: p-value at or below which ``predict`` raises an alarm: the largest possible p-value of at most ``alpha``, for "pac" less, and
            0 where too few rows calibrate for an alarm.
        offset_: ``decision_function(x) = score_samples(x) - offset_``.
        options_: the options of the last fit, without ``embed`` and ``score``; a file contains them.
        digest_: with ``embed``, of the network's weights when the guard was fitted, and of how inputs are prepared; "" for a function.
        n_features_in_: number of columns, or of pixels times channels.
        feature_names_in_: names of the columns, if X had names.
        embedded_columns_: with ``embed``, names of the columns that its network reads, in their order, if X was a data frame; other
            frames are then read by name. None otherwise.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> x = np.random.default_rng(0).normal(size=(500, 2))
        >>> guard = pf.Guard(alpha=0.05, random_state=0).fit(x)
        >>> guard.predict([[0.0, 0.0], [9.0, 9.0]])
        array([ 1, -1])
    """

    n_features_in_: int
    feature_names_in_: np.ndarray
    ignored_: tuple[str, ...] = ()
    score = OwnScore()
    score_: InputScore
    calibration_: CalibrationRecord
    training_: TrainingData | None
    embedder_: Embedder
    embedded_columns_: list[str] | None = None
    options_: dict[str, Any]
    digest_: str | None

    def __init__(
        self,
        alpha: float = 0.01,
        *,
        guarantee: Guarantee = "marginal",
        delta: float = 0.05,
        effort: str = "default",
        density: bool = False,
        model: str = "auto",
        n_estimators: int = 5,
        calibration: float | int | None = None,
        validation: float = 0.1,
        n_draws: int = 4,
        jitter: float = 0.05,
        max_steps: int | None = None,
        max_time: float | str | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        smoothing: float | dict[str, Any] | None = None,
        exportable: bool = False,
        ignore: Sequence[str] | str | None = None,
        strict: bool = False,
        max_contamination: float = 0.0,
        store_rows: bool = True,
        embed: Any = None,
        score: Any = None,
        random_state: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.alpha = alpha
        self.guarantee: Guarantee = guarantee
        self.delta = delta
        self.effort = effort
        self.density = density
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
        self.smoothing = smoothing
        self.exportable = exportable
        self.ignore = ignore
        self.strict = strict
        self.max_contamination = max_contamination
        self.store_rows = store_rows
        self.embed = embed
        self.score = score
        self.random_state = random_state
        self.verbose = verbose

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The options; with ``deep`` also those of a detector in ``score``, as scikit-learn names them."""
        return params_of(self, deep)

    def __sklearn_tags__(self) -> Any:
        """scikit-learn's tags: NaN is a missing value."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    # -- fitting ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        groups: Any = None,
        time: Any = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Fit on rows that are (nearly all) normal.

        Args:
            X: a table ``(rows, columns)`` or a stack of images, see above.
            y: ignored; scikit-learn passes it.
            groups: where rows of one group (a patient, a machine) depend on each other: one label for each row, or the name
                of a column, which is then set aside. One row of each of some groups calibrates, and no row of these groups fits
                the score, so the promise is for a row of a new group (Dunn, Wasserman and Ramdas 2022, "subsampling once");
                ``calibration`` counts groups, and alarms at 5 % and 1 % need 19 and 99 of them.
            time: where rows depend on those before: an instant or number for each row, or the name of a column, which is set
                aside unless it has instants. The latest rows calibrate, so the promise is for rows like these. A random choice
                would promise too much.
            checkpoint: folder for the state of the training of flows (of images, or with ``density=True``), written every minute
                and after Ctrl-C. The same call goes on from there, to the same guard. A fit without flows takes seconds and
                writes nothing.

        Raises:
            CalibrationError: if fewer than two rows are left to fit the score, or none to calibrate.
            InputError: for data that cannot be read; a SchemaError names the column.
            ConfigError: for impossible options, or if ``max_time`` is too short for a table to be read, fitted and
                calibrated.
        """
        fitted = copy.copy(self)  # a fit that fails leaves this guard as it is
        fitted._fit(X, groups, time, checkpoint)
        object.__setattr__(self, "__dict__", vars(fitted))  # in one step: another thread may score with this object
        return self

    def _fit(self, X: Any, groups: Any, time: Any, checkpoint: str | os.PathLike[str] | None) -> None:
        options = self.get_params()
        check_options(options)
        self.options_ = plain_options(self)
        check_one_of(groups, time)
        start, X = clock.monotonic(), listed(self, X)
        limit = None if self.max_time is None else seconds(self.max_time, "max_time")
        apart = column_apart(groups, X, of_time=False) + column_apart(time, X, of_time=True)
        rows, seed = read_rows(self, X, True, apart), seed_from(self.random_state)
        self.digest_ = None if self.embed is None else self.embedder_.digest
        if isinstance(rows, torch.Tensor):
            check_image_options(options)
        share = _IMAGES if self.calibration is None and isinstance(rows, torch.Tensor) else self.calibration
        fitted, calibration, chosen = split_rows(
            len(rows), share, self.alpha, self.guarantee, self.delta, seed,
            groups=None if groups is None else labels_of("groups", X, groups),
            time=None if time is None else labels_of("time", X, time),
            contamination=0.0 if isinstance(rows, torch.Tensor) else self.max_contamination,
        )  # fmt: skip
        for_score = limit  # of a table's time, a part is for calibration
        if limit is not None and not isinstance(rows, torch.Tensor):
            for_score = max(0.0, _FITTING * limit - (clock.monotonic() - start))
        try:
            self.score_ = fit_score(take(rows, fitted), options, seed, for_score, checkpoint)
        except SchemaError as error:
            Schema.infer(rows)  # raises the same error with the row numbers of X
            raise SchemaError(
                f"{error} These are the {len(fitted)} rows that fit the score; the others calibrate."
            ) from error
        self.seed_, schema = seed, None if isinstance(rows, torch.Tensor) else self.schema_
        self.training_ = TrainingData.of(rows, fitted, schema, seed)
        if schema is not None:
            encoded = schema.encode(rows, warn=False)[0]
            warn_of_texts(schema, encoded)
            warn_of_lone_instants(schema, encoded)
            warn_of_extreme_units(schema, encoded)
            if chosen == "random" and isinstance(self.score_, TableScore):
                warn_of_dependence(schema, encoded)
        with collected(SchemaWarning) as given:
            scores = self._calibration_scores(rows, calibration, seed, limit, start)
            if isinstance(self.score_, TableScore):
                self.score_ = self.score_.reaching(take(rows, calibration))
        for warning in given:
            # A value or an instant that only calibration rows have is no surprise in new data: it is part of what they calibrate.
            if not _OF_CALIBRATION.match(str(warning)):
                warn_caller(warning)
        # The score of a table is a mean of -log tail probabilities, so the mean excess of normal rows is near 1.
        excess = 0.6 if isinstance(self.score_, TableScore) else 0.0
        kept, trimmed = (scores, 0) if schema is None else trim(scores, self.max_contamination, excess)
        self._calibrate(kept)
        if len(kept) < self._rows_needed() <= len(scores):
            warn_of_trimming(trimmed, len(kept), self._rows_needed(), self.alpha, self.guarantee)
        higher = self._higher(len(scores)) if trimmed else 0.0
        self.calibration_ = CalibrationRecord(len(kept), chosen=chosen, trimmed=trimmed, higher=higher)

    def _promise_changed(self) -> None:
        if self.calibration_.trimmed:
            higher = self._higher(self.calibrator_.n + self.calibration_.trimmed)
            self.calibration_ = dataclasses.replace(self.calibration_, higher=higher)

    def _higher(self, n: int) -> float:
        """How much higher the rate of false alarms can be if n calibration scores were all of normal rows."""
        most = int(self.options_["max_contamination"] * n)
        return trimmed_bound(self.alpha, n, most, self.guarantee, self.delta) - self.alpha

    def _calibration_scores(
        self, rows: Any, calibration: np.ndarray, seed: int, limit: float | None, start: float
    ) -> np.ndarray:
        """Scores of the calibration rows, or of as many as the time permits."""
        if limit is None or isinstance(rows, torch.Tensor):
            return self.score_.score(take(rows, calibration))
        scores = score_in_time(self.score_.score, rows, calibration, seed, start + limit)
        needed = min(len(calibration), self._rows_needed())
        if len(scores) < needed or clock.monotonic() - start > 1.1 * limit:
            raise ConfigError(
                f"max_time={self.max_time!r} is too short: after {clock.monotonic() - start:.1f} seconds the table was "
                f"read, the smallest score was fitted, and {len(scores)} of {needed} necessary calibration rows were "
                "scored. Give more time or fewer rows."
            )
        return scores

    def recalibrate(self, X: Any, note: str = "", *, groups: Any = None) -> Self:
        """Calibrate on new normal rows, without training; the promise then refers to rows like these.

        For a guard whose normal rows have changed a little, or that moves to another place. The score stays as it is, so
        anomalies that it did not see before it does not see now. The guard is then not compiled.

        Args:
            X: normal rows that nothing of the guard has seen, as for :meth:`fit`, at least as many as ``alpha`` needs.
            note: what these rows are; it is stored with the guard.
            groups: as for :meth:`fit`, one label for each row or the name of a column: one random row of each group calibrates.

        Raises:
            CalibrationError: if the rows (or groups) are too few; it says how many are needed. The guard is then unchanged.
            ConfigError: if the weights of the network of ``embed`` have changed since ``fit``.
            InputError: for rows that do not fit the guard, or without ``groups`` for a guard that was fitted with them.

        Example:
            >>> import numpy as np, pushforward as pf
            >>> rng = np.random.default_rng(0)
            >>> guard = pf.Guard(alpha=0.05, random_state=0).fit(rng.normal(size=(500, 2)))
            >>> print(guard.recalibrate(rng.normal(1, 2, size=(300, 2)), note="sensor 2").calibration_)
            rows like the 300 rows of the last recalibration (sensor 2), and no longer rows like the training rows
        """
        require_fitted(self)
        self._check_embed()
        X = listed(self, X)
        rows, times, chosen = self._read(X), self.calibration_.times + 1, self.calibration_.chosen
        check_same_kind(chosen, groups, True)
        labels = None if groups is None else labels_of("groups", X, groups)
        if labels is not None:
            rows = take(rows, one_of_each(labels, np.unique(labels), self.seed_ + times))
            chosen = f"{len(rows)} groups"
        needed = self._rows_needed()
        if len(rows) < needed:
            raise CalibrationError(
                f"alpha={self.alpha:g} with the {self.guarantee!r} guarantee needs at least {needed} calibration "
                f"{'rows' if labels is None else 'groups'}; got {len(rows)}."
            )
        score = self.score_.uncompiled()
        if isinstance(score, TableScore):
            score = score.reaching(rows)
        self._calibrate(score.score(rows))
        self.score_ = score
        self.calibration_ = CalibrationRecord(self.calibrator_.n, times, str(note), chosen)
        return self

    def update(self, X: Any, note: str = "", *, groups: Any = None, time: Any = None) -> Self:
        """Add normal rows to a guard of a table: some become neighbors of its score, and the others calibrate it again.

        No row does both. Columns, spaces and weights stay those of ``fit``, and a density stays as it is. The promise then
        refers to rows like those of X. A row with a category, a missing cell or another value of a kind that no row of ``fit`` has
        becomes no neighbor, with a warning. A guard that is updated is not compiled.

        Args:
            X: normal rows that nothing of the guard has seen, at least two more than ``alpha`` needs for calibration.
            note: what these rows are; it is stored with the guard.
            groups: as for :meth:`fit`; no row of the groups that calibrate becomes a neighbor.
            time: as for :meth:`fit`; the latest rows calibrate.

        Raises:
            CalibrationError: if the rows (or groups) are too few; it says how many are needed. The guard is then unchanged.
            ConfigError: for a guard of images, with smoothing or ``score``, or fitted with ``store_rows=False``, or if the weights of the
                network of ``embed`` have changed since ``fit``.
            InputError: for rows that do not fit the guard, or without ``groups`` or ``time`` for a guard that was fitted with it.

        Example:
            >>> import numpy as np, pushforward as pf
            >>> rng = np.random.default_rng(0)
            >>> guard = pf.Guard(alpha=0.05, random_state=0).fit(rng.normal(size=(500, 2)))
            >>> print(guard.update(rng.normal(size=(200, 2)), note="May").calibration_)
            rows like the 50 rows of the last recalibration (May), and no longer rows like the training rows
        """
        require_fitted(self)
        if not isinstance(self.score_, TableScore):
            raise ConfigError(
                "update adds rows to the score that a guard of a table fits itself, without smoothing: fit this one again."
            )
        self._check_embed()
        check_one_of(groups, time)
        check_same_kind(self.calibration_.chosen, groups, time)
        X = listed(self, X)
        rows, needed, times = self._read(X), self._rows_needed(), self.calibration_.times + 1
        labels = None if groups is None else labels_of("groups", X, groups)
        units, noun = (len(rows), "rows") if labels is None else (len(np.unique(labels)), "groups")
        if units < needed + 2:
            raise CalibrationError(
                f"alpha={self.alpha:g} with the {self.guarantee!r} guarantee needs {needed} of the new {noun} for calibration, "
                f"so give at least {needed + 2}; got {units}."
            )
        seed = self.seed_ + times
        added, calibration, chosen = split_rows(
            len(rows), self.calibration, self.alpha, self.guarantee, self.delta, seed, groups=labels,
            time=None if time is None else labels_of("time", X, time), update=True,
        )  # fmt: skip
        score, taken = self.score_.reaching(rows).with_rows(
            take(rows, added), EFFORTS[self.options_["effort"]].reference, seed
        )
        scores = score.score(take(rows, calibration))
        warn_of_rows_left_out(len(added) - taken, len(added))  # first, since a warning may be an error
        self._calibrate(scores)
        self.score_ = score
        self.calibration_ = CalibrationRecord(self.calibrator_.n, times, str(note), chosen)
        return self

    def _check_embed(self) -> None:
        if self.embed is not None and self.embedder_.digest != self.digest_:
            raise ConfigError(
                "the weights of the network of embed=, or its preparation of inputs, have changed since the guard was fitted, and its score is of "
                "the old features: fit the guard again."
            )

    # -- answers ----------------------------------------------------------------------------------------------------

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-density of each row of a table, nats, ``(rows,)``; a lower bound where columns are dequantized or missing.

        Raises:
            ConfigError: unless the guard was fitted with ``density=True``, or for a guard of images.
        """
        require_fitted(self)
        return self.score_.log_prob(self._read(X))

    def anomaly_score(self, X: Any) -> np.ndarray:
        """Anomaly score of each row, ``(rows,)``: higher is more anomalous, +inf is infinitely far; in nats for a table."""
        require_fitted(self)
        return self.score_.score(self._read(X))

    def assess(self, X: Any) -> dict[str, np.ndarray]:
        """All results: ``log_prob`` (with a density), ``anomaly_score``, ``p_value`` and ``alarm``, each ``(rows,)``."""
        X = listed(self, X)
        score = self.anomaly_score(X)
        log_prob = {"log_prob": self.log_prob(X)} if self.score_.has_density else {}
        return log_prob | {
            "anomaly_score": score,
            "p_value": self.calibrator_.p_value(score),
            "alarm": self._decide(-score) < 0,
        }

    def certify(
        self, X: Any, radius: float, *, confidence: float = 0.99, draws: int = 10_000, attempts: int = 10**6
    ) -> Certificate:
        """Bound the p-value of each row for every change of an L2 norm of at most ``radius``, whatever the attack.

        For each row, with probability at least ``confidence`` over the noise: at each of the inputs within the radius that an
        attacker evaluates, if these are at most ``attempts``, ``guard.p_value`` is at most the bound. The attacker may know
        the guard, its file and its noise. The proof is in :mod:`pushforward.detection.smoothing`.

        Args:
            X: rows or images, as for ``p_value``.
            radius: largest L2 norm of a change: of pixels from 0 to 1, or of columns in the units of ``smoothing``.
            confidence: probability of the statement, for each row.
            draws: noise draws for each row; more make bounds sharper, and larger radii possible.
            attempts: number of inputs that the attacker may evaluate.

        Raises:
            ConfigError: unless the guard was built with ``smoothing``, or for a number out of range.

        Example:
            >>> import numpy as np, pushforward as pf
            >>> x = np.random.default_rng(0).normal(size=(500, 2))
            >>> guard = pf.Guard(alpha=0.05, smoothing=0.5, random_state=0).fit(x)
            >>> guard.certify([[0.0, 0.0], [9.0, 9.0]], radius=0.5).alarm
            array([False,  True])
        """
        score = self._smoothed("certify")
        options = {"confidence": confidence, "draws": draws, "attempts": attempts}
        lower = score.lower_bound(self._read(X), radius, **options)
        return certify_scores(lower, self.calibrator_, self.level_, radius, confidence, attempts)

    def certified_radius(
        self, X: Any, *, confidence: float = 0.99, draws: int = 10_000, attempts: int = 10**6
    ) -> np.ndarray:
        """The largest radius within which the alarm of each row is certified, ``(rows,)``; NaN for rows without one.

        Args:
            X: rows or images, as for ``p_value``.
            confidence: see :meth:`certify`.
            draws: see :meth:`certify`.
            attempts: see :meth:`certify`.

        Raises:
            ConfigError: unless the guard was built with ``smoothing``, or for a number out of range.
        """
        score = self._smoothed("certified_radius")
        rows = score.rows(self._read(X))
        if self.level_ == 0:  # no alarm is possible, so none is certified
            return np.full(len(rows), np.nan)
        threshold = self.calibrator_.score_threshold(self.alpha, self.guarantee, self.delta)
        options = {"confidence": confidence, "draws": draws, "attempts": attempts}
        return score.smoothing.certified_radius(score.base, rows, threshold, **options)

    def explain(self, X: Any) -> Explanation:
        """Which columns made a row unlikely: the part of the score that is due to each cell, nats, in the order of the columns.

        It is the mean of two numbers: by how much the score falls when the cells of the most similar training rows take its
        place, and by how much the scores of these rows rise when they get the cell. Of a row with more than 24 columns, the
        24 that are the most unusual given the other columns are examined, and the others have 0. A new missing cell or a
        changed constant has log(n + 2) more, an unseen category log((n + 2) / (s + 1)) if s categories have one row each, and
        an infinite number +inf.

        Raises:
            ConfigError: for a guard of images.
        """
        require_fitted(self)
        return self.score_.explain(self._read(X))

    def report(
        self,
        X: Any,
        *,
        title: str | None = None,
        name: str = "",
        alarms: int = 20,
        show_rows: bool = False,
        values: bool = True,
    ) -> Report:
        """What this guard says of rows: how the promise is kept, alarms with reasons, columns that drifted, checks.

        A notebook shows the report. ``report.save("report.html")`` writes one page of less than 2 MB, which opens offline, and
        ``report.save("report.json")`` the same numbers. Memory does not grow with the number of rows, apart from ``X``.

        Args:
            X: rows or images, as for :meth:`fit`.
            title: of the page.
            name: what the rows are called.
            alarms: number of alarms that are shown, those with the highest scores.
            show_rows: whether to show whole rows of these alarms; without it, only the cells that are reasons.
            values: whether to show these cells, and pictures of images.

        Raises:
            InputError: for rows that do not fit the guard, or no rows.
            ConfigError: for a number out of range.

        Example:
            >>> import numpy as np, pushforward as pf
            >>> rng = np.random.default_rng(0)
            >>> guard = pf.Guard(alpha=0.05, random_state=0).fit(rng.normal(size=(500, 2)))
            >>> guard.report(rng.normal(size=(200, 2)))
            Report(200 rows, 0 of 6 checks failed)
        """
        from pushforward.estimators.reported_rows import ReportOptions
        from pushforward.estimators.reporting import guard_report, parts_in_memory

        require_fitted(self)
        options = ReportOptions(title=title, name=name, alarms=alarms, show_rows=show_rows, values=values)
        return guard_report(self, parts_in_memory(self, X), options)

    def sample(self, n_samples: int = 1, random_state: int | None = None) -> Any:
        """Draw rows from the fitted density: a ``pyarrow.Table`` with the training table's columns.

        The density of dequantized codes and flags has tails beyond the codes that exist; such rows are drawn again.

        Raises:
            ConfigError: unless ``n_samples`` is a positive integer and the guard was fitted with ``density=True``, or for a
                guard of images.
        """
        require_fitted(self)
        return self.score_.sample(check_integer("n_samples", n_samples), seed_from(random_state))

    def compile(self) -> Self:
        """Make this guard fast for few rows at a time, and return it.

        Without this a guard scores in batches of one size, and fills up the last one, so that equal rows get exactly
        equal scores. With it only the rows that are given are scored. Scores then differ in the last digits, by less than
        1e-6 of their size; a row whose score is that close to a calibration score is scored in a full batch, so p-values
        and alarms do not change. A density is compiled by :func:`~pushforward.compile_scorer`.

        ``fit`` and ``load`` return a guard that is not compiled, and ``save`` writes the same file with or without it.

        Raises:
            ConfigError: for a guard of images.

        Example:
            >>> import numpy as np, pushforward as pf
            >>> x = np.random.default_rng(0).normal(size=(500, 2))
            >>> guard = pf.Guard(alpha=0.05, random_state=0).fit(x)
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
        score = vars(self).get("score_")
        if isinstance(score, (SmoothedScore, CustomScore)) and score.schema is not None:
            return score.schema
        return self._table_score("schema_").features.schema

    @property
    def table_features_(self) -> TableFeatures:
        """Which columns of a table the density reads, and what unseen cells cost."""
        return self._table_score("table_features_").features

    @property
    def density_(self) -> Flow:
        """The fitted flows of a table."""
        density = self._table_score("density_").density
        if density is None:
            raise AttributeError(NO_DENSITY)
        return density

    def _stream_reference(self) -> np.ndarray:
        # The scores that max_contamination left out were larger than all others. As +inf they can only make the p-values of a
        # stream larger, so a monitor keeps its bound whether they were of anomalies or of normal rows.
        return np.append(self.calibrator_.scores, np.full(self.calibration_.trimmed, np.inf))

    def _facts(self) -> list[tuple[str, Any]]:
        if self.reads_images:
            reads = "images of " + " x ".join(map(str, getattr(self.score_, "shape", None) or ()))
        else:
            reads = f"rows of {plural(self.n_features_in_, 'column')}"
        if self.embed is not None:
            reads = "what its network takes"
        return [("reads", reads), *super()._facts(), ("the promise is for", self.calibration_)]

    def _details(self) -> str:
        if self.reads_images or self.embed is not None:
            return ""
        shown = self.schema_.columns[:_SHOWN]
        rows = [(c.name, c.kind, "yes" if c.missing else "no", len(c.categories) or "") for c in shown]
        count = len(self.schema_)
        summary = plural(count, "column") + (f", of which {_SHOWN} are shown" if count > _SHOWN else "")
        return table(("column", "kind", "missing cells", "categories"), rows, summary)

    # -- storage ----------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, without_score: bool = False) -> None:
        """Write the guard to one safetensors file, without pickle: weights, columns, calibration, options.

        The file of a guard of a table contains training rows, unless it was fitted with ``store_rows=False``.
        The network of ``embed`` is not written, but a digest of its weights at the time of ``fit``.

        Args:
            path: the file.
            without_score: whether to write a guard with ``score=`` without that score, which a file cannot contain without pickle;
                :meth:`load` takes it again. A function, or the fitted ``guard.score_.scorer``, is kept by other means.

        Raises:
            ConfigError: for a score that cannot be written, without ``without_score``.
            StorageError: if the file cannot be written.

        Warns:
            PushforwardWarning: if the weights of the network of ``embed`` have changed since ``fit``, because :meth:`load` then takes
                the weights of that time only.
        """
        require_fitted(self)
        if not without_score:
            check_writable(self)
        if self.embed is not None and self.embedder_.digest != self.digest_:
            warn_caller(
                "the weights of the network of embed=, or its preparation of inputs, have changed since the guard was fitted: load will "
                "refuse the network as it is now. Fit the guard again, or load it with the weights of that time."
            )
        io.write(path, *self.contents())

    def export(self, path: str | os.PathLike[str], *, inputs: str = "auto") -> None:
        """Write the guard as a graph for another runtime: preprocessing, score, p-value and alarm of any number of rows.

        The outputs are ``p_value`` (float64), ``alarm`` (bool) and ``anomaly_score`` (float64), each ``(rows,)``. Alarms are
        those of this guard (docs/measurements.md has the table), and scores differ in the last digits. The metadata of the file
        say what the columns are, and to which guard it belongs. With ``embed`` the inputs are the features of the network.

        Args:
            path: the file: ``name.onnx`` for ONNX Runtime in any language (extra ``export``), or ``name.pt2`` for PyTorch
                without this library.
            inputs: of a table. "columns": one input ``(rows,)`` for each column, with its name: float64 with NaN where
                missing, seconds for instants, or text with "" where missing. "matrix": one input ``X``, float64
                ``(rows, columns)``, with the codes of categories. "auto": columns where the table had names, but a matrix in a
                .pt2 file, and for images one input ``images``.

        Raises:
            ConfigError: for a score that no graph can compute, with the part and what to do; for another ending of the name;
                without the extra ``export`` for ONNX.
            StorageError: if the file cannot be written.

        Example:
            >>> import numpy as np, pathlib, tempfile, torch, pushforward as pf
            >>> x = np.random.default_rng(0).normal(size=(300, 2))
            >>> guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(x)
            >>> path = pathlib.Path(tempfile.mkdtemp(), "guard.pt2")
            >>> guard.export(path)
            >>> torch.export.load(path).module()(torch.tensor([[0.0, 0.0], [9.0, 9.0]]).double())["alarm"]
            tensor([False,  True])
        """
        require_fitted(self)
        export_guard(self, path, inputs)

    def contents(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """The header and the tensors of the guard's file."""
        require_fitted(self)
        return guard_contents(self)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, embed: Any = None, score: Any = None, public_key: Any = None
    ) -> Guard:
        """Read a guard from a file; a file that was changed on purpose can make this fail and do nothing else.

        Args:
            path: the file.
            embed: the same network as of the guard that was saved, if it had one.
            score: the fitted ``guard.score_.scorer`` of a guard that was saved ``without_score``. It must give a few stored rows the
                scores that they had.
            public_key: file of the key with which the file must be signed, see :func:`~pushforward.io.sign`. The
                signature is verified on the bytes that are read, before anything in them is used.

        Raises:
            SignatureError: if a key is given, and the file is not signed with it or was changed since.
            StorageError: if the file is damaged, was not written by pushforward, or has a newer format; or if ``embed`` has
                other weights than the network of the guard, or ``score`` gives other scores than that of the guard.
            ConfigError: if ``embed`` or ``score`` is missing, or given for a guard without one.
        """
        return read_guard(cls, path, embed, score, public_key)

    # -- parts ------------------------------------------------------------------------------------------------------

    def _read(self, X: Any) -> Any:
        return read_rows(self, X, False)

    def _smoothed(self, method: str) -> SmoothedScore:
        require_fitted(self)
        if not isinstance(self.score_, SmoothedScore):
            raise ConfigError(f"{method} needs a guard with smoothing: fit Guard(smoothing=0.25), for example.")
        return self.score_

    def _table_score(self, attribute: str) -> TableScore:
        score = vars(self).get("score_")
        if not isinstance(score, TableScore):  # an AttributeError is what hasattr needs
            raise AttributeError(f"a Guard has {attribute} after it was fitted on a table.")
        return score
