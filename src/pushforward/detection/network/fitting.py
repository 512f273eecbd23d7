"""One pass over the training data: what the network is, and what its scores are fitted on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pushforward.detection.network.combined import Combined
from pushforward.detection.network.reader import NetworkReader
from pushforward.detection.network.reading import Reading, length
from pushforward.detection.network.streaming import Gathered, check_finite, check_labels
from pushforward.errors import InputError

__all__ = ["FittedNetwork", "gather", "held_out_columns", "read_for"]


@dataclass
class FittedNetwork:
    """The result of one pass.

    Attributes:
        gathered: what the scores are fitted on.
        score: not fitted yet.
        classes: number of classes; 1 for a network that does not classify.
        spare: readings of training rows that were set aside.
    """

    gathered: Gathered
    score: Combined
    classes: int
    spare: list[Reading]


def read_for(reader: NetworkReader, score: Combined, inputs: Any, classifies: bool) -> Reading:
    """Read a batch as a score needs it: maps only if a part needs them, and logits only of a classifier."""
    reading = reader.read(inputs, maps=any("maps" in part.needs for part in score.scores))
    if not classifies:
        reading.logits = None
    return reading


def gather(
    reader: NetworkReader,
    stream: Iterable[tuple[Any, Tensor | None]],
    make: Callable[[bool], Combined],
    task: str,
    *,
    size: int,
    seed: int,
    spare: float = 0.0,
) -> FittedNetwork:
    """Pass once over the training data.

    Args:
        reader: of the network.
        stream: batches of inputs and labels.
        make: makes the score, once it is known whether the network classifies.
        task: "classify", "embed", or "auto": it classifies if the first batch has labels.
        size: of the reservoir.
        seed: of the reservoir and of the rows that are set aside.
        spare: fraction of rows that are set aside.

    Raises:
        InputError: for no rows, labels out of range, or features that are not finite.
        ConfigError: if the score needs what the network lacks.
    """
    found: FittedNetwork | None = None
    generator, first = torch.Generator().manual_seed(seed), 0
    for inputs, labels in stream:
        if length(inputs) == 0:
            continue
        if found is None:
            found = _begin(reader, inputs, labels, make, task, size, seed)
        reading = read_for(reader, found.score, inputs, found.classes > 1)
        check_finite(reading, "the training data", first)
        labels = _classes(reading, labels, found.classes, first)
        first += len(reading)
        if spare:
            aside = torch.rand(len(reading), generator=generator) < spare
            found.spare.append(reading.rows(aside))
            reading, labels = reading.rows(~aside), labels[~aside]
            if len(reading) == 0:
                continue
        extra: dict[str, Tensor] = {}
        for part in found.score.scores:
            extra |= part.observe(reading)
        found.gathered.add(reading, labels, extra)
    if found is None:
        raise InputError("the training data gave no row: give at least one.")
    return found


def _begin(
    reader: NetworkReader,
    inputs: Any,
    labels: Tensor | None,
    make: Callable[[bool], Combined],
    task: str,
    size: int,
    seed: int,
) -> FittedNetwork:
    classifies = task == "classify" or (task == "auto" and labels is not None)
    reader.classifies = classifies
    reading = reader.read(inputs)
    classes = reading.logits.shape[1] if classifies and reading.logits is not None else 1
    if classifies and classes < 2:
        raise InputError(
            f"the training data have labels, but the network's output has {classes} columns: name the logits with logits=, or "
            "pass task='embed'."
        )
    score = make(classes > 1)
    for part in score.scores:
        part.check(reader.head is not None, classes > 1, reader.layers)
    return FittedNetwork(Gathered(classes, reader.layers, reader.weight_and_bias(), size, seed), score, classes, [])


def _classes(reading: Reading, labels: Tensor | None, classes: int, first: int) -> Tensor:
    """The class of each row: its label, without labels the predicted class, and 0 for a network that does not classify."""
    if classes < 2:
        return torch.zeros(len(reading), dtype=torch.long)
    if labels is None:
        assert reading.logits is not None
        return reading.logits.argmax(1)
    if len(labels) != len(reading):
        raise InputError(f"a batch has {len(reading)} inputs and {len(labels)} labels: give one label for each input.")
    labels = labels.cpu()
    check_labels(labels, classes, first)
    return labels


def held_out_columns(score: Combined, stream: Iterable[Reading] | Iterator[Reading]) -> tuple[Tensor, Tensor]:
    """The statistics and the predicted classes of held-out rows.

    Raises:
        InputError: for no rows, or a statistic that is NaN.
    """
    columns, classes = [], []
    with torch.no_grad():
        for reading in stream:
            if len(reading) == 0:
                continue
            columns.append(score.columns(reading))
            none = torch.zeros(len(reading), dtype=torch.long)
            classes.append(none if reading.logits is None else reading.logits.argmax(1))
    if not columns:
        raise InputError("the calibration data gave no row: give at least one.")
    return torch.cat(columns), torch.cat(classes)
