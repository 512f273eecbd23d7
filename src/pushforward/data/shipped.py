"""Small real data sets that ship with the package."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from pushforward.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Sample", "load_sample"]

_TITLES = {"thyroid": "Thyroid patients (6 blood values)"}


@dataclass(frozen=True)
class Sample:
    """A labelled table.

    Attributes:
        title: for headings.
        table: the rows.
        labels: 1 for an anomaly, else 0, ``(rows,)``.
    """

    title: str
    table: pa.Table
    labels: np.ndarray


def load_sample(name: str) -> Sample:
    """A data set that ships with the package; ``data/samples/README.md`` says where it comes from.

    Raises:
        ConfigError: for an unknown name; it lists the known ones.

    Example:
        >>> sample = load_sample("thyroid")
        >>> sample.table.num_rows, int(sample.labels.sum())
        (3772, 93)
    """
    import pyarrow as pa

    if name not in _TITLES:
        raise ConfigError(f"no sample is called {name!r}; there is {', '.join(_TITLES)}.")
    source = resources.files("pushforward.data") / "samples" / f"{name}.npz"
    with source.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        rows, labels, names = archive["rows"], archive["labels"], archive["names"]
    columns = {str(title): rows[:, i] for i, title in enumerate(names)}
    return Sample(_TITLES[name], pa.table(columns), labels)
