"""Sources of batches: arrays, map-style data sets and loaders.

A batch depends only on the seed and on its position. Rows that can be read by index form an endless stream of shuffled
passes, which is cut into equal batches: step s reads rows [s B, (s + 1) B) of the stream. So every row is read equally
often, all batches have the same size, and a resumed run computes its position in the stream.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from pushforward.errors import InputError
from pushforward.numerics.conversion import as_tensor
from pushforward.training.input_spec import InputSpec, Pair
from pushforward.training.seeds import Purpose, generator, mix, seed_loading

__all__ = [
    "BATCH_SIZE",
    "ArrayRows",
    "Batch",
    "DatasetRows",
    "LoaderRows",
    "Position",
    "Rows",
    "Share",
    "Source",
    "as_pair",
    "default_batch_size",
    "reseed",
]

BATCH_SIZE = 512
"""Rows in a batch for large data."""


def default_batch_size(rows: int) -> int:
    """Rows in a batch for a number of training rows: 512, or as many as give 32 steps per pass, but at least 64.

    With few rows, large batches overfit before they learn the distribution.
    """
    return min(BATCH_SIZE, max(64, rows // 32))


class Position(NamedTuple):
    """Position of the next batch: its step, its pass, and its number in the pass, all from 0."""

    step: int = 0
    epoch: int = 0
    number: int = 0


class Batch(NamedTuple):
    """Rows of one step, as the model reads them, with their pass and their number in the pass, from 0."""

    x: Tensor
    context: Tensor | None
    epoch: int
    number: int
    whole: int | None = None
    """Number of rows of the batch in all processes; None if these are all of its rows."""


class Share(NamedTuple):
    """The place of a process among those that share each batch."""

    rank: int
    size: int

    def rows(self, count: int) -> slice:
        """The rows of this process: consecutive parts, whose sizes differ by at most one."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)


class Source(ABC):
    """A source of rows."""

    spec: InputSpec
    steps: float | None
    """Steps in one pass; None if unknown."""
    description: str
    """Short text by which a checkpoint recognizes the data."""
    seed: int
    """Seed of the order of the rows."""
    share: Share | None = None
    """The part of each batch that is yielded; None for all of it."""

    def shared(self, share: Share) -> Self:
        """The same batches, of which this process takes its part; of :meth:`ordered` it takes every ``size``-th batch."""
        other = copy.copy(self)
        other.share = share
        return other

    def _is_own(self, index: int) -> bool:
        """Whether this process takes a batch of :meth:`ordered`."""
        return self.share is None or index % self.share.size == self.share.rank

    def reseeded(self, seed: int) -> Self:
        """The same rows in another order."""
        other = copy.copy(self)
        other.seed = seed
        return other

    @abstractmethod
    def batches(self, start: Position) -> Iterator[Batch]:
        """Endless training batches, from ``start`` on."""

    @abstractmethod
    def ordered(self) -> Iterator[Pair]:
        """All rows once, in a fixed order, in batches."""

    @abstractmethod
    def raw_sample(self, most: int) -> Pair:
        """Up to ``most`` representative rows, not cast to the model's type."""

    def ordered_weights(self) -> Iterator[Tensor] | None:
        """The weights of the rows of :meth:`ordered`, batch by batch, whose sum is 1; None if all are equal."""
        return None

    def digest(self) -> str:
        """A hash of the rows; empty if it would be expensive to compute."""
        return ""


