"""The likelihood ratio of two distributions of inputs, estimated from rows of both by a classifier."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from torch import Tensor

from pushforward.detection.validation import plain_array
from pushforward.errors import ConfigError, InputError, StorageError, in_words
from pushforward.numerics.checks import check_number

__all__ = ["ClassifierRatio"]

_LARGEST = 1e100


class ClassifierRatio:
    """Estimate w(x) = dQ/dP(x) from rows of P and rows of Q: the weights of :class:`WeightedCalibrator`.

    A classifier that says with probability q(x) that a row is from Q gives w(x) = q(x) / (1 - q(x)) * n_P / n_Q (Bickel et al.
    2009; Sugiyama et al. 2012, section 4). The default is a logistic regression on the standardized columns (cut at 3 standard
    deviations), their squares, and flags of missing cells, with a penalty chosen by cross-validation. **A promise that
    uses an estimated ratio is approximate.** Rows that calibrate must not be among the rows that fit the ratio.

    Args:
        classifier: any classifier of scikit-learn with ``predict_proba``; it should be calibrated. None for the default.
        clip: bound on the estimated probability, in (0, 0.5): weights are between clip / (1 - clip) and its inverse, times
            n_P / n_Q, so that one row cannot have all the weight.

    Attributes:
        auroc_: how well held-out rows of P and Q can be told apart (5 folds): 0.5 means no shift that it sees; near 1 means that
            the two hardly overlap and weights cannot help.

    Raises:
        ConfigError: for an impossible ``clip``.

    Example:
        >>> import numpy as np
        >>> from pushforward.detection import ClassifierRatio
        >>> rng = np.random.default_rng(0)
        >>> ratio = ClassifierRatio().fit(rng.normal(size=(4000, 1)), rng.normal(0.5, 1, size=(4000, 1)))
        >>> ratio([[0.25]]).round(1)  # where the two densities cross
        array([1.])
    """

    def __init__(self, classifier: Any = None, *, clip: float = 1e-3) -> None:
        self.classifier, self.clip = classifier, check_number("clip", clip, 0, 0.5)

    def fit(self, reference: ArrayLike, shifted: ArrayLike) -> Self:
        """Fit on rows of P and of Q, ``(n, columns)`` and ``(m, columns)``, NaN where missing.

        Raises:
            InputError: for other shapes, fewer than 10 rows of either, or numbers that are infinite or beyond 1e100.
        """
        from sklearn.base import clone
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import StratifiedKFold, cross_val_predict

        p, q = (
            _matrix(rows, name) for rows, name in ((reference, "the reference rows"), (shifted, "the shifted rows"))
        )
        if p.shape[1] != q.shape[1]:
            raise InputError(f"the reference rows have {p.shape[1]} columns and the shifted rows {q.shape[1]}.")
        x, y = np.concatenate((p, q)), np.repeat((0, 1), (len(p), len(q)))
        model: Any = _default() if self.classifier is None else clone(self.classifier)
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        held_out: Any = cross_val_predict(model, x, y, cv=folds, method="predict_proba")
        self.auroc_ = float(roc_auc_score(y, held_out[:, 1]))
        model.fit(x, y)
        self._odds, self._columns = len(p) / len(q), p.shape[1]
        self._probability = _Logistic.of(model) if self.classifier is None else lambda x: model.predict_proba(x)[:, 1]
        return self

    def __call__(self, x: ArrayLike) -> NDArray[np.float64]:
        """The estimated ratio of each row, ``(n,)``.

        Raises:
            InputError: for another number of columns, or before ``fit``.
        """
        self._require_fitted()
        rows = _matrix(x, "the rows", few=True)
        if rows.shape[1] != self._columns:
            raise InputError(f"the ratio was fitted on {self._columns} columns; got {rows.shape[1]}.")
        probability = self._probability(rows).clip(self.clip, 1 - self.clip)
        return probability / (1 - probability) * self._odds

    def pack(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """What a file stores: numbers and tensors.

        Raises:
            ConfigError: for a classifier of the caller, which no file can store.
            InputError: before ``fit``.
        """
        self._require_fitted()
        if not isinstance(self._probability, _Logistic):
            raise ConfigError(
                f"a file cannot store the classifier {type(self.classifier).__name__}: use the default one, "
                "ClassifierRatio()."
            )
        numbers = {"clip": self.clip, "auroc": self.auroc_, "odds": self._odds}
        return numbers, {name: torch.from_numpy(value.copy()) for name, value in self._probability._asdict().items()}

    @classmethod
    def unpack(cls, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ClassifierRatio:
        """The ratio that :meth:`pack` described, which is not trusted.

        Raises:
            StorageError: if it is none.
        """
        try:
            ratio = cls(clip=numbers["clip"])
            ratio.auroc_, ratio._odds = float(numbers["auroc"]), check_number("odds", numbers["odds"], 0, math.inf)
            ratio._probability = _Logistic(**{name: tensors[name].numpy() for name in _Logistic._fields})
            ratio._probability.check()
            ratio._columns = len(ratio._probability.fill)
        except (KeyError, TypeError, ConfigError) as error:
            raise StorageError(f"it has no likelihood ratio that pushforward wrote: {in_words(error)}") from error
        return ratio

    def _require_fitted(self) -> None:
        if not hasattr(self, "_probability"):
            raise InputError("this ClassifierRatio is not fitted yet: call fit(reference, shifted).")


class _Logistic(NamedTuple):
    """The fitted default classifier: P(row of Q) of rows, as plain arrays.

    Attributes:
        fill: what takes the place of a missing cell of each column.
        flagged: the columns whose missing cells are flags behind the columns.
        mean: of the columns and flags.
        scale: of the columns and flags.
        coefficients: of the standardized columns and flags, and then of their squares.
        intercept: one number.
    """

    fill: NDArray[np.float64]
    flagged: NDArray[np.int64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    intercept: NDArray[np.float64]

    @classmethod
    def of(cls, model: Any) -> _Logistic:
        """The arrays of a fitted pipeline of :func:`_default`."""
        imputer, scaler, _, search = (step for _, step in model.steps)
        last = search.best_estimator_
        return cls(
            np.nan_to_num(np.asarray(imputer.statistics_, dtype=np.float64)),
            np.asarray(imputer.indicator_.features_, dtype=np.int64),
            np.asarray(scaler.mean_, dtype=np.float64),
            np.asarray(scaler.scale_, dtype=np.float64),
            np.asarray(last.coef_[0], dtype=np.float64),
            np.asarray(last.intercept_, dtype=np.float64),
        )

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        missing = np.isnan(x)
        both = np.concatenate((np.where(missing, self.fill, x), missing[:, self.flagged]), axis=1)
        with np.errstate(over="ignore"):  # what overflows is cut too
            standard = _with_squares((both - self.mean) / self.scale)
        return expit((standard * self.coefficients).sum(1) + self.intercept[0])

    def check(self) -> None:
        """Refuse arrays that do not fit each other.

        Raises:
            StorageError: for such arrays.
        """
        width = len(self.fill) + len(self.flagged)
        shapes = [(len(self.fill),), (len(self.flagged),), (width,), (width,), (2 * width,), (1,)]
        kinds = [np.int64 if name == "flagged" else np.float64 for name in self._fields]
        if (
            any(
                array.shape != shape or array.dtype != kind
                for array, shape, kind in zip(self, shapes, kinds, strict=True)
            )
            or not all(np.isfinite(array).all() for array in self)
            or not (self.scale > 0).all()
            or ((self.flagged < 0) | (self.flagged >= len(self.fill))).any()
        ):
            raise StorageError("its likelihood ratio has arrays that do not fit each other.")


def _default() -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    return make_pipeline(
        SimpleImputer(add_indicator=True, keep_empty_features=True),
        StandardScaler(),
        FunctionTransformer(_with_squares),
        # Few rows and many columns need a strong penalty: noise in the weights makes the p-values too large.
        GridSearchCV(LogisticRegression(max_iter=1000), {"C": [1e-4, 1e-3, 1e-2, 0.1, 1.0]}, scoring="neg_log_loss"),
    )


def _with_squares(x: NDArray[np.float64]) -> NDArray[np.float64]:
    # Bounded, because a large weight of a far row would give it a large p-value.
    x = x.clip(-3, 3)
    return np.concatenate((x, np.square(x)), axis=1)


def _matrix(values: ArrayLike, name: str, *, few: bool = False) -> NDArray[np.float64]:
    array = plain_array(values, name)
    try:
        matrix = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a matrix of numbers: {error}") from error
    if matrix.ndim == 2 and not matrix.shape[1]:
        raise InputError(f"{name} have no columns: give at least one.")
    if matrix.ndim != 2 or (len(matrix) < 10 and not few):
        raise InputError(f"{name} must be a matrix{'' if few else ' of at least 10 rows'}; got shape {matrix.shape}.")
    if not few and np.isinf(matrix).any():
        raise InputError(
            f"{name} have infinite numbers, the first in row {np.isinf(matrix).any(1).argmax()}: leave such rows out, or use NaN for a missing cell."
        )
    if not few and (np.abs(matrix) > _LARGEST).any():
        raise InputError(
            f"{name} have numbers beyond {_LARGEST:g}, whose squares overflow: give their columns in a larger unit."
        )
    return matrix
