"""Where batches come from: arrays, map-style data sets and loaders.

Batches are functions of the seed and of their place alone. Rows that can be read by index form an endless stream of
shuffled passes, cut into equal batches: step s reads rows [s B, (s + 1) B) of the stream, so that every row is read
equally often, all batches have one size, and a resumed run finds its place by arithmetic.
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
from pushforward.training.input_spec import InputSpec, Pair
from pushforward.training.seeds import Purpose, generator, mix, seed_loading

__all__ = [
    "BATCH",
    "ArrayRows",
    "Batch",
    "DatasetRows",
    "LoaderRows",
    "Position",
    "Rows",
    "Source",
    "as_pair",
    "usual_batch",
]

BATCH = 512
"""Rows of a batch where data are many."""


def usual_batch(rows: int) -> int:
    """Rows of a batch for so many training rows: 512, or as many as make 32 steps a pass, but at least 64.

    Few rows in large batches are learned by heart before their law is.
    """
    return min(BATCH, max(64, rows // 32))


class Position(NamedTuple):
    """Place of the next batch."""

    step: int = 0
    epoch: int = 0
    place: int = 0


class Batch(NamedTuple):
    """Rows of one step, in the form that the model reads, and their place: pass and batch within it, from 0."""

    x: Tensor
    context: Tensor | None
    epoch: int
    place: int


class Source(ABC):
    """A source of rows."""

    steps: float | None
    """Steps in one pass; None if unknown."""
    form: InputSpec
    kind: str
    """Short description, for the checkpoint's comparison of settings."""
    seed: int
    """Of the order of the rows."""

    def reseeded(self, seed: int) -> Self:
        """The same rows in another order."""
        other = copy.copy(self)
        other.seed = seed
        return other

    @abstractmethod
    def batches(self, start: Position) -> Iterator[Batch]:
        """Training batches without end, from ``start`` on."""

    @abstractmethod
    def ordered(self) -> Iterator[Pair]:
        """All rows once, in a fixed order, in batches."""

    @abstractmethod
    def raw_sample(self, most: int) -> Pair:
        """Up to ``most`` rows that stand for all, as they came (not cast)."""

    def digest(self) -> str:
        """Something that changes when the rows do; empty where finding it would be expensive."""
        return ""


