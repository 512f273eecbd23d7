"""The tasks: which set a network is trained on, which classes are left out, and how its rows are divided."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
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
        rows: training rows of each class; None for all.
        turned: whether each class is also one turned by 90, by 180 and by 270 degrees, with the labels + 10, + 20 and + 30.
        lit: whether each image gets its own brightness and contrast, which say nothing about its class.
        development: whether the default score was chosen on it; such a task reports nothing.
    """

    data: str
    kind: str
    epochs: int
    left_out: tuple[int, ...] = ()
    augment: str = ""
    development: bool = False
    rows: int | None = None
    turned: bool = False
    lit: bool = False


_ALIKE = (*(10 * turn + digit for digit in (0, 1, 8, 9) for turn in range(4)), 4, 13, 22, 36, 7, 25)
"""Turned digits that look like others (the first 16), and six classes that are left out as outliers."""

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
    "dev-fashion-few": Task("fashion-mnist", "cnn", 40, left_out=(0, 5, 8), augment="shift", development=True, rows=80),
    "dev-usps-few": Task("usps", "cnn", 40, left_out=(2, 3, 9), augment="shift", development=True, rows=60),
    "dev-digits-few": Task("digits", "mlp", 200, left_out=(0, 5, 8), development=True, rows=40),
    "dev-cifar-few": Task("cifar10", "resnet", 60, left_out=(1, 4, 6, 8), augment="shift and mirror", development=True, rows=80),
    "dev-usps-lit": Task("usps", "cnn", 40, left_out=(2, 3, 9), augment="shift", development=True, rows=60, lit=True),
    "dev-fashion-lit": Task("fashion-mnist", "cnn", 40, left_out=(0, 5, 8), augment="shift", development=True, rows=80, lit=True),
    "dev-usps-turned": Task("usps", "cnn", 30, left_out=_ALIKE, augment="shift", development=True, rows=60, turned=True),
    "dev-usps-turned-lit": Task("usps", "cnn", 30, left_out=_ALIKE, augment="shift", development=True, rows=60, turned=True, lit=True),
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
    if name == "usps":
        root = where(None)
        assert root is not None
        with np.load(root / "usps/usps.npz", allow_pickle=False) as stored:
            labels = [torch.from_numpy(stored[f"{part}_labels"].astype(np.int64)) for part in ("train", "test")]
        return train, labels[0], test, labels[1]
    if name == "cifar10":
        return train, _parquet_labels("cifar10/train_10000.parquet"), test, _parquet_labels("cifar10/test.parquet")
    return train, load_labels(name, train=True), test, load_labels(name, train=False)


_CALIBRATION = {"digits": 350, "gtsrb": 600, "cifar10": 3000, "usps": 700}
"""Rows for calibration from the test part; the other sets have 5,000 of the training part."""


def as_input(images: Tensor) -> Tensor:
    """8-bit images as float32 in [0, 1]; tables as they are."""
    return images if images.is_floating_point() else images.float() / 255


def _first_of_each(x: Tensor, y: Tensor, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """At most this many random rows of each class, in random order."""
    order = torch.randperm(len(x), generator=generator)
    earlier = torch.nn.functional.one_hot(y[order]).cumsum(0).gather(1, y[order, None])[:, 0]
    kept = order[earlier <= rows]
    return x[kept], y[kept]


def _turned(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Each image turned by a random multiple of 90 degrees, which is part of its class."""
    turn = torch.randint(0, 4, (len(x),), generator=torch.Generator().manual_seed(0))
    images = torch.stack([image.rot90(int(k), (1, 2)) for image, k in zip(x, turn, strict=True)])
    return images, y + 10 * turn


def _lit(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images in [0, 1] with a random brightness and contrast each, on a logarithmic scale, as in photographs of one object."""
    shape = (len(x), 1, 1, 1)
    contrast = 0.1 * 9.0 ** torch.rand(shape, generator=generator)
    return contrast * x + (1 - contrast) * torch.rand(shape, generator=generator)


def load_task(task: Task, seed: int) -> Rows:
    """The rows of a task; the seed draws the calibration rows."""
    x, y, test, test_y = _all(task.data)
    if task.turned:
        (x, y), (test, test_y) = _turned(x, y), _turned(test, test_y)
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
    if task.rows is not None:
        known[0] = _first_of_each(*known[0], task.rows, generator)
    outside = number[labels] < 0
    if task.turned:
        outside &= (labels % 10)[:, None].ne(torch.tensor(_ALIKE[:16:4])).all(1)
    left_out = as_input(rows[outside])
    if task.lit:
        known = [(_lit(part, generator), labels) for part, labels in known]
        left_out = _lit(left_out, generator)
    return Rows(known[0], known[1], known[2], left_out)
