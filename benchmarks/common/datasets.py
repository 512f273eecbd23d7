"""Real data sets of papers and benchmarks, read from a folder and never downloaded."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.data import as_images
from pushforward.errors import ConfigError, StorageError
from pushforward.io import read_images

__all__ = ["IMAGE_SETS", "ImageSet", "load_images", "load_labels", "load_power", "load_table", "read_table", "where"]

VARIABLE = "PUSHFORWARD_DATA"


@dataclass(frozen=True)
class ImageSet:
    """Paths of an image set in the data folder, and where a user gets it.

    Attributes:
        train: path of the training images; "" if there are none.
        test: path of the test images.
        source: where a user gets the set.
        torchvision: name of the set in torchvision, if it has one.
        arrays: names of the arrays in an ``.npz`` file, training and test.
        fit: function that converts the images to 8 bits and the usual size.
    """

    train: str
    test: str
    source: str
    torchvision: str = ""
    arrays: tuple[str | None, str | None] = (None, None)
    fit: Callable[[Tensor], Tensor] = lambda images: images


def _usps(images: Tensor) -> Tensor:
    """Convert values from 0-2000 to 0-255, and pad 16 x 16 to 28 x 28 pixels."""
    gray = (images.double() * 255 / 2000).round().to(torch.uint8)
    return torch.nn.functional.pad(gray, (6, 6, 6, 6))


_IDX = "{}-images-idx3-ubyte.gz"

IMAGE_SETS: dict[str, ImageSet] = {
    "mnist": ImageSet(
        "mnist/" + _IDX.format("train"), "mnist/" + _IDX.format("t10k"), "MNIST: torchvision.datasets.MNIST", "MNIST"
    ),
    "fashion-mnist": ImageSet(
        "fashion-mnist/" + _IDX.format("train"),
        "fashion-mnist/" + _IDX.format("t10k"),
        "Fashion-MNIST: torchvision.datasets.FashionMNIST, or github.com/zalandoresearch/fashion-mnist",
        "FashionMNIST",
    ),
    "cifar10": ImageSet(
        "cifar10/train_10000.parquet", "cifar10/test.parquet", "CIFAR-10: torchvision.datasets.CIFAR10", "CIFAR10"
    ),
    "notmnist": ImageSet("", "notmnist/" + _IDX.format("t10k"), "notMNIST, in MNIST's format"),
    "emnist-letters": ImageSet(
        "", "emnist-letters/test.npz", "EMNIST Letters: torchvision.datasets.EMNIST", arrays=(None, "images")
    ),
    "usps": ImageSet(
        "usps/usps.npz",
        "usps/usps.npz",
        "USPS: torchvision.datasets.USPS",
        arrays=("train_images", "test_images"),
        fit=_usps,
    ),
    "pneumonia": ImageSet(
        "",
        "medmnist/pneumoniamnist_val_test.npz",
        "PneumoniaMNIST: medmnist.com",
        arrays=("val_images", "test_images"),
    ),
    "cifar100": ImageSet("", "cifar100/subset_3000.parquet", "CIFAR-100: torchvision.datasets.CIFAR100"),
    "gtsrb": ImageSet("", "gtsrb/test32_4000.parquet", "GTSRB: torchvision.datasets.GTSRB"),
    "freyfaces": ImageSet("freyfaces/freyfaces.npz", "", "Frey faces, 1,965 gray images of 28 x 20"),
}


def where(folder: str | os.PathLike[str] | None) -> Path | None:
    """The given data folder, or that of the environment variable ``PUSHFORWARD_DATA``."""
    chosen = folder or os.environ.get(VARIABLE)
    return Path(chosen) if chosen else None


def load_images(name: str, *, train: bool, folder: str | os.PathLike[str] | None = None) -> Tensor:
    """Read one part of an image set, uint8 ``(n, channels, height, width)``.

    The folder is searched for the set's own file names, and then for torchvision's data sets.

    Raises:
        ConfigError: for an unknown set, or one without this part.
        StorageError: if the set is not in the folder; the message says where to get it.
    """
    if name not in IMAGE_SETS:
        raise ConfigError(f"there is no image set {name!r}: use one of {', '.join(IMAGE_SETS)}.")
    entry = IMAGE_SETS[name]
    file, array = (entry.train, entry.arrays[0]) if train else (entry.test, entry.arrays[1])
    if not file:
        raise ConfigError(f"{name} has no {'training' if train else 'test'} part in this benchmark.")
    root, cause = where(folder), None
    if root is not None and (root / file).exists():
        return entry.fit(read_images(root / file, array=array))
    if root is not None and entry.torchvision:
        try:
            return as_images(read_images(f"torchvision:{entry.torchvision}:{root}", train=train))
        except (ConfigError, StorageError) as error:
            cause = error  # the sentence below is clearer, and keeps it
    raise StorageError(
        f"{name} was not found in {root or 'a data folder'}: put {file} there, and give the folder by --data or the environment "
        f"variable {VARIABLE}. ({entry.source})"
    ) from cause


def load_table(name: str, *, seed: int, folder: str | os.PathLike[str] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Read training, validation and test rows of one published split of a UCI table, float32 and standardized.

    Each column gets uniform noise as wide as the smallest gap between its values, because a density on a lattice would grow
    without bound. A tenth of the rows that are not test rows is for validation.

    The papers' tables keep every column and standardize all rows together. The quality benchmarks leave out columns and
    standardize by the training rows (:mod:`benchmarks.quality.data`), so the likelihoods of both are in different units.

    Args:
        name: name of a folder under ``uci``.
        seed: number of the split, 0 to 9.
        folder: the data folder.

    Raises:
        StorageError: if the table is not in the folder; the message says where to get it.
    """
    root = where(folder)
    path = None if root is None else root / "uci" / name
    if path is None or not (path / "data.csv.gz").exists():
        raise StorageError(
            f"uci/{name}/data.csv.gz was not found in {root or 'a data folder'}: put it there with test_mask.csv.gz, and give the folder "
            f"by --data or the environment variable {VARIABLE}. (UCI sets as in github.com/treforevans/uci_datasets)"
        )
    return _split(*read_table(path, seed), seed)