class Rows(Source):
    """Rows that can be read by index.

    Args:
        form: what the model reads.
        rows: indices of the rows that belong to this source.
        batch_size: rows in a batch; all rows, if there are fewer; None is :func:`usual_batch` of the rows.
        seed: of the shuffling.
    """

    replacement = False
    """Whether a pass draws its rows with replacement, so that batches are independent."""

    def __init__(self, form: InputSpec, rows: Tensor, batch_size: int | None, seed: int) -> None:
        self.form = form
        self.rows = rows
        self.batch_size = max(1, min(usual_batch(len(rows)) if batch_size is None else batch_size, len(rows)))
        self.seed = seed
        self.steps = len(rows) / self.batch_size
        self.kind = f"{type(self).__name__} of {len(rows)} rows"
        self._orders: dict[int, Tensor] = {}

    def reseeded(self, seed: int) -> Self:
        """The same rows in another order."""
        other = super().reseeded(seed)
        other._orders = {}
        return other

    @abstractmethod
    def read(self, rows: Tensor) -> Pair:
        """The rows of these indices, as they came."""

    @abstractmethod
    def part(self, rows: Tensor, batch_size: int | None) -> Rows:
        """Some of these rows, as a source of their own."""

    def batches(self, start: Position) -> Iterator[Batch]:
        """Equal batches of the endless shuffled stream."""
        count, size = len(self.rows), self.batch_size
        for step in itertools.count(start.step):
            epoch, offset = divmod(step * size, count)
            chosen = self._order(epoch)[offset : offset + size]
            if len(chosen) < size:
                chosen = torch.cat([chosen, self._order(epoch + 1)[: size - len(chosen)]])
            first = -(-epoch * count // size)
            yield Batch(*self._load(chosen, Purpose.LOADING, step), epoch, step - first)

    def ordered(self) -> Iterator[Pair]:
        """All rows in their own order, twice a training batch at a time, since no gradient is kept."""
        for index, chosen in enumerate(self.rows.split(2 * self.batch_size)):
            yield self._load(chosen, Purpose.HELD_OUT, index)

    def raw_sample(self, most: int) -> Pair:
        """Rows spread evenly over all."""
        seed_loading(mix(self.seed, Purpose.INITIALIZE))
        return self.read(self._spread(most))

    def _spread(self, most: int) -> Tensor:
        count = len(self.rows)
        return self.rows if count <= most else self.rows[torch.arange(most) * count // most]

    def _load(self, chosen: Tensor, purpose: Purpose, place: int) -> Pair:
        seed_loading(mix(self.seed, purpose, place))
        return self.form.cast(*self.read(chosen))

    def _order(self, epoch: int) -> Tensor:
        """The rows as pass ``epoch`` reads them; this pass and the one before are kept."""
        if epoch not in self._orders:
            shuffler = generator(self.seed, Purpose.SHUFFLE, epoch)
            self._orders = {k: order for k, order in self._orders.items() if k == epoch - 1}
            count = len(self.rows)
            if self.replacement:
                chosen = torch.randint(count, (count,), generator=shuffler)
            else:
                chosen = torch.randperm(count, generator=shuffler)
            self._orders[epoch] = self.rows[chosen]
        return self._orders[epoch]


class ArrayRows(Rows):
    """Rows of a tensor.

    Args:
        form: what the model reads.
        x: ``(n, *shape)``.
        context: ``(n, width)`` or None.
        rows: as for :class:`Rows`.
        batch_size: likewise.
        seed: likewise.
    """

    def __init__(
        self, form: InputSpec, x: Tensor, context: Tensor | None, rows: Tensor, batch_size: int | None, seed: int
    ) -> None:
        super().__init__(form, rows, batch_size, seed)
        self.x, self.context = x, context

    def part(self, rows: Tensor, batch_size: int | None) -> ArrayRows:
        """Some of the rows; the tensors are shared."""
        return ArrayRows(self.form, self.x, self.context, rows, batch_size, self.seed)

    def read(self, rows: Tensor) -> Pair:
        """The rows of these indices."""
        rows = rows.to(self.x.device, non_blocking=True)
        return self.x[rows], None if self.context is None else self.context[rows]

    # Reading a tensor draws nothing, so nothing needs a seed.
    def raw_sample(self, most: int) -> Pair:
        """Rows spread evenly over all; the global generators stay as they are."""
        return self.read(self._spread(most))

    def _load(self, chosen: Tensor, purpose: Purpose, place: int) -> Pair:
        return self.form.cast(*self.read(chosen))

    def digest(self) -> str:
        """Hash of up to 1,024 rows spread over all."""
        found = hashlib.sha256()
        for part in self.form.cast(*self.raw_sample(1024)):
            if part is not None:
                found.update(part.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()[:16]


class DatasetRows(Rows):
    """Items of a map-style data set: x, or (x, context).

    Args:
        form: what the model reads.
        dataset: with ``__getitem__``, or ``__getitems__`` for many at once.
        rows: as for :class:`Rows`.
        batch_size: likewise.
        seed: likewise.
    """

    def __init__(self, form: InputSpec, dataset: Dataset, rows: Tensor, batch_size: int | None, seed: int) -> None:
        super().__init__(form, rows, batch_size, seed)
        self.dataset: Any = dataset

    def part(self, rows: Tensor, batch_size: int | None) -> DatasetRows:
        """Some of the items."""
        return DatasetRows(self.form, self.dataset, rows, batch_size, self.seed)

    def read(self, rows: Tensor) -> Pair:
        """The items of these indices, stacked."""
        places = rows.tolist()
        many = getattr(self.dataset, "__getitems__", None)
        items = [self.dataset[place] for place in places] if many is None else many(places)
        try:
            return as_pair(default_collate(items))
        except (TypeError, RuntimeError) as error:
            raise InputError(f"the data set's items cannot be stacked to a batch: {error}") from error


class LoaderRows(Source):
    """Batches of a ``DataLoader``, for data larger than memory.

    Shuffling and random transforms are seeded for each pass and batch. A resumed run reads the current pass again up
    to its place.

    Args:
        form: what the model reads.
        loader: yields x, or (x, context).
        seed: of the loader's shuffling and of random transforms.
    """

    def __init__(self, form: InputSpec, loader: DataLoader, seed: int) -> None:
        self.form = form
        self.loader = loader
        self.seed = seed
        try:
            self.steps = len(loader)
        except TypeError:
            self.steps = None
        self.kind = f"DataLoader of {'unknown length' if self.steps is None else f'{self.steps} batches'}"

    def batches(self, start: Position) -> Iterator[Batch]:
        """The loader's batches, pass after pass.

        Raises:
            InputError: if a pass has no batch.
        """
        skip = start.place
        for epoch in itertools.count(start.epoch):
            count = 0
            for index, pair in enumerate(self._one_pass(Purpose.LOADING, epoch)):
                count += 1
                if index >= skip:
                    yield Batch(*self.form.cast(*pair), epoch, index)
            if not count:
                raise InputError("the DataLoader yields no batch: its data set is empty, or drop_last drops all of it.")
            skip = 0

    def ordered(self) -> Iterator[Pair]:
        """One pass, always under the same seed."""
        for pair in self._one_pass(Purpose.HELD_OUT, 0):
            yield self.form.cast(*pair)

    def raw_sample(self, most: int) -> Pair:
        """The first rows of one pass."""
        parts: list[Pair] = []
        for pair in self._one_pass(Purpose.INITIALIZE, 0):
            parts.append(pair)
            if sum(len(x) for x, _ in parts) >= most:
                break
        if not parts:
            raise InputError("the DataLoader yields no batch: its data set is empty, or drop_last drops all of it.")
        contexts = [context for _, context in parts if context is not None]
        return torch.cat([x for x, _ in parts])[:most], torch.cat(contexts)[:most] if contexts else None

    def _one_pass(self, purpose: Purpose, epoch: int) -> Iterator[Pair]:
        self._reseed(mix(self.seed, purpose, epoch), epoch)
        seed_loading(mix(self.seed, purpose, epoch))
        iterator = iter(self.loader)
        for index in itertools.count():
            seed_loading(mix(self.seed, purpose, epoch, index))
            try:
                item = next(iterator)
            except StopIteration:
                return
            yield as_pair(item)

    def _reseed(self, seed: int, epoch: int) -> None:
        """Seed the generators that the loader and its samplers own."""
        inner = getattr(self.loader.batch_sampler, "sampler", None)
        for owner in (self.loader, self.loader.sampler, self.loader.batch_sampler, inner):
            own = getattr(owner, "generator", None)
            if isinstance(own, torch.Generator):
                own.manual_seed(seed)
            if hasattr(owner, "set_epoch"):
                owner.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]


def as_pair(item: Any) -> Pair:
    """(x, context) from what a data set or a loader yields: x, (x,) or (x, context).

    Raises:
        InputError: for anything else.
    """
    parts = list(item) if isinstance(item, list | tuple) else [item]
    if not 1 <= len(parts) <= 2:
        raise InputError(f"data sets and loaders yield x or (x, context); got {len(parts)} parts.")
    tensors = [torch.as_tensor(part) if isinstance(part, np.ndarray) else part for part in parts]
    if not all(isinstance(part, Tensor) for part in tensors):
        raise InputError(
            f"data sets and loaders yield tensors or arrays, x or (x, context); got {type(parts[0]).__name__}."
        )
    return tensors[0], tensors[1] if len(tensors) == 2 else None
