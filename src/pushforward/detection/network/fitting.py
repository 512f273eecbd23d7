"""One pass over the training data: what the network is, and what its scores are fitted on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pushforward.detection.modes import without_autocast
from pushforward.detection.network.batch_effect import warn_of_batch_effect
from pushforward.detection.network.combined import Combined
from pushforward.detection.network.default import SCORES
from pushforward.detection.network.reader import NetworkReader
from pushforward.detection.network.reading import Reading, class_labels, first_tensor, length
from pushforward.detection.network.streaming import Gathered, check_dense, check_finite, check_labels
from pushforward.errors import InputError, warn_caller

_FEW_FEATURES = 3

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
    keep_inputs: bool = False,
) -> FittedNetwork:
    """Pass once over the training data.

    Args:
        reader: of the network.
        stream: batches of inputs and labels.
        make: makes the score, once it is known whether the network classifies.
        task: "classify", "embed", or "auto": it classifies if the first batch has labels that are integers.
        size: of the reservoir.
        seed: of the reservoir and of the rows that are set aside.
        spare: fraction of rows that are set aside.
        keep_inputs: whether to keep the inputs of these rows also where the score does not run the network again.

    Raises:
        InputError: for no rows, sparse or nested inputs, labels out of range, or features that are not finite.
        ConfigError: if the score needs what the network lacks.
    """
    found: FittedNetwork | None = None
    generator, first, lengths = torch.Generator().manual_seed(seed), 0, _SequenceLengths(reader)
    for inputs, labels in stream:
        check_dense(first_tensor(inputs))
        if length(inputs) == 0:
            continue
        if found is None:
            found = _begin(reader, inputs, labels, make, task, size, seed)
        reading = read_for(reader, found.score, inputs, found.classes > 1)
        check_finite(reading, "the training data", first)
        labels = _classes(reading, class_labels(labels), found.classes, first)
        first += len(reading)
        lengths.look(inputs)
        if spare:
            aside = torch.rand(len(reading), generator=generator, dtype=torch.float32) < spare
            kept = reading.rows(aside)
            if _reads_once(found.score):
                kept.output, kept.inputs = None, kept.inputs if keep_inputs else None
            found.spare.append(kept)
            reading, labels = reading.rows(~aside), labels[~aside]
            if len(reading) == 0:
                continue
        extra: dict[str, Tensor] = {}
        with without_autocast():
            for part in found.score.scores:
                extra |= part.observe(reading)
            found.gathered.add(reading, labels, extra)
    if found is None:
        raise InputError("the training data gave no row: give at least one.")
    return found


def _reads_once(score: Combined) -> bool:
    """Whether all parts are scores of this library that need neither the inputs nor the output of a reading."""
    return all(
        SCORES.get(type(part).__name__) is type(part) and part.cost == "one forward pass" for part in score.scores
    )


class _SequenceLengths:
    """Warns of batches of sequences of several lengths whose padding is not known."""

    def __init__(self, reader: NetworkReader) -> None:
        self.reader, self.steps, self.warned = reader, 0, False

    def look(self, inputs: Any) -> None:
        """See the next batch, which was read just before."""
        tensor = first_tensor(inputs)
        if self.warned or not self.reader.averages or tensor is None or tensor.dim() < 2 or len(tensor) < 2:
            return
        self.warned = self.steps not in (0, tensor.shape[1])
        self.steps = tensor.shape[1]
        if self.warned:
            warn_caller(
                "the batches have sequences of several lengths, and no input was found that says which positions are padding. Layers are averaged "
                "over all positions, so if shorter sequences are padded, scores and alarms depend on the batch that an input comes in: give the "
                "network the mask as an input called attention_mask, or leave these layers out with layers=[]."
            )


def _begin(
    reader: NetworkReader,
    inputs: Any,
    labels: Tensor | None,
    make: Callable[[bool], Combined],
    task: str,
    size: int,
    seed: int,
) -> FittedNetwork:
    known = class_labels(labels)
    if task == "classify" and labels is not None and known is None:
        raise InputError(
            f"{_given(labels)}: to classify, labels must be integers of the shape (n,), the classes from 0."
        )
    classifies = task == "classify" or (task == "auto" and known is not None)
    reader.classifies = classifies
    reading = reader.read(inputs)
    classes = reading.logits.shape[1] if classifies and reading.logits is not None else 1
    if classifies and classes < 2:
        if reading.logits is not None:
            raise InputError(
                "the training data have labels, and the network's output has one column. If it is the logit z of two classes, wrap the "
                "network so that it returns torch.cat([torch.zeros_like(z), z], 1). Else name the logits with logits=, or pass "
                "task='embed'."
            )
        raise InputError(
            "the training data have labels, but read= gives no logits: let it give them, or pass task='embed'."
        )
    warn_of_batch_effect(reader, inputs, reading)
    if classifies:
        _warn_of_other_outputs(reader, reading)
    else:
        _warn_of_missing_head(reader, reading)
    if not classifies and task == "auto" and labels is not None:
        _warn_of_classes(labels, reading)
    score = make(classes > 1)
    for part in score.scores:
        part.check(reader.head is not None, classes > 1, reader.layers)
    return FittedNetwork(Gathered(classes, reader.layers, reader.weight_and_bias(), size, seed), score, classes, [])


def _given(labels: Tensor) -> str:
    shape = "(n,)" if labels.dim() == 1 else f"(n, {', '.join(map(str, labels.shape[1:]))})"
    return f"the labels are {str(labels.dtype).removeprefix('torch.')} of the shape {shape}"


def _warn_of_classes(labels: Tensor, reading: Reading) -> None:
    """Warn if labels are taken for the target of a regression, and have the values of classes."""
    columns = 0 if reading.logits is None else reading.logits.shape[1]
    if columns < 2 or labels.numel() == 0:
        return
    values = labels.detach().cpu().double()
    single = values.dim() == 1 or tuple(values.shape[1:]) == (1,)
    whole = single and bool(((values >= 0) & (values < columns) & (values == values.round())).all())
    marks = values.shape == (len(values), columns) and bool(
        (((values == 0) | (values == 1)).all(1) & (values.sum(1) == 1)).all()
    )
    if whole or marks:
        warn_caller(
            f"{_given(labels)}, so the network is guarded as a regression, without its classes: give integers of the shape (n,), such as "
            f"labels.{'argmax(1)' if marks else 'long()'}, or pass task='embed'.",
        )


def _warn_of_missing_head(reader: NetworkReader, reading: Reading) -> None:
    """Warn if a network's few outputs are its features, because its last linear layer was not found."""
    if reader.head is not None or reader.features is not None or reader.function is not None or reading.logits is None:
        return
    width = reading.features.shape[1]
    if (
        width <= _FEW_FEATURES
        and reading.features.shape == reading.logits.shape
        and torch.equal(reading.features, reading.logits)
    ):
        warn_caller(
            f"the last linear layer of the network was not found, so the features are its {width} output{'s' * (width > 1)}, which "
            "show little of an input: name a module whose output is the features with features=."
        )


def _warn_of_other_outputs(reader: NetworkReader, reading: Reading) -> None:
    """Warn if the logits may be another part of the network's output than the one that is taken."""
    output = reading.output
    if reader.logits is not None or reading.logits is None or isinstance(output, Tensor) or reader.function is not None:
        return
    parts = (
        dict(output)
        if isinstance(output, Mapping)
        else dict(enumerate(output))
        if isinstance(output, (tuple, list))
        else {}
    )
    if "logits" in parts or getattr(output, "logits", None) is not None:
        return
    names = [
        repr(name) for name, part in parts.items()
        if isinstance(part, Tensor) and part.dim() == 2 and part.is_floating_point() and part.shape[0] == len(reading)
    ]  # fmt: skip
    if len(names) > 1:
        warn_caller(
            f"the network returns {len(names)} tensors with one row for each input, and the guard takes the first for the logits: name them "
            f"with logits=, one of {', '.join(names)}.",
        )


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
        InputError: for no rows.
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
