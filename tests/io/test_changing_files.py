"""A file that changes while it is read is an error in one sentence, and no wrong row reaches a finished output."""

import os

import numpy as np
import pyarrow as pa
import pytest

from pushforward.errors import StorageError
from pushforward.io import TableWriter, read_table, stream_table

TABLE = pa.table({"a": np.arange(200_000), "b": np.arange(200_000) / 7})
TYPES = {"a": pa.int64(), "b": pa.float64()}
NAMES = ["t.csv", "t.csv.gz", "t.jsonl", "t.parquet", "t.arrow", "t.npy", "columns.npy"]


def write(path):
    if path.suffix == ".npy":
        order = "F" if path.stem == "columns" else "C"
        np.save(path, np.array(TABLE.to_pandas(), order=order))
    else:
        with TableWriter(path) as writer:
            for start in range(0, len(TABLE), 20_000):
                writer.write(TABLE.slice(start, 20_000))


def append(path):
    with path.open("ab") as file:
        file.write(b"1,2\n")


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def replace(path):
    other = path.with_name("other" + path.suffix)
    other.write_bytes(path.read_bytes())
    other.replace(path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [append, cut, replace])
def test_a_file_that_changes_after_the_first_chunk(tmp_path, name, change):
    path = tmp_path / name
    write(path)

    def copy():
        with TableWriter(tmp_path / "out.csv") as writer:
            for i, chunk in enumerate(stream_table(path, 1000, types=TYPES)):
                writer.write(chunk)
                if i == 0:
                    change(path)

    with pytest.raises(StorageError, match=f"{name} changed while it was read") as caught:
        copy()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.csv").exists()
    assert not list(tmp_path.glob(".pushforward*"))


def test_a_file_of_a_folder_that_changes(tmp_path):
    (tmp_path / "rows").mkdir()
    for name in ("1.csv", "2.csv"):
        write(tmp_path / "rows" / name)
    chunks = stream_table(tmp_path / "rows", 1000, types=TYPES)
    next(chunks)
    append(tmp_path / "rows" / "1.csv")
    with pytest.raises(StorageError, match=r"1.csv changed while"):
        list(chunks)


def test_a_file_that_changes_while_it_is_read_whole(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("a\n1\n2\n")

    def finished(table):
        append(path)
        return table

    monkeypatch.setattr("pushforward.io.csv._finished", finished)
    with pytest.raises(StorageError, match=r"t\.csv changed while it was read"):
        read_table(path)


def test_a_file_that_does_not_change_is_no_error(tmp_path):
    write(tmp_path / "t.csv")
    os.utime(tmp_path / "t.csv", (1, 1))
    assert sum(chunk.num_rows for chunk in stream_table(tmp_path / "t.csv", 1000, types=TYPES)) == len(TABLE)
