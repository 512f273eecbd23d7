"""The likelihood ratio of two distributions of inputs, estimated from rows of both by a classifier."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.errors import InputError
from pushforward.numerics.checks import check_number

__all__ = ["ClassifierRatio"]


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
            InputError: for other shapes, or fewer than 10 rows of either.
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
        self._model, self._odds = model.fit(x, y), len(p) / len(q)
        return self

    def __call__(self, x: ArrayLike) -> NDArray[np.float64]:
        """The estimated ratio of each row, ``(n,)``.

        Raises:
            InputError: for another number of columns, or before ``fit``.
        """
        if not hasattr(self, "_model"):
            raise InputError("this ClassifierRatio is not fitted yet: call fit(reference, shifted).")
        probability = self._model.predict_proba(_matrix(x, "the rows", few=True))[:, 1].clip(self.clip, 1 - self.clip)
        return probability / (1 - probability) * self._odds


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
    try:
        matrix = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a matrix of numbers: {error}") from error
    if matrix.ndim != 2 or (len(matrix) < 10 and not few):
        raise InputError(f"{name} must be a matrix of at least 10 rows; got shape {matrix.shape}.")
    return matrix
