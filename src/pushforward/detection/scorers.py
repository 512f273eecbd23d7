"""Detectors of other libraries and functions as one function of rows, in which higher is less like the training data."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushforward.detection.scores import Score, Statistic
from pushforward.errors import ConfigError, InputError

__all__ = ["Scorer", "check_scorer", "scorer_of"]


@dataclass(frozen=True)
class Scorer:
    """How the rows of a guard are scored by an object of the user.

    Attributes:
        detector: the object.
        name: of its class or function.
        takes: "matrix" (float64 numpy, images are flattened), "tensor" (torch), "float32" (torch) or "rows" (float64 numpy of a
            table, or a tensor of images).
        call: the method that gives one number for each row.
        sign: -1 where a higher number is more normal.
    """

    detector: Any
    name: str
    takes: str
    call: Callable[[Any], Any]
    sign: float

    def __call__(self, rows: np.ndarray | Tensor) -> np.ndarray:
        """Scores ``(n,)``, float64, of a matrix ``(n, d)`` or of images ``(n, channels, height, width)``.

        Raises:
            InputError: if it returns another number of scores, or NaN; or where the detector refuses the rows.
        """
        with torch.no_grad():
            try:
                found = self.call(_given(rows, self.takes))
            except (ValueError, TypeError) as error:
                raise InputError(f"{self.name} does not score these rows: {' '.join(str(error).split())}") from error
        if isinstance(found, Tensor):
            found = found.detach().cpu().double().numpy()
        values = np.asarray(found, dtype=np.float64)
        if values.size != len(rows) or values.ndim not in (1, 2):
            raise InputError(
                f"{self.name} must give one score for each of {len(rows)} rows; it gave the shape {values.shape}."
            )
        values = self.sign * values.reshape(-1)
        if np.isnan(values).any():
            raise InputError(
                f"{self.name} gave NaN for row {int(np.isnan(values).argmax())}: a score must be a number for every row."
            )
        return values


def check_scorer(detector: Any) -> None:
    """Refuse an object that cannot be a score.

    Raises:
        ConfigError: saying what can be one.
    """
    if isinstance(detector, type):
        raise ConfigError(f"score must be an object, and {detector.__name__} is a class: give {detector.__name__}().")
    if isinstance(detector, Statistic) and not isinstance(detector, Score):
        raise ConfigError(
            f"{type(detector).__name__} describes a row, and a score says which descriptions are unlike the training data: give "
            f"TwoSided({type(detector).__name__}(...)), or another score of pushforward.detection.scores around it."
        )
    known = (
        _is_pyod(detector) or _is_torch_detector(detector) or hasattr(detector, "score_samples") or callable(detector)
    )
    if known or (_is_scikit_learn(detector) and hasattr(detector, "decision_function")):
        return
    hint = "a LocalOutlierFactor needs novelty=True; " if type(detector).__name__ == "LocalOutlierFactor" else ""
    raise ConfigError(
        f"score={type(detector).__name__} has no scores of which it is known whether higher is more anomalous: {hint}give a detector of "
        "scikit-learn, PyOD or pytorch-ood, or a function of the rows in which higher is less like the training data."
    )


def scorer_of(detector: Any, rows: np.ndarray | Tensor | None) -> Scorer:
    """The score of a detector or function, fitted to rows on a copy if it has ``fit``.

    - PyOD: ``decision_function``, in which higher is more anomalous;
    - scikit-learn: ``score_samples``, else ``decision_function``, in which higher is more normal;
    - pytorch-ood: ``predict_features``, else ``predict``, in which higher is more anomalous;
    - :class:`~pushforward.detection.scores.Score` and functions: what they return, in which higher is more anomalous.

    Args:
        detector: the object.
        rows: to fit it to; None for one that is fitted.

    Raises:
        ConfigError: see :func:`check_scorer`.
        InputError: where the detector refuses the rows.
    """
    check_scorer(detector)
    name = getattr(detector, "__name__", type(detector).__name__)
    if isinstance(detector, Score):
        kind, fit, takes, sign = "score", "fit", "tensor", 1.0
    elif _is_pyod(detector):
        kind, fit, takes, sign = "decision_function", "fit", "matrix", 1.0
    elif _is_torch_detector(detector):
        features = hasattr(detector, "predict_features")
        kind, fit = ("predict_features", "fit_features") if features else ("predict", "")
        takes, sign = "float32", 1.0
    elif hasattr(detector, "score_samples"):
        kind, fit, takes, sign = "score_samples", "fit", "matrix", -1.0
    elif _is_scikit_learn(detector):
        kind, fit, takes, sign = "decision_function", "fit", "matrix", -1.0
    else:
        kind, fit, takes, sign = "", "", "rows", 1.0
    if rows is not None and fit and hasattr(detector, fit):
        detector = _fitted(detector, fit, _given(rows, takes), name)
    call = detector if kind in ("", "score") else getattr(detector, kind)
    return Scorer(detector, name, takes, call, sign)


def _fitted(detector: Any, fit: str, rows: Any, name: str) -> Any:
    """A fitted copy, so that the user's object stays as it is."""
    own = _cloned(detector)
    try:
        if fit == "fit_features":
            own.fit_features(rows, torch.zeros(len(rows), dtype=torch.long))
        else:
            own.fit(rows)
    except (ValueError, TypeError) as error:
        raise InputError(f"{name} cannot be fitted to these rows: {' '.join(str(error).split())}") from error
    return own


def _cloned(detector: Any) -> Any:
    if _is_scikit_learn(detector):
        from sklearn.base import clone

        return clone(detector)
    return copy.deepcopy(detector)


def _given(rows: np.ndarray | Tensor, takes: str) -> Any:
    if takes == "tensor":
        return torch.from_numpy(np.array(rows)) if isinstance(rows, np.ndarray) else rows
    if takes == "float32":
        return torch.as_tensor(np.array(rows)).float()
    if takes == "matrix" and isinstance(rows, Tensor):
        return rows.flatten(1).double().numpy()
    return rows


def _is_scikit_learn(detector: Any) -> bool:
    from sklearn.base import BaseEstimator

    return isinstance(detector, BaseEstimator)


def _is_pyod(detector: Any) -> bool:
    """A detector of PyOD, or one with its convention: ``decision_scores_`` of the training rows."""
    modules = {cls.__module__.split(".")[0] for cls in type(detector).__mro__}
    return hasattr(detector, "decision_function") and ("pyod" in modules or hasattr(detector, "decision_scores_"))


def _is_torch_detector(detector: Any) -> bool:
    modules = {cls.__module__.split(".")[0] for cls in type(detector).__mro__}
    return "pytorch_ood" in modules
