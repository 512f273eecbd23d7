"""What one pass over the training data leaves behind: moments by class, and a bounded sample of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pushforward.detection.network.arguments import check_second_part, split_batch
from pushforward.detection.network.reading import Reading, first_tensor, plain_tensor
from pushforward.errors import InputError

__all__ = ["ClassMoments", "Gathered", "Reservoir", "batches"]


def batches(
    data: Any, batch_size: int, what: str, dtype: torch.dtype | None = None, net: Any = None
) -> Iterator[tuple[Any, Tensor | None]]:
    """The batches of a loader, a data set, or arrays, as inputs and labels.

    Args:
        data: a ``DataLoader`` or another iterable of batches; a ``Dataset``; an array of inputs, or rows of numbers as lists in a list; a
            dictionary of arrays; or a pair of inputs and labels, of which the inputs may be a dictionary or a tuple of arrays.
            ``((a, b),)`` are several inputs without labels.
        batch_size: where the data have no batches of their own.
        what: the name of the data in an error.
        dtype: of the network's weights, which arrays of fractions that are not tensors get; None leaves them as they are.
        net: that takes the inputs; the names of its arguments are no labels.

    Raises:
        InputError: for no batch, for labels that are rather another input, for an array that is a sparse or nested tensor, or if a loader ends before the
            number of batches that it has.
    """
    count, expected = 0, None
    if _is_matrix(data):
        data = np.asarray(data)
    elif isinstance(data, tuple) and len(data) == 2 and _is_matrix(data[0]):
        data = np.asarray(data[0]), data[1]
    for batch in _iterate(data, batch_size, dtype):
        count += 1
        inputs, labels = split_batch(batch, net)
        check_second_part(net, inputs, labels)
        yield inputs, labels
    if (isinstance(data, DataLoader) and not isinstance(data.dataset, IterableDataset)) or (
        hasattr(data, "__len__") and not isinstance(data, (Dataset, Tensor, Mapping, tuple)) and not _is_array(data)
    ):
        expected = len(data)
    if count == 0:
        raise InputError(f"{what} gave no batch: give at least one row.")
    if expected is not None and count < expected:
        raise InputError(
            f"{what} ended after {count} of {expected} batches: repair the loader, or give fewer rows to it."
        )


def _is_array(data: Any) -> bool:
    return hasattr(data, "__array__") and hasattr(data, "shape")


def _iterate(data: Any, batch_size: int, dtype: torch.dtype | None) -> Iterator[Any]:
    iterable: Any = data
    if isinstance(data, Tensor) or _is_array(data):
        whole = plain_tensor(data, dtype)
        next(_lengths(whole))  # refuses one number
        yield from whole.split(batch_size)
    elif isinstance(data, Mapping) or _is_pair(data) or _are_inputs(data):
        whole = (_tensors(data[0], dtype), plain_tensor(data[1], dtype)) if _is_pair(data) else _tensors(data, dtype)
        rows = set(_lengths(whole))
        if len(rows) != 1:
            raise InputError(f"the arrays have different numbers of rows: {sorted(rows)}.")
        for start in range(0, rows.pop(), batch_size):
            yield _part(whole, start, start + batch_size)
    elif isinstance(data, Dataset) and not hasattr(data, "batch_sampler"):
        # with a generator of its own, since a loader draws a number from PyTorch's common one
        yield from DataLoader(data, batch_size=batch_size, generator=torch.Generator())
    elif hasattr(data, "__iter__"):
        yield from iterable
    else:
        raise InputError(f"data must be a DataLoader, a Dataset or an array; got {type(data).__name__}.")


def _is_matrix(data: Any) -> bool:
    """Whether data are lists of plain numbers in a list, as ``array.tolist()`` gives."""
    return (
        isinstance(data, list)
        and bool(data)
        and all(
            isinstance(row, list)
            and len(row) == len(data[0]) > 0
            and all(isinstance(value, (int, float)) for value in row)
            for row in data
        )
    )


def _has_rows(value: Any) -> bool:
    return isinstance(value, Tensor) or _is_array(value)


def _is_pair(data: Any) -> bool:
    """Whether data are all inputs and their labels; a list or a tuple may also hold batches."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        return False
    inputs, labels = data
    if not (_has_rows(inputs) or _are_rows(inputs)):
        return False
    if isinstance(labels, list):
        return len(labels) > 0 and all(isinstance(label, (int, float, str, np.generic)) for label in labels)
    if isinstance(data, tuple):
        return _has_rows(labels)
    return _has_rows(labels) and len(labels.shape) == 1 != len(
        getattr(inputs, "shape", ())
    )  # else two batches of one form


