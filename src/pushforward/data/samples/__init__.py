"""Small real data sets that come with the package. README.md in this folder states their origin and license."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from pushforward.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["IMAGE_SAMPLES", "SAMPLES", "Sample", "load_image_sample", "load_sample"]

SAMPLES = {"thyroid": "Thyroid patients (6 blood values)"}
"""The names of the tables, and their titles."""
IMAGE_SAMPLES = {"fashion-mnist": ("train", "test"), "mnist": ("test",)}
"""The names of the image sets, and their parts."""


@dataclass(frozen=True)
class Sample:
    """A labeled table.

    Attributes:
        title: title for headings.
        table: the rows.
        labels: 1 for an anomaly, else 0, ``(rows,)``.
        classes: name of the class of each row, ``(rows,)``.

    Example:
        >>> from pushforward.data import load_sample
        >>> sample = load_sample("thyroid")
        >>> sample.table.column_names, sample.labels.sum().item()
        (['age', 'TSH', 'T3', 'TT4', 'T4U', 'FTI'], 93)
    """

    title: str
    table: pa.Table
    labels: np.ndarray
    classes: np.ndarray


def load_sample(name: str) -> Sample:
    """Load a table that comes with the package.

    Args:
        name: a key of :data:`SAMPLES`. "thyroid": age in years, TSH in mU/l, T3 and TT4 in nmol/l, T4U, FTI. Of 3,772
            rows 93 are anomalies, class "primary hypothyroid"; the others are "negative" (3,488) or "compensated
            hypothyroid" (191), a mild form.

    Raises:
        ConfigError: for another name.

    Example:
        >>> sample = load_sample("thyroid")
        >>> sample.table.num_rows, int(sample.labels.sum())
        (3772, 93)
    """
    if name not in SAMPLES:
        raise ConfigError(f"there is no sample {name!r}; there are {', '.join(SAMPLES)}.")
    from pyarrow import csv

    with resources.as_file(resources.files("pushforward.data.samples") / f"{name}.csv.gz") as path:
        table = csv.read_csv(path)
    classes = np.asarray(table.column("diagnosis").to_pylist())
    return Sample(
        SAMPLES[name], table.drop_columns("diagnosis"), (classes == "primary hypothyroid").astype(int), classes
    )


def load_image_sample(name: str, part: str = "test") -> np.ndarray:
    """Load images that come with the package: 28 x 28 gray, uint8 ``(n, 28, 28)``, in the order of the original files.

    Args:
        name: a key of :data:`IMAGE_SAMPLES`: "fashion-mnist" (the first 5,000 training and 1,000 test images) or "mnist"
            (the first 1,000 test images).
        part: "train" or "test".

    Raises:
        ConfigError: for another name or part.

    Example:
        >>> load_image_sample("mnist").shape
        (1000, 28, 28)
    """
    if part not in IMAGE_SAMPLES.get(name, ()):
        known = ", ".join(f"{known} ({' and '.join(parts)})" for known, parts in IMAGE_SAMPLES.items())
        raise ConfigError(f"there is no image sample {name!r} with a part {part!r}; there are {known}.")
    file = resources.files("pushforward.data.samples") / f"{name}.npz"
    with resources.as_file(file) as path, np.load(path, allow_pickle=False) as arrays:
        return arrays[part]
