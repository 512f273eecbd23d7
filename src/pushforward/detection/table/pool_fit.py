"""Fit a pool: the statistics, their tail scales, and their weights from mixes or crosses of training rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pushforward.detection.table.conditional import calibrate, residuals
from pushforward.detection.table.coordinates import Coordinates
from pushforward.detection.table.ends import Ends
from pushforward.detection.table.families import FAMILIES
from pushforward.detection.table.linear import Linear
from pushforward.detection.table.made_rows import draw_rows
from pushforward.detection.table.neighbors import Neighbors, neighbors_of
from pushforward.detection.table.pool import Pool, check_matrix
from pushforward.detection.table.reasons import Reasons, rows_to_store
from pushforward.detection.table.spaces import Spaces
from pushforward.detection.table.tail_scale import TailScale
from pushforward.detection.table.yardstick import FOLDS, Yardstick, separation, weights
from pushforward.detection.table_features import TableFeatures
from pushforward.errors import InputError
from pushforward.numerics.checks import check_number
from pushforward.numerics.threads import one_thread

__all__ = ["EFFORTS", "Sizes", "fit_pool", "fit_pool_in_time", "weigh"]

_SMALL = 1e9  # multiplications of a covariance matrix; one thread is enough for fewer
_QUANTILES = 200
_FEW = 8  # rows; with fewer there is no yardstick
_REASONS = ("linear",)
_WEIGHTED = 12  # statistics
_CONVEX, _TOLD = 1 / 3, 0.75  # AUROC of the best statistic: mixes are more usual than training rows, and crosses less
_NO_YARDSTICK = (("standard", "knn1"), ("soft", "knn1"))


@dataclass(frozen=True)
class Sizes:
    """The work that goes into a pool; rows beyond these numbers are not read.

    Attributes:
        reference: largest number of rows among which neighbors are searched, which are stored.
        rows: largest number of rows for the other statistics.
        scale: largest number of rows for the tail scales.
        mixes: number of mixes of two rows.

    Example:
        >>> from pushforward.detection.table import EFFORTS
        >>> EFFORTS["fast"].reference, EFFORTS["default"].reference
        (1000, 5000)
    """

    reference: int
    rows: int
    scale: int
    mixes: int


EFFORTS: dict[str, Sizes] = {
    "fast": Sizes(1000, 5000, 1000, 500),
    "default": Sizes(5000, 20_000, 2000, 1000),
    "thorough": Sizes(20_000, 50_000, 5000, 4000),
}


_LADDER = (Sizes(250, 1000, 250, 250), EFFORTS["fast"], Sizes(2500, 10_000, 2000, 1000), EFFORTS["default"],
           EFFORTS["thorough"])  # fmt: skip
"""Amounts of work that are tried in this order where time is limited."""


@dataclass
class _Values:
    """Values of all statistics of one family: on training rows that did not take part, and on made rows."""

    normal: dict[str, np.ndarray]
    mixed: dict[str, np.ndarray]


@dataclass
class _Folds:
    """Parts of one kind, each fitted on the rows of the other folds."""

    parts: list[Any]

    def score(self, rows: np.ndarray, folds: np.ndarray, wanted: set[str]) -> dict[str, np.ndarray]:
        """Values of rows by the part that was fitted without their fold."""
        values = {name: np.empty(len(rows)) for name in wanted}
        for k, part in enumerate(self.parts):
            inside = folds == k
            for name, found in part.score(rows[inside], wanted).items():
                values[name][inside] = found
        return values


def fit_pool(
    features: TableFeatures,
    matrix: np.ndarray,
    *,
    sizes: Sizes = EFFORTS["default"],
    seed: int = 0,
    store_rows: bool = True,
    robust: bool = False,
    note: Callable[[str], None] = lambda phase: None,
) -> Pool:
    """Fit a pool to the feature matrix of training rows.

    A statistic of K neighbors takes part where there are at least 2 K reference rows, because it is not local otherwise. A
    training row's own value is found without it: neighbors leave it out, and the other statistics are fitted on the
    three quarters of the rows that do not contain it. Neighbors of a mix leave out its parents. With fewer than eight
    rows there are no mixes, and the score is the distance to the nearest row, or without stored rows to their mean.

    Where every statistic finds mixes more usual than training rows, which then are like those of a normal distribution, the
    weights are those for crosses, if a statistic tells these. Mixes would give the largest weights to what knows least.

    Args:
        features: of the table.
        matrix: of :meth:`TableFeatures.impute <pushforward.detection.table_features.TableFeatures.impute>`, ``(n, w)``, finite.
        sizes: of the work.
        seed: of the choice of rows, the folds and the mixes.
        store_rows: whether distances to training rows take part, for which the pool stores these rows. Without them reasons
            compare a row with rows that are drawn from the mixture. Single columns are stored sorted in both cases.
        robust: whether the rows may contain anomalies: statistics of 20 and 50 neighbors take the place of those of 1 and 5, which
            otherwise have half of the weight (:func:`weigh`).
        note: called with the name of each phase.

    Raises:
        InputError: for a matrix of another width than that of the features, with fewer than two rows, or not finite.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> from pushforward.detection.table import EFFORTS, fit_pool
        >>> from pushforward.detection.table_features import TableFeatures
        >>> table = pf.data.as_table(np.random.default_rng(0).normal(size=(300, 2)))
        >>> schema = pf.data.Schema.infer(table)
        >>> encoded = schema.encode(table)[0]
        >>> features = TableFeatures.fit(schema, encoded)
        >>> pool = fit_pool(features, encoded, sizes=EFFORTS["fast"])
        >>> pool.score(encoded[:3]).shape
        (3,)
    """
    check_matrix(matrix, len(features.owners))
    if len(matrix) < 2:
        raise InputError(f"a pool needs at least two training rows; got {len(matrix)}.")
    with one_thread(when=min(len(matrix), sizes.rows) * matrix.shape[1] ** 2 < _SMALL):
        return _fit(features, matrix, sizes, seed, store_rows, robust, note)


def _fit(
    features: TableFeatures,
    matrix: np.ndarray,
    sizes: Sizes,
    seed: int,
    store_rows: bool,
    robust: bool,
    note: Callable[[str], None],
) -> Pool:
    generator = np.random.default_rng(seed)
    matrix = matrix[generator.permutation(len(matrix))[: sizes.rows]]
    n = len(matrix)
    near = min(n, sizes.reference)
    scale = min(near, sizes.scale)
    note("spaces")
    coordinates = Coordinates.fit(features, matrix)
    rows = coordinates(matrix)
    spaces = Spaces.fit(rows, coordinates.free)
    folds = np.arange(n) % max(1, min(FOLDS, n // 2))
    coded = [features.schema.columns[i].kind in ("categorical", "boolean") for i in features.kept]
    coded += [True] * len(features.indicators) + [False] * (2 * len(features.calendar))
    mixes = Yardstick.draw(matrix[:near], folds[:near], np.array(coded), sizes.mixes if n >= _FEW else 0, generator)
    mixed = coordinates(mixes.rows)

    parts: dict[str, Any] = {}
    by_folds: dict[str, _Folds] = {}
    values: dict[str, _Values] = {}

    def on_made(name: str, made: Yardstick, coords: np.ndarray, wanted: set[str]) -> dict[str, np.ndarray]:
        space = FAMILIES[name].space
        placed = coords if space is None else spaces(space, coords)
        if name in by_folds:
            return by_folds[name].score(placed, made.folds, wanted)
        return parts[name].score(placed, wanted, made.parents)

    reasons = None
    for name, family in FAMILIES.items():
        if family.kind is Neighbors and not store_rows:
            continue
        wanted = _wanted(family.robust, near) if robust or n >= _FEW else set()
        if not robust or not wanted:
            wanted |= _wanted(family.statistics, near if n >= _FEW else math.inf)
        note(f"statistics: {name}")
        placed = rows if family.space is None else spaces(family.space, rows)
        if family.kind is Neighbors:
            parts[name] = Neighbors.fit(placed[:near], lof="lof" in wanted)
            own = parts[name].score(placed[:scale], wanted, np.arange(scale)[:, None])
            values[name] = _Values(own, on_made(name, mixes, mixed, wanted))
            continue
        by_folds[name] = _Folds([family.kind.fit(_others(placed, folds, k)) for k in range(int(folds.max()) + 1)])
        own = by_folds[name].score(placed[:scale], folds[:scale], wanted)
        values[name] = _Values(own, on_made(name, mixes, mixed, wanted))
        parts[name] = family.kind.fit(placed)
        if family.kind is Linear:
            few = min(scale, rows_to_store(matrix.shape[1]))
            reasons = Reasons.start(matrix[:few], np.zeros((few, len(coordinates.column))), np.array(features.owners))
            apart = reasons.apart(coordinates.column, coordinates.on_circle)
            reasons = reasons.with_residuals(_residuals(placed, folds, few, apart))
            reasons = calibrate(reasons, placed[:few], reasons.groups[coordinates.column])
    assert reasons is not None
    if not store_rows:
        made = draw_rows(features, coordinates, spaces, spaces("soft", rows), len(reasons.rows), seed)
        errors = residuals(
            parts["linear"], spaces("soft", coordinates(made)), reasons.apart(coordinates.column, coordinates.on_circle)
        )
        reasons = reasons.replace(rows=made, residual=errors)
        # Sorted columns show the extreme rows where columns depend on each other; interpolated quantiles do not.
        levels = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
        parts["tails"] = parts["tails"].replace(values=np.quantile(parts["tails"].values, levels, axis=0))
    note("weights")
    if len(mixes.rows) and len(set(features.owners)) > 1 and _best(values) <= _CONVEX:
        owners = np.array(features.owners)
        crosses = Yardstick.cross(matrix[:near], folds[:near], owners, sizes.mixes, generator)
        crossed = coordinates(crosses.rows)
        other = {n: _Values(v.normal, on_made(n, crosses, crossed, set(v.normal))) for n, v in values.items()}
        values = other if _best(other) >= _TOLD else values
    ends = Ends.fit(rows, coordinates.free, folds, extremes=store_rows)
    return _assemble(
        coordinates, spaces, parts, values, reasons, ends=ends, yardstick=len(mixes.rows) > 0, robust=robust
    )


def fit_pool_in_time(
    features: TableFeatures,
    matrix: np.ndarray,
    seconds: float,
    *,
    sizes: Sizes = EFFORTS["default"],
    seed: int = 0,
    store_rows: bool = True,
    robust: bool = False,
    note: Callable[[str], None] = lambda phase: None,
) -> Pool:
    """Fit the largest pool of a ladder that fits a time limit; this reads a clock.

    The smallest pool is always fitted. A larger one is tried if its time, predicted from the last one's by the power 1.5 of
    the number of reference rows, is left.

    Args:
        features: of the table.
        matrix: ``(n, w)``, finite.
        seconds: the limit.
        sizes: of the largest pool to try.
        seed: as in :func:`fit_pool`.
        store_rows: as in :func:`fit_pool`.
        robust: as in :func:`fit_pool`.
        note: called with the name of each phase.

    Raises:
        ConfigError: for a time limit that is not a number.
        InputError: as :func:`fit_pool`.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> from pushforward.detection.table import EFFORTS, fit_pool_in_time
        >>> from pushforward.detection.table_features import TableFeatures
        >>> table = pf.data.as_table(np.random.default_rng(0).normal(size=(300, 2)))
        >>> schema = pf.data.Schema.infer(table)
        >>> encoded = schema.encode(table)[0]
        >>> features = TableFeatures.fit(schema, encoded)
        >>> pool = fit_pool_in_time(features, encoded, seconds=60.0, sizes=EFFORTS["fast"])
        >>> pool.score(encoded[:3]).shape
        (3,)
    """
    deadline = time.monotonic() + check_number("seconds", seconds, -math.inf, math.inf)
    pool, last, took = None, None, 0.0
    for rung in (*(each for each in _LADDER if each.reference < sizes.reference), sizes):
        if last is not None:
            growth = min(len(matrix), rung.reference) / min(len(matrix), last.reference)
            if len(matrix) <= last.reference or time.monotonic() + took * growth**1.5 > deadline:
                break
        start = time.monotonic()
        options: dict[str, Any] = {"store_rows": store_rows, "robust": robust, "note": note}
        pool, last = fit_pool(features, matrix, sizes=rung, seed=seed, **options), rung
        took = time.monotonic() - start
    assert pool is not None
    return pool


def weigh(keys: Sequence[tuple[str, str]], areas: np.ndarray, *, robust: bool = False) -> np.ndarray:
    """Weights of statistics with these AUROCs for mixes or crosses, which add up to 1.

    Half of the weight goes to the usual statistics of each family and half to its robust ones, six of each: the former see
    anomalies between small groups of rows, and the latter those that repeat among the training rows. A statistic that is in both halves has
    the sum, and where a half has none all weight goes to the other. Weights within a half are those of :func:`~pushforward.detection.table.yardstick.weights`.

    Args:
        keys: family and name of each statistic.
        areas: their AUROCs.
        robust: whether the rows may contain anomalies: then the usual statistics do not count, and twelve have a weight.
    """
    weight = np.zeros(len(keys))
    usual = np.array([name in FAMILIES[family].statistics for family, name in keys])
    robust_ones = np.array([name in (FAMILIES[family].robust or FAMILIES[family].statistics) for family, name in keys])
    one = robust or bool((usual == robust_ones).all())  # without neighbors both halves are the same
    halves = [np.ones(len(keys), dtype=bool)] if one else [half for half in (usual, robust_ones) if half.any()]
    for half in halves:
        weight[half] += weights(areas[half], _WEIGHTED // len(halves)) / len(halves)
    return weight


def _assemble(
    coordinates: Coordinates,
    spaces: Spaces,
    parts: dict[str, Any],
    values: dict[str, _Values],
    reasons: Reasons,
    *,
    ends: Ends | None,
    yardstick: bool,
    robust: bool,
) -> Pool:
    """Weigh the statistics, and keep what has a weight or gives reasons."""
    keys = [(f, s) for f, family in FAMILIES.items() if f in values for s in family.names if s in values[f].normal]
    if yardstick:
        areas = np.array([separation(values[f].normal[s], values[f].mixed[s]) for f, s in keys])
        weight = weigh(keys, areas, robust=robust)
    else:
        keys = list(_NO_YARDSTICK) if "soft" in values else [("linear", "mahalanobis")]
        areas, weight = np.full(len(keys), 0.5), np.full(len(keys), 1.0 / len(keys))
    report = {f"{f} {s}": float(area) for (f, s), area in zip(keys, areas, strict=True)}
    kept = {key: w for key, w in zip(keys, weight, strict=True) if w > 1e-3}
    scales = {
        (f, s): TailScale.fit(values[f].normal[s], logarithmic=FAMILIES[f].logarithmic(s)) for f, s in kept
    }  # fmt: skip
    needed = {family for family, _ in kept} | set(_REASONS)
    parts = {family: part for family, part in parts.items() if family in needed}
    weight = np.array(list(kept.values()))
    return Pool(coordinates, spaces, parts, scales, weight / weight.sum(), reasons, report, ends)


def _wanted(names: tuple[str, ...], rows: float) -> set[str]:
    """The statistics that are local among so many reference rows."""
    return {name for name in names if neighbors_of(name) <= rows / 2}


def _best(values: dict[str, _Values]) -> float:
    """The largest AUROC of a statistic for made rows against training rows."""
    return max(separation(v.normal[name], v.mixed[name]) for v in values.values() for name in v.normal)


def _residuals(rows: np.ndarray, folds: np.ndarray, count: int, group: np.ndarray) -> np.ndarray:
    """Errors of each coordinate given other groups on rows on which the Gaussian was not fitted, ``(count, d)``."""
    found = np.empty((count, rows.shape[1]))
    for k in range(int(folds.max()) + 1):
        inside = folds[:count] == k
        found[inside] = residuals(Linear.fit(_others(rows, folds, k)), rows[:count][inside], group)
    return found


def _others(rows: np.ndarray, folds: np.ndarray, fold: int) -> np.ndarray:
    """The rows of the other folds; all rows if there is one fold."""
    return rows[folds != fold] if folds.max() else rows
