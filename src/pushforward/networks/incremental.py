"""MADE coordinate by coordinate at the price of one pass: what sampling an autoregressive law needs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pushforward.kernels import tuning
from pushforward.networks.activations import replace
from pushforward.networks.made import MADE, MaskedBlock
from pushforward.networks.masked import MaskedLinear
from pushforward.numerics import bound_input, constant, is_eager

__all__ = ["IncrementalMADE"]


class IncrementalMADE:
    """Raw parameters of one coordinate after the other, each from the coordinates that were fed before.

    Hidden units are sorted by degree, so every mask is a prefix: the units of degree k and the outputs of the k-th
    coordinate read the first so many values of the layer below, and no later one changes them. So nothing is computed
    twice, and all D coordinates together cost the arithmetic of one pass. Coordinates go in blocks: what all earlier
    blocks contribute to a block comes in one matrix product a layer. Inside a block either :meth:`step` and
    :meth:`feed` take one coordinate after the other, or, after :meth:`open`, :meth:`sweep` computes all of it from a
    guess of its inputs, and :meth:`accept` keeps the last guess.

    Values have features first, ``(features, batch)``. All is differentiable. Dropout never acts. Weights are read when
    the object is made: make one for each batch.

    Args:
        network: the MADE.
        batch: rows.
        context: ``(batch, network.context)``, or None.
        block: coordinates in a block; None for what suits steps.

    Raises:
        InputError: if the context is missing or has the wrong width.

    Example:
        >>> import torch
        >>> network, x = MADE(features=3, outputs=2, hidden=(16,)), torch.randn(5, 3)
        >>> walk, raw = IncrementalMADE(network, batch=5), []
        >>> for place in range(3):
        ...     raw.append(walk.step())                 # (2, 1, 5), from the coordinates before
        ...     walk.feed(x[:, place].unsqueeze(0))
        >>> torch.allclose(torch.cat(raw, 1), network(x).movedim(1, 2), atol=1e-6)
        True
    """

    def __init__(self, network: MADE, batch: int, context: Tensor | None = None, *, block: int | None = None) -> None:
        self.network, self.batch = network, batch
        # Few products between blocks and small ones inside: flat around the best.
        self.block = block or (
            tuning.STEP_BLOCK if network.features < tuning.STEP_BLOCK_LARGE_FROM else tuning.STEP_BLOCK_LARGE
        )
        self.done = 0
        """Places that are known."""
        self.opened = range(0)
        """Places of the open block."""
        order = network.order
        self.guessed = False
        self.order: Tensor | None = None
        if order is not None and order != tuple(range(network.features)):
            self.order = constant(order, torch.int64, network.last.weight.device)
        self.stages = self._make_stages(context)
        self.sources = [self._rows(stage.linear.in_features) for stage in self.stages]
        self.tasks: list[tuple[_Task, ...]] = []
        """For each open place, or for all of them together, what is to be done at each level."""
        self.rooms: Sequence[Tensor | None] = []
        """For the same, where in the buffer of inputs they go."""

    def open(self, *, sweeps: bool = False) -> None:
        """Begin the next block, or an unaccepted one again; :meth:`step` does it by itself.

        Args:
            sweeps: the places will be swept, not stepped through.
        """
        self.opened = range(self.done, min(self.network.features, self.done + self.block))
        for source in self.sources:
            if self.guessed:
                source.forget()
            source.settle()
        self.guessed = False
        levels = range(len(self.stages))
        tasks = [self._together(level) if sweeps else self._by_place(level) for level in levels]
        self.tasks = list(zip(*tasks, strict=True))
        copies, count = self.network.copies, len(self.opened)
        room = self.sources[0].part(self.opened.start * copies, count * copies)
        self.rooms = [room] if sweeps else [None] * count if room is None else room.split(copies)

    def step(self, out: Tensor | None = None) -> Tensor:
        """Raw parameters of the next place, ``(outputs, 1, batch)``; once for each.

        Args:
            out: ``(outputs, batch)``, where to write them, if no gradient is wanted.
        """
        if self.done == self.opened.stop:
            self.open()
        raw = self._run(self.tasks[self.done - self.opened.start], out)
        return raw if out is not None else raw.unsqueeze(1)

    def feed(self, seen: Tensor) -> None:
        """What the network sees of the next place, ``(copies, batch)``."""
        self._put_input(seen, self.rooms[self.done - self.opened.start])
        self.done += 1

    def sweep(self, seen: Tensor) -> Tensor:
        """Raw parameters of all open places, ``(outputs, places, batch)``, if their inputs were these.

        Args:
            seen: what the network would see, ``(places * copies, batch)``, sorted by place.
        """
        self.guessed = True
        for source in self.sources:
            source.forget()
        self._put_input(seen, self.rooms[0])
        return self._run(self.tasks[0]).unflatten(0, (self.network.outputs, len(self.opened)))

    def accept(self) -> None:
        """Take the inputs of the last sweep as known."""
        self.guessed = False
        self.done = self.opened.stop

    def _run(self, tasks: tuple[_Task, ...], out: Tensor | None = None) -> Tensor:
        """Some units of every layer: each product reads what the block holds of the layer below."""
        act, last = self.network.act, len(tasks) - 1
        value = stream = tasks[0].base
        for level, (value, weight, seen, room) in enumerate(tasks):
            if not value.shape[0]:
                continue  # a layer with fewer units than coordinates has none of some degrees
            into = out if level == last else room if value is room else None
            if weight is not None:
                value = torch.addmm(value, weight, self.sources[level].fresh() if seen is None else seen, out=into)
            elif into is not None and into is not value:
                value = into.copy_(value)
            if level == last:
                break
            stage = self.stages[level]
            if stage.adds:
                value = value + stream
            if stage.keeps:
                stream = value
            if stage.acts:
                value = replace(act, value) if value is room else act(value)
            self.sources[level + 1].put(value, room)
        return value

    def _put_input(self, seen: Tensor, room: Tensor | None) -> None:
        bound = self.network.input_bound
        if bound is not None and room is not None:
            torch.clamp(seen, -bound, bound, out=room)
        else:
            self.sources[0].put(seen if bound is None else bound_input(seen, bound), room)

    def _product(self, level: int, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """For the open places: what a stage makes of all that is known, and its weights for what is not."""
        stage, index = self.stages[level], self.opened.start // self.block
        weight, base = stage.weights[index], stage.starts[index].flatten(0, -2)
        before, after = self._known(level, self.opened.start), self._known(level, self.opened.stop)
        old = self.sources[level].old(before)
        if old is not None:
            base = torch.addmm(base, weight.narrow(-1, 0, before).flatten(0, -2), old, out=out)
        elif out is not None:
            base = out.copy_(base)
        elif base.shape[1] != self.batch:
            base = base.expand(-1, self.batch)
        return base, weight.narrow(-1, before, after - before)

    def _shape(self, level: int) -> tuple[list[int], list[int]]:
        """For each open place, its rows at a stage, and how many of the block's columns they read."""
        places = [*self.opened, self.opened.stop]
        known = [self._known(level + 1, place) for place in places]
        # A unit of degree k reads the units of degree k below it too; of the coordinates, the first k.
        read = [self._known(level, place) for place in (places[1:] if level else places[:-1])]
        before = self._known(level, places[0])
        return [after - before for before, after in itertools.pairwise(known)], [count - before for count in read]

    def _together(self, level: int) -> list[_Task]:
        """One task for all open places."""
        base, weight = self._product(level)
        rows, read = self._shape(level)
        room = self._room(level, sum(rows))
        if not weight.shape[-1]:
            return [_Task(base, None, None, room)]
        columns = tuple(columns for count, columns in zip(rows, read, strict=True) for _ in range(count))
        reach = constant(columns, torch.int64, weight.device)
        mask = torch.arange(weight.shape[-1], device=weight.device) < reach.unsqueeze(1)
        weight = torch.where(mask, weight, 0.0).flatten(0, -2)
        return [_Task(base, weight, self._seen(level, weight.shape[1]), room)]

    def _by_place(self, level: int) -> list[_Task]:
        """One task for each open place: its rows, and the columns that they read."""
        rows, read = self._shape(level)
        room, stage = self._room(level, sum(rows)), self.stages[level]
        # A value may lie where its constant terms lay, unless the residual stream passes there.
        inside = room is not None and not (stage.adds or stage.keeps)
        base, weight = self._product(level, room if inside else None)
        if level + 1 == len(self.stages):
            distributions, weights = base.unflatten(0, (self.network.outputs, -1)).unbind(1), weight.unbind(1)
        else:
            distributions, weights = base.split(rows), weight.split(rows)
        rooms = distributions if inside else [None] * len(rows) if room is None else room.split(rows)
        return [
            _Task(base, weight[:, :columns], self._seen(level, columns), room)
            if columns
            else _Task(base, None, None, room)
            for base, weight, columns, room in zip(distributions, weights, read, rooms, strict=True)
        ]

    def _seen(self, level: int, columns: int) -> Tensor | None:
        """The first values of a level that the open block finds out, where they have a buffer."""
        return self.sources[level].part(self._known(level, self.opened.start), columns)

    def _room(self, level: int, rows: int) -> Tensor | None:
        """Where the results of a level go, if there is a buffer."""
        if level + 1 == len(self.stages):
            return None
        return self.sources[level + 1].part(self._known(level + 1, self.opened.start), rows)

    def _known(self, level: int, place: int) -> int:
        """How many values of a level are known before a place: inputs (level 0), hidden units, coordinates."""
        return place * self.network.copies if level == 0 else self.stages[level - 1].known[place]

    def _rows(self, count: int) -> _Rows:
        like = self.network.last.weight
        return _Rows(like.new_empty(count, self.batch) if is_eager() and not torch.is_grad_enabled() else None)

    def _make_stages(self, context: Tensor | None) -> list[_Stage]:
        network = self.network
        plan = _plan(network)
        first, last = network.context_terms(context)
        places = [*range(0, network.features, self.block), network.features]
        stages: list[_Stage] = []
        for level, (linear, flags) in enumerate(plan):
            ends = level + 1 == len(plan)
            start = linear.bias.unsqueeze(-1)
            term = last if ends else first if level == 0 else None
            start = start if term is None else start + term.t()
            weight = self._sort_columns(linear.weight) if level == 0 else linear.weight
            if ends:
                start, weight = self._sort_rows(start), self._sort_rows(weight)
                known = range(network.features + 1)
            else:
                known = network.units_below[linear.out_features]
            sizes = [known[after] - known[before] for before, after in itertools.pairwise(places)]
            # Split once instead of sliced at each use: the gradient of a slice is a whole matrix.
            stages.append(_Stage(linear, weight.split(sizes, -2), start.split(sizes, -2), known, *flags))
        return stages

    def _sort_columns(self, weight: Tensor) -> Tensor:
        """Columns of the first layer by place, the copies of a coordinate side by side."""
        if self.order is not None or self.network.copies > 1:
            weight = weight.unflatten(1, (self.network.copies, self.network.features))
            weight = weight if self.order is None else weight.index_select(2, self.order)
            weight = weight.transpose(1, 2).flatten(1)
        return weight

    def _sort_rows(self, rows: Tensor) -> Tensor:
        """Rows of the last layer by place: ``(outputs * features, n)`` to ``(outputs, features, n)``."""
        rows = rows.unflatten(0, (self.network.outputs, self.network.features))
        return rows if self.order is None else rows.index_select(1, self.order)


