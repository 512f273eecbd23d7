"""`Pool`: a weighted sum of statistics of a table's rows; the weights need no anomalies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
from torch import Tensor

from pushforward.detection.table.coordinates import Coordinates
from pushforward.detection.table.linear import LINEAR_STATISTICS, Linear
from pushforward.detection.table.mixture import MIXTURE_STATISTICS, Mixture
from pushforward.detection.table.neighbors import NEIGHBOR_STATISTICS, Neighbors
from pushforward.detection.table.reasons import Reasons
from pushforward.detection.table.spaces import Spaces
from pushforward.detection.table.tail_scale import TailScale
from pushforward.detection.table.tails import TAIL_STATISTICS, Tails
from pushforward.detection.table.yardstick import FOLDS, Yardstick, separation, weights
from pushforward.detection.table_features import TableFeatures
from pushforward.errors import StorageError

__all__ = ["EFFORTS", "Pool"]

EFFORTS: dict[str, dict[str, int]] = {
    "fast": {"reference": 1000, "rows": 5000, "scale": 1000, "mixes": 500},
    "default": {"reference": 5000, "rows": 20_000, "scale": 2000, "mixes": 1000},
    "thorough": {"reference": 20_000, "rows": 50_000, "scale": 5000, "mixes": 4000},
}
"""Largest number of reference rows for neighbors, of rows for the other statistics, of rows for the tail scales, and the
number of mixes, by effort."""

_BATCH = 512
_FEW = 8  # rows; with fewer there is no yardstick

_NEIGHBORS: dict[str, tuple[str, ...]] = {
    "standard": NEIGHBOR_STATISTICS,
    "soft": tuple(n for n in NEIGHBOR_STATISTICS if n != "lof"),
    "normal": tuple(n for n in NEIGHBOR_STATISTICS if n != "lof"),
    "white": ("knn1", "knn5", "knn10", "lof"),
}
_OTHERS: dict[str, tuple[type[Linear] | type[Tails] | type[Mixture], str | None, tuple[str, ...]]] = {
    "linear": (Linear, "soft", LINEAR_STATISTICS),
    "tails": (Tails, None, TAIL_STATISTICS),
    "mixture": (Mixture, "soft", MIXTURE_STATISTICS),
}


def _logarithmic(name: str) -> bool:
    """Whether a statistic is a distance, which is compared on a logarithmic scale."""
    return name.startswith(("knn", "local")) or name in LINEAR_STATISTICS


class Pool:
    """Anomaly score sum_k w_k t_k, t_k = -log tail probability of statistic k among training rows, in nats.

    The statistics are distances to neighbors and Gaussians of neighbors in four spaces, Mahalanobis distance and its
    relatives, tails of columns, and a Gaussian mixture. A training row's own value is found without it: neighbors leave
    it out, the other statistics are fitted on three quarters of the rows without it. The weight of a statistic comes from
    how well it separates mixes of two training rows from training rows
    (:class:`~pushforward.detection.table.yardstick.Yardstick`).

    Args:
        coordinates: from feature matrix to coordinates.
        spaces: from coordinates to spaces.
        parts: fitted statistics by family; a family of neighbors has the name of its space.
        scales: tail scale of each statistic, by (family, name).
        weights: of each statistic, in the order of ``scales``.
        reasons: how unusual each coordinate is.
        report: AUROC on mixes of every statistic, also those without weight, by "family name".
    """

    def __init__(
        self,
        coordinates: Coordinates,
        spaces: Spaces,
        parts: dict[str, Any],
        scales: dict[tuple[str, str], TailScale],
        weights: np.ndarray,
        reasons: Reasons,
        report: dict[str, float],
    ) -> None:
        self.coordinates, self.spaces, self.parts = coordinates, spaces, parts
        self.scales, self.weights, self.reasons, self.report = scales, weights, reasons, report
        self._wanted: dict[str, set[str]] = {}
        for family, name in scales:
            self._wanted.setdefault(family, set()).add(name)

    def __len__(self) -> int:
        """Number of training rows that it stores."""
        return max((len(part.reference) for part in self.parts.values() if isinstance(part, Neighbors)), default=0)

    @classmethod
    def fit(
        cls,
        features: TableFeatures,
        matrix: np.ndarray,
        *,
        effort: str = "default",
        seed: int = 0,
        progress: Callable[[str], None] = lambda phase: None,
    ) -> Self:
        """Fit to the feature matrix of training rows.

        Args:
            features: of the table.
            matrix: ``(n, w)``, finite.
            effort: one of :data:`EFFORTS`; each is a fixed amount of work.
            seed: of the choice of rows, the folds, the mixes and the mixture.
            progress: called with the name of each phase.
        """
        size, generator = EFFORTS[effort], np.random.default_rng(seed)
        order = generator.permutation(len(matrix))
        matrix = matrix[order[: size["rows"]]]
        n = len(matrix)
        progress("spaces")
        coordinates = Coordinates.fit(features, matrix)
        rows = coordinates(matrix)
        spaces = Spaces.fit(rows, coordinates.free)
        near, scale = min(n, size["reference"]), min(n, size["reference"], size["scale"])
        coded = np.array([features.schema.columns[i].kind in ("categorical", "boolean") for i in features.kept]
                         + [True] * len(features.indicators))  # fmt: skip
        folds = np.arange(n) % max(1, min(FOLDS, n // 2))
        mixes = None
        if n >= _FEW:
            mixes = Yardstick.draw(matrix[:near], folds[:near], coded, size["mixes"], generator)
        mixed_rows = None if mixes is None else coordinates(mixes.rows)

        def place(space: str | None, x: np.ndarray) -> np.ndarray:
            return x if space is None else spaces(space, x)

        parts: dict[str, Any] = {}
        normal: dict[tuple[str, str], np.ndarray] = {}
        mixed: dict[tuple[str, str], np.ndarray] = {}
        for space, names in _NEIGHBORS.items():
            progress(f"neighbors, {space}")
            placed = spaces(space, rows[:near])
            parts[space] = part = Neighbors.fit(placed, lof="lof" in names)
            own = part.score(placed[:scale], set(names), np.arange(scale)[:, None])
            normal |= {(space, name): own[name] for name in names}
            if mixes is not None:
                other = part.score(spaces(space, mixed_rows), set(names), mixes.parents)
                mixed |= {(space, name): other[name] for name in names}
        conditional = np.empty((scale, rows.shape[1]))
        for family, (kind, space, names) in _OTHERS.items():
            progress(family)
            placed = place(space, rows)
            placed_mixes = None if mixes is None else place(space, mixed_rows)
            for name in names:
                normal[family, name] = np.empty(scale)
                mixed[family, name] = np.empty(0 if mixes is None else len(mixes.rows))
            for k in range(int(folds.max()) + 1):
                inside, kept = folds == k, folds != k
                part = kind.fit(placed[kept] if kept.any() else placed)
                own = part.score(placed[:scale][inside[:scale]], set(names))
                if isinstance(part, Linear):
                    conditional[inside[:scale]] = part.conditional(placed[:scale][inside[:scale]])
                for name in names:
                    normal[family, name][inside[:scale]] = own[name]
                if mixes is not None:
                    other = part.score(placed_mixes[mixes.folds == k], set(names))
                    for name in names:
                        mixed[family, name][mixes.folds == k] = other[name]
            parts[family] = kind.fit(placed)
        progress("weights")
        keys = list(normal)
        if mixes is None:
            keys = [("standard", "knn1"), ("soft", "knn1")]
            areas, weight = np.full(len(keys), 0.5), np.full(len(keys), 1.0 / len(keys))
        else:
            areas = np.array([separation(normal[key], mixed[key]) for key in keys])
            weight = weights(areas)
        report = {" ".join(key): float(area) for key, area in zip(keys, areas, strict=True)}
        kept = {key: w for key, w in zip(keys, weight, strict=True) if w > 1e-3}
        scales = {key: TailScale.fit(normal[key], logarithmic=_logarithmic(key[1])) for key in kept}
        families = {family for family, _ in kept} | {"linear", "tails"}  # these two give reasons
        parts = {family: part for family, part in parts.items() if family in families}
        weight = np.array(list(kept.values()))
        return cls(coordinates, spaces, parts, scales, weight / weight.sum(), Reasons.fit(conditional), report)

    def score(self, matrix: np.ndarray, *, batch: int | None = _BATCH) -> np.ndarray:
        """Score of rows of the feature matrix, nats, ``(n,)``.

        Args:
            matrix: ``(n, w)``, finite.
            batch: rows are scored in batches of this size, and copies of a row fill up the last one, since products of
                other sizes round differently; None for all rows at once.
        """
        if batch is None or not len(matrix):
            return self._score(matrix) if len(matrix) else np.zeros(0)
        scores = []
        for a in range(0, len(matrix), batch):
            part = matrix[a : a + batch]
            count = len(part)
            if count < batch:
                part = np.concatenate((part, np.broadcast_to(part[:1], (batch - count, part.shape[1]))))
            scores.append(self._score(np.ascontiguousarray(part))[:count])  # sums of another memory order round differently
        return np.concatenate(scores)

    def _score(self, matrix: np.ndarray) -> np.ndarray:
        rows = self.coordinates(matrix)
        total = np.zeros(len(rows))
        found: dict[str, dict[str, np.ndarray]] = {}
        placed: dict[str | None, np.ndarray] = {None: rows}
        for family, names in self._wanted.items():
            space = _OTHERS[family][1] if family in _OTHERS else family
            if space not in placed and space is not None:
                placed[space] = self.spaces(space, rows)
            found[family] = self.parts[family].score(placed[space], names)
        for weight, ((family, name), scale) in zip(self.weights, self.scales.items(), strict=True):
            total += weight * scale(found[family][name])
        return total

    def by_column(self, matrix: np.ndarray) -> np.ndarray:
        """How unusual each column of the feature matrix is, nats, ``(n, w)``; see :class:`Reasons`."""
        rows = self.coordinates(np.ascontiguousarray(matrix))
        placed = self.spaces(str(_OTHERS["linear"][1]), rows)
        nats = self.reasons.nats(self.parts["linear"], placed, self.parts["tails"], rows)
        first = np.flatnonzero(np.r_[True, self.coordinates.column[1:] != self.coordinates.column[:-1]])
        return np.maximum.reduceat(nats, first, axis=1)

    def statistics(self) -> Iterator[tuple[str, float, float]]:
        """Name, weight and AUROC on mixes of each statistic, the largest weight first; those without weight last."""
        weight = {" ".join(key): float(w) for key, w in zip(self.scales, self.weights, strict=True)}
        for name, area in sorted(self.report.items(), key=lambda item: (-weight.get(item[0], 0.0), -item[1])):
            yield name, weight.get(name, 0.0), area

    # -- files --------------------------------------------------------------------------------------------------------

    def pack(self, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Description and tensors for a file."""
        tensors = self.coordinates.pack(f"{prefix}coordinates.") | self.spaces.pack(f"{prefix}spaces.")
        tensors |= self.reasons.pack(f"{prefix}reasons.")
        for family, part in self.parts.items():
            tensors |= part.pack(f"{prefix}{family}.")
        for (family, name), scale in self.scales.items():
            tensors |= scale.pack(f"{prefix}scale.{family}.{name}.")
        description = {
            "parts": list(self.parts),
            "weights": [[*key, float(w)] for key, w in zip(self.scales, self.weights, strict=True)],
            "report": self.report,
        }
        return description, tensors

    @classmethod
    def unpack(cls, description: Any, tensors: dict[str, Tensor], prefix: str) -> Self:
        """Rebuild from what :meth:`pack` returned; both may come from an untrusted file.

        Raises:
            StorageError: for parts that do not fit each other.
        """
        known = {**_NEIGHBORS, **{family: names for family, (_, _, names) in _OTHERS.items()}}
        try:
            families = [str(family) for family in description["parts"]]
            weighted = {(str(f), str(n)): float(w) for f, n, w in description["weights"]}
            report = {str(name): float(area) for name, area in description["report"].items()}
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise StorageError(f"its pool of statistics is not one that pushforward writes: {error!r}") from error
        if not weighted or not set(families) <= set(known) or not {"linear", "tails"} <= set(families):
            raise StorageError("its pool has a family of statistics that this version of pushforward does not have.")
        if not all(f in families and n in known[f] and 0 < w <= 1 for (f, n), w in weighted.items()):
            raise StorageError("its pool has a statistic that this version of pushforward does not have.")
        coordinates = Coordinates.unpack(tensors, f"{prefix}coordinates.")
        spaces = Spaces.unpack(tensors, f"{prefix}spaces.")
        parts = {}
        for family in families:
            kind = _OTHERS[family][0] if family in _OTHERS else Neighbors
            parts[family] = kind.unpack(tensors, f"{prefix}{family}.")
        scales = {(f, n): TailScale.unpack(tensors, f"{prefix}scale.{f}.{n}.") for f, n in weighted}
        reasons = Reasons.unpack(tensors, f"{prefix}reasons.")
        width = len(coordinates.column)
        if len(spaces.center) != width or len(reasons.slope) != width or any(_width(part) != width for part in parts.values()):
            raise StorageError("the parts of its pool have different numbers of coordinates.")
        weight = np.array(list(weighted.values()))
        if not math.isclose(float(weight.sum()), 1.0, rel_tol=1e-6):
            raise StorageError("the weights of its pool do not add up to 1.")
        return cls(coordinates, spaces, parts, scales, weight, reasons, report)


def _width(part: Neighbors | Linear | Tails | Mixture) -> int:
    """Number of coordinates that a fitted part reads."""
    if isinstance(part, Neighbors):
        return part.reference.shape[1]
    return part.values.shape[1] if isinstance(part, Tails) else len(part.mean)
