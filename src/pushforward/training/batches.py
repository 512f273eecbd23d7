"""Where batches come from: arrays, map-style data sets and loaders.

Batches are functions of the seed and of their place alone. Rows that can be read by index form an endless stream of
shuffled passes, cut into equal batches: step s reads rows [s B, (s + 1) B) of the stream, so that every row is read
equally often, all batches have one size, and a resumed run finds its place by arithmetic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from pushforward.errors import InputError, TrainingError
from pushforward.training.form import Form, Pair
from pushforward.training.seeds import Purpose, generator, mix, seed_loading

__all__ = ["ArrayRows", "Batch", "DatasetRows", "LoaderRows", "Position", "Rows", "Source"]


class Position(NamedTuple):
    """Place of the next batch."""

    step: int = 0
    epoch: int = 0
    index: int = 0


class Batch(NamedTuple):
    """Rows of one step, in the form that the model reads, and their place: pass and batch within it, from 0."""

    x: Tensor
    context: Tensor | None
    epoch: int
    index: int


class Source(ABC):
    """A source of rows."""

    steps: float | None
    """Steps in one pass; None if unknown."""
    form: Form
    kind: str
    """Short description, for the checkpoint's comparison of settings."""

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
        batch_size: rows in a batch; all rows, if there are fewer.
        seed: of the shuffling.
    """

    def __init__(self, form: Form, rows: Tensor, batch_size: int, seed: int) -> None:
        self.form = form
        self.rows = rows
        self.batch_size = max(1, min(batch_size, len(rows)))
        self.seed = seed
        self.steps = len(rows) / self.batch_size
        self.kind = f"{type(self).__name__} of {len(rows)} rows"

    @abstractmethod
    def read(self, rows: Tensor) -> Pair:
        """The rows of these indices, as they came."""

    def batches(self, start: Position) -> Iterator[Batch]:
        """Equal batches of the endless shuffled stream."""
        count, size, step = len(self.rows), self.batch_size, start.step
        epoch, order, following = -1, self.rows, self.rows
        while True:
            now, offset = divmod(step * size, count)
            if now != epoch:
                order = following if now == epoch + 1 and epoch >= 0 else self._shuffled(now)
                epoch, following = now, self.rows
            chosen = order[offset : offset + size]
            if len(chosen) < size:
                following = self._shuffled(epoch + 1)
                chosen = torch.cat([chosen, following[: size - len(chosen)]])
            elif offset + size == count:
                following = self._shuffled(epoch + 1)
            seed_loading(mix(self.seed, Purpose.LOADING, step))
            x, context = self.form.cast(*self.read(chosen))
            yield Batch(x, context, epoch, step - -(-epoch * count // size))
            step += 1

    def ordered(self) -> Iterator[Pair]:
        """All rows in their own order; twice the training batch, since no gradient is kept."""
        seed_loading(mix(self.seed, Purpose.HELD_OUT))
        for chosen in self.rows.split(2 * self.batch_size):
            yield self.form.cast(*self.read(chosen))

    def raw_sample(self, most: int) -> Pair:
        """Rows spread evenly over all."""
        count = len(self.rows)
        chosen = self.rows
        if count > most:
            chosen = self.rows[torch.arange(most) * count // most]
        seed_loading(mix(self.seed, Purpose.INITIALIZE))
        return self.read(chosen)

    def _shuffled(self, epoch: int) -> Tensor:
        return self.rows[torch.randperm(len(self.rows), generator=generator(self.seed, Purpose.SHUFFLE, epoch))]
