"""Small real data sets that come with the package; README.md beside this file says whose they are."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from pushforward.data.files import read_table
from pushforward.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SAMPLES", "load_sample"]

SAMPLES = {
    "thyroid": "blood tests of 3,772 patients, 284 of them with an underactive thyroid; the last column, diagnosis, says "
    "which"
}
"""Names of the samples, and what they are."""


def load_sample(name: str) -> pa.Table:
    """A sample as a table.

    Args:
        name: a key of :data:`SAMPLES`. "thyroid": age, TSH, T3, TT4, T4U, FTI (numbers), and diagnosis, which is
            "negative" (3,488 rows), "compensated hypothyroid" (191) or "primary hypothyroid" (93).

    Raises:
        ConfigError: for another name.

    Example:
        >>> table = load_sample("thyroid")
        >>> table.shape
        (3772, 7)
    """
    if name not in SAMPLES:
        raise ConfigError(f"there is no sample {name!r}; there is {', '.join(SAMPLES)}.")
    with resources.as_file(resources.files(__package__) / f"{name}.csv.gz") as path:
        return read_table(path)
