"""From an encoded row of a table to the coordinates and spaces of its score, as modules."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pushforward.data.calendar import DIGITS_OF_SINE, PERIODS
from pushforward.data.column import CODED
from pushforward.detection.table import coordinates as table_coordinates
from pushforward.detection.table import spaces as table_spaces
from pushforward.detection.table_features import TableFeatures, constant_tolerance
from pushforward.graphs.numeric import Part, count_below, exact, infinite

__all__ = ["CoordinatesGraph", "ImputeGraph", "SpacesGraph"]


class ImputeGraph(Part):
    """:meth:`TableFeatures.impute` of encoded rows, with the cost of news.

    Args:
        features: of the table.
    """

    def __init__(self, features: TableFeatures) -> None:
        super().__init__()
        columns = features.schema.columns
        width = len(columns)
        kept = list(features.kept)
        coded = np.array([c.kind in CODED for c in columns])
        codes = [max(2, len(c.categories)) if c.kind == "boolean" else len(c.categories) for c in columns]
        never = np.array([not c.missing and c.kind not in CODED for c in columns])
        with_indicator = {kept[coordinate] for coordinate in features.indicators}
        constant, value = np.zeros(width, dtype=bool), np.zeros(width)
        for i, v in features.constants:
            constant[i], value[i] = True, v
        news_if_missing = np.array([i not in with_indicator and not never[i] for i in range(width)])
        fills = np.zeros(width)
        fills[kept] = features.fills
        self.register_buffer("cost", exact(math.log(features.rows + 2)))
        saved = np.zeros(width)
        for i, single in features.singletons:
            saved[i] = math.log(single + 1)
        self._has_singletons = bool(features.singletons)
        self.register_buffer("saved", torch.from_numpy(saved))
        self.register_buffer("often_new", torch.from_numpy(saved > 0))
        for name, values in (("coded", coded), ("constant", constant), ("if_missing", news_if_missing | never)):
            self.register_buffer(name, torch.from_numpy(values))
        self.register_buffer("codes", torch.tensor(codes, dtype=torch.float64))
        self.register_buffer("value", torch.from_numpy(value))
        near = [constant_tolerance(c, float(v)) for c, v in zip(columns, value, strict=True)]
        self.register_buffer("near", torch.tensor(near, dtype=torch.float64))
        self.register_buffer("fills", torch.from_numpy(fills))
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.int64))
        flags = [kept[coordinate] for coordinate in features.indicators]
        if flags:  # torch.export.save takes empty buffers for views of each other
            self.register_buffer("flags", torch.tensor(flags, dtype=torch.int64))
        low, high = np.full(len(kept), -np.inf), np.full(len(kept), np.inf)
        for k, _, _, first, last in features.instants:
            low[k], high[k] = first, last
        self._has_instants, self._has_calendar = bool(features.instants), bool(features.calendar)
        if self._has_instants:
            self.register_buffer("low", torch.from_numpy(low))
            self.register_buffer("high", torch.from_numpy(high))
        if self._has_calendar:
            self.register_buffer("instants", torch.tensor([k for k, _ in features.calendar], dtype=torch.int64))
            self.register_buffer(
                "periods", torch.tensor([PERIODS[name] for _, name in features.calendar], dtype=torch.float64)
            )
            # cos(t) = sin(t + pi / 2), because ONNX Runtime has no cosine of double precision
            self.register_buffer("quarters", torch.tensor([math.pi / 2, 0.0], dtype=torch.float64))
            self.register_buffer("turn", exact(2 * math.pi))
        self._has_constant, self._has_coded, self._has_flags = bool(constant.any()), bool(coded.any()), bool(flags)

    def forward(self, encoded: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Feature matrix with finite numbers, ``(n, w)``; nats of :meth:`TableFeatures.row_costs`, ``(n,)`` each; and whether a number is infinite.

        The first of the nats is None if no column always has new categories.

        Args:
            encoded: ``(n, columns)`` float64, NaN where missing; any number that is no code of a coded column is unseen.
        """
        missing = torch.isnan(encoded)
        news = missing & self.if_missing
        new_category = None
        if self._has_coded:
            zero = torch.where(missing | infinite(encoded), -1.0, encoded)
            valid = (zero >= 0) & (zero < self.codes) & (zero == zero.floor())
            new_category = self.coded & ~missing & ~valid
            news = news | new_category
        if self._has_constant:
            same = (encoded - self.value).abs() <= self.near  # not where NaN
            news = (news & ~self.constant) | (self.constant & ~same)  # ONNX Runtime has no Where for bool
        filled = torch.where(missing | news, self.fills, encoded)
        matrix = filled.index_select(1, self.kept)
        far = (infinite(encoded) & ~self.coded).any(1)
        matrix = torch.where(infinite(matrix), 0.0, matrix)
        parts = [matrix]
        if self._has_flags:
            parts.append(missing.index_select(1, self.flags).to(encoded.dtype))
        if self._has_calendar:
            rest = torch.fmod(matrix.index_select(1, self.instants), self.periods)  # exact, as in the guard
            angle = self.turn * (torch.where(rest < 0, rest + self.periods, rest) / self.periods)
            circles = torch.sin(angle.unsqueeze(2) + self.quarters).flatten(1)
            circles = torch.round(circles * 10**DIGITS_OF_SINE) / 10**DIGITS_OF_SINE
            # (0, 0) for an instant that is not finite
            unknown = infinite(filled.index_select(1, self.kept)).index_select(1, self.instants)
            parts.append(torch.where(unknown.repeat_interleave(2, 1), 0.0, circles))
        if self._has_instants:
            parts[0] = torch.where(
                infinite(filled.index_select(1, self.kept)),
                matrix,
                torch.minimum(torch.maximum(matrix, self.low), self.high),
            )
        matrix = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        if not self._has_singletons or new_category is None:
            return matrix, None, self.cost * news.to(encoded.dtype).sum(1), far
        often = new_category & self.often_new
        usual = ((self.cost - self.saved) * often.to(encoded.dtype)).sum(1)
        return matrix, usual, self.cost * (news & ~often).to(encoded.dtype).sum(1), far


