"""The score of a table as a module, from encoded rows to nats."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pushforward.detection.table.families import FAMILIES
from pushforward.detection.table.linear import Linear
from pushforward.detection.table.mixture import Mixture
from pushforward.detection.table.neighbors import Neighbors
from pushforward.detection.table.pool import Pool
from pushforward.detection.table.tails import Tails
from pushforward.detection.table_score import TableScore
from pushforward.errors import ConfigError
from pushforward.graphs.numeric import Part
from pushforward.graphs.table_features import CoordinatesGraph, ImputeGraph, SpacesGraph
from pushforward.graphs.table_neighbors import NeighborsGraph
from pushforward.graphs.table_statistics import EndsGraph, LinearGraph, MixtureGraph, TailScaleGraph, TailsGraph

__all__ = ["LARGEST_GRAPH", "PoolGraph", "TableGraph"]

LARGEST_GRAPH = 128 * 2**20
"""Most bytes of stored rows in a graph."""

_CELLS = 1 << 22
"""Numbers of an intermediate result, of all rows of a part: more need memory and are not faster."""
_SMALLEST_PART, _LARGEST_PART = 16, 1024

_GRAPHS: dict[type, Any] = {Linear: LinearGraph, Mixture: MixtureGraph}


class PoolGraph(Part):
    """:class:`~pushforward.detection.table.Pool` as a module.

    Args:
        pool: fitted.
        portable: whether to do without operations that ONNX does not have.

    Raises:
        ConfigError: for a statistic without a graph, or neighbors among too many numbers.
    """

    def __init__(self, pool: Pool, *, portable: bool) -> None:
        super().__init__()
        wanted: dict[str, set[str]] = {}
        for family, name in pool.scales:
            wanted.setdefault(family, set()).add(name)
        self.spaces_of = {family: FAMILIES[family].space for family in wanted}
        self.coordinates = CoordinatesGraph(pool.coordinates)
        self.spaces = SpacesGraph(pool.spaces, {space for space in self.spaces_of.values() if space is not None})
        self.parts = nn.ModuleDict()
        for family, names in wanted.items():
            part = pool.parts[family]
            if isinstance(part, Neighbors):
                self.parts[family] = NeighborsGraph(part, names, portable=portable)
            elif isinstance(part, Tails):
                self.parts[family] = TailsGraph(part, names, pool.coordinates.on_circle)
            elif type(part) in _GRAPHS:
                self.parts[family] = _GRAPHS[type(part)](part, names)
            else:
                raise ConfigError(
                    f"the statistics {family!r} of this guard have no graph: fit it with Guard(exportable=True), on the command line fit --exportable."
                )
        widths = [part.width for part in self.parts.values() if isinstance(part, NeighborsGraph)]
        self.part = max(_SMALLEST_PART, min(_LARGEST_PART, _CELLS // max(widths, default=1)))
        size = sum(tensor.nbytes for tensor in self.buffers())
        if size > LARGEST_GRAPH:
            raise ConfigError(
                f"a graph of this guard would have {size / 2**20:.0f} MB, since its neighbors are searched among {len(pool)} rows of "
                f"{len(pool.coordinates.column)} coordinates: fit it with Guard(exportable=True), on the command line fit --exportable, which stores fewer."
            )
        self.scales = nn.ModuleList(TailScaleGraph(scale) for scale in pool.scales.values())
        self.keys = list(pool.scales)
        self.register_buffer("weights", torch.from_numpy(pool.weights))
        self.ends = None if pool.ends is None else EndsGraph(pool.ends)

    def forward(self, matrix: Tensor) -> Tensor:
        """Score of rows of the feature matrix, nats, ``(n, w)`` to ``(n,)``."""
        rows = self.coordinates(matrix)
        placed = self.spaces(rows)
        found = {
            family: part(rows if self.spaces_of[family] is None else placed[self.spaces_of[family]])
            for family, part in self.parts.items()
        }
        terms = [scale(found[family][name]) for (family, name), scale in zip(self.keys, self.scales, strict=True)]
        total = torch.stack(terms, 1) @ self.weights
        return total if self.ends is None else either(total, self.ends(rows))


class TableGraph(Part):
    """:class:`~pushforward.detection.table_score.TableScore` as a module of encoded rows.

    Args:
        score: fitted.
        portable: whether to do without operations that ONNX does not have.
    """

    rounding = 1e-8
    """Relative difference below which two scores are equal: distances have eight digits."""

    def __init__(self, score: TableScore, *, portable: bool) -> None:
        super().__init__()
        self.impute = ImputeGraph(score.features)
        self.pool = PoolGraph(score.pool, portable=portable)

    def forward(self, encoded: Tensor) -> Tensor:
        """Score of encoded rows ``(n, columns)``, nats, ``(n,)``; +inf for an infinite number."""
        matrix, usual, cost, far = self.impute(encoded)
        values = self.pool(matrix)
        if usual is not None:
            values = either(values, usual)
        return torch.where(far, torch.inf, cost + values)


def either(a: Tensor, b: Tensor) -> Tensor:
    """log(exp(a) + exp(b) - 1) of numbers of at least 0."""
    larger, smaller = torch.maximum(a, b), torch.minimum(a, b)
    return larger + torch.log1p(torch.exp(smaller - larger) - torch.exp(-larger))
