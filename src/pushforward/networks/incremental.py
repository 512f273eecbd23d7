"""MADE coordinate by coordinate with the arithmetic of one pass, for the inverses of autoregressive transforms and for sampling."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pushforward.kernels import tuning
from pushforward.networks.activations import replace
from pushforward.networks.made import MADE, MaskedBlock
from pushforward.numerics import bound_input, constant, is_eager

__all__ = ["IncrementalMADE"]


class IncrementalMADE:
    """The raw parameters of one coordinate after the other, each from the coordinates before.

    Hidden units are sorted by degree, so the units of degree k, and the outputs of coordinate k, depend on the first values of
    the layer below only, and later values do not change them. Nothing is computed twice, and all D coordinates together
    cost the arithmetic of one pass. Coordinates are computed in blocks: the terms of all earlier blocks are one matrix product
    for each layer. Within a block, either :meth:`step` and :meth:`feed` take one coordinate after the other, or, after
    :meth:`open`, :meth:`sweep` computes all coordinates from a guess of their inputs, and :meth:`accept` keeps the last guess.

    Tensors have the features first, ``(features, batch)``, and all results are differentiable. There is no dropout. The weights
    are read when the object is created, so create one for each batch.

    Args:
        network: the MADE.
        batch: number of rows.
        context: ``(batch, network.context)``, or None.
        block: number of coordinates of a block; None for a size that is fast in steps.

    Raises:
        InputError: if the context is missing or has the wrong width.

    Example:
        >>> import torch
        >>> network, x = MADE(features=3, outputs=2, hidden=(16,)), torch.randn(5, 3)
        >>> incremental, raw = IncrementalMADE(network, batch=5), []
        >>> for position in range(3):
        ...     raw.append(incremental.step())                 # (2, 1, 5), from the coordinates before
        ...     incremental.feed(x[:, position].unsqueeze(0))
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
        """Number of known coordinates."""
        self.opened = range(0)
        """Positions of the current block."""
        order = network.order
        self.guessed = False
        self.order: Tensor | None = None
        if order is not None and order != tuple(range(network.features)):
            self.order = constant(order, torch.int64, network.last.weight.device)
        self.stages = self._make_stages(context)
        self.sources = [self._rows(stage.linear.in_features) for stage in self.stages]
        self.tasks: list[tuple[_Task, ...]] = []
        """The tasks of all levels, for each position of the block, or once for the whole block in sweeps."""
        self.targets: Sequence[Tensor | None] = []
        """For the same, the part of the buffer of inputs to write."""

    def open(self, *, sweeps: bool = False) -> None:
        """Begin the next block, or begin a block without accepted inputs again; :meth:`step` calls it when needed.

        Args:
            sweeps: whether :meth:`sweep` follows, not :meth:`step`.
        """
        self.opened = range(self.done, min(self.network.features, self.done + self.block))
        for source in self.sources:
            if self.guessed:
                source.clear()
            source.finish()
        self.guessed = False
        levels = range(len(self.stages))
        tasks = [self._together(level) if sweeps else self._by_position(level) for level in levels]
        self.tasks = list(zip(*tasks, strict=True))
        copies, count = self.network.copies, len(self.opened)
        target = self.sources[0].part(self.opened.start * copies, count * copies)
        self.targets = [target] if sweeps else [None] * count if target is None else target.split(copies)

    def step(self, out: Tensor | None = None) -> Tensor:
        """Raw parameters of the next coordinate, ``(outputs, 1, batch)``; call it once for each.

        Args:
            out: ``(outputs, batch)``, a tensor to write them to, if no gradient is needed.
        """
        if self.done == self.opened.stop:
            self.open()
        raw = self._run(self.tasks[self.done - self.opened.start], out)
        return raw if out is not None else raw.unsqueeze(1)

    def feed(self, seen: Tensor) -> None:
        """Set the inputs of the network for the next coordinate, ``(copies, batch)``."""
        self._put_input(seen, self.targets[self.done - self.opened.start])
        self.done += 1

    def sweep(self, seen: Tensor) -> Tensor:
        """Raw parameters of all coordinates of the block, ``(outputs, positions, batch)``, from a guess of their inputs.

        Args:
            seen: the guessed inputs, ``(positions * copies, batch)``, sorted by position.
        """
        self.guessed = True
        for source in self.sources:
            source.clear()
        self._put_input(seen, self.targets[0])
        return self._run(self.tasks[0]).unflatten(0, (self.network.outputs, len(self.opened)))

    def accept(self) -> None:
        """Accept the inputs of the last sweep."""
        self.guessed = False
        self.done = self.opened.stop

    def _run(self, tasks: tuple[_Task, ...], out: Tensor | None = None) -> Tensor:
        """The tasks of all layers: each product reads the values of the block in the layer below."""
        act, last = self.network.act, len(tasks) - 1
        value = stream = tasks[0].base
        for level, (value, weight, seen, target) in enumerate(tasks):
            if not value.shape[0]:
                continue  # a layer with fewer units than coordinates lacks some degrees
            into = out if level == last else target if value is target else None
            if weight is not None:
                value = torch.addmm(value, weight, self.sources[level].current() if seen is None else seen, out=into)
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
                value = replace(act, value) if value is target else act(value)
            self.sources[level + 1].put(value, target)
        return value

    def _put_input(self, seen: Tensor, target: Tensor | None) -> None:
        bound = self.network.input_bound
        if bound is not None and target is not None:
            torch.clamp(seen, -bound, bound, out=target)
        else:
            self.sources[0].put(seen if bound is None else bound_input(seen, bound), target)

    def _product(self, level: int, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """For the block: the terms of all earlier blocks at a stage, and the weights of the block's own values."""
        stage, index = self.stages[level], self.opened.start // self.block
        weight, base = stage.weights[index], stage.starts[index].flatten(0, -2)
        before, after = self._known(level, self.opened.start), self._known(level, self.opened.stop)
        old = self.sources[level].earlier(before)
        if old is not None:
            base = torch.addmm(base, weight.narrow(-1, 0, before).flatten(0, -2), old, out=out)
        elif out is not None:
            base = out.copy_(base)
        elif base.shape[1] != self.batch:
            base = base.expand(-1, self.batch)
        return base, weight.narrow(-1, before, after - before)

    def _shape(self, level: int) -> tuple[list[int], list[int]]:
        """For each position of the block, its rows at a stage, and the number of the block's columns that they read."""
        positions = [*self.opened, self.opened.stop]
        known = [self._known(level + 1, position) for position in positions]
        # A unit of degree k reads units of degree up to k in the layer below, and the first k coordinates.
        read = [self._known(level, position) for position in (positions[1:] if level else positions[:-1])]
        before = self._known(level, positions[0])
        return [after - before for before, after in itertools.pairwise(known)], [count - before for count in read]

    def _together(self, level: int) -> list[_Task]:
        """One task for the whole block."""
        base, weight = self._product(level)
        rows, read = self._shape(level)
        target = self._target(level, sum(rows))
        if not weight.shape[-1]:
            return [_Task(base, None, None, target)]
        columns = tuple(columns for count, columns in zip(rows, read, strict=True) for _ in range(count))
        reach = constant(columns, torch.int64, weight.device)
        mask = torch.arange(weight.shape[-1], device=weight.device) < reach.unsqueeze(1)
        weight = torch.where(mask, weight, 0.0).flatten(0, -2)
        return [_Task(base, weight, self._seen(level, weight.shape[1]), target)]

    def _by_position(self, level: int) -> list[_Task]:
        """One task for each position: its rows, and the columns that they read."""
        rows, read = self._shape(level)
        target, stage = self._target(level, sum(rows)), self.stages[level]
        # A value may overwrite its constant terms, unless the residual stream needs them.
        inside = target is not None and not (stage.adds or stage.keeps)
        base, weight = self._product(level, target if inside else None)
        if level + 1 == len(self.stages):
            bases, weights = base.unflatten(0, (self.network.outputs, -1)).unbind(1), weight.unbind(1)
        else:
            bases, weights = base.split(rows), weight.split(rows)
        targets = bases if inside else [None] * len(rows) if target is None else target.split(rows)
        return [
            _Task(base, weight[:, :columns], self._seen(level, columns), target)
            if columns
            else _Task(base, None, None, target)
            for base, weight, columns, target in zip(bases, weights, read, targets, strict=True)
        ]

    def _seen(self, level: int, columns: int) -> Tensor | None:
        """The first values of the block at a level, if they have a buffer."""
        return self.sources[level].part(self._known(level, self.opened.start), columns)

    def _target(self, level: int, rows: int) -> Tensor | None:
        """The part of the buffer for the results of a level, if there is one."""
        if level + 1 == len(self.stages):
            return None
        return self.sources[level + 1].part(self._known(level + 1, self.opened.start), rows)

    def _known(self, level: int, position: int) -> int:
        """The number of values of a level that are known before a position: inputs (level 0), hidden units, outputs."""
        return position * self.network.copies if level == 0 else self.stages[level - 1].known[position]

    def _rows(self, count: int) -> _Rows:
        like = self.network.last.weight
        return _Rows(like.new_empty(count, self.batch) if is_eager() and not torch.is_grad_enabled() else None)

    def _make_stages(self, context: Tensor | None) -> list[_Stage]:
        network = self.network
        plan = _plan(network)
        first, last = network.context_terms(context)
        positions = [*range(0, network.features, self.block), network.features]
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
            sizes = [known[after] - known[before] for before, after in itertools.pairwise(positions)]
            # Split once, not sliced at each use, as the gradient of each slice is a whole matrix.
            stages.append(_Stage(linear, weight.split(sizes, -2), start.split(sizes, -2), known, *flags))
        return stages

    def _sort_columns(self, weight: Tensor) -> Tensor:
        """Columns of the first layer sorted by position, the copies of a coordinate side by side."""
        if self.order is not None or self.network.copies > 1:
            weight = weight.unflatten(1, (self.network.copies, self.network.features))
            weight = weight if self.order is None else weight.index_select(2, self.order)
            weight = weight.transpose(1, 2).flatten(1)
        return weight

    def _sort_rows(self, rows: Tensor) -> Tensor:
        """Rows of the last layer sorted by position: ``(outputs * features, n)`` to ``(outputs, features, n)``."""
        rows = rows.unflatten(0, (self.network.outputs, self.network.features))
        return rows if self.order is None else rows.index_select(1, self.order)


@dataclass(frozen=True)
class _Stage:
    """A masked product and the operations after it; weights and constant terms in blocks, rows and columns sorted by degree."""

    linear: nn.Linear
    weights: Sequence[Tensor]
    starts: Sequence[Tensor]
    known: Sequence[int]
    """The number of its rows that are known before each position."""
    adds: bool
    """Whether the residual stream is added to the result."""
    keeps: bool
    """Whether the result becomes the residual stream."""
    acts: bool
    """Whether the activation is applied."""


class _Task(NamedTuple):
    """The rest of a product: the terms of earlier blocks, and the weights of the block's own values.

    With buffers, also the part of a buffer that it reads (``seen``), and the part for its result (``target``).
    """

    base: Tensor
    weight: Tensor | None
    seen: Tensor | None
    target: Tensor | None


class _Rows:
    """Values of one level, of earlier blocks and of the current one: in a buffer, or as a list of pieces."""

    def __init__(self, buffer: Tensor | None) -> None:
        self.buffer = buffer
        self.whole: Tensor | None = None
        self.pieces: list[Tensor] = []

    def part(self, start: int, count: int) -> Tensor | None:
        """A part of the buffer."""
        return None if self.buffer is None else self.buffer[start : start + count]

    def put(self, piece: Tensor, target: Tensor | None) -> None:
        """Append to the current block."""
        if target is None:
            self.pieces.append(piece)
        elif target is not piece:
            target.copy_(piece)

    def clear(self) -> None:
        """Remove the current block."""
        self.pieces = []

    def finish(self) -> None:
        """End the current block."""
        if self.pieces:
            self.whole = torch.cat(self.pieces if self.whole is None else [self.whole, *self.pieces])
            self.pieces = []

    def earlier(self, count: int) -> Tensor | None:
        """The ``count`` values of earlier blocks, if any."""
        return self.whole if self.buffer is None or not count else self.part(0, count)

    def current(self) -> Tensor:
        """The values of the current block, from its pieces."""
        return self.pieces[0] if len(self.pieces) == 1 else torch.cat(self.pieces)


def _plan(network: MADE) -> list[tuple[nn.Linear, tuple[bool, bool, bool]]]:
    """The network as a list of products, each with the flags of :class:`_Stage`."""
    plan: list[tuple[nn.Linear, tuple[bool, bool, bool]]] = []
    for index, layer in enumerate(network.layers):
        if isinstance(layer, MaskedBlock):
            plan.append((layer.first, (False, False, True)))
            plan.append((layer.second, (True, True, index + 1 < len(network.layers))))
        elif isinstance(layer, nn.Linear):  # also one whose mask was multiplied into the weights
            plan.append((layer, (False, network.residual, True)))
    return [*plan, (network.last, (False, False, False))]
