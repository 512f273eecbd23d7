"""`ShiftedGuard`: a guard whose promise is for rows with another distribution of inputs than its calibration rows."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pushforward import io
from pushforward.data import split_indices
from pushforward.detection.conformal.guarantees import rows_needed
from pushforward.detection.conformal.likelihood_ratio import ClassifierRatio
from pushforward.detection.conformal.weighted import WeightedCalibrator
from pushforward.detection.validation import ROUNDING
from pushforward.errors import ConfigError, InputError, StorageError, in_words, warn_caller
from pushforward.estimators.guard import Guard
from pushforward.estimators.guard_file import check_writable, guard_contents, guard_from
from pushforward.estimators.guard_inputs import listed
from pushforward.estimators.validation import require_fitted
from pushforward.numerics.checks import check_seed
from pushforward.registry import UnregisteredError

__all__ = ["ShiftedGuard"]

_FEWEST, _MOST = 10, 50
"""Fewest rows of a category that is an indicator, and most indicators of a column; the rest of the categories count as one."""

Weights = ArrayLike | Callable[[Any], ArrayLike]
"""Likelihood ratios of rows: one number for each, or a function of the rows that gives them."""


class ShiftedGuard:
    """A guard for inputs whose distribution is known to have shifted, by weighted conformal p-values.

    Normal rows were drawn from P, and are now drawn from Q, for example because one site sends twice as many of them as
    before, while a normal row is still the same kind of row. Where w(x) = dQ/dP(x) is known, P(p <= a) <= a for normal rows
    from Q (:class:`~pushforward.detection.WeightedCalibrator`). Where it is not, rows of Q without labels estimate it
    (:class:`~pushforward.detection.ClassifierRatio`), and the promise is approximate. If new normal rows of Q are at hand,
    ``guard.recalibrate`` is simpler and exact.

    Args:
        guard: a fitted guard, which is not changed, and whose later changes do not matter. Its own calibration rows are not used: it keeps their scores, not the rows.
        X: normal rows of P that the guard has not seen.
        weights: the ratio w of each row of X, up to a constant factor: an array ``(rows,)``, or a function of rows.
        shifted: rows of Q, normal or nearly all of them, to estimate w from. Half of X is then used for the estimate and
            half to calibrate.
        ratio: the estimator, for ``shifted``.
        seed: of the split of X, any integer.

    Attributes:
        calibrator_: the weighted calibration scores; ``calibrator_.effective_rows`` says what the shift costs.
        exact: whether the weights were given, so that the promise is exact.
        promise: what the promise refers to, as a sentence.

    Raises:
        ConfigError: unless exactly one of ``weights`` and ``shifted`` is given, or for another type of ``guard``, ``ratio`` or ``seed``.
        InputError: for weights that are negative, or not one for each row.

    Warns:
        PushforwardWarning: if the calibration rows are too few, by their ``effective_rows``, for a row of mean weight to raise an alarm.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> rng = np.random.default_rng(0)
        >>> guard = pf.Guard(alpha=0.1, n_estimators=1, max_steps=50, random_state=0).fit(rng.normal(size=(500, 2)))
        >>> x = rng.normal(size=(500, 2))
        >>> shifted = pf.estimators.ShiftedGuard(guard, x, lambda x: np.exp(x[:, 0]))  # the mean of column 0 is now 1
        >>> shifted.predict(np.array([[1.0, 0.0], [1.0, 9.0]]))
        array([ 1, -1])
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "shifted.safetensors")
        >>> shifted.save(path)
        >>> pf.estimators.ShiftedGuard.load(path, weights=lambda x: np.exp(x[:, 0])).predict(np.array([[1.0, 9.0]]))
        array([-1])
    """

    def __init__(
        self,
        guard: Guard,
        X: Any,
        weights: Weights | None = None,
        *,
        shifted: Any = None,
        ratio: ClassifierRatio | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(guard, Guard):
            raise ConfigError(f"guard must be a fitted pushforward.Guard; got {type(guard).__name__}.")
        require_fitted(guard)
        guard = copy.copy(guard)  # its score must stay that of the calibration scores if it is updated or fitted again
        if (weights is None) == (shifted is None):
            raise ConfigError("give either weights, the likelihood ratios, or shifted, rows to estimate them from.")
        if ratio is not None and not isinstance(ratio, ClassifierRatio):
            raise ConfigError(f"ratio must be a ClassifierRatio or None; got {type(ratio).__name__}.")
        seed = check_seed(seed)
        X = listed(guard, X)
        self.guard, self.exact = guard, weights is not None
        self._weights: Callable[[Any], ArrayLike] | None = None
        if weights is None:
            before, after = _encoded(guard, X), _encoded(guard, shifted)
            self._indicators = _indicators(guard, np.concatenate((before, after)))
            matrix = _matrix(before, self._indicators)
            fitted, kept = split_indices(len(matrix), (len(matrix) // 2, len(matrix) - len(matrix) // 2), seed=seed)
            self.ratio_ = (ratio or ClassifierRatio()).fit(matrix[fitted], _matrix(after, self._indicators))
            self._weights = self._estimate
            scores, found = guard.anomaly_score(X)[kept], self.ratio_(matrix[kept])
        else:
            self._weights = weights if callable(weights) else None
            scores, found = guard.anomaly_score(X), weights(X) if callable(weights) else weights
        self.calibrator_ = WeightedCalibrator(scores, found)
        smallest = 1 / (1 + self.calibrator_.effective_rows)  # of a row whose weight is the mean one of the rows of Q
        if smallest > guard.alpha * ROUNDING:
            warn_caller(
                f"{self.calibrator_.n} calibration rows count as {self.calibrator_.effective_rows:.3g}, and alpha={guard.alpha:g} needs "
                f"{rows_needed(guard.alpha)}: new rows of mean weight can raise no alarm, which keeps the promise. Give more rows, or a guard with a larger alpha."
            )

    def __repr__(self) -> str:
        return f"ShiftedGuard({self.calibrator_!r}, {'exact' if self.exact else 'estimated'} weights)"

    def _estimate(self, rows: Any) -> NDArray[np.float64]:
        return self.ratio_(_matrix(_encoded(self.guard, rows), self._indicators))

    @property
    def promise(self) -> str:
        """What the promise refers to, as a sentence."""
        kind = (
            "with the given likelihood ratios"
            if self.exact
            else "with estimated likelihood ratios, so it is approximate"
        )
        return (
            f"at most {100 * self.guard.alpha:.3g}% false alarms on average, on normal rows of the shifted distribution, {kind}; "
            f"{self.calibrator_.n} calibration rows count as {self.calibrator_.effective_rows:.0f}."
        )

    def p_value(self, X: Any, weights: ArrayLike | None = None) -> NDArray[np.float64]:
        """Weighted conformal p-value of each row, ``(rows,)``: P(p <= a) <= a for normal rows of the shifted distribution.

        Args:
            X: rows, as for :class:`~pushforward.Guard`.
            weights: their likelihood ratios; needed if there is no function of them, and not allowed if the guard estimates them, because
                its estimates have another constant factor.

        Raises:
            ConfigError: if the weights are needed and absent, or given to a guard that estimates them.
            InputError: as for :class:`~pushforward.Guard`.
        """
        if weights is not None and not self.exact:
            raise ConfigError("this guard estimates its weights: pass none.")
        X = listed(self.guard, X)
        if weights is None:
            if self._weights is None:
                raise ConfigError("this guard has no function of the weights: give the weights of these rows too.")
            weights = self._weights(X)
        return self.calibrator_.p_value(self.guard.anomaly_score(X), weights)

    def predict(self, X: Any, weights: ArrayLike | None = None) -> NDArray[np.int64]:
        """+1 for normal rows and -1 for alarms, at the guard's ``alpha``; arguments and errors as :meth:`p_value`."""
        return np.where(self.p_value(X, weights) <= self.guard.alpha * (1 + 1e-12), -1, 1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write this guard with the one that it contains to one safetensors file, without pickle.

        A function of the weights is not written: :meth:`load` takes it again. The network of ``embed`` is not written either.

        Raises:
            ConfigError: for a ratio with a classifier of the caller.
        """
        check_writable(self.guard)
        header, tensors = guard_contents(self.guard)
        tensors = {f"guard.{name}": tensor for name, tensor in tensors.items()}
        tensors["calibration scores"] = torch.from_numpy(self.calibrator_.scores.copy())
        tensors["calibration weights"] = torch.from_numpy(self.calibrator_.weights.copy())
        numbers = None
        if not self.exact:
            packed, more = self.ratio_.pack()
            tensors |= {f"ratio.{name}": tensor for name, tensor in more.items()}
            numbers = {**packed, "indicators": [[column, list(codes)] for column, codes in self._indicators.items()]}
        io.write(path, {"kind": "shifted guard", "guard": header, "exact": self.exact, "ratio": numbers}, tensors)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        weights: Callable[[Any], ArrayLike] | None = None,
        embed: Any = None,
        score: Any = None,
        public_key: Any = None,
    ) -> ShiftedGuard:
        """Read a guard from a file; a file that was changed on purpose can make this fail and do nothing else.

        Args:
            path: the file.
            weights: the function that gave the weights, if there was one. Without it, :meth:`p_value` needs the weights of its
                rows.
            embed: the network of the guard, as for :meth:`Guard.load <pushforward.Guard.load>`.
            score: the score of the guard, as for :meth:`Guard.load <pushforward.Guard.load>`.
            public_key: with which the file must be signed.

        Raises:
            StorageError: if the file is damaged or was not written by pushforward; a SignatureError as for ``Guard.load``.
            ConfigError: for weights that are no function, or of a guard that estimates them, or as for ``Guard.load``.
        """
        if weights is not None and not callable(weights):
            raise ConfigError(
                f"weights must be the function that gave the weights; got {type(weights).__name__}: leave it out, and give weights to p_value."
            )
        header, tensors = io.read(path, kind="shifted guard", public_key=public_key)
        if weights is not None and not header.get("exact"):
            raise ConfigError(f"{os.fspath(path)} has a guard that estimates its weights: pass none.")
        name = os.fspath(path)
        own = {key.removeprefix("guard."): tensors.pop(key) for key in list(tensors) if key.startswith("guard.")}
        try:
            content = header["guard"]
            if not isinstance(content, dict):
                raise StorageError("it has no guard.")
            shifted = cls.__new__(cls)
            shifted.guard = guard_from(Guard, content, own, path, embed, score)
            shifted.exact, shifted._weights = bool(header["exact"]), weights
            if not shifted.exact:
                parts = {key.removeprefix("ratio."): value for key, value in tensors.items()}
                shifted.ratio_ = ClassifierRatio.unpack(header["ratio"], parts)
                pairs = header["ratio"].get("indicators", [])  # none in older files
                shifted._indicators = {int(column): tuple(map(int, codes)) for column, codes in pairs}
                shifted._weights = shifted._estimate
            scores, found = tensors["calibration scores"], tensors["calibration weights"]
            shifted.calibrator_ = WeightedCalibrator(scores.numpy(), found.numpy())
        except (ConfigError, UnregisteredError):
            raise
        except Exception as error:  # the content is not trusted; every failure means the same to the caller
            raise StorageError(f"{name} does not contain a guard that pushforward wrote: {in_words(error)}") from error
        return shifted


def _encoded(guard: Guard, rows: Any) -> NDArray[np.float64]:
    """The rows as numbers; a category is a code, and one that is new is missing."""
    if guard.reads_images:
        raise InputError(
            "weights of images cannot be estimated from pixels: give weights, such as a function of the images."
        )
    encoded = guard.schema_.encode(guard._read(rows), warn=False)[0]
    return np.where(np.isinf(encoded), np.nan, encoded)


def _indicators(guard: Guard, encoded: NDArray[np.float64]) -> dict[int, tuple[int, ...]]:
    """For each column of categories the codes that the classifier sees as columns of 0 and 1: the most frequent ones."""
    found = {}
    for j, column in enumerate(guard.schema_.columns):
        if column.kind == "categorical":
            codes, counts = np.unique(encoded[~np.isnan(encoded[:, j]), j], return_counts=True)
            frequent = counts >= _FEWEST
            order = np.argsort(-counts[frequent], kind="stable")[:_MOST]
            found[j] = tuple(int(code) for code in codes[frequent][order])
    return found


def _matrix(encoded: NDArray[np.float64], indicators: dict[int, tuple[int, ...]]) -> NDArray[np.float64]:
    """What the classifier reads: numbers and flags, then for each column of categories its indicators and one of missing cells."""
    numbers = [j for j in range(encoded.shape[1]) if j not in indicators]
    parts = [encoded[:, numbers]]
    for j, codes in indicators.items():
        parts += [encoded[:, j : j + 1] == np.array(codes, dtype=float), np.isnan(encoded[:, j : j + 1])]
    return np.concatenate(parts, axis=1, dtype=np.float64)