class Rows(Source):
    """Rows that can be read by index.

    Args:
        spec: what the model reads.
        rows: indices of the rows that belong to this source.
        batch_size: rows in a batch, or all rows if there are fewer; None is :func:`default_batch_size`.
        seed: seed of the shuffling.
    """

    replacement = False
    """Whether a pass draws its rows with replacement, which makes batches independent."""

    def __init__(self, spec: InputSpec, rows: Tensor, batch_size: int | None, seed: int) -> None:
        self.spec = spec
        self.rows = rows
        count = self.reads
        self.batch_size = max(1, min(default_batch_size(count) if batch_size is None else batch_size, count))
        self.seed = seed
        self.steps = count / self.batch_size
        self.description = f"{type(self).__name__} of {len(rows)} rows"
        self._orders: dict[int, Tensor] = {}

    @property
    def reads(self) -> int:
        """Number of rows that a pass reads."""
        return len(self.rows)

    def reseeded(self, seed: int) -> Self:
        """The same rows in another order."""
        other = super().reseeded(seed)
        other._orders = {}
        return other

    @abstractmethod
    def read(self, rows: Tensor) -> Pair:
        """The rows at these indices, not cast."""

    @abstractmethod
    def part(self, rows: Tensor, batch_size: int | None) -> Rows:
        """A source of some of these rows."""

    def batches(self, start: Position) -> Iterator[Batch]:
        """Equal batches of the endless shuffled stream."""
        count, size = self.reads, self.batch_size
        for step in itertools.count(start.step):
            epoch, offset = divmod(step * size, count)
            chosen = self._order(epoch)[offset : offset + size]
            if len(chosen) < size:
                chosen = torch.cat([chosen, self._order(epoch + 1)[: size - len(chosen)]])
            first = -(-epoch * count // size)
            if self.share is None:
                yield Batch(*self._load(chosen, Purpose.LOADING, step), epoch, step - first)
            else:
                own = chosen[self.share.rows(size)]
                yield Batch(*self._load(own, Purpose.LOADING, step), epoch, step - first, size)

    def ordered(self) -> Iterator[Pair]:
        """All rows in their own order, in batches of twice the training size, since no gradients are stored."""
        for index, chosen in enumerate(self.rows.split(2 * self.batch_size)):
            if self._is_own(index):
                yield self._load(chosen, Purpose.HELD_OUT, index)

    def raw_sample(self, most: int) -> Pair:
        """Rows spread evenly over all rows."""
        seed_loading(mix(self.seed, Purpose.INITIALIZE))
        return self.read(self.spread(most))

    def spread(self, most: int) -> Tensor:
        """Indices of up to ``most`` rows, spread evenly over all rows."""
        count = len(self.rows)
        return self.rows if count <= most else self.rows[torch.arange(most) * count // most]

    def _load(self, chosen: Tensor, purpose: Purpose, number: int) -> Pair:
        rank = 0 if self.share is None or purpose is not Purpose.LOADING else self.share.rank
        seed_loading(mix(self.seed, purpose, number, rank) if rank else mix(self.seed, purpose, number))
        return self.spec.cast(*self.read(chosen))

    def _order(self, epoch: int) -> Tensor:
        """The rows in the order of pass ``epoch``. The orders of this pass and the previous one are stored."""
        if epoch not in self._orders:
            shuffler = generator(self.seed, Purpose.SHUFFLE, epoch)
            self._orders = {k: order for k, order in self._orders.items() if k == epoch - 1}
            self._orders[epoch] = self.rows[self._choose(self.reads, shuffler)]
        return self._orders[epoch]

    def _choose(self, count: int, shuffler: torch.Generator) -> Tensor:
        """Which of the ``count`` rows a pass reads, in its order."""
        if self.replacement:
            return torch.randint(count, (count,), generator=shuffler)
        return torch.randperm(count, generator=shuffler)


class ArrayRows(Rows):
    """Rows of a tensor.

    Args:
        spec: what the model reads.
        x: ``(n, *shape)``.
        context: ``(n, width)`` or None.
        rows: as for :class:`Rows`.
        batch_size: as for :class:`Rows`.
        seed: as for :class:`Rows`.
    """

    def __init__(
        self, spec: InputSpec, x: Tensor, context: Tensor | None, rows: Tensor, batch_size: int | None, seed: int
    ) -> None:
        super().__init__(spec, rows, batch_size, seed)
        self.x, self.context = x, context

    def part(self, rows: Tensor, batch_size: int | None) -> ArrayRows:
        """A source of some of the rows, which shares the tensors."""
        return ArrayRows(self.spec, self.x, self.context, rows, batch_size, self.seed)

    def read(self, rows: Tensor) -> Pair:
        """The rows at these indices."""
        rows = rows.to(self.x.device, non_blocking=True)
        return self.x[rows], None if self.context is None else self.context[rows]

    # Reading a tensor uses no random numbers, so these two methods seed nothing.
    def raw_sample(self, most: int) -> Pair:
        """Rows spread evenly over all rows. The global generators do not change."""
        return self.read(self.spread(most))

    def _load(self, chosen: Tensor, purpose: Purpose, number: int) -> Pair:
        return self.spec.cast(*self.read(chosen))

    def digest(self) -> str:
        """Hash of up to 1,024 rows spread evenly over all rows."""
        digest = hashlib.sha256()
        for part in self.spec.cast(*self.raw_sample(1024)):
            if part is not None:
                digest.update(part.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]


class DatasetRows(Rows):
    """Rows of a map-style data set, whose items are x or (x, context).

    Args:
        spec: what the model reads.
        dataset: data set with ``__getitem__``, or ``__getitems__`` for several items at once.
        rows: as for :class:`Rows`.
        batch_size: as for :class:`Rows`.
        seed: as for :class:`Rows`.
    """

    def __init__(self, spec: InputSpec, dataset: Dataset, rows: Tensor, batch_size: int | None, seed: int) -> None:
        super().__init__(spec, rows, batch_size, seed)
        self.dataset: Any = dataset

    def part(self, rows: Tensor, batch_size: int | None) -> DatasetRows:
        """A source of some of the items."""
        return DatasetRows(self.spec, self.dataset, rows, batch_size, self.seed)

    def read(self, rows: Tensor) -> Pair:
        """The items at these indices, stacked."""
        indices = rows.tolist()
        get_items = getattr(self.dataset, "__getitems__", None)
        items = [self.dataset[index] for index in indices] if get_items is None else get_items(indices)
        try:
            if not self.spec.context:  # what is ignored need not be stacked
                items = [item[0] if isinstance(item, list | tuple) and len(item) == 2 else item for item in items]
            return as_pair(default_collate(items), bool(self.spec.context))
        except (TypeError, RuntimeError) as error:
            raise InputError(f"the items of the data set cannot be stacked to a batch: {error}") from error


_NO_BATCH = (
    "the DataLoader yields no batch: its data set is empty, drop_last drops its only batch, or it can be read only once, as "
    "a generator, where training reads it several times."
)


class LoaderRows(Source):
    """Batches of a ``DataLoader``, for data larger than memory.

    Shuffling and random transforms are seeded for each pass and batch. A resumed run reads the current pass again up
    to its position. Persistent workers are seeded when they start, so what they read depends on the passes before.

    Args:
        spec: what the model reads.
        loader: loader that yields x or (x, context).
        seed: seed of the loader's shuffling and of random transforms.
    """

    def __init__(self, spec: InputSpec, loader: DataLoader, seed: int) -> None:
        self.spec = spec
        self.loader = loader
        self.seed = seed
        try:
            self.steps = len(loader)
        except TypeError:
            self.steps = None
        self.description = f"DataLoader of {'unknown length' if self.steps is None else f'{self.steps} batches'}"

    def batches(self, start: Position) -> Iterator[Batch]:
        """The loader's batches, pass after pass.

        Raises:
            InputError: if a pass has no batches.
        """
        skip = start.number
        for epoch in itertools.count(start.epoch):
            count = 0
            for index, pair in enumerate(self._one_pass(Purpose.LOADING, epoch)):
                count += 1
                if index >= skip:
                    yield self._own_part(Batch(*self.spec.cast(*pair), epoch, index))
            if not count:
                raise InputError(_NO_BATCH)
            skip = 0

    def ordered(self) -> Iterator[Pair]:
        """One pass, always with the same seed."""
        index = -1
        for index, pair in enumerate(self._one_pass(Purpose.HELD_OUT, 0)):
            if self._is_own(index):
                yield self.spec.cast(*pair)
        if index < 0:
            raise InputError(_NO_BATCH)

    def raw_sample(self, most: int) -> Pair:
        """The first rows of one pass."""
        parts: list[Pair] = []
        for pair in self._one_pass(Purpose.INITIALIZE, 0):
            parts.append(pair)
            if sum(len(x) for x, _ in parts) >= most:
                break
        if not parts:
            raise InputError(_NO_BATCH)
        contexts = [context for _, context in parts if context is not None]
        return torch.cat([x for x, _ in parts])[:most], torch.cat(contexts)[:most] if contexts else None

    def _own_part(self, batch: Batch) -> Batch:
        if self.share is None:
            return batch
        if len(batch.x) < self.share.size:
            raise InputError(
                f"a batch of the DataLoader has {len(batch.x)} rows, and {self.share.size} processes share it: use drop_last=True "
                "or larger batches."
            )
        own = self.share.rows(len(batch.x))
        context = None if batch.context is None else batch.context[own]
        return batch._replace(x=batch.x[own], context=context, whole=len(batch.x))

    def _one_pass(self, purpose: Purpose, epoch: int) -> Iterator[Pair]:
        reseed(self.loader, mix(self.seed, purpose, epoch), epoch)
        seed_loading(mix(self.seed, purpose, epoch))
        iterator = iter(self.loader)
        for index in itertools.count():
            seed_loading(mix(self.seed, purpose, epoch, index))
            try:
                item = next(iterator)
            except StopIteration:
                return
            pair = as_pair(item, bool(self.spec.context))
            if pair[0].dim() == 0 or len(pair[0]):  # functions that drop bad rows make empty batches
                yield pair


def reseed(loader: DataLoader, seed: int, epoch: int) -> None:
    """Seed the generators of a loader and its samplers, and those of another loader whose batches its data set changes."""
    sampler = getattr(loader.batch_sampler, "sampler", None)
    for owner in (loader, loader.sampler, loader.batch_sampler, sampler):
        own = getattr(owner, "generator", None)
        if isinstance(own, torch.Generator):
            own.manual_seed(seed)
        if hasattr(owner, "set_epoch"):
            owner.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    inner = getattr(loader.dataset, "loader", None)
    if isinstance(inner, DataLoader):
        reseed(inner, seed, epoch)


def as_pair(item: Any, context: bool = True) -> Pair:
    """(x, context) from an item of a data set or a loader: x, (x,) or (x, context). Without ``context`` the second part is ignored.

    Raises:
        InputError: for anything else.
    """
    parts = list(item) if isinstance(item, list | tuple) else [item]
    if not 1 <= len(parts) <= 2:
        raise InputError(f"a data set or loader must yield x or (x, context); got {len(parts)} parts.")
    parts = parts if context else parts[:1]
    tensors = [as_tensor(part) if isinstance(part, np.ndarray) else part for part in parts]
    if wrong := [part for part in tensors if not isinstance(part, Tensor)]:
        raise InputError(
            f"a data set or loader must yield tensors or arrays, x or (x, context); got {type(wrong[0]).__name__}."
        )
    return tensors[0], tensors[1] if len(tensors) == 2 else None
