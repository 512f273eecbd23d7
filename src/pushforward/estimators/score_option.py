"""The option ``score`` of an estimator, which scikit-learn would take for a method."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator

__all__ = ["OwnScore", "params_of"]


class OwnScore:
    """An attribute that does not exist where it is None.

    scikit-learn asks whether an estimator has ``score``, a method that measures predictions, and calls it. The value is in the
    estimator's ``__dict__``, as those of other options are.
    """

    def __get__(self, estimator: Any, owner: Any = None) -> Any:
        value = None if estimator is None else vars(estimator).get("score")
        if value is None:
            raise AttributeError(
                "score was not given: the guard fits a score itself, which is score_ after fit. For scores of rows call anomaly_score(X)."
            )
        return value

    def __set__(self, estimator: Any, value: Any) -> None:
        vars(estimator)["score"] = value


def params_of(estimator: BaseEstimator, deep: bool) -> dict[str, Any]:
    """``BaseEstimator.get_params`` of an estimator with such an option."""
    params: dict[str, Any] = {name: vars(estimator)[name] for name in estimator._get_param_names()}
    if deep:
        for name, value in list(params.items()):
            if hasattr(value, "get_params") and not isinstance(value, type):
                params |= {f"{name}__{key}": inner for key, inner in value.get_params().items()}
    return params
