"""The tasks: which set a network is trained on, which classes are left out, and how its rows are divided."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.common.datasets import load_images, load_labels, where

__all__ = ["TASKS", "Rows", "Task", "load_task"]


@dataclass(frozen=True)
class Task:
    """One network to train.

    Attributes:
        data: name of the set.
        kind: of the network.
        epochs: of training.
        left_out: classes that the network never sees; they are a near set.
        augment: whether training images are shifted and mirrored.
        development: whether the default score was chosen on it; such a task reports nothing.
    """

    data: str
    kind: str
    epochs: int
    left_out: tuple[int, ...] = ()
    augment: str = ""
    development: bool = False


TASKS = {
    "mnist-cnn": Task("mnist", "cnn", 3),
    "fashion-cnn": Task("fashion-mnist", "cnn", 3),
    "fashion-resnet": Task("fashion-mnist", "resnet", 3),
    "cifar10-resnet": Task("cifar10", "resnet", 12, augment="shift and mirror"),
    "gtsrb-cnn": Task("gtsrb", "cnn", 20, left_out=tuple(range(0, 43, 4)), augment="shift"),
    "digits-mlp": Task("digits", "mlp", 60, left_out=(3, 7)),
    "dev-fashion-cnn": Task("fashion-mnist", "cnn", 2, left_out=(0, 5, 8), development=True),
    "dev-cifar-resnet": Task("cifar10", "resnet", 10, left_out=(1, 4, 6, 8), augment="shift and mirror", development=True),
    "dev-digits-mlp": Task("digits", "mlp", 60, left_out=(0, 5, 8), development=True),
}  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """The parts of a task, network inputs in [0, 1] (tables: standardized) with labels 0, 1, ... of the classes that are kept.

    Attributes:
        train: what the network is trained on.
        calibration: rows that the network never sees.
        test: other rows that it never sees.
        left_out: rows of the classes that are left out.
    """

    train: tuple[Tensor, Tensor]
    calibration: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    left_out: Tensor

    @property
    def classes(self) -> int:
        """Number of classes that the network knows."""
        return int(self.train[1].max()) + 1


def _parquet_labels(file: str) -> Tensor:
    import pyarrow.parquet

    root = where(None)
    assert root is not None
    return torch.tensor(pyarrow.parquet.read_table(os.fspath(root / file), columns=["label"])["label"].to_pylist())


def _all(name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test inputs with their labels."""
    if name == "digits":
        from sklearn.datasets import load_digits

        bunch = load_digits()
        x, y = torch.tensor(bunch.data).float() / 16, torch.tensor(bunch.target).long()  # pyright: ignore
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        return x[order[:1000]], y[order[:1000]], x[order[1000:]], y[order[1000:]]
    if name == "gtsrb":
        x, y = load_images("gtsrb", train=False), _parquet_labels("gtsrb/test32_4000.parquet")
        return x[:2600], y[:2600], x[2600:], y[2600:]
    train, test = load_images(name, train=True), load_images(name, train=False)
    if name == "cifar10":
        return train, _parquet_labels("cifar10/train_10000.parquet"), test, _parquet_labels("cifar10/test.parquet")
    return train, load_labels(name, train=True), test, load_labels(name, train=False)


_CALIBRATION = {"digits": 350, "gtsrb": 600, "cifar10": 3000}
"""Rows for calibration from the test part; the other sets have 5,000 of the training part."""


def as_input(images: Tensor) -> Tensor:
    """8-bit images as float32 in [0, 1]; tables as they are."""
    return images if images.is_floating_point() else images.float() / 255


def load_task(task: Task, seed: int) -> Rows:
    """The rows of a task; the seed draws the calibration rows."""
    x, y, test, test_y = _all(task.data)
    kept = [label for label in range(int(y.max()) + 1) if label not in task.left_out]
    number = torch.full((int(y.max()) + 1,), -1)
    number[kept] = torch.arange(len(kept))
    generator = torch.Generator().manual_seed(1000 + seed)
    if task.data in _CALIBRATION:
        order, count = torch.randperm(len(test), generator=generator), _CALIBRATION[task.data]
        calibration, test_index = order[:count], order[count:]
        parts = [(x, y), (test[calibration], test_y[calibration]), (test[test_index], test_y[test_index])]
    else:
        order = torch.randperm(len(x), generator=generator)
        parts = [(x[order[5000:]], y[order[5000:]]), (x[order[:5000]], y[order[:5000]]), (test, test_y)]
    known = [(as_input(rows[number[labels] >= 0]), number[labels][number[labels] >= 0]) for rows, labels in parts]
    rows, labels = parts[2]
    return Rows(known[0], known[1], known[2], as_input(rows[number[labels] < 0]))