def load_power(*, seed: int, folder: str | os.PathLike[str] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Read training, validation and test rows of 13.5 days of household power, prepared as :func:`load_table` prepares a table.

    The columns are those of POWER (Papamakarios et al. 2017): active power, voltage, three sub-meters and the time of the day in
    minutes; the set is less than 1 % of POWER, so likelihoods do not compare. A random tenth of the rows is for the test.

    Args:
        seed: of the split.
        folder: the data folder.

    Raises:
        StorageError: if the file is not in the folder.
    """
    root, name = where(folder), "power/household_power_2006-12_first19446.csv.gz"
    if root is None or not (root / name).exists():
        raise StorageError(
            f"{name} was not found in {root or 'a data folder'}: give the folder by --data or the environment variable {VARIABLE}."
        )
    rows = []
    for line in gzip.decompress((root / name).read_bytes()).decode().splitlines()[1:]:
        when, active, _, voltage, _, *meters = line.split(",")
        if "" not in (active, voltage, *meters):
            hour, minute, _ = when.split(" ")[1].split(":")
            rows.append([float(active), float(voltage), *map(float, meters), 60.0 * int(hour) + int(minute)])
    mask = np.zeros(len(rows), bool)
    mask[np.random.default_rng(seed).permutation(len(rows))[: len(rows) // 10]] = True
    return _split(np.array(rows), mask, seed)


def _split(rows: NDArray[np.float64], mask: NDArray[np.bool_], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fill the gaps of lattices, standardize, and split into training, validation and test rows."""
    gaps = np.array([np.diff(np.unique(column)).min(initial=np.inf) for column in rows.T])
    rows = rows + np.where(np.isfinite(gaps), gaps, 0.0) * np.random.default_rng(0).uniform(size=rows.shape)
    rows = (rows - rows.mean(0)) / rows.std(0)
    rest = torch.from_numpy(rows[~mask]).float()
    rest = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))]
    cut = len(rest) // 10
    return rest[cut:], rest[:cut], torch.from_numpy(rows[mask]).float()


def read_table(path: Path, seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """All rows of a UCI table, and a mask of the test rows of a split."""
    rows = np.loadtxt(path / "data.csv.gz", delimiter=",")
    return rows, np.loadtxt(path / "test_mask.csv.gz", delimiter=",")[:, seed] > 0


def load_labels(name: str, *, train: bool, folder: str | os.PathLike[str] | None = None) -> Tensor:
    """Read labels in MNIST's format from the folder of the images, int64 ``(n,)``.

    Raises:
        ConfigError: for an unknown set, or one in another format.
        StorageError: if the file is missing or damaged.
    """
    entry = IMAGE_SETS.get(name)
    file = "" if entry is None else entry.train if train else entry.test
    if "-images-idx3-" not in file:
        raise ConfigError(f"there are no labels of {name!r} in MNIST's format.")
    path = (where(folder) or Path()) / file.replace("-images-idx3-", "-labels-idx1-")
    if not path.exists():
        raise StorageError(f"there is no file {path}: put the labels of {name} beside its images.")
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise StorageError(f"{path} is damaged: {error}") from error
    if len(raw) < 8 or raw[:4] != bytes([0, 0, 8, 1]) or len(raw) != 8 + int.from_bytes(raw[4:8], "big"):
        raise StorageError(f"{path} is not a file of labels in MNIST's format, one byte each.")
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=8).astype(np.int64))
