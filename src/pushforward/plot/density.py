"""The picture of a density of one or two coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from pushforward.distributions import Distribution
from pushforward.errors import InputError, KindError
from pushforward.numerics import seeded
from pushforward.numerics.checks import check_integer
from pushforward.plot.axes import (
    BAND,
    GRAY,
    LINES,
    MARKERS,
    array,
    check_names,
    legend,
    new_axes,
    set_limits,
    tidy,
    turns,
    unnamed,
)
from pushforward.plot.names import label_of, plain

__all__ = ["density"]

_MARGIN = 0.08
_INTEGERS = 1000  # as many atoms are drawn at most


def density(
    model: Any,
    data: Any = None,
    *,
    ax: Any = None,
    limits: Sequence[float] | Sequence[Sequence[float]] | None = None,
    context: Any = None,
    points: int | None = None,
    names: Sequence[str] | None = None,
    label: str | None = None,
    color: str | None = None,
    cmap: str = "viridis",
    dots: int = 1000,
    draws: int | None = None,
) -> Any:
    """Draw a density of one coordinate as a curve, of two as a heat map; data become a histogram, or dots.

    Probabilities of integers (measure Counting, or a discrete distribution of torch) are drawn as dots, or as a heat map.

    Args:
        model: a model, a :class:`~pushforward.FlowDensity`, a ``torch.distributions`` object, or a function from a tensor
            ``(n, D)`` to log-densities ``(n,)`` in nats.
        data: rows ``(n, D)``, or ``(n,)`` of one coordinate; None for none.
        ax: matplotlib axes; new ones by default.
        limits: ``(low, high)`` of each coordinate; by default those of the data, or of the middle 99 % of samples of
            the model, and some margin.
        context: one context ``(context,)``, for a model with a context.
        points: number of points along each axis; 400 for a curve and 160 for a heat map by default. A heat map of integers has at
            most that many of them along each axis, at equal distances.
        names: of the coordinates; by default those of the table that a FlowDensity was fitted on.
        label: of the curve, for a legend.
        color: of the curve; by default the next of :data:`COLORS` that the axes have not had.
        cmap: matplotlib's name of the colors of a heat map.
        dots: number of data rows that a heat map shows at most.
        draws: number of draws of the noise of a model that has some, such as dequantization (``evaluate(samples=)``); 16 for a
            curve and 4 for a heat map by default.

    Returns:
        The axes.

    Raises:
        InputError: for a density of more than two coordinates, a batch of distributions, limits that cannot be found, infinite data,
            another number of names than coordinates, or a guard.
        KindError: for a density on a manifold or on other spaces that a picture of the plane cannot show.
        ConfigError: without matplotlib.

    Example:
        >>> import torch, pushforward as pf
        >>> ax = pf.plot.density(pf.models.NICE(features=2), torch.randn(100, 2), names=("flow, l/s", "pressure, bar"))
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('flow, l/s', 'pressure, bar')
    """
    if hasattr(model, "anomaly_score"):
        raise InputError("the score of a guard is not a density: pass guard.density_, of a guard with density=True.")
    if isinstance(model, Distribution):
        raise InputError("draw a distribution as a model: pf.models.Flow(pf.transforms.Affine(D), distribution).")
    batch = math.prod(getattr(model, "batch_shape", ()))
    if batch > 1:
        raise InputError(
            f"a picture shows one density, and this distribution is a batch of {batch}: draw one at a time."
        )
    rows = None if data is None else array(data, "data", finite=True)
    rows = rows[:, None] if rows is not None and rows.ndim == 1 else rows
    if rows is not None and rows.ndim != 2:
        raise InputError(f"data are rows (n, D), or numbers (n,); got shape {rows.shape}.")
    box = None if limits is None else np.atleast_2d(array(limits, "limits"))
    size = _size(model, rows, box)
    if size not in (1, 2):
        raise InputError(
            f"a picture shows a density of one or two coordinates, and this one has {size}: draw samples of two columns "
            "with pf.plot.samples."
        )
    if rows is not None and rows.shape[1] != size:
        raise InputError(f"the density has {size} coordinates, and the data have {rows.shape[1]}.")
    box = _box(model, rows, size, context) if box is None else box
    if box.shape != (size, 2) or not (box[:, 0] < box[:, 1]).all() or not np.isfinite(box).all():
        raise InputError(f"limits are (low, high) of each of {size} coordinates, with low below high.")
    counting = _counts(model)
    check_integer("points", points, 2) if points is not None else None
    check_integer("dots", dots, 0)
    check_integer("draws", draws) if draws is not None else None
    draws = draws or (16 if size == 1 else 4)
    if counting:
        grids = [_integers(low, high, _INTEGERS if size == 1 else points or 160, strict=size == 1) for low, high in box]
    else:
        grids = [np.linspace(low, high, points or (400 if size == 1 else 160)) for low, high in box]
    mesh = np.stack(np.meshgrid(*grids, indexing="ij"), -1)
    with np.errstate(over="ignore"):
        values = np.exp(_log_density(model, mesh.reshape(-1, size), context, draws)).reshape(mesh.shape[:-1])
    title = _title(model, counting)
    given = getattr(model, "feature_names_in_", None) if names is None else names
    check_names(given, size)
    names = list(given) if given is not None else ["x"] if size == 1 else ["x1", "x2"]
    if size == 1:
        ax = tidy(new_axes(ax))
        _curve(ax, grids[0], values, rows, label, color, counting)
        ax.set(xlabel=plain(names[0]), ylabel=title)
        set_limits(ax, 0, ax.get_ylim()[1])
        if rows is not None or label is not None:
            legend(ax)
        return ax
    ax = new_axes(ax, (5.0, 4.0))
    image = ax.pcolormesh(grids[0], grids[1], values.T, cmap=cmap, shading="nearest", rasterized=True)
    ax.figure.colorbar(image, ax=ax, label=title)
    if rows is not None and dots:
        shown = rows[:: max(1, -(-len(rows) // dots))]
        ax.plot(
            shown[:, 0], shown[:, 1], ".", color="white", markeredgecolor="black", markeredgewidth=0.3, markersize=3.5
        )
    ax.set(xlabel=plain(names[0]), ylabel=plain(names[1]), xlim=box[0], ylim=box[1])
    return ax


def _curve(ax: Any, grid: np.ndarray, values: np.ndarray, rows: np.ndarray | None, label: str | None,
           color: str | None, counting: bool) -> None:  # fmt: skip
    color, turn = turns(ax, 1)[0] if color is None else (color, 0)
    data = "data" if unnamed(ax, "data") else None
    if rows is not None and counting:
        counts = [(rows[:, 0] == each).mean() for each in grid]
        ax.bar(grid, counts, width=0.9, color=BAND, edgecolor=GRAY, linewidth=0.3, label=data)
    elif rows is not None:
        bins = min(60, max(10, round(len(rows) ** 0.5)))
        ax.hist(rows[:, 0], bins, range=(grid[0], grid[-1]), weights=_weights(rows, grid, bins), color=BAND, label=data)
    name = label_of(label or ("model" if counting or rows is not None else ""))
    if counting:
        ax.plot(grid, values, MARKERS[turn] if turn else "o", color=color, markersize=4, label=name)
        ax.xaxis.get_major_locator().set_params(integer=True)
    else:
        ax.plot(grid, values, color=color, linewidth=1.8, linestyle=LINES[turn], label=name)


def _weights(rows: np.ndarray, grid: np.ndarray, bins: int) -> np.ndarray:
    """So that the bars are a density of all rows, also of those outside the limits."""
    return np.full(len(rows), bins / ((grid[-1] - grid[0]) * len(rows)))


def _counts(model: Any) -> bool:
    """Whether the model gives probabilities of integers."""
    measure = getattr(model, "measure", None)
    return getattr(measure, "name", "") == "Counting" or bool(getattr(_support(model), "is_discrete", False))


def _support(model: Any) -> Any:
    """The support of a distribution of torch; None if it has none, or does not say it."""
    try:
        return model.support
    except (AttributeError, NotImplementedError):
        return None


def _size(model: Any, rows: np.ndarray | None, box: np.ndarray | None) -> int:
    shape = getattr(model, "shape", None)
    if shape is None and hasattr(model, "event_shape"):
        shape = tuple(model.event_shape) or (1,)
    if shape is None and hasattr(model, "n_features_in_"):
        shape = (model.n_features_in_,)
    if shape is not None:
        return int(np.prod(shape)) if len(shape) == 1 else 3
    if rows is not None:
        return rows.shape[1]
    if box is not None:
        return len(box)
    raise InputError(
        "a density that is a function needs data or limits; of a posterior, give posterior.distribution(x), or plot draws: "
        "pf.plot.samples(posterior.sample(1000, x))."
    )


def _box(model: Any, rows: np.ndarray | None, size: int, context: Any) -> np.ndarray:
    if rows is None:
        try:
            drawn = _samples(model, context)
        except (AttributeError, NotImplementedError):
            raise InputError("the limits cannot be found: give data or limits.") from None
        rows = array(drawn, "samples of the model").reshape(-1, size)
        low, high = np.quantile(rows, (0.005, 0.995), axis=0)
    else:
        low, high = rows.min(0), rows.max(0)
    least = 1e-12 * np.maximum(np.abs(low), np.abs(high))  # so that the points of the grid differ
    width = np.maximum(np.where(high > low, high - low, 1.0), least)
    return np.stack([low - _MARGIN * width, high + _MARGIN * width], -1)


def _samples(model: Any, context: Any) -> Any:
    if hasattr(model, "event_shape"):
        with seeded(0):
            return model.sample((2000,))
    if hasattr(model, "score_samples"):
        return model.sample(2000, random_state=0)
    return model.sample(2000, seed=0) if context is None else model.sample(2000, torch.as_tensor(context), seed=0)


def _integers(low: float, high: float, most: int, *, strict: bool) -> np.ndarray:
    """The integers between two limits; of more than ``most``, so many at equal distances, or an error."""
    first, last = int(np.ceil(low)), int(np.floor(high))
    if strict and last - first >= most:
        raise InputError(f"a picture shows at most {most} integers: give narrower limits.")
    return np.arange(first, last + 1, max(1, -(-(last - first + 1) // most)), dtype=float)


def _log_density(model: Any, rows: np.ndarray, context: Any, draws: int) -> np.ndarray:
    """Log-density of each row, nats; -inf outside the support."""
    if hasattr(model, "score_samples") and not hasattr(getattr(model, "model_", None), "evaluate"):
        return array(model.score_samples(rows), "log-densities")
    model = getattr(model, "model_", model)  # of a FlowDensity, which would warn of rows without names
    x = torch.from_numpy(rows)
    with torch.no_grad():
        if hasattr(model, "evaluate"):
            if model.measure.name not in ("Lebesgue", "Counting"):
                raise KindError(f"a picture of the plane cannot show a density on {model.measure}: draw samples.")
            given = None if context is None else torch.as_tensor(context)
            found = model.evaluate(x, given, samples=draws).value
        elif hasattr(model, "log_prob"):
            found = _of_distribution(model, x)
        else:
            function: Callable[[torch.Tensor], Any] = model
            found = function(x)
    found = array(found, "log-densities")
    if found.shape != (len(rows),):
        raise InputError(f"a density gives one number for each row; got shape {found.shape} for {len(rows)} rows.")
    return found


def _of_distribution(distribution: Any, x: torch.Tensor) -> torch.Tensor:
    rows = x.reshape(len(x), *distribution.event_shape)
    rounded, support = rows.to(distribution.sample().dtype), _support(distribution)
    inside = torch.ones(len(x), dtype=torch.bool)
    if support is not None:
        inside = (support.check(rows) & support.check(rounded)).reshape(len(x), -1).all(1)  # rounding moves some inside
    found = torch.full((len(x),), -torch.inf, dtype=x.dtype)
    if inside.any():
        found[inside] = distribution.log_prob(rounded[inside]).reshape(-1).to(x.dtype)
    return found


def _title(model: Any, counting: bool) -> str:
    word = "probability" if counting else "density"
    kind = getattr(getattr(model, "kind", None), "value", "exact")
    return word if kind in ("exact", "unbiased") else f"{word} ({kind})"