@dataclass(frozen=True)
class _Stage:
    """A masked product and what follows it: weights and constant terms by block, rows and columns sorted."""

    linear: MaskedLinear
    weights: Sequence[Tensor]
    starts: Sequence[Tensor]
    known: Sequence[int]
    """How many of its rows are known before each place."""
    adds: bool
    """Whether the residual stream is added to the result."""
    keeps: bool
    """Whether the result becomes the residual stream."""
    acts: bool
    """Whether the activation follows."""


class _Task(NamedTuple):
    """What remains of a product: its constant terms, and the weights of what the block itself finds out.

    Where values are kept in buffers, also the piece of one that it reads, and the piece where its result goes.
    """

    base: Tensor
    weight: Tensor | None
    seen: Tensor | None
    room: Tensor | None


class _Rows:
    """Values of one level, those of earlier blocks and those of the open one: in a buffer, or as a list of pieces."""

    def __init__(self, buffer: Tensor | None) -> None:
        self.buffer = buffer
        self.whole: Tensor | None = None
        self.pieces: list[Tensor] = []

    def part(self, start: int, count: int) -> Tensor | None:
        """A piece of the buffer."""
        return None if self.buffer is None else self.buffer[start : start + count]

    def put(self, piece: Tensor, room: Tensor | None) -> None:
        """Add to the open block."""
        if room is None:
            self.pieces.append(piece)
        elif room is not piece:
            room.copy_(piece)

    def forget(self) -> None:
        """Empty the open block."""
        self.pieces = []

    def settle(self) -> None:
        """Make the open block an earlier one."""
        if self.pieces:
            self.whole = torch.cat(self.pieces if self.whole is None else [self.whole, *self.pieces])
            self.pieces = []

    def old(self, count: int) -> Tensor | None:
        """What earlier blocks hold, if anything: so many values."""
        return self.whole if self.buffer is None or not count else self.part(0, count)

    def fresh(self) -> Tensor:
        """What the open block holds, of pieces."""
        return self.pieces[0] if len(self.pieces) == 1 else torch.cat(self.pieces)


def _plan(network: MADE) -> list[tuple[MaskedLinear, tuple[bool, bool, bool]]]:
    """The network as a list of products, each with the flags of :class:`_Stage`."""
    plan: list[tuple[MaskedLinear, tuple[bool, bool, bool]]] = []
    for index, layer in enumerate(network.layers):
        if isinstance(layer, MaskedBlock):
            plan.append((layer.first, (False, False, True)))
            plan.append((layer.second, (True, True, index + 1 < len(network.layers))))
        elif isinstance(layer, MaskedLinear):
            plan.append((layer, (False, network.residual, True)))
    return [*plan, (network.last, (False, False, False))]
