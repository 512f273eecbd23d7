"""`Pool`: a weighted sum of statistics of a table's rows; the weights need no anomalies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from torch import Tensor

from pushforward.detection.table.cell_report import CellReport, report_cells
from pushforward.detection.table.cells import Cells
from pushforward.detection.table.coordinates import Coordinates
from pushforward.detection.table.ends import Ends, either
from pushforward.detection.table.families import FAMILIES
from pushforward.detection.table.linear import Linear
from pushforward.detection.table.mixture import Mixture
from pushforward.detection.table.neighbors import Neighbors
from pushforward.detection.table.reasons import Reasons
from pushforward.detection.table.spaces import Spaces
from pushforward.detection.table.tail_scale import TailScale
from pushforward.detection.table.tails import Tails
from pushforward.errors import InputError, StorageError, in_words
from pushforward.numerics.checks import check_integer

__all__ = ["Pool"]

_ENDS = "ends"
_BATCH = 512
_BATCHES, _NUMBERS = 16, 1 << 21  # batches in memory at a time, at most, and numbers of a space


class Pool:
    """Anomaly score p = sum_k w_k t_k, t_k = -log tail probability of statistic k among training rows, in nats.

    A row with a number beyond the short end of a skewed column is as strange as its statistics or this number: its score is
    log(exp(p) + exp(u) - 1) with u of :class:`~pushforward.detection.table.ends.Ends`.

    :func:`~pushforward.detection.table.pool_fit.fit_pool` fits one. The statistics are distances to neighbors and
    Gaussians of neighbors in four spaces, Mahalanobis distance and its relatives, tails of columns, and a Gaussian
    mixture (:data:`~pushforward.detection.table.families.FAMILIES`).

    Args:
        coordinates: from feature matrix to coordinates.
        spaces: from coordinates to spaces.
        parts: fitted statistics by family; a family of neighbors has the name of its space.
        scales: tail scale of each statistic, by (family, name).
        weights: of each statistic, in the order of ``scales``.
        reasons: training rows with which the cells of a row are compared.
        report: AUROC on mixes (or crosses) of every statistic, also those without weight, by "family name".
        ends: of skewed columns; None if there are none, of few rows, and in files of earlier versions.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> x = np.random.default_rng(0).normal(size=(300, 2))
        >>> pool = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(x).score_.pool
        >>> bool(np.isclose(pool.weights.sum(), 1)), len(pool.weights) > 5
        (True, True)
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
        ends: Ends | None = None,
    ) -> None:
        self.coordinates, self.spaces, self.parts = coordinates, spaces, parts
        self.scales, self.weights, self.reasons, self.report = scales, weights, reasons, report
        self.ends = ends
        self._reference: np.ndarray | None = None
        self._wanted: dict[str, set[str]] = {}
        for family, name in scales:
            self._wanted.setdefault(family, set()).add(name)

    def __len__(self) -> int:
        """Number of training rows that it stores."""
        return max((len(part.reference) for part in self.parts.values() if isinstance(part, Neighbors)), default=0)

    def score(self, matrix: np.ndarray, *, batch: int | None = _BATCH) -> np.ndarray:
        """Score of rows of the feature matrix, nats, ``(n,)``.

        Args:
            matrix: ``(n, w)``, finite.
            batch: rows are scored in batches of this size, and copies of a row fill up the last one, since products of
                other sizes round differently; None for all rows at once.

        Raises:
            InputError: for a matrix of another width, or one that is not finite.
            ConfigError: for a batch that is not a positive integer.
        """
        check_matrix(matrix, len(self.coordinates.kind))
        check_integer("batch", batch, optional=True)
        if not len(matrix):
            return np.zeros(0)
        if batch is None:
            return self._score(matrix, len(matrix))
        scores = []
        size = batch * max(1, min(_BATCHES, _NUMBERS // (batch * len(self.coordinates.column))))
        for a in range(0, len(matrix), size):
            block = matrix[a : a + size]
            count, missing = len(block), -len(block) % batch
            if missing:
                block = np.concatenate((block, np.broadcast_to(block[-1:], (missing, block.shape[1]))))
            # Sums of another memory order round differently.
            scores.append(self._score(np.ascontiguousarray(block), batch)[:count])
        return np.concatenate(scores)

    def _score(self, matrix: np.ndarray, batch: int) -> np.ndarray:
        """Score of some batches: products of matrices are computed for one batch at a time."""
        rows = self.coordinates(matrix)
        batches = [slice(a, a + batch) for a in range(0, len(rows), batch)]
        total = np.zeros(len(rows))
        found: dict[str, dict[str, np.ndarray]] = {}
        placed: dict[str | None, np.ndarray] = {None: rows}
        for family, names in self._wanted.items():
            space, part = FAMILIES[family].space, self.parts[family]
            if space not in placed and space is not None:
                placed[space] = np.concatenate([self.spaces(space, rows[each]) for each in batches])
            if isinstance(part, Neighbors):
                found[family] = part.score(placed[space], names)
            else:
                values = [part.score(placed[space][each], names) for each in batches]
                found[family] = {name: np.concatenate([value[name] for value in values]) for name in names}
        for weight, ((family, name), scale) in zip(self.weights, self.scales.items(), strict=True):
            total += weight * scale(found[family][name])
        if self.ends is None:
            return total
        return either(total, np.concatenate([self.ends.score(rows[each]) for each in batches]))

    def report_cells(
        self,
        matrix: np.ndarray,
        unknown: np.ndarray | None = None,
        coded: np.ndarray | None = None,
        flags: np.ndarray | None = None,
    ) -> CellReport:
        """The part of the score that is due to each column, and its usual values.

        Args:
            matrix: rows of the feature matrix, ``(n, w)``, finite.
            unknown: columns whose cells say nothing, boolean ``(n, columns)``.
            coded: whether each column has codes, boolean ``(columns,)``.
            flags: position of the missing indicator of each column, -1 for none, ``(columns,)``.
        """
        columns = self.reasons.count
        cells = Cells(
            self.reasons,
            coded=np.zeros(columns, dtype=bool) if coded is None else coded,
            flags=np.full(columns, -1) if flags is None else flags,
            score=lambda rows: self.score(rows, batch=None),
            soft=lambda rows: self.spaces("soft", self.coordinates(rows)),
            from_soft=self.spaces.from_soft,
            linear=self.parts["linear"],
            coordinate=self.coordinates.column,
            circle=self.coordinates.on_circle,
            placed=self._placed(),
        )
        nothing = np.zeros((len(matrix), columns), dtype=bool)
        return report_cells(cells, np.ascontiguousarray(matrix), nothing if unknown is None else unknown)

    def _placed(self) -> np.ndarray:
        """The rows of the reasons in the soft space; computed once."""
        if self._reference is None:
            self._reference = self.spaces("soft", self.coordinates(self.reasons.rows))
        return self._reference

    def statistics(self) -> Iterator[tuple[str, float, float]]:
        """Name, weight and AUROC on mixes (or crosses) of each statistic, the largest weight first; those without weight last."""
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
        if self.ends is not None:
            tensors |= self.ends.pack(f"{prefix}ends.")
        description = {
            # Earlier versions refuse a part that they do not have.
            "parts": [*self.parts, *([_ENDS] if self.ends is not None else [])],
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
        try:
            families = [str(family) for family in description["parts"]]
            weighted = {(str(f), str(n)): float(w) for f, n, w in description["weights"]}
            report = {str(name): float(area) for name, area in description["report"].items()}
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise StorageError(
                f"its pool of statistics is not one that pushforward writes: {in_words(error)}"
            ) from error
        has_ends = _ENDS in families  # not in files of earlier versions
        families = [family for family in families if family != _ENDS]
        if not weighted or not set(families) <= set(FAMILIES) or not {"linear"} <= set(families):
            raise StorageError("its pool has a family of statistics that this version of pushforward does not have.")
        if not all(f in families and n in FAMILIES[f].names and 0 < w <= 1 for (f, n), w in weighted.items()):
            raise StorageError("its pool has a statistic that this version of pushforward does not have.")
        coordinates = Coordinates.unpack(tensors, f"{prefix}coordinates.")
        spaces = Spaces.unpack(tensors, f"{prefix}spaces.")
        parts = {family: FAMILIES[family].kind.unpack(tensors, f"{prefix}{family}.") for family in families}
        scales = {(f, n): TailScale.unpack(tensors, f"{prefix}scale.{f}.{n}.") for f, n in weighted}
        reasons = Reasons.unpack(tensors, f"{prefix}reasons.")
        ends = Ends.unpack(tensors, f"{prefix}ends.") if has_ends else None
        width = len(coordinates.column)
        if (
            len(spaces.center) != width
            or len(reasons.slope) != width
            or len(reasons.group) != len(coordinates.kind)
            or any(_width(part) != width for part in parts.values())
            or (ends is not None and len(ends.origin) != width)
        ):
            raise StorageError("the parts of its pool have different numbers of coordinates.")
        if not np.array_equal(spaces.free, coordinates.free):
            raise StorageError("the parts of its pool scale different coordinates: use an intact copy.")
        weight = np.array(list(weighted.values()))
        if not math.isclose(float(weight.sum()), 1.0, rel_tol=1e-6):
            raise StorageError("the weights of its pool do not add up to 1.")
        return cls(coordinates, spaces, parts, scales, weight, reasons, report, ends)


def _width(part: Neighbors | Linear | Tails | Mixture) -> int:
    """Number of coordinates that a fitted part reads."""
    if isinstance(part, Neighbors):
        return part.reference.shape[1]
    return part.values.shape[1] if isinstance(part, Tails) else len(part.mean)


def check_matrix(matrix: Any, width: int) -> None:
    """Refuse anything but a feature matrix of finite numbers, ``(n, width)``.

    Raises:
        InputError: with what it is instead.
    """
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.shape[1] != width:
        raise InputError(f"a feature matrix must have the shape (n, {width}); got {np.shape(matrix)}.")
    if not np.isfinite(matrix).all():
        raise InputError("a feature matrix must be finite: TableFeatures.impute makes one of encoded rows.")
