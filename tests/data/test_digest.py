"""Digests of tables, arrays and images."""

import datetime
import hashlib

import numpy as np
import pyarrow as pa
import pytest
import torch

from pushforward.data.digest import content_digest

TABLE = pa.table({
    "x": [1.5, None, 3.0], "n": [1, 2, 3], "t": ["a", "b", "a"], "f": [True, None, False],
    "d": [datetime.date(2020, 1, 1), None, datetime.date(2020, 1, 3)],
})  # fmt: skip


def test_chunks_and_dictionaries_do_not_matter():
    chunks = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)])
    assert content_digest(chunks) == content_digest(TABLE)
    assert content_digest(pa.concat_tables([TABLE, TABLE]).slice(3)) == content_digest(TABLE)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("x", [1.5, 0.0, 3.0]),
        ("t", ["a", "b", "b"]),
        ("t", ["a", "b", None]),
        ("f", [True, False, False]),
        ("n", [1, 2, 4]),
    ],
)
def test_every_cell_matters(column, values):
    changed = TABLE.set_column(TABLE.column_names.index(column), column, pa.array(values))
    assert content_digest(changed) != content_digest(TABLE)


def test_names_order_and_types_matter():
    digests = {
        content_digest(t)
        for t in (TABLE, TABLE.rename_columns(list("abcde")), TABLE.select(["n", "x", "t", "f", "d"]),
                  TABLE.set_column(1, "n", pa.array([1.0, 2.0, 3.0])))
    }  # fmt: skip
    assert len(digests) == 4


def test_the_digest_of_an_array_is_that_of_its_shape_type_and_bytes():
    x = np.arange(6.0).reshape(2, 3)
    assert content_digest(x) == hashlib.sha256(b"(2, 3) <f8" + x.tobytes()).hexdigest()


def test_arrays_and_images():
    x = np.arange(12.0).reshape(3, 4)
    assert content_digest(x) == content_digest(np.asfortranarray(x)) != content_digest(x.T)
    images = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8)
    assert content_digest(images) == content_digest(images.numpy())
    assert content_digest(x[:0]) != content_digest(x)
