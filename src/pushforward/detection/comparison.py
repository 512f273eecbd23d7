"""How methods compare over data sets."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from pushforward.detection.validation import score_array
from pushforward.errors import InputError

__all__ = ["mean_rank", "wins"]


def mean_rank(table: Mapping[str, ArrayLike], *, higher_is_better: bool = True) -> dict[str, float]:
    """Average rank of each method over data sets; 1 is best. Ties on a data set share the average of their ranks.

    Args:
        table: method -> its figure on each data set, shape (datasets,), in the same order for all methods.
        higher_is_better: as for AUROC; False for error rates.

    Returns:
        method -> mean rank, in the order of ``table``. The values sum to k(k+1)/2 for k methods.

    Raises:
        InputError: for no methods, different lengths, or NaN: a failed run has no rank, so drop its data set.

    Example:
        >>> from pushforward.detection import mean_rank
        >>> mean_rank({"flow": [0.9, 0.8, 0.7], "knn": [0.8, 0.8, 0.9], "forest": [0.7, 0.6, 0.8]})
        {'flow': 1.8333333333333333, 'knn': 1.5, 'forest': 2.6666666666666665}
    """
    figures = _figures(table, higher_is_better)
    ranks = rankdata(-figures, axis=0)
    return dict(zip(table, ranks.mean(1).tolist(), strict=True))


def wins(table: Mapping[str, ArrayLike], *, higher_is_better: bool = True) -> dict[str, float]:
    """On how many data sets each method is best. Methods that tie for best share that data set equally.

    With a table of two methods these are the wins of one against the other.

    Args:
        table: method -> its figure on each data set, shape (datasets,), in the same order for all methods.
        higher_is_better: as for AUROC; False for error rates.

    Returns:
        method -> wins, in the order of ``table``. The values sum to the number of data sets.

    Raises:
        InputError: for no methods, different lengths, or NaN.

    Example:
        >>> from pushforward.detection import wins
        >>> wins({"flow": [0.9, 0.8, 0.7], "knn": [0.8, 0.8, 0.9]})
        {'flow': 1.5, 'knn': 1.5}
    """
    figures = _figures(table, higher_is_better)
    best = figures == figures.max(0)
    return dict(zip(table, (best / best.sum(0)).sum(1).tolist(), strict=True))


def _figures(table: Mapping[str, ArrayLike], higher_is_better: bool) -> NDArray[np.float64]:
    """The table as an array (methods, datasets) in which higher is better."""
    if not isinstance(table, Mapping) or not table:
        raise InputError("the table must give each method's figures, one for each data set, by name; got no methods.")
    rows = [score_array(values, f"the figures of {name!r}") for name, values in table.items()]
    lengths = {name: row.size for name, row in zip(table, rows, strict=True)}
    if len(set(lengths.values())) > 1:
        raise InputError(f"every method needs a figure for every data set; got {lengths}.")
    figures = np.stack(rows)
    return figures if higher_is_better else -figures
