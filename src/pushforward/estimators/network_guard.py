"""`NetworkGuard`: a trained network that says, for each input, whether it is unlike the training data."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from pushforward.data import as_table, is_frame
from pushforward.detection import ConformalCalibrator, Guarantee, Monitor, benjamini_hochberg, rows_needed
from pushforward.detection.certified import Certificate, certify_scores
from pushforward.detection.modes import autocast_type, outside_inference, warn_of_training_mode
from pushforward.detection.network import Combined, NetworkReader, Reading, digest, make_score
from pushforward.detection.network.combined import SMALLEST_REFERENCE
from pushforward.detection.network.digest import same_weights
from pushforward.detection.network.examples import Examples, GuardOutput, NetworkExplanation, input_gradient
from pushforward.detection.network.fitting import FittedNetwork, gather, held_out_columns, read_for
from pushforward.detection.network.module import GuardedNetwork
from pushforward.detection.network.reading import class_labels, length, plain_tensor, rebuilt
from pushforward.detection.network.streaming import batches, check_finite
from pushforward.detection.smoothing import Smoothing
from pushforward.display import card
from pushforward.errors import CalibrationError, ConfigError, InputError, warn_caller
from pushforward.estimators.evaluating import evaluate_network
from pushforward.estimators.exporting import export_network_guard
from pushforward.estimators.feature_names import in_order, names_of
from pushforward.estimators.network_guard_file import read_network_guard, write_network_guard
from pushforward.estimators.network_rows import share_rows
from pushforward.estimators.network_selective import Labeled, selective_answers
from pushforward.estimators.network_smoothing import NoisyNetwork, real_inputs, rows_of, smoothed_scores, smoothing_of
from pushforward.estimators.validation import NotFittedError
from pushforward.numerics.checks import check_choice, check_integer, check_number

if TYPE_CHECKING:
    from pushforward.detection.selective import ClassifierCalibration
    from pushforward.report import Report
    from pushforward.report.evaluation import Evaluation

__all__ = ["GuardOutput", "NetworkGuard"]

_REFERENCE = 0.3
"""Fraction of the held-out rows that set the common scale of a combined score, at most 2,000 rows."""
_MOST_REFERENCE = 2000


class NetworkGuard:
    """A trained network with an alarm: each prediction comes with a p-value that bounds the false-alarm rate.

    ``fit`` passes once over the training data, reads the input of the network's last linear layer, its logits and inner layers, and fits
    the score. The held-out rows, which neither the network nor the score has seen, are divided at random: a part sets the common
    scale of the combined statistics, the rest calibrates. The p-value of an input is (1 + #{calibration s_i >= s}) / (n + 1),
    so for inputs like the held-out rows P(p <= a) <= a, whatever the network (Vovk et al. 2005, prop. 2.4).

    The network is read in evaluation mode by hooks that exist only during a call; its weights, its mode and its hooks stay as they
    are. The default score takes one forward pass.

    Args:
        net: a module that classifies, embeds or regresses. Its inputs are a tensor, a tuple of positional or a dictionary of keyword arguments.
            Tensors are given to it as they are, and arrays of fractions in the precision of its weights.
        alpha: promised false-alarm rate.
        score: "default", the name of a score (``pf.detection.network.SCORES``), a score, a detector of pytorch-ood or a function
            (:class:`~pushforward.detection.network.External`), a list of scores to combine, or a
            :class:`~pushforward.detection.network.Combined` with weights. Objects are copied by :meth:`fit`.
        logits: name or index of the part of the output with one row per input, where it is not clear.
        layers: names of inner layers (of ``net.named_modules()``), "auto", or an empty list.
        features: name of the module whose pooled output is the features; None for the input of the last linear layer.
        task: "classify", "embed" (no logits), or "auto": it classifies if the training data have labels that are integers.
        read: a function from inputs to a :class:`~pushforward.detection.network.Reading`, for compiled and scripted networks.
        per_class: whether to promise the rate for each predicted class by itself (Mondrian); each class needs its own rows.
        guarantee: "marginal": at most alpha on average over calibration sets. "pac": with probability 1 - ``delta``, at most
            alpha for this guard from now on.
        delta: of the "pac" guarantee.
        smoothing: standard deviation of Gaussian noise on the input, in its own units, for a guard with certificates against attacks
            (:meth:`certify`); or a dictionary with "sigma", "draws" (256), "quantile" (0.5) and "seed". The input must be one tensor of
            floating-point numbers. Each answer takes as many forward passes more as there are draws.
        reservoir: largest number of training rows that are kept for scores that need rows.
        batch_size: where the data have no batches of their own.
        seed: of the reservoir and of the division of the held-out rows.

    Attributes:
        score_: the fitted score, a :class:`~pushforward.detection.network.Combined`.
        calibrators_: the calibration scores, by predicted class if ``per_class``; otherwise under None.
        promised_: whether the false-alarm rate is promised; False after ``calibration="train"``.
        digest_: of the network's weights.
        autocast_: type of ``torch.autocast`` in which the guard was fitted, such as "bfloat16"; "" outside of it; None after loading a
            file that does not state it.
        training_rows_: number of training rows; None after loading a file that does not state it.
        feature_names_in_: names of the columns, if the training data are a data frame with names. Other frames are then read by name:
            columns in another order or further ones do not matter, and a missing one is an error.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.randint(0, 3, (600,))
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()
        >>> guard = pf.NetworkGuard(net, alpha=0.05).fit((x[:300], y[:300]), calibration=x[300:])
        >>> out = guard(torch.tensor([[0.5, -1.0, 0.5, 1.0], [50.0, 50.0, -50.0, 50.0]]))
        >>> out.alarm
        tensor([False,  True])
    """

    score_: Combined
    feature_names_in_: np.ndarray
    autocast_: str | None = None
    _labeled: tuple[Tensor, Tensor] | None = None

    def __init__(
        self,
        net: nn.Module | Callable[..., Any],
        alpha: float = 0.01,
        *,
        score: Any = "default",
        logits: str | int | None = None,
        layers: Sequence[str] | str = "auto",
        features: str | None = None,
        task: str = "auto",
        read: Callable[[Any], Reading] | None = None,
        per_class: bool = False,
        guarantee: Guarantee = "marginal",
        delta: float = 0.05,
        smoothing: float | dict[str, Any] | None = None,
        reservoir: int = 10_000,
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        self.net, self.score, self.logits, self.layers, self.features = net, score, logits, layers, features
        self.alpha, self.delta = check_number("alpha", alpha, 0, 1), check_number("delta", delta, 0, 1)
        self.task, self.read = check_choice("task", task, ("auto", "classify", "embed")), read
        self.per_class = bool(per_class)
        self.guarantee: Guarantee = check_choice("guarantee", guarantee, ("marginal", "pac"))
        self.reservoir, self.batch_size = (
            check_integer("reservoir", reservoir, 2),
            check_integer("batch_size", batch_size),
        )
        self.seed, self.smoothing = check_integer("seed", seed, 0, most=2**64 - 1), smoothing
        self.smoothing_ = smoothing_of(smoothing, self.seed)
        if self.smoothing_ is not None and self.per_class:
            raise ConfigError(
                "smoothing does not cover the predicted class, which an attack may change: use per_class=False."
            )
        self.reader_ = NetworkReader(net, logits=logits, layers=layers, features=features, read=read)

    # -- fitting --------------------------------------------------------------------------------------------------------

    def fit(self, train: Any, *, calibration: Any = None) -> Self:
        """Fit the score on training data, in one pass, and calibrate it on held-out data, in another.

        If a fit fails, the guard stays as it was.

        Args:
            train: a ``DataLoader`` or another iterable of batches, a ``Dataset``, an array of inputs, or a pair (inputs, labels), where
                the inputs may be a tuple or a dictionary of arrays. Labels are integers ``(n,)``, the classes from 0. A batch is
                ``(inputs, labels)``, a dictionary, or inputs alone. In each form the second part of two is the labels: several inputs
                without labels are ``((a, b),)``. Labels of a dictionary are its entry ``labels`` (or ``label``, ``targets``,
                ``target``), unless that is an argument of the network's forward; optional ``labels`` of forward are labels.
            calibration: rows, in the same forms, that neither the network nor anything else was fitted on; labels are only needed
                for :meth:`selective`.
                ``"train"`` sets aside a part of the training rows instead, without a promise.

        Raises:
            CalibrationError: without calibration rows, or for too few of them; it says how many are needed.
            InputError: for no rows, a loader that ends early, labels out of range or of another form, or NaN features.
            ConfigError: for a score that needs what the network lacks.
        """
        if calibration is None:
            raise CalibrationError(
                "calibration rows are missing: on rows that the network has learned its scores are too low, so new rows would raise more "
                "false alarms than alpha (measured at 1 % on networks that had learned their rows by heart: up to 2.3 % with the default "
                "score, up to 8.8 % with the softmax); pass calibration=held_out with at least "
                f"{self._needed()} rows that the network has not seen ({SMALLEST_REFERENCE} more for a score of several statistics, as the default "
                "one), or calibration='train' to use training rows without any promise."
            )
        if share_rows(train, calibration):
            raise CalibrationError(
                "calibration has the training rows themselves, or some of them, and no promise holds on new rows then: pass rows that the network has not "
                "seen, or calibration='train' to use training rows without any promise."
            )
        if isinstance(calibration, str):
            check_choice("calibration", calibration, ("train",))
        warn_of_training_mode(self.net)
        fitted = copy.copy(self)  # a fit that fails leaves this guard as it is
        fitted.reader_ = copy.copy(self.reader_)
        with outside_inference():
            fitted._fit(train, calibration)
        self.__dict__ = vars(fitted)
        return self

    def recalibrate(self, calibration: Any) -> Self:
        """Calibrate on new inputs, without training; the promise then refers to inputs like these.

        For a network whose normal inputs have changed a little. The statistics stay as they are, but for their common scale; after the
        network was trained further, call :meth:`fit` again. :meth:`selective` has to be fitted again too.

        Args:
            calibration: normal inputs that neither the network nor the guard was fitted on, in the forms of :meth:`fit`.

        Raises:
            CalibrationError: for too few of them; it says how many are needed. The guard is then unchanged.
            ConfigError: if the weights of the network have changed since ``fit``.
            InputError: as for :meth:`fit`.
        """
        self._require_fitted()
        if self._weights_changed():
            raise ConfigError(
                "the weights of the network have changed since the guard was fitted, and its statistics are those of the old ones: fit the guard again."
            )
        if isinstance(calibration, str):
            raise CalibrationError(
                "recalibrate needs new inputs, and no text: pass inputs that the network has not seen."
            )
        warn_of_training_mode(self.net)
        fitted, shared = copy.copy(self), {id(net): net for part in self.score_.scores for net in part.networks()}
        fitted.autocast_ = autocast_type(self.reader_.device)
        fitted.reader_, fitted.score_ = copy.copy(self.reader_), copy.deepcopy(self.score_, shared)
        labeled, inputs = Labeled(), []
        with outside_inference():
            readings = fitted._held_out(calibration, labeled)
            if self.smoothing_ is not None:
                readings = _keeping(readings, inputs)
            fitted._calibrate_on(*held_out_columns(fitted.score_, readings), labeled, inputs)
        fitted.promised_ = True
        self.__dict__ = vars(fitted)
        return self

    def _fit(self, train: Any, calibration: Any) -> None:
        spare = isinstance(calibration, str)
        self.autocast_ = autocast_type(self.reader_.device)
        first = train[0] if isinstance(train, list) and train else train  # a list of batches
        self._set_names(names_of(first[0] if isinstance(first, tuple) and first else first))
        fitted = gather(
            self.reader_, self._batches(train, "the training data"), self._score_of, self.task,
            size=self.reservoir, seed=self.seed, spare=0.2 if spare else 0.0, keep_inputs=self.smoothing_ is not None,
        )  # fmt: skip
        self._set(fitted)
        fitted.score.fit(fitted.gathered)
        self.examples_ = Examples.of(fitted.gathered)
        labeled, inputs = Labeled(), []
        readings = iter(fitted.spare) if spare else self._held_out(calibration, labeled)
        if self.smoothing_ is not None:
            readings = _keeping(readings, inputs)
        columns, classes = held_out_columns(self.score_, readings)
        self.promised_ = not spare
        self._calibrate_on(columns, classes, labeled, inputs)

    def _batches(self, data: Any, what: str) -> Iterator[tuple[Any, Tensor | None]]:
        """Batches of data in all their forms, with their labels."""
        if isinstance(data, (tuple, list)) and len(data) == 2:
            data = rebuilt(data, [self._in_order(data[0]), data[1]])
        found = batches(self._in_order(data), self.batch_size, what, self.reader_.dtype, self.net)
        return ((self._in_order(inputs), labels) for inputs, labels in found)

    def _set_names(self, names: Sequence[str] | None) -> None:
        vars(self).pop("feature_names_in_", None)
        if names is not None:
            self.feature_names_in_ = np.asarray(names, dtype=object)

    def _in_order(self, X: Any) -> Any:
        """The matrix of a data frame, with the columns of ``fit`` in their order; other data as they are."""
        if not hasattr(X, "__len__") and is_frame(X):  # a frame that was not computed yet
            X = as_table(X)
        if names_of(X) is None:
            return X
        return plain_tensor(in_order(getattr(self, "feature_names_in_", None), X), self.reader_.dtype)

    def _held_out(self, calibration: Any, labeled: Labeled) -> Iterator[Reading]:
        """Readings of the calibration data; logits and labels are kept for :meth:`selective`."""
        first = 0
        for inputs, labels in self._batches(calibration, "the calibration data"):
            count = length(inputs)
            if count:
                reading = self._read(inputs, first=first)
                labeled.add(reading.logits, self._held_out_labels(labels, count))
                yield reading
            first += count

    def _held_out_labels(self, labels: Tensor | None, count: int) -> Tensor | None:
        known = class_labels(labels)
        if labels is not None and self.classes_ > 1 and (known is None or len(known) != count):
            raise InputError(
                f"the calibration data have labels of type {str(labels.dtype).removeprefix('torch.')} and shape {tuple(labels.shape)} for "
                f"{count} inputs: labels must be integers of the shape (n,); give the inputs alone if these are no classes, and several "
                "inputs as ((a, b), labels) or ((a, b),)."
            )
        return known

    def _score_of(self, classifies: bool) -> Combined:
        return make_score(self.score, classifies, self.reader_.head is not None, bool(self.reader_.layers))

    def _set(self, fitted: FittedNetwork) -> None:
        self.score_, self.classes_ = fitted.score, fitted.classes
        self.digest_ = digest(self.net) if isinstance(self.net, nn.Module) else ""
        self.training_rows_: int | None = fitted.gathered.reservoir.seen

    def _needed(self) -> int:
        return rows_needed(self.alpha, self.guarantee, self.delta)

    def _calibrate_on(self, columns: Tensor, classes: Tensor, labeled: Labeled, inputs: list[Tensor]) -> None:
        """Set the common scale on a part of the held-out rows, and calibrate on the others."""
        needed = self._needed()
        order = torch.randperm(len(columns), generator=torch.Generator().manual_seed(self.seed))
        count = 0
        if self.score_.needs_reference:
            wanted = max(SMALLEST_REFERENCE, round(_REFERENCE * len(columns)))
            count = min(wanted, _MOST_REFERENCE, len(columns) - needed)
            if count < SMALLEST_REFERENCE:
                raise CalibrationError(
                    f"alpha={self.alpha:g} with the {self.guarantee!r} guarantee needs {needed} calibration rows and "
                    f"{SMALLEST_REFERENCE} more for the scale of the combined score: give at least {needed + SMALLEST_REFERENCE} held-out "
                    f"rows, or a larger alpha; there are {len(columns)}."
                )
            self.score_.set_scale(columns[order[:count]])
        else:
            self._check_single(columns[:, 0])
        if self.smoothing_ is None:
            scores = self.score_.combine(columns[order[count:]])
        else:
            scores = smoothed_scores(self, self.smoothing_, torch.cat(inputs)[order[count:]])
        self._labeled = labeled.rows(order[count:])
        self._calibrate(scores, classes[order[count:]])

    def _check_single(self, values: Tensor) -> None:
        """Refuse a statistic that is infinite, or NaN, on so many held-out rows that no input could raise an alarm; warn of fewer."""
        count, name = int((torch.isnan(values) | (values == torch.inf)).sum()), self.score_.names[0]
        if count >= self.alpha * len(values):
            raise InputError(
                f"{name} is NaN or infinite on {count} of {len(values)} held-out rows, so no input could raise an alarm at alpha={self.alpha:g}: use another "
                "score, or check the weights of the network."
            )
        if count:
            warn_caller(
                f"{name} is NaN or infinite on {count} of {len(values)} held-out rows; such rows count as the most anomalous, so fewer others raise an alarm."
            )

    def _calibrate(self, scores: Tensor, classes: Tensor) -> Self:
        self._calibration = (scores, classes)
        groups: list[int | None] = list(range(self.classes_)) if self.per_class else [None]
        if self.per_class and self.classes_ < 2:
            raise ConfigError("per_class=True needs a network that classifies.")
        self.calibrators_, self.levels_ = {}, {}
        for group in groups:
            own = scores if group is None else scores[classes == group]
            try:
                if len(own) == 0:
                    raise CalibrationError(f"it needs {self._needed()} calibration rows and there are none.")
                self.calibrators_[group] = ConformalCalibrator(own.numpy())
                self.levels_[group] = self.calibrators_[group].threshold(self.alpha, self.guarantee, self.delta)
                self._check_infinite(self.calibrators_[group].scores, self.levels_[group])
            except CalibrationError as error:
                where = "" if group is None else f"among the rows that are predicted as class {group}: "
                raise CalibrationError(f"{where}{error}") from None
        return self

    def _check_infinite(self, scores: np.ndarray, level: float) -> None:
        """Refuse so many infinite calibration scores that an input with one would have a p-value above the level, and raise no alarm."""
        infinite = int(np.isposinf(scores).sum())
        if infinite >= round(level * (len(scores) + 1)):
            raise CalibrationError(
                f"{infinite} of {len(scores)} calibration scores are infinite, so no input could raise an alarm at alpha={self.alpha:g} with the "
                f"{self.guarantee!r} guarantee: use another score, check the weights of the network, or give more calibration rows."
            )

    # -- answers --------------------------------------------------------------------------------------------------------

    def __call__(self, x: Any) -> GuardOutput:
        """The network's prediction for a batch, with p-values, alarms and reasons.

        Args:
            x: what the network takes, without labels: a tensor, a tuple of positional inputs, or a dictionary of keyword arguments. So
                ``guard((a, b))`` has two inputs, where :meth:`p_value` and the other methods of data would take b for labels. A row for
                which the network returns NaN or infinity raises an alarm.
        """
        reading = self._read(x, finite=False)
        columns = self._columns(reading)
        if self.smoothing_ is None:
            scores = self.score_.combine(columns)
        else:
            scores = smoothed_scores(self, self.smoothing_, reading.inputs)
        p, alarm = self._decide(scores, reading)
        prediction = reading.logits.argmax(1) if self.classes_ > 1 and reading.logits is not None else reading.output
        logits = reading.logits.detach().cpu() if self.classes_ > 1 and reading.logits is not None else None
        return GuardOutput(
            prediction, p, alarm, scores, reading.output, lambda: self._reasons(reading, columns, alarm), logits
        )

    def anomaly_score(self, data: Any) -> np.ndarray:
        """Anomaly scores of all rows of a loader, a data set or an array, float64 ``(n,)``; higher is more anomalous.

        Data have the forms of :meth:`fit`; labels are ignored.
        """
        return self._stream(data)[0]

    def p_value(self, data: Any) -> np.ndarray:
        """Conformal p-values of all rows of a loader, a data set or an array, ``(n,)``.

        Data have the forms of :meth:`fit`; labels are ignored.
        """
        return self._stream(data)[1]

    def select(self, data: Any, fdr: float = 0.1) -> np.ndarray:
        """Rows that are anomalous, such that at most a fraction ``fdr`` of them is normal on average (Benjamini-Hochberg).

        Data have the forms of :meth:`fit`; labels are ignored.

        Returns:
            Boolean mask, ``(n,)``.

        Warns:
            PushforwardWarning: for a guard with ``calibration="train"``, which does not bound this fraction.
        """
        self._require_fitted()
        self._warn_without_promise("the fraction of normal rows among the selected ones may be above fdr")
        return benjamini_hochberg(self.p_value(data), fdr)

    def evaluate(self, data: Any, y: Any = None, *, anomaly: Any = None) -> Evaluation:
        """How well scores and alarms fit the anomalies that a user knows, with the uncertainty of few inputs.

        AUROC and AUPR of the score have bootstrap intervals, the share of anomalies caught and the realized rate of false alarms
        exact ones. See :meth:`Guard.evaluate <pushforward.Guard.evaluate>`.

        Args:
            data: inputs that neither the network nor the guard has seen, in any form that :meth:`fit` takes.
            y: one label for each input that says whether it is an anomaly; None where the batches of ``data`` have these labels.
            anomaly: the label of anomalies. None for True, for 1 among 0 and 1, and for -1 among -1 and 1.

        Raises:
            InputError: for inputs that do not fit the network, or labels that do not fit them.
        """
        self._require_fitted()
        return evaluate_network(self, data, y, anomaly)

    def selective(
        self,
        calibration: Any = None,
        *,
        coverage: float = 0.9,
        risk: float | None = None,
        delta: float = 0.05,
        **options: Any,
    ) -> ClassifierCalibration:
        """Abstention and prediction sets for the answers that raise no alarm, from held-out rows with labels.

        Among inputs that raise no alarm, sets contain the label with probability at least ``coverage``; and of the answers that
        ``guard(x).accept(calibration)`` accepts (no alarm, and uncertainty below a threshold) at most a fraction ``risk`` is wrong, with
        probability ``1 - delta`` over the rows. Both are for inputs like the held-out rows; what is unlike them is left to the alarm.

        The rows that calibrated the guard may calibrate this too. Given the score at which the alarm begins, which is one of their
        scores, the rows below it are independent draws of a row below it, and only they are used; the rows that set the scale of a combined
        score are left out. So each promise is exact by itself, and that of a "pac" guard and that of the risk hold
        together with probability at least 1 minus the sum of their deltas.

        Args:
            calibration: other rows, in the forms of :meth:`fit`, with labels, that neither the network nor the guard has seen; None for
                those that calibrated the guard, whose labels :meth:`fit` was given.
            coverage: promised coverage of the sets.
            risk: promised error rate among the accepted answers; None for sets alone.
            delta: probability that the promised risk fails.
            **options: of :meth:`ClassifierCalibration.fit <pushforward.detection.selective.ClassifierCalibration.fit>`, such as
                ``method="lac"``, without ``scores``.

        Raises:
            CalibrationError: for too few rows, or without ``calibration`` if the guard has no rows of its own for this: loaded from a file,
                calibrated without labels, with ``per_class``, or with ``calibration="train"``.
            ConfigError: for a network that does not classify, or impossible options.
            InputError: for rows without labels, or labels out of range.

        Example:
            >>> import torch, pushforward as pf
            >>> _ = torch.manual_seed(0)
            >>> y = torch.randint(0, 3, (1600,))
            >>> x = 3.0 * torch.eye(4)[y] + torch.randn(1600, 4)
            >>> net = torch.nn.Linear(4, 3).eval()
            >>> net.weight.data, net.bias.data = 3 * torch.eye(3, 4), torch.zeros(3)
            >>> guard = pf.NetworkGuard(net, alpha=0.05).fit((x[:400], y[:400]), calibration=(x[400:1400], y[400:1400]))
            >>> calibration, out = guard.selective(coverage=0.9, risk=0.05), guard(x[1400:])
            >>> accepted = out.accept(calibration)
            >>> bool((out.prediction != y[1400:])[accepted].float().mean() <= 0.05), bool((accepted & out.alarm).any())
            (True, False)
        """
        self._require_fitted()
        return selective_answers(self, calibration, {"coverage": coverage, "risk": risk, "delta": delta, **options})

    def monitor(self, alpha: float = 0.01, *, betting: str = "mixture", seed: int = 0) -> Monitor:
        """A monitor of a stream, which detects drift: ``monitor.update(guard(x).score)`` in the order of time.

        On a stream like the held-out rows, the probability that ``monitor.alarm`` is ever raised is at most ``alpha``.

        Raises:
            ConfigError: for a guard with ``per_class``, whose scores are ranked within classes.

        Warns:
            PushforwardWarning: for a guard with ``calibration="train"``, which does not bound this probability.
        """
        self._require_fitted()
        if self.per_class:
            raise ConfigError("a monitor ranks all scores together: fit a guard with per_class=False for it.")
        self._warn_without_promise("a monitor may raise an alarm on normal rows with a probability above alpha")
        return Monitor(self.calibrators_[None].scores, alpha, betting=betting, seed=seed)

    def certify(
        self, x: Any, radius: float, *, confidence: float = 0.99, draws: int = 10_000, attempts: int = 10**6
    ) -> Certificate:
        """Bound the p-value of each input for every change of an L2 norm of at most ``radius``, whatever the attack.

        For each input, with probability at least ``confidence`` over the noise: at each of the inputs within the radius that an
        attacker evaluates, if these are at most ``attempts``, the p-value is at most the bound. The attacker may know the network, the
        guard, and its noise. The prediction itself is not certified. The proof is in :mod:`pushforward.detection.smoothing`.

        Args:
            x: a batch.
            radius: largest L2 norm of a change, in the units of the input.
            confidence: probability of the statement, for each input.
            draws: noise draws for each input; more make bounds sharper, and larger radii possible.
            attempts: number of inputs that the attacker may evaluate.

        Raises:
            ConfigError: unless the guard was built with ``smoothing``, or for a number out of range.
            InputError: for NaN or infinity.

        Example:
            >>> import torch, pushforward as pf
            >>> _ = torch.manual_seed(0)
            >>> x, y = torch.randn(600, 4), torch.randint(0, 3, (600,))
            >>> net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()
            >>> guard = pf.NetworkGuard(net, alpha=0.05, score="Mahalanobis", smoothing={"sigma": 0.5, "draws": 64})
            >>> guard = guard.fit((x[:300], y[:300]), calibration=x[300:])
            >>> guard.certify(torch.tensor([[0.0, 0.0, 0.0, 0.0], [50.0, 50.0, -50.0, 50.0]]), radius=0.5, draws=1000).alarm
            array([False,  True])
        """
        smoothing, rows, base = self._smoothed(x)
        options: dict[str, Any] = {"confidence": confidence, "draws": draws, "attempts": attempts}
        lower = smoothing.lower_bound(base, rows, radius, **options)
        return certify_scores(lower, self.calibrators_[None], self.levels_[None], radius, confidence, attempts)

    def certified_radius(
        self, x: Any, *, confidence: float = 0.99, draws: int = 10_000, attempts: int = 10**6
    ) -> np.ndarray:
        """The largest radius within which the alarm of each input is certified, ``(n,)``; NaN for inputs without one.

        Args:
            x: a batch.
            confidence: see :meth:`certify`.
            draws: see :meth:`certify`.
            attempts: see :meth:`certify`.

        Raises:
            ConfigError: unless the guard was built with ``smoothing``, or for a number out of range.
            InputError: for NaN or infinity.
        """
        smoothing, rows, base = self._smoothed(x)
        threshold = self.calibrators_[None].score_threshold(self.alpha, self.guarantee, self.delta)
        return smoothing.certified_radius(base, rows, threshold, confidence=confidence, draws=draws, attempts=attempts)

    def _smoothed(self, x: Any) -> tuple[Smoothing, np.ndarray, NoisyNetwork]:
        self._require_fitted()
        if self.smoothing_ is None:
            raise ConfigError(
                "certificates need a guard with smoothing: fit NetworkGuard(net, smoothing=0.25), for example."
            )
        inputs = real_inputs(plain_tensor(self._in_order(x), self.reader_.dtype))
        if len(inputs):
            self._read(inputs, finite=False)  # inputs that do not fit are refused also where there are too few draws
        return self.smoothing_, rows_of(inputs), NoisyNetwork(self, inputs)

    def explain(self, x: Any, *, neighbors: int = 3, gradient: bool = False) -> NetworkExplanation:
        """Why inputs are unusual: the surprise of every statistic, the nearest training rows, and where in the input.

        Args:
            x: a batch, as the network takes it.
            neighbors: number of training rows to name.
            gradient: whether to compute the absolute gradient of the score by the input. It is inf where it is too large for the
                input's type, 0 for an input for which the network returns NaN or infinity, and never NaN.

        Raises:
            ConfigError: for a gradient by an input that is not of floating-point numbers, or a number of neighbors below 1.
        """
        neighbors = check_integer("neighbors", neighbors)
        reading = self._read(x, finite=False)
        columns = self._columns(reading)
        where = input_gradient(self.reader_, self.score_, reading.inputs) if gradient else None
        return NetworkExplanation(
            self.score_.names,
            self._surprise(columns, reading).numpy(),
            *self.examples_.nearest(reading.features, neighbors),
            where,
        )

    def report(
        self,
        data: Any,
        *,
        title: str | None = None,
        name: str = "",
        alarms: int = 20,
        show_rows: bool = False,
        values: bool = True,
        selective: ClassifierCalibration | None = None,
    ) -> Report:
        """What this guard says of inputs: how the promise is kept, alarms with reasons and pictures, classes, checks.

        Of inputs with labels it also says how often the prediction is correct, with and without an alarm. A notebook shows the
        report. ``report.save("report.html")`` writes one page of less than 2 MB, which opens offline, and
        ``report.save("report.json")`` the same numbers. Memory does not grow with the number of inputs.

        Args:
            data: a loader, a data set, an array, or a pair (inputs, labels), as for :meth:`fit`.
            title: of the page.
            name: what the inputs are called.
            alarms: number of alarms that are shown, those with the highest scores.
            show_rows: whether to show whole rows of these alarms, where the inputs are vectors.
            values: whether to show pictures of images.
            selective: abstention and prediction sets of this network, such as those of :meth:`selective`, for their share, sizes and
                realized errors; it must accept by its own :meth:`~pushforward.detection.selective.ClassifierCalibration.uncertainty`.

        Raises:
            ConfigError: for a calibration that was fitted with ``scores``.
            InputError: for no inputs, or a calibration of another number of classes.
        """
        from pushforward.estimators.network_reporting import network_report
        from pushforward.estimators.reported_rows import ReportOptions

        self._require_fitted()
        if selective is not None and selective.by_scores:
            raise ConfigError(
                "this calibration was fitted with scores=, which a report does not have: fit it without scores."
            )
        options = ReportOptions(title=title, name=name, alarms=alarms, show_rows=show_rows, values=values)
        return network_report(self, self._batches(data, "the data"), options, selective)

    def __repr__(self) -> str:
        net = type(self.net).__name__
        if "calibrators_" not in vars(self):
            return f"NetworkGuard({net}, alpha={self.alpha:g}, not fitted)"
        rows = sum(c.n for c in self.calibrators_.values())
        promise = f"{self.guarantee}, {rows} calibration rows" if self.promised_ else "no promise"
        return f"NetworkGuard({net}, alpha={self.alpha:g}, {promise}, statistics: {', '.join(self.score_.names)})"

    def _repr_html_(self) -> str:
        """What is promised for which inputs, for a notebook."""
        if "calibrators_" not in vars(self):
            return card("NetworkGuard, not fitted", [("alpha", self.alpha), ("network", type(self.net).__name__)])
        rows = sum(c.n for c in self.calibrators_.values())
        group = "of each predicted class " if self.per_class else ""
        promise = f"at most {self.alpha:.3g} of the inputs {group}that are like the held-out rows raise an alarm"
        if self.guarantee == "pac":
            promise += f", with probability {1 - self.delta:.12g}"
        facts = [
            ("network", type(self.net).__name__),
            ("promise", promise if self.promised_ else "none: training rows calibrated this guard"),
            ("calibration rows", rows),
            ("classes", self.classes_ if self.classes_ > 1 else None),
            ("statistics", ", ".join(self.score_.names)),
        ]
        return card("NetworkGuard", facts)

    def _warn_without_promise(self, what: str) -> None:
        if not self.promised_:
            warn_caller(
                f"training rows calibrated this guard, and the network has learned them, so {what}: fit it with calibration=held_out rows."
            )

    def _require_fitted(self) -> None:
        self._require_score("calibrators_")

    def _require_score(self, attribute: str = "score_") -> None:
        if attribute not in vars(self):
            raise NotFittedError(
                "this NetworkGuard is not fitted yet: call fit(train, calibration=held_out) first, or NetworkGuard.load(path, net)."
            )

    def _read(self, inputs: Any, *, first: int = 0, finite: bool = True) -> Reading:
        self._require_score()
        self._warn_of_autocast()
        reading = read_for(self.reader_, self.score_, self._in_order(inputs), self.classes_ > 1)
        if self.classes_ > 1:
            found = 0 if reading.logits is None else reading.logits.shape[1]
            if found != self.classes_:
                raise InputError(
                    f"the guard was fitted on {self.classes_} logits of each input, and the network, or read=, gave {found} "
                    "here: return the same logits in each call."
                )
        if finite:
            check_finite(reading, "the calibration data", first)
        return reading

    def _warn_of_autocast(self) -> None:
        now = autocast_type(self.reader_.device)
        if self.autocast_ not in (None, now):
            before, here = (
                f"with torch.autocast of {name}" if name else "without torch.autocast" for name in (self.autocast_, now)
            )
            warn_caller(
                f"the guard was fitted and calibrated {before}, and is called {here}, where the network's features differ, so more or fewer "
                "inputs than promised raise alarms: fit and call it in the same torch.autocast, or both outside of it."
            )

    def _columns(self, reading: Reading) -> Tensor:
        self._require_fitted()
        return self._statistics(reading)

    def _statistics(self, reading: Reading) -> Tensor:
        with torch.no_grad():
            return self.score_.columns(reading)

    def _surprise(self, columns: Tensor, reading: Reading) -> Tensor:
        if self.score_.needs_reference:
            return self.score_.surprise(columns)
        return -self._decide(columns[:, 0], reading)[0].log()[:, None]

    def _decide(self, scores: Tensor, reading: Reading) -> tuple[Tensor, Tensor]:
        values = scores.numpy()
        if not self.per_class:
            p = torch.from_numpy(self.calibrators_[None].p_value(values))
            return p, p <= self.levels_[None]
        if reading.logits is None:
            raise InputError("the network gave no logits, and per_class=True needs them: fit with per_class=False.")
        p, level = torch.ones(len(scores), dtype=torch.float64), torch.zeros(len(scores), dtype=torch.float64)
        predicted = torch.nan_to_num(reading.logits).argmax(1)
        for group in predicted.unique().tolist():
            own = predicted == group
            p[own] = torch.from_numpy(self.calibrators_[group].p_value(values[own.numpy()]))
            level[own] = self.levels_[group]
        return p, p <= level

    def _stream(self, data: Any) -> tuple[np.ndarray, np.ndarray]:
        self._require_fitted()
        scores, p_values = [], []
        for inputs, _ in self._batches(data, "the data"):
            out = self(inputs)  # what it knows of the inputs is not kept
            scores.append(out.score)
            p_values.append(out.p_value)
        return torch.cat(scores).numpy(), torch.cat(p_values).numpy()

    def _reasons(self, reading: Reading, columns: Tensor, alarm: Tensor) -> tuple[str, ...]:
        return self.examples_.reasons(reading, self._surprise(columns, reading), self.score_.names, alarm)

    def as_module(self) -> GuardedNetwork:
        """The network and the guard as one module for ``torch.export.export``: inputs to (output, p-values, alarms).

        Raises:
            ConfigError: for a score that runs the network again, reads maps, or is not of this library, and for ``read=``.

        Example:
            >>> import torch, pushforward as pf
            >>> x, y = torch.randn(600, 4), torch.randint(0, 3, (600,))
            >>> net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()
            >>> guard = pf.NetworkGuard(net, alpha=0.05).fit((x[:300], y[:300]), calibration=x[300:])
            >>> program = torch.export.export(guard.as_module(), (x[:8],), dynamic_shapes=(({0: torch.export.Dim.AUTO},),))
            >>> logits, p, alarm = program.module()(x[:5])
            >>> torch.allclose(p, guard(x[:5]).p_value)
            True
        """
        self._require_fitted()
        if self.read is not None or not isinstance(self.net, nn.Module):
            raise ConfigError("a guard with read= cannot be exported: fit one that reads the module by hooks.")
        self._require_no_smoothing()
        self._warn_of_autocast()
        calibration = {group: torch.from_numpy(c.scores.copy()) for group, c in self.calibrators_.items()}
        return GuardedNetwork(self.reader_, self.score_, self.classes_, calibration, self.levels_)

    def export(self, path: str | os.PathLike[str], example: Any, *, inputs: Sequence[str] | None = None) -> None:
        """Write the network and the guard as one graph: prediction, p-value and alarm of any number of rows.

        The outputs are those of the network (``output``, or the names of a dictionary), then ``p_value`` (float64), ``alarm``
        (bool) and ``anomaly_score`` (float64), each ``(rows,)``.

        Args:
            path: the file: ``name.onnx`` for ONNX Runtime in any language (extra ``export``), or ``name.pt2`` for PyTorch
                without this library.
            example: a batch of the network's inputs: a tensor, or a tuple of positional ones. All sizes but the number of rows
                are those of the example.
            inputs: names of the inputs; by default those of the parameters of ``net.forward``. One that has the name of an output is called
                ``input.NAME`` in ONNX.

        Raises:
            ConfigError: for a score that runs the network again, reads maps, or is not of this library, for ``read=``, for a network that
                torch.export cannot trace, for another ending of the name, or without the extra ``export`` for ONNX.
            StorageError: if the file cannot be written.

        Warns:
            PushforwardWarning: if the weights of the network have changed since ``fit``, because the calibration does not hold for the new ones.
        """
        self._require_fitted()
        self._require_no_smoothing()
        self._warn_of_autocast()
        if self._weights_changed():
            warn_caller(
                "the weights of the network have changed since the guard was fitted, and the graph has the new ones, for which the "
                "calibration does not hold: fit the guard again, or export it with the weights of that time."
            )
        export_network_guard(self, path, example, None if inputs is None else tuple(inputs))

    def _weights_changed(self) -> bool:
        return isinstance(self.net, nn.Module) and not same_weights(self.net, self.digest_)

    def _require_no_smoothing(self) -> None:
        if self.smoothing_ is not None:
            raise ConfigError(
                "a guard with smoothing cannot be exported, because its noise is a cryptographic hash of each input, which other "
                "runtimes do not have: fit it without smoothing."
            )

    # -- storage --------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the guard, without the network, to one safetensors file without pickle.

        Raises:
            ConfigError: for a score that a file cannot store, such as a detector of another library.

        Warns:
            PushforwardWarning: if the weights of the network have changed since ``fit``, because :meth:`load` then takes the
                weights of that time only.
        """
        self._require_fitted()
        if self._weights_changed():
            warn_caller(
                "the weights of the network have changed since the guard was fitted: load will refuse the network with its new weights. Fit "
                "the guard again, or load it with the weights of that time."
            )
        write_network_guard(self, path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        net: nn.Module | Callable[..., Any],
        *,
        read: Callable[[Any], Reading] | None = None,
        members: Sequence[nn.Module] = (),
        public_key: Any = None,
    ) -> NetworkGuard:
        """Read a guard for its network; a file that was changed on purpose can make this fail and do nothing else.

        Args:
            path: the file.
            net: the network that was guarded, with the same weights.
            read: as of the constructor, if it was used.
            members: the other networks of a :class:`~pushforward.detection.network.DeepEnsemble`, with the same weights, in any order.
            public_key: file of the key with which the file must be signed (:func:`~pushforward.io.sign`); None accepts any.

        Raises:
            SignatureError: if a key is given, and the file is not signed with it.
            StorageError: if the file is damaged, was not written by pushforward, or belongs to another network or other members.
            ConfigError: if the guard needs ``read`` or ``members``, or another number of them.
        """
        if isinstance(path, nn.Module):
            raise ConfigError("the file comes first: NetworkGuard.load(path, net).")
        with outside_inference():
            return read_network_guard(cls, path, net, read, members, public_key)


def _keeping(readings: Iterator[Reading], inputs: list[Tensor]) -> Iterator[Reading]:
    """The same readings; their inputs are kept, since each is scored under noise once the scale of the score is set."""
    for reading in readings:
        inputs.append(real_inputs(reading.inputs))
        yield reading