class CoordinatesGraph(Part):
    """:class:`~pushforward.detection.table.coordinates.Coordinates` as a module.

    Args:
        part: the fitted coordinates.
    """

    def __init__(self, part: table_coordinates.Coordinates) -> None:
        super().__init__()
        categorical = np.array([part.is_categorical(i) for i in range(len(part.kind))])
        self.plain = not categorical.any()
        target, sizes = np.zeros(len(part.column)), np.zeros(len(part.column))
        low = np.full(len(part.kind), -table_coordinates.LARGEST)
        high = -low
        for i in np.flatnonzero(categorical):
            of_column = part.sizes[int(part.starts[i]) : int(part.starts[i + 1])]
            target[part.column == i], sizes[part.column == i] = np.arange(len(of_column)), of_column
            low[i], high[i] = 0.0, len(of_column) - 1.0
        self.register_buffer("low", torch.from_numpy(low))
        self.register_buffer("high", torch.from_numpy(high))
        self.register_buffer("column", torch.from_numpy(part.column.astype(np.int64)))
        self.register_buffer("as_it_is", torch.from_numpy(~categorical[part.column]))
        self.register_buffer("target", torch.from_numpy(target))
        self.register_buffer("sizes", torch.from_numpy(sizes))

    def forward(self, matrix: Tensor) -> Tensor:
        """Coordinates of rows of the feature matrix, ``(n, w)`` to ``(n, d)``."""
        matrix = torch.minimum(torch.maximum(matrix, self.low), self.high)
        if self.plain:
            return matrix
        spread = matrix.index_select(1, self.column)
        return torch.where(self.as_it_is, spread, torch.where(spread == self.target, self.sizes, 0.0))


