"""Data of the quality benchmarks: UCI tables with ten fixed test splits, and 8x8 patches of the BSDS300 photographs.

Every method gets the same arrays. A UCI table is prepared once, before any split:

1. The target is a column like the others.
2. Columns with one value in more than 99 % of the rows are left out, and then, one at a time, the first column
   whose absolute correlation with another one exceeds 0.98 (the rule of the GAS benchmark, Papamakarios et al. 2017).
3. Each column gets uniform noise as wide as the smallest gap between two of its values, from a fixed seed. This fills
   the gaps of a column on a lattice (integers, rounded numbers), on which a density would otherwise grow without
   bound, and changes nothing that matters in a continuous column, whose smallest gap is tiny.

Then for each split: test rows by column ``seed`` of the published mask, a tenth of the others for validation, all
standardized by the mean and standard deviation of the training rows. Log-likelihoods of UCI sets are in these
standardized units, those of BSDS300 in the units of the papers (gray values / 256).
"""

from __future__ import annotations

import argparse
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.common.datasets import load_images, read_table

__all__ = ["SETS", "Split", "add_data_option", "load"]

SETS = ("protein", "kin40k", "elevators", "parkinsons", "bsds300")
"""The sets of the tables; any other UCI set of the folder loads too, as do "digits" and "fashion-mnist". These have at least 5,000 rows and a density worth
learning. Left out: bike (its target is the logarithm of the sum of two other columns, so there is not a density),
keggundirected (71 % of its rows are copies, so test rows are also in the training part), pol (most of its columns are zero
in most rows: a matter for discrete models), tamielectric and pumadyn32nm (nearly independent uniform columns)."""

BSDS_SIZES = (100_000, 10_000, 20_000)
"""Patches for training, validation and test; the papers have (1_000_000, 50_000, 250_000)."""
BSDS_PATCH = 8


@dataclass(frozen=True)
class Split:
    """One split of a set: float32 rows, standardized by the training part."""

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    offset: float
    """Added to a log-density of these rows, nats, it gives the log-density in the units of the table."""

    @property
    def features(self) -> int:
        return self.train.shape[1]


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--data``, the folder of the data sets; by default that of the environment variable."""
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("PUSHFORWARD_DATA"),
        help="folder with uci/<set>/data.csv.gz, uci/<set>/test_mask.csv.gz, bsds300/train.tar and bsds300/test.tar "
        "(or the environment variable PUSHFORWARD_DATA)",
    )


def load(name: str, seed: int, folder: Path | None, patches: tuple[int, int, int] = BSDS_SIZES) -> Split:
    """Split ``seed`` of a set: 0 to 9 for UCI sets, any for BSDS300, scikit-learn's digits and Fashion-MNIST.

    ``patches`` are the numbers of patches of BSDS300 for training, validation and test.
    """
    if name == "bsds300":
        return _standardized(name, *_patches(folder, seed, patches), raw_units=True)
    if name in ("digits", "fashion-mnist"):
        return _images(name, folder, seed)
    _find(folder, f"uci/{name}/test_mask.csv.gz")
    rows, mask = read_table(_find(folder, f"uci/{name}/data.csv.gz").parent, seed)
    rows = _prepared(rows)
    rest = np.random.default_rng(seed).permutation(rows[~mask])
    held = len(rest) // 10
    return _standardized(name, rest[held:], rest[:held], rows[mask])


def _find(folder: Path | None, file: str) -> Path:
    if folder is not None and (Path(folder) / file).is_file():
        return Path(folder) / file
    where = "no data folder was given" if folder is None else f"there is no {file} in {folder}"
    raise SystemExit(
        f"{where}: point --data or PUSHFORWARD_DATA at a folder with uci/<set>/data.csv.gz and test_mask.csv.gz as in "
        "github.com/treforevans/uci_datasets, and with bsds300/train.tar and bsds300/test.tar, which contain the JPEG "
        "files of BSDS300 (www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds) as train/<id>.jpg and "
        "test/<id>.jpg."
    )


def _prepared(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    commonest = [np.unique(column, return_counts=True)[1].max() for column in rows.T]
    columns = [j for j, count in enumerate(commonest) if count <= 0.99 * len(rows)]
    while True:
        close = np.abs(np.corrcoef(rows[:, columns], rowvar=False)) > 0.98
        partners = close.sum(0) - 1
        if not partners.any():
            break
        del columns[int(np.flatnonzero(partners)[0])]
    rows = rows[:, columns]
    gaps = np.array([np.diff(np.unique(column)).min() for column in rows.T])
    return rows + gaps * np.random.default_rng(0).random(rows.shape)


def _standardized(
    name: str,
    train: NDArray[np.float64],
    validation: NDArray[np.float64],
    test: NDArray[np.float64],
    *,
    raw_units: bool = False,
) -> Split:
    mean, spread = train.mean(0), train.std(0)
    parts = [torch.from_numpy(((part - mean) / spread).astype(np.float32)) for part in (train, validation, test)]
    return Split(name, *parts, offset=-float(np.log(spread).sum()) if raw_units else 0.0)


def _images(name: str, folder: Path | None, seed: int) -> Split:
    """Images as vectors of dequantized pixels, scaled by one mean and one deviation."""
    if name == "digits":
        from sklearn.datasets import load_digits

        rows = np.random.default_rng(seed).permutation(load_digits().data)
        parts = [rows[500:], rows[300:500], rows[:300]]
    else:
        rest, test = (
            load_images(name, train=train, folder=folder).flatten(1).double().numpy() for train in (True, False)
        )
        rest = np.random.default_rng(seed).permutation(rest)
        parts = [rest[5000:], rest[:5000], test]
    noise = np.random.default_rng(1000 + seed)
    parts = [part + noise.random(part.shape) for part in parts]
    mean, spread = parts[0].mean(), parts[0].std()
    return Split(name, *(torch.from_numpy(((part - mean) / spread).astype(np.float32)) for part in parts), offset=0.0)


def _patches(
    folder: Path | None, seed: int, sizes: tuple[int, int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Patches of 180 training images, of the 20 others and of the 100 test images (Uria et al. 2016, sec. 7.3.2)."""
    images, test = (_photographs(_find(folder, f"bsds300/{part}.tar")) for part in ("train", "test"))
    held = images[::10]
    train = [image for index, image in enumerate(images) if index % 10]
    rng = np.random.default_rng(seed)
    drawn = [_draw(source, count, rng) for source, count in zip((train, held, test), sizes, strict=True)]
    return drawn[0], drawn[1], drawn[2]


def _photographs(file: Path) -> list[NDArray[np.uint8]]:
    """Gray values (ITU-R 601) of the photographs in a tar file, in the order of their names."""
    with tarfile.open(file) as tar:
        members = sorted((m for m in tar.getmembers() if m.name.endswith(".jpg")), key=lambda m: m.name)
        return [np.asarray(Image.open(stream).convert("L")) for m in members if (stream := tar.extractfile(m))]


def _draw(images: list[NDArray[np.uint8]], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random patches, dequantized and scaled, without their mean and the last pixel, which the others determine."""
    chosen = np.bincount(rng.integers(len(images), size=count), minlength=len(images))
    parts = []
    for image, number in zip(images, chosen, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(image, (BSDS_PATCH, BSDS_PATCH))
        top, left = (rng.integers(size, size=number) for size in windows.shape[:2])
        parts.append(windows[top, left].reshape(number, -1))
    gray = np.concatenate(parts)
    rows = (gray + rng.random(gray.shape)) / 256
    rows -= rows.mean(1, keepdims=True)
    return rows[rng.permutation(count), :-1]