def _are_inputs(data: Any) -> bool:
    """Whether data are all inputs without labels, as a tuple of arrays or as ``((a, b),)``; a list of one batch is a list."""
    return isinstance(data, tuple) and (_are_rows(data) or (len(data) == 1 and _are_rows(data[0])))


def _are_rows(inputs: Any) -> bool:
    """Whether these are several arrays, in a tuple, a list or a dictionary."""
    parts = list(inputs.values()) if isinstance(inputs, Mapping) else inputs
    return isinstance(parts, (tuple, list)) and len(parts) > 0 and all(map(_has_rows, parts))


def _tensors(inputs: Any, dtype: torch.dtype | None) -> Any:
    if isinstance(inputs, Mapping):
        return {key: _tensors(_array(value), dtype) for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(_tensors(value, dtype) for value in inputs)
    return plain_tensor(inputs, dtype)


def _array(value: Any) -> Any:
    """A list of numbers, as a data frame gives as a dictionary, as an array; other inputs as they are."""
    return np.asarray(value) if isinstance(value, list) and value and isinstance(value[0], (int, float)) else value


def _lengths(data: Any) -> Iterator[int]:
    if isinstance(data, Tensor):
        check_dense(data)
        if not data.dim():
            raise InputError("data must have one row for each input; got one number: give a batch, also of one input.")
        yield len(data)
    else:
        for value in data.values() if isinstance(data, Mapping) else data:
            yield from _lengths(value)


def check_dense(tensor: Tensor | None) -> None:
    """Refuse a tensor whose rows cannot be chosen.

    Raises:
        InputError: for a sparse or nested tensor.
    """
    if tensor is None:
        return
    if tensor.layout is not torch.strided or tensor.is_nested:
        raise InputError(
            "rows of a sparse or nested tensor cannot be chosen: give x.to_dense(), or sequences of one length with a mask of their padding."
        )


def _part(data: Any, start: int, stop: int) -> Any:
    if isinstance(data, Tensor):
        return data[start:stop]
    if isinstance(data, Mapping):
        return {key: _part(value, start, stop) for key, value in data.items()}
    return tuple(_part(value, start, stop) for value in data)


class ClassMoments:
    """Streaming counts, means and second moments of rows by class, in float64, about the mean of the first batch.

    The memory is ``classes * D + D * D`` numbers, however many rows there are.

    Example:
        >>> import torch
        >>> from pushforward.detection.network import ClassMoments
        >>> moments = ClassMoments()
        >>> moments.add(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]), classes=2)
        >>> moments.means
        tensor([[1.],
                [5.]], dtype=torch.float64)
    """

    def __init__(self) -> None:
        self.shift: Tensor | None = None

    def add(self, rows: Tensor, labels: Tensor, classes: int) -> None:
        """Add rows ``(n, D)`` with their classes ``(n,)``."""
        rows = rows.detach().double()
        if self.shift is None:
            self.shift = rows.mean(0)
            self.counts = rows.new_zeros(classes)
            self.sums = rows.new_zeros(classes, rows.shape[1])
            self.second = rows.new_zeros(rows.shape[1], rows.shape[1])
        rows = rows - self.shift
        self.counts.index_add_(0, labels, torch.ones_like(rows[:, 0]))
        self.sums.index_add_(0, labels, rows)
        self.second += rows.T @ rows

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.counts.sum())

    @property
    def mean(self) -> Tensor:
        """Mean of all rows, ``(D,)``."""
        assert self.shift is not None
        return self.shift + self.sums.sum(0) / self.counts.sum()

    @property
    def means(self) -> Tensor:
        """Mean of every class, ``(classes, D)``; NaN for a class without rows."""
        assert self.shift is not None
        return self.shift + self.sums / self.counts.unsqueeze(1)

    @property
    def covariance(self) -> Tensor:
        """Covariance of all rows, ``(D, D)``, divided by their number."""
        offset = self.sums.sum(0) / self.counts.sum()
        return self._symmetric(self.second / self.counts.sum() - torch.outer(offset, offset))

    @property
    def within(self) -> Tensor:
        """Covariance within the classes, ``(D, D)``: the mean over rows of the products of deviations from the class mean."""
        seen = self.counts > 0
        between = (self.sums[seen] / self.counts[seen].unsqueeze(1)).T @ self.sums[seen]
        return self._symmetric((self.second - between) / self.counts.sum())

    def second_about(self, origin: Tensor) -> Tensor:
        """Mean of ``(x - origin)(x - origin)^T`` over all rows, ``(D, D)``."""
        offset = self.mean - origin
        return self.covariance + torch.outer(offset, offset)

    @staticmethod
    def _symmetric(matrix: Tensor) -> Tensor:
        return (matrix + matrix.T) / 2


