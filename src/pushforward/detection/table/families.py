"""The families of statistics in the pool: which class, in which space, and the names."""

from __future__ import annotations

from dataclasses import dataclass

from pushforward.detection.table.linear import LINEAR_STATISTICS, Linear
from pushforward.detection.table.mixture import MIXTURE_STATISTICS, Mixture
from pushforward.detection.table.neighbors import NEIGHBOR_STATISTICS, ROBUST_STATISTICS, Neighbors
from pushforward.detection.table.tails import TAIL_STATISTICS, Tails

__all__ = ["FAMILIES", "Family"]


@dataclass(frozen=True)
class Family:
    """Statistics that are computed together.

    Attributes:
        kind: class of the fitted part.
        space: in which it reads rows; None for coordinates as they are.
        statistics: their names.
        robust: those with the other half of the weight, and all of it where the training rows may contain anomalies; empty for the same.
    """

    kind: type[Neighbors] | type[Linear] | type[Tails] | type[Mixture]
    space: str | None
    statistics: tuple[str, ...]
    robust: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All statistics that a pool can have."""
        return tuple(dict.fromkeys(self.statistics + self.robust))

    def logarithmic(self, statistic: str) -> bool:
        """Whether a statistic is a distance, which is compared on a logarithmic scale."""
        return self.kind is Linear or statistic.startswith(("knn", "local"))


_WITHOUT_LOF, _ROBUST = (tuple(n for n in names if n != "lof") for names in (NEIGHBOR_STATISTICS, ROBUST_STATISTICS))

FAMILIES: dict[str, Family] = {
    "standard": Family(Neighbors, "standard", NEIGHBOR_STATISTICS, ROBUST_STATISTICS),
    "soft": Family(Neighbors, "soft", _WITHOUT_LOF, _ROBUST),
    "normal": Family(Neighbors, "normal", _WITHOUT_LOF, _ROBUST),
    "white": Family(Neighbors, "white", ("knn1", "knn5", "lof"), ("knn20", "knn50", "lof")),
    "linear": Family(Linear, "soft", LINEAR_STATISTICS),
    "tails": Family(Tails, None, TAIL_STATISTICS),
    "mixture": Family(Mixture, "soft", MIXTURE_STATISTICS),
}
