"""Means, deviations and quantiles of draws, and for each estimate whether it can be trusted."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.display import table
from pushforward.errors import ConfigError, InputError
from pushforward.inference.weights import NEARLY_EQUAL, ImportanceWeights, khat_threshold, tail_shape
from pushforward.numerics.checks import check_number

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Summary", "summarize"]

Array = NDArray[np.float64]

_SHOWN = 40
"""Coordinates that a printed summary shows."""
_FEWEST = 25
"""Draws below which a tail has no shape."""


@dataclass(frozen=True, repr=False)
class Summary:
    """Estimates from draws, one of each for every coordinate.

    k-hat of a mean or a deviation is the shape of the tails of the terms that its error is the sum of. Above the threshold
    the terms have no useful variance: the estimate depends on a few draws and its error cannot be known, as for the deviation
    of a distribution with heavy tails, which may not even exist. Quantiles inside the bulk of the draws are still good then.

    Attributes:
        names: of the coordinates.
        mean: ``(D,)``.
        error: standard error of the mean, ``(D,)``.
        std: standard deviation, ``(D,)``.
        probs: probabilities of the quantiles, ``(P,)``.
        quantiles: ``(P, D)``.
        k_hat_mean: k-hat of the mean, ``(D,)``.
        k_hat_std: k-hat of the standard deviation, ``(D,)``.
        count: number of draws.
        ess: effective number of draws.

    Example:
        >>> import torch, pushforward as pf
        >>> heavy = torch.distributions.Cauchy(0.0, 1.0)
        >>> with torch.random.fork_rng():
        ...     _ = torch.manual_seed(0)
        ...     draws = {"light": torch.randn(10_000), "heavy": heavy.sample((10_000,))}
        >>> pf.inference.summarize(draws).unreliable
        ['mean of heavy', 'std of heavy']
    """

    names: list[str]
    mean: Array
    error: Array
    std: Array
    probs: tuple[float, ...]
    quantiles: Array
    k_hat_mean: Array
    k_hat_std: Array
    count: int
    ess: float

    @property
    def threshold(self) -> float:
        """The largest k-hat at which an estimate from so many draws is reliable (:func:`khat_threshold`)."""
        return khat_threshold(self.count)

    @property
    def unreliable(self) -> list[str]:
        """The estimates whose k-hat is above the threshold, such as "std of x"."""
        found = []
        for name, mean, std in zip(self.names, self.k_hat_mean, self.k_hat_std, strict=True):
            found += [f"mean of {name}"] if mean > self.threshold else []
            found += [f"std of {name}"] if std > self.threshold else []
        return found

    def to_table(self) -> pa.Table:
        """The summary as a ``pyarrow.Table``, one row for each coordinate."""
        import pyarrow as pa

        columns: dict[str, Any] = {"name": self.names, "mean": self.mean, "error": self.error, "std": self.std}
        columns |= {_percent(p): row for p, row in zip(self.probs, self.quantiles, strict=True)}
        return pa.table(columns | {"k_hat_mean": self.k_hat_mean, "k_hat_std": self.k_hat_std})

    def to_frame(self) -> Any:
        """The summary as a ``pandas.DataFrame`` with the names as index.

        Raises:
            ConfigError: without pandas.
        """
        try:
            import pandas  # noqa: F401
        except ImportError as error:
            raise ConfigError("to_frame needs pandas: pip install pandas, or call to_table().") from error
        return self.to_table().to_pandas().set_index("name")

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        head = ["", "mean", "error", "std", *map(_percent, self.probs), "k-hat of mean", "k-hat of std"]
        rows = [
            [
                name, f"{self.mean[k]:.4g}", f"{self.error[k]:.2g}", f"{self.std[k]:.4g}",
                *(f"{value:.4g}" for value in self.quantiles[:, k]),
                f"{self.k_hat_mean[k]:.2f}", f"{self.k_hat_std[k]:.2f}",
            ]
            for k, name in enumerate(self.names[:_SHOWN])
        ]  # fmt: skip
        return head, rows

    def _more(self) -> list[str]:
        lines = [f"... and {len(self.names) - _SHOWN} more coordinates"] if len(self.names) > _SHOWN else []
        if bad := self.unreliable:
            more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
            lines.append(
                f"k-hat above {self.threshold:.2f}: {', '.join(bad[:5])}{more} cannot be trusted; use quantiles."
            )
        return lines

    def __repr__(self) -> str:
        head, rows = self._cells()
        widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
            for row in (head, *rows)
        ]
        title = f"{self.count} draws, effective sample size {self.ess:.0f}"
        return "\n".join(line.rstrip() for line in (title, *lines, *self._more()))

    def _repr_html_(self) -> str:
        head, rows = self._cells()
        return table(head, rows) + "".join(f"<p>{html.escape(line)}</p>" for line in self._more())


def summarize(
    draws: Any,
    weights: ImportanceWeights | None = None,
    *,
    probs: Sequence[float] = (0.05, 0.5, 0.95),
    names: Sequence[str] | None = None,
) -> Summary:
    """Means, deviations and quantiles of independent draws, with the error of each mean and k-hat of each estimate.

    With importance weights the mean is mu = sum w_i x_i, with weights that add up to 1, and its error is
    sqrt(sum w_i^2 (x_i - mu)^2). k-hat of the mean is the larger shape of a generalized Pareto distribution that is fitted to
    the largest and to the smallest of the w_i (x_i - mu), and that of the deviation is fitted to w_i ((x_i - mu)^2 - s^2); where
    the weights differ by much, neither is below the k-hat of the weights (Vehtari, Simpson, Gelman, Yao, Gabry 2024, JMLR 25, on
    expectations of a given function).

    Draws of Markov chains depend on each other: for them use ``arviz.summary`` of :meth:`ChainDraws.to_arviz`.

    Args:
        draws: ``(n, D)``, or a dictionary of arrays ``(n, *shape)`` by name, as ``fit.resample(n)`` and ``post.sample(n, x)`` return.
        weights: importance weights of the draws; None for draws of the distribution itself.
        probs: probabilities of the quantiles, between 0 and 1.
        names: of the D coordinates; by default their numbers.

    Raises:
        InputError: for fewer than 25 draws, draws that are not finite real numbers, or another number of weights than of draws.
        ConfigError: for probabilities that are no list of numbers from 0 to 1, weights that are no importance weights, or names
            that are no list of one name for each coordinate.

    Example:
        >>> import torch, pushforward as pf
        >>> with torch.random.fork_rng():
        ...     _ = torch.manual_seed(0)
        ...     found = pf.inference.summarize({"x": 3.0 + 2.0 * torch.randn(10_000)})
        >>> round(float(found.mean[0]), 1), round(float(found.std[0]), 1), found.unreliable
        (3.0, 2.0, [])
    """
    if not isinstance(probs, Iterable) or np.ndim(probs) == 0:  # pyright: ignore[reportArgumentType]
        raise ConfigError(f"probs must be a list of numbers from 0 to 1, such as (0.05, 0.95); got {probs!r:.80}.")
    probs = tuple(check_number("probs", p, 0.0, 1.0, closed="both") for p in probs)
    if not isinstance(weights, ImportanceWeights | None):
        raise ConfigError(
            f"weights must be importance weights, such as ImportanceWeights.of(log p - log q); got {type(weights).__name__}."
        )
    columns, found = _columns(draws)
    if names is not None:
        if isinstance(draws, Mapping):
            raise ConfigError("the draws have names already: leave names= out.")
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise ConfigError(f"names must be a list with a name for each coordinate; got {names!r:.80}.")
        if len(names) != len(found):
            raise ConfigError(
                f"there are {len(found)} coordinates and {len(names)} names: give one name for each coordinate."
            )
        found = list(names)
    count = len(columns)
    if count < _FEWEST:
        raise InputError(f"a summary needs at least {_FEWEST} draws; got {count}.")
    raw, smooth, ess, least = _weights(weights, count)
    used = smooth > 0  # where the target is 0 a draw may be anything
    if not np.isfinite(columns[used]).all():
        raise InputError(
            "a draw is infinite or NaN: a summary needs finite draws, so drop these, or use the unconstrained values."
        )
    columns, raw, smooth = columns[used], raw[used], smooth[used] / smooth[used].sum()
    estimates = [_estimate(x, raw, smooth, count, probs) for x in columns.T]
    mean, error, std, k_mean, k_std, *quantiles = np.array(estimates, dtype=np.float64).reshape(len(found), -1).T
    return Summary(
        found, mean, error, std, probs, np.array(quantiles).reshape(len(probs), len(found)), np.maximum(k_mean, least),
        np.maximum(k_std, least), count, ess,
    )  # fmt: skip


def _weights(weights: ImportanceWeights | None, count: int) -> tuple[Array, Array, float, float]:
    """Raw and smoothed weights, the effective number of draws, and the k-hat below which no estimate is."""
    if weights is None:
        raw = smooth = np.full(count, 1 / count)
        return raw, smooth, float(count), -np.inf
    if len(weights.log_ratios) != count:
        raise InputError(
            f"there are {count} draws and {len(weights.log_ratios)} weights: give the weights of these draws."
        )
    raw = (weights.log_ratios - weights.log_ratios.max()).exp().numpy()
    least = -np.inf if weights.largest < NEARLY_EQUAL else weights.k_hat
    return raw, weights.log_weights.exp().numpy(), weights.ess, least


def _estimate(given: Array, raw: Array, smooth: Array, count: int, probs: tuple[float, ...]) -> list[float]:
    """Mean, its error, deviation, their k-hats and quantiles of one coordinate; the moments in units of its range.

    ``count`` is the number of draws with those that have no weight, of which all others are given.
    """
    middle, unit = _middle(given)
    x = (given - middle) / unit
    mean = smooth @ x
    off = x - mean
    variance = smooth @ off**2
    error = np.sqrt((smooth**2) @ off**2)
    k_mean = _shape_of_both(raw * off, count)
    k_std = _shape_of_both(raw * (off**2 - variance), count)
    order = np.argsort(x, kind="stable")
    ends = smooth[order].cumsum()
    quantiles = [float(given[order[min(np.searchsorted(ends, p * ends[-1]), len(x) - 1)]]) for p in probs]
    return [
        float(middle + unit * mean),
        float(unit * error),
        float(unit * np.sqrt(variance)),
        k_mean,
        k_std,
        *quantiles,
    ]


def _middle(x: Array) -> tuple[float, float]:
    """The middle of the range and half its width, so that squares neither overflow nor vanish."""
    low, high = float(x.min()), float(x.max())
    half = high / 2 - low / 2
    return low + half, half if half > 0 else 1.0


def _shape_of_both(terms: Array, count: int) -> float:
    """The larger shape of the upper and the lower tail of ``count`` terms, of which those that are not given are 0."""
    tail = int(min(0.2 * count, 3 * np.sqrt(count)))
    terms = np.concatenate((terms, np.zeros(count - len(terms))))
    return max(tail_shape(terms, tail), tail_shape(-terms, tail))


def _columns(draws: Any) -> tuple[Array, list[str]]:
    """The draws as ``(n, D)``, and a name for each column."""
    if not isinstance(draws, Mapping):
        array = _array("the draws", draws)
        if array.ndim != 2 or not array.shape[1]:
            raise InputError(f"the draws must have the shape (n, D); got {array.shape}.")
        return array, [str(k) for k in range(array.shape[1])]
    if not draws:
        raise InputError("there are no draws: the dictionary is empty.")
    arrays = {str(name): _array(f"the draws of {name!r}", values) for name, values in draws.items()}
    counts = {len(values) if values.ndim else 0 for values in arrays.values()}
    if len(counts) > 1:
        raise InputError(f"the parameters have different numbers of draws, {sorted(counts)}: give as many of each.")
    names = [
        name + (f"[{','.join(map(str, index))}]" if index else "")
        for name, values in arrays.items() for index in np.ndindex(values.shape[1:])
    ]  # fmt: skip
    if not names:
        raise InputError("the draws have no numbers: a dimension is empty.")
    return np.concatenate([values.reshape(len(values), -1) for values in arrays.values()], 1), names


def _array(what: str, values: Any) -> Array:
    array = values
    if isinstance(values, Tensor):
        array = values.detach().cpu().to(torch.complex128 if values.is_complex() else torch.float64).numpy()
    try:
        array = np.asarray(array)
        if np.iscomplexobj(array):
            raise TypeError
        return array.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        raise InputError(f"{what} must be an array or a tensor of real numbers; got {type(values).__name__}.") from None


def _percent(p: float) -> str:
    return f"{100 * p:g}%"
