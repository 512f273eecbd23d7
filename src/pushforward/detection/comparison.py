"""Comparison of methods over data sets: mean ranks and wins."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from pushforward.detection.validation import score_array
from pushforward.errors import InputError

__all__ = ["mean_rank", "wins"]


def mean_rank(table: Mapping[str, ArrayLike], *, higher_is_better: bool = True) -> dict[str, float]:
    """Mean rank of each method over data sets; 1 is best. Tied methods get the mean of their ranks.

    Args:
        table: method -> results on the data sets, shape (datasets,), in the same order for all methods.
        higher_is_better: True for metrics such as AUROC, False for error rates.

    Returns:
        method -> mean rank, in the order of ``table``. The values sum to k(k+1)/2 for k methods.

    Raises:
        InputError: for no methods, different lengths, or NaN. A failed run has no rank: remove its data set.

    Example:
        >>> from pushforward.detection import mean_rank
        >>> mean_rank({"flow": [0.9, 0.8, 0.7], "knn": [0.8, 0.8, 0.9], "forest": [0.7, 0.6, 0.8]})
        {'flow': 1.8333333333333333, 'knn': 1.5, 'forest': 2.6666666666666665}
    """
    results = _results(table, higher_is_better)
    ranks = rankdata(-results, axis=0)
    return dict(zip(table, ranks.mean(1).tolist(), strict=True))


def wins(table: Mapping[str, ArrayLike], *, higher_is_better: bool = True) -> dict[str, float]:
    """The number of data sets on which each method is best. k methods that tie for best get 1/k each.

    With a table of two methods these are the wins of one against the other.

    Args:
        table: method -> results on the data sets, shape (datasets,), in the same order for all methods.
        higher_is_better: True for metrics such as AUROC, False for error rates.

    Returns:
        method -> wins, in the order of ``table``. The values sum to the number of data sets.

    Raises:
        InputError: for no methods, different lengths, or NaN.

    Example:
        >>> from pushforward.detection import wins
        >>> wins({"flow": [0.9, 0.8, 0.7], "knn": [0.8, 0.8, 0.9]})
        {'flow': 1.5, 'knn': 1.5}
    """
    results = _results(table, higher_is_better)
    best = results == results.max(0)
    return dict(zip(table, (best / best.sum(0)).sum(1).tolist(), strict=True))


def _results(table: Mapping[str, ArrayLike], higher_is_better: bool) -> NDArray[np.float64]:
    """The table as an array (methods, datasets) in which higher is better."""
    if not isinstance(table, Mapping) or not table:
        raise InputError("the table must be a mapping from at least one method to its results, one for each data set.")
    rows = [score_array(values, f"the results of {name!r}") for name, values in table.items()]
    lengths = {name: row.size for name, row in zip(table, rows, strict=True)}
    if len(set(lengths.values())) > 1:
        raise InputError(f"every method needs a result for every data set; got results of lengths {lengths}.")
    results = np.stack(rows)
    return results if higher_is_better else -results