class Reservoir:
    """A uniform random sample of at most ``size`` rows of a stream, with several columns of values for each.

    Every row gets a random number, and the rows with the smallest are kept, in the order of these numbers. So the sample depends on the
    seed and on the order of the stream, and not on the sizes of its batches; and its first rows are a random sample too, even of a stream
    that is sorted by class.

    Example:
        >>> import torch
        >>> from pushforward.detection.network import Reservoir
        >>> reservoir = Reservoir(size=3, seed=0)
        >>> for start in range(0, 100, 10):
        ...     reservoir.add(row=torch.arange(start, start + 10))
        >>> reservoir.values["row"].shape
        torch.Size([3])
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.generator = size, torch.Generator().manual_seed(seed)
        self.keys = torch.zeros(0, dtype=torch.float64)
        self.values: dict[str, Tensor] = {}
        self.seen = 0

    def add(self, **values: Tensor) -> None:
        """Add rows: tensors with the same first dimension."""
        count = len(next(iter(values.values())))
        values["index"] = torch.arange(self.seen, self.seen + count)
        self.seen += count
        keys = torch.cat((self.keys, torch.rand(count, generator=self.generator, dtype=torch.float64)))
        values = {name: value.detach().cpu() for name, value in values.items()}
        joined = {
            name: torch.cat((self.values[name], value)) if self.values else value for name, value in values.items()
        }
        kept = keys.argsort(stable=True)[: self.size]
        self.keys, self.values = keys[kept], {name: value[kept] for name, value in joined.items()}


class Gathered:
    """What the scores are fitted on.

    Attributes:
        classes: number of classes; 1 for a network that does not classify.
        moments: :class:`ClassMoments` of "features", "logits" and of every inner layer by "layer NAME", by class.
        sample: rows of the reservoir, in random order: "features", "logits", "labels", "predicted", "index" (position in the stream), inner
            layers, and what scores asked for.
        weight: of the last linear layer, float64, or None.
        bias: of the last linear layer.
        layers: names of the inner layers.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Linear(4, 3).eval()
        >>> reading = pf.detection.network.NetworkReader(net).read(torch.randn(30, 4))
        >>> gathered = pf.detection.network.Gathered(3, (), None, size=20, seed=0)
        >>> gathered.add(reading, torch.arange(30) % 3, {})
        >>> gathered.moments["features"].rows, len(gathered.sample["features"])
        (30, 20)
    """

    def __init__(
        self, classes: int, layers: tuple[str, ...], head: tuple[Tensor, Tensor] | None, size: int, seed: int
    ) -> None:
        self.classes, self.layers, self.seed = classes, layers, seed
        self.weight, self.bias = (None, None) if head is None else head
        self.moments: dict[str, ClassMoments] = {}
        self.reservoir = Reservoir(size, seed)

    @property
    def sample(self) -> dict[str, Tensor]:
        """The rows of the reservoir."""
        return self.reservoir.values

    def add(self, reading: Reading, labels: Tensor, extra: Mapping[str, Tensor]) -> None:
        """Add a batch: its reading, the class of each row, and further columns for the reservoir."""
        columns = {"features": reading.features, **{f"layer {name}": v for name, v in reading.layers.items()}}
        if reading.logits is not None:
            columns["logits"] = reading.logits
        for name, rows in columns.items():
            self.moments.setdefault(name, ClassMoments()).add(rows.cpu(), labels.cpu(), self.classes)
        single = {name: rows if rows.dtype == torch.float64 else rows.float() for name, rows in columns.items()}
        predicted = labels if reading.logits is None else reading.logits.argmax(1)
        self.reservoir.add(**single, labels=labels, predicted=predicted, **extra)


def check_labels(labels: Tensor, classes: int, first: int) -> None:
    """Refuse labels outside ``0 ... classes - 1``; ``first`` is the position of the batch in the stream.

    Raises:
        InputError: naming the first such row.
    """
    wrong = ((labels < 0) | (labels >= classes)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"the label of row {first + row} is {int(labels[row])}, and the network has {classes} classes: labels must be "
            f"0 to {classes - 1}."
        )


def check_finite(reading: Reading, what: str, first: int) -> None:
    """Refuse rows for which the network returned NaN or infinity.

    Raises:
        InputError: naming the first such row.
    """
    wrong = (~reading.finite).nonzero()
    if len(wrong):
        inputs = first_tensor(reading.inputs)
        row = int(wrong[0])
        own = inputs is not None and inputs.is_floating_point() and not bool(torch.isfinite(inputs[row]).all())
        raise InputError(
            f"the network's features of row {first + row} of {what} are NaN or infinite"
            + (
                ": its inputs are too, so leave this row out."
                if own
                else ", though its inputs are finite: check the network's weights."
            )
        )