class SpacesGraph(Part):
    """:class:`~pushforward.detection.table.spaces.Spaces` as a module.

    Args:
        part: the fitted spaces.
        wanted: names of the spaces that are read.
    """

    def __init__(self, part: table_spaces.Spaces, wanted: set[str]) -> None:
        super().__init__()
        self.wanted = sorted(wanted)
        for name in ("center", "spread", "median", "scale", "whitening"):
            self.register_buffer(name, torch.from_numpy(getattr(part, name)))
        self.has_free = bool(part.free.any())
        if "normal" not in wanted or not self.has_free:
            return
        free = np.flatnonzero(part.free)
        counts = np.diff(part.starts).astype(int)[free]
        longest = int(counts.max(initial=1))
        knots = np.full((len(free), longest), np.inf)
        ranks, slopes = np.zeros((len(free), longest)), np.zeros((len(free), longest))
        for row, i in enumerate(free):
            a, b = int(part.starts[i]), int(part.starts[i + 1])
            x, y = part.knots[a:b], part.ranks[a:b]
            knots[row, : b - a], ranks[row, : b - a] = x, y
            slopes[row, : b - a - 1] = np.diff(y) / np.diff(x)
        self.register_buffer("free", torch.from_numpy(free.astype(np.int64)))
        self.register_buffer("is_free", torch.from_numpy(part.free > 0))
        self.register_buffer("knots", torch.from_numpy(knots))
        self.register_buffer("finite_knots", torch.from_numpy(np.where(np.isinf(knots), 0.0, knots)))
        self.register_buffer("ranks", torch.from_numpy(ranks))
        self.register_buffer("slopes", torch.from_numpy(slopes))
        self.register_buffer("first", torch.from_numpy(knots[:, 0].copy()))
        self.register_buffer("last", torch.from_numpy(knots[np.arange(len(free)), counts - 1]))
        back = np.zeros(len(part.free), dtype=np.int64)
        back[free] = np.arange(len(free))
        self.register_buffer("back", torch.from_numpy(back))

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        """The rows of coordinates ``(n, d)`` in each wanted space, ``(n, d)``."""
        found: dict[str, Tensor] = {}
        if "soft" in self.wanted:
            z = (rows - self.median) / self.scale
            size = z.abs().clamp(min=table_spaces.SOFT_WIDTH)
            tail = table_spaces.SOFT_WIDTH * (1.0 + (size / table_spaces.SOFT_WIDTH).log())
            found["soft"] = torch.where(size > table_spaces.SOFT_WIDTH, torch.where(z < 0, -tail, tail), z)
        standard = self._standard(rows)
        if "standard" in self.wanted:
            found["standard"] = standard
        if "white" in self.wanted:
            found["white"] = standard @ self.whitening
        if "normal" in self.wanted:
            found["normal"] = self._normal(rows, standard) if self.has_free else standard
        return found

    def _standard(self, rows: Tensor) -> Tensor:
        far = table_spaces.FARTHEST
        return ((rows - self.center) / self.spread).clamp(-far, far)

    def _normal(self, rows: Tensor, standard: Tensor) -> Tensor:
        own = rows.index_select(1, self.free)
        inside = torch.minimum(torch.maximum(own, self.first), self.last)
        index = (count_below(self.knots, inside.T, right=True) - 1).clamp(min=0)
        offset = inside.T - self.finite_knots.gather(1, index)
        ranks = (self.ranks.gather(1, index) + self.slopes.gather(1, index) * offset).T
        center, spread = self.center.index_select(0, self.free), self.spread.index_select(0, self.free)
        far = table_spaces.FARTHEST
        beyond = standard.index_select(1, self.free) - ((inside - center) / spread).clamp(-far, far)
        scores = (ranks + beyond).index_select(1, self.back)
        return torch.where(self.is_free, scores, standard)
