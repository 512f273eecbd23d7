"""MADE coordinate by coordinate at the price of one pass: what sampling an autoregressive law needs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pushforward.networks.made import MADE, MaskedBlock, MaskedLinear
from pushforward.numerics import bound_input

__all__ = ["IncrementalMADE"]


class IncrementalMADE:
    """Raw parameters of one coordinate after the other, each from the coordinates that were fed before.

    Hidden units are sorted by degree, so every mask is a prefix: the units of degree k and the outputs of the k-th
    coordinate read the first so many values of the layer below, and no later one changes them. So nothing is computed
    twice, and all D coordinates together cost the arithmetic of one pass. Coordinates go in blocks: :meth:`open` adds
    what all earlier blocks contribute, in one matrix product a layer. Inside a block either :meth:`step` and
    :meth:`feed` take one coordinate after the other, or :meth:`sweep` computes all of it from a guess of its inputs,
    and :meth:`accept` keeps the last guess.

    Values have features first, ``(features, batch)``. All is differentiable. Dropout never acts. Weights are read when
    the object is made: make one for each batch.

    Args:
        network: the MADE.
        batch: rows.
        block: coordinates in a block.
        context: ``(batch, network.context)``, or None.

    Raises:
        InputError: if the context is missing or has the wrong width.

    Example:
        >>> import torch
        >>> network, x = MADE(features=3, outputs=2, hidden=(16,)), torch.randn(5, 3)
        >>> walk, raw = IncrementalMADE(network, batch=5, block=3), []
        >>> walk.open()
        >>> for place in range(3):
        ...     raw.append(walk.step())                 # (2, 1, 5), from the coordinates before
        ...     walk.feed(x[:, place].unsqueeze(0))
        >>> torch.allclose(torch.cat(raw, 1), network(x).movedim(1, 2), atol=1e-6)
        True
    """

    def __init__(self, network: MADE, batch: int, block: int, context: Tensor | None = None) -> None:
        self.network, self.batch, self.block = network, batch, block
        self.done = 0
        """Places that are known."""
        self.opened = range(0)
        """Places of the open block."""
        order = network.order
        sorted_already = order is None or order == tuple(range(network.features))
        self.guessed = False
        self.order = None if sorted_already else torch.tensor(order, device=network.last.weight.device)
        self.stages = self._make_stages(context)
        self.sources = [_Rows() for _ in self.stages]
        self.tasks: list[list[_Task]] = []

    def open(self, stop: int | None = None, *, sweeps: bool = False) -> None:
        """Begin with the places from the first unknown one to the end of its block.

        Args:
            stop: end here, within the block.
            sweeps: the places will be swept, not stepped through.
        """
        end = min(self.network.features, (self.done // self.block + 1) * self.block)
        self.opened = range(self.done, end if stop is None else min(stop, end))
        for source in self.sources:
            source.settle(keep=not self.guessed)
        self.guessed = False
        self.tasks = [self._together(level) if sweeps else self._by_place(level) for level in range(len(self.stages))]

    def step(self) -> Tensor:
        """Raw parameters of the next place, ``(outputs, 1, batch)``."""
        index = self.done - self.opened.start
        return self._run([tasks[index] for tasks in self.tasks]).unsqueeze(1)

    def feed(self, seen: Tensor) -> None:
        """What the network sees of the next place, ``(copies, batch)``."""
        self.sources[0].new.append(self._bounded(seen))
        self.done += 1

    def sweep(self, seen: Tensor) -> Tensor:
        """Raw parameters of all open places, ``(outputs, places, batch)``, if their inputs were these.

        Args:
            seen: what the network would see, ``(places * copies, batch)``, sorted by place.
        """
        self.guessed = True
        for source in self.sources:
            source.new.clear()
        self.sources[0].new.append(self._bounded(seen))
        return self._run([tasks[0] for tasks in self.tasks]).unflatten(0, (self.network.outputs, len(self.opened)))

    def accept(self) -> None:
        """Take the inputs of the last sweep as known."""
        self.guessed = False
        self.done = self.opened.stop

    def _run(self, tasks: list[_Task]) -> Tensor:
        """Some units of every layer: each product reads what the block holds of the layer below."""
        value = stream = tasks[0].base
        for level, (stage, task) in enumerate(zip(self.stages, tasks, strict=True)):
            value = task.base
            if not value.shape[0]:
                continue  # a layer with fewer units than coordinates has none of some degrees
            if task.weight is not None:
                value = torch.addmm(value, task.weight, self.sources[level].fresh())
            if stage.adds:
                value = value + stream
            if stage.keeps:
                stream = value
            if level + 1 < len(tasks):
                self.sources[level + 1].new.append(self.network.act(value) if stage.acts else value)
        return value

    def _product(self, level: int) -> tuple[Tensor, Tensor]:
        """For the open places: what a stage makes of all that is known, and its weights for what is not."""
        stage, first, last = self.stages[level], self.opened.start, self.opened.stop
        index = first // self.block
        low, begin, end = (self._known(level + 1, place) for place in (index * self.block, first, last))
        weight = stage.weights[index].narrow(-2, begin - low, end - begin)
        base = stage.starts[index].narrow(-2, begin - low, end - begin).flatten(0, -2)
        before, after = self._known(level, first), self._known(level, last)
        old = self.sources[level].old
        if old is not None:
            base = torch.addmm(base, weight.narrow(-1, 0, before).flatten(0, -2), old)
        elif base.shape[1] != self.batch:
            base = base.expand(-1, self.batch)
        return base, weight.narrow(-1, before, after - before)

    def _together(self, level: int) -> list[_Task]:
        """One task for all open places."""
        base, weight = self._product(level)
        first, last = self.opened.start, self.opened.stop
        rows, columns = (slice(self._known(at, first), self._known(at, last)) for at in (level + 1, level))
        mask = self.stages[level].linear.mask
        mask = self._sort_columns(mask) if level == 0 else mask
        mask = self._sort_rows(mask) if level + 1 == len(self.stages) else mask
        mask = mask[..., rows, columns]
        return [_Task(base, torch.where(mask, weight, 0.0).flatten(0, -2) if weight.shape[-1] else None)]

    def _by_place(self, level: int) -> list[_Task]:
        """One task for each open place: its rows, and the columns that it may read."""
        base, weight = self._product(level)
        places = [*self.opened, self.opened.stop]
        # A unit of degree k reads the units of degree k below it too; of the coordinates, the first k.
        read = [self._known(level, place) for place in (places[1:] if level else places[:-1])]
        counts = [count - self._known(level, places[0]) for count in read]
        if level + 1 == len(self.stages):
            bases, weights = base.unflatten(0, (self.network.outputs, -1)).unbind(1), weight.unbind(1)
        else:
            known = [self._known(level + 1, place) for place in places]
            sizes = [after - before for before, after in itertools.pairwise(known)]
            bases, weights = base.split(sizes), weight.split(sizes)
        return [
            _Task(base, weight.narrow(1, 0, count) if count else None)
            for base, weight, count in zip(bases, weights, counts, strict=True)
        ]

    def _known(self, level: int, place: int) -> int:
        """How many values of a level are known before a place: inputs (level 0), hidden units, coordinates."""
        if level == 0:
            return place * self.network.copies
        if level == len(self.stages):
            return place
        return self.network.units_below(place, self.stages[level].linear.in_features)

    def _bounded(self, seen: Tensor) -> Tensor:
        bound = self.network.input_bound
        return seen if bound is None else bound_input(seen, bound)

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
                known = places
            else:
                known = [network.units_below(place, linear.out_features) for place in places]
            sizes = [after - before for before, after in itertools.pairwise(known)]
            # Split once instead of sliced at each use: the gradient of a slice is a whole matrix.
            stages.append(_Stage(linear, weight.split(sizes, -2), start.split(sizes, -2), *flags))
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
    adds: bool
    """Whether the residual stream is added to the result."""
    keeps: bool
    """Whether the result becomes the residual stream."""
    acts: bool
    """Whether the activation follows."""


class _Task(NamedTuple):
    """What remains of a product: its constant terms, and the weights of what the block itself finds out."""

    base: Tensor
    weight: Tensor | None


class _Rows:
    """Values of one level: those of earlier blocks in one tensor, those of the open block piece by piece."""

    def __init__(self) -> None:
        self.old: Tensor | None = None
        self.new: list[Tensor] = []

    def settle(self, keep: bool) -> None:
        """The open block becomes an earlier one, or is forgotten."""
        if keep and self.new:
            self.old = torch.cat(self.new if self.old is None else [self.old, *self.new])
        self.new = []

    def fresh(self) -> Tensor:
        """What the open block holds."""
        return self.new[0] if len(self.new) == 1 else torch.cat(self.new)


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
