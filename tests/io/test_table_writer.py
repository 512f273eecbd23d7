"""A written table is complete or absent, and reading it returns what was written."""

import datetime as dt
import io
import os
import sys

import pandas as pd
import pyarrow as pa
import pytest

from pushforward.data import Schema, as_table, is_positional
from pushforward.errors import ConfigError, InputError, StorageError
from pushforward.io import PartedTable, TableWriter, read_table, stream_table

TABLE = pa.table(
    {
        "n": [1, None, 3],
        "x": [0.1, 1e-300, None],
        "flag": [True, None, False],
        "text": ['a, "b"', "x\ny", None],
        "day": [dt.date(2024, 1, 1), None, dt.date(1960, 2, 29)],
        "at": pa.array([0, 1_500_000, None], pa.timestamp("us")),
    }
)
NAMES = ["t.csv", "t.csv.gz", "t.csv.zst", "t.tsv", "t.tsv.gz", "t.parquet", "t.arrow", "t.feather"]


@pytest.mark.parametrize("name", NAMES)
def test_chunks_come_back_with_their_types(tmp_path, name):
    with TableWriter(tmp_path / name) as writer:
        writer.write(TABLE.slice(0, 1))
        writer.write(TABLE.slice(1, 0))
        writer.write(TABLE.slice(1, 2))
    assert writer.rows == 3
    assert read_table(tmp_path / name).equals(TABLE)
    assert os.listdir(tmp_path) == [name]


def test_categories_lists_and_odd_types_are_kept_in_parquet(tmp_path):
    table = pa.table({"c": pa.array(["u", "v"]).dictionary_encode(), "l": [[1], []], "i": pa.array([1, 2], pa.uint8())})
    with TableWriter(tmp_path / "t.parquet") as writer:
        writer.write(table)
    assert read_table(tmp_path / "t.parquet").equals(table)


def test_categories_are_text_in_csv(tmp_path):
    with TableWriter(tmp_path / "t.csv") as writer:
        writer.write(pa.table({"c": pa.array(["u", "v"]).dictionary_encode()}))
    assert pd.read_csv(tmp_path / "t.csv")["c"].tolist() == ["u", "v"]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.jsonl"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_durations_are_seconds_in_text(tmp_path, name, unit):
    durations = pa.array([90, None, -3], pa.duration("s")).cast(pa.duration(unit))
    table = pa.table({"wait": durations, "code": durations.dictionary_encode(), "n": [1, 2, 3]})
    with TableWriter(tmp_path / name) as writer:
        writer.write(table.slice(0, 2))
        writer.write(table.slice(2, 1))
    seconds = [90.0, None, -3.0]
    assert read_table(tmp_path / name).to_pydict() == {"wait": seconds, "code": seconds, "n": [1, 2, 3]}


def test_fractions_of_seconds_of_durations(tmp_path):
    with TableWriter(tmp_path / "t.csv") as writer:
        writer.write({"wait": pa.array([335_500_000, 1, None], pa.duration("us"))})
        writer.write({"wait": pa.array([None, None], pa.duration("us"))})
    text = (tmp_path / "t.csv").read_text().replace("1e-06", "0.000001")
    assert text.splitlines()[1:3] == ["335.5", "0.000001"]
    schema = Schema.infer({"wait": pa.array([335_500_000, 1, 7], pa.duration("us")), "n": [1, 2, 3]})
    cells = pa.table({"wait": ["335.5", "0.000001", None], "n": [1, 2, 3]})
    assert schema.encode(cells, warn=False)[0][:2, 0].tolist() == [335.5, 1e-6]


def test_a_file_can_be_written_over_while_it_is_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a\n" + "1\n" * 5000)
    with TableWriter(path) as writer:
        for chunk in stream_table(path, 1000):
            writer.write(chunk.append_column("b", pa.array([2] * chunk.num_rows)))
    assert read_table(path).to_pydict() == {"a": [1] * 5000, "b": [2] * 5000}


def test_arrays_are_written_with_made_up_names(tmp_path):
    with TableWriter(tmp_path / "t.parquet") as writer:
        writer.write(as_table([[1.0, 2.0]]))
    assert read_table(tmp_path / "t.parquet").column_names == ["x0", "x1"]
    assert not is_positional(read_table(tmp_path / "t.parquet"))


@pytest.mark.parametrize("name", NAMES)
def test_an_error_leaves_the_old_file(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"before")

    def write_half():
        with TableWriter(path) as writer:
            writer.write(TABLE)
            assert path.read_bytes() == b"before"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("name", "chunks", "words"),
    [
        ("t.csv", [{"l": [[1]]}], "argument must be a string or a number"),
        ("t.csv", [pa.table({"l": [[1]]})], "'l' has the type list"),
        ("t.parquet", [{"a": [1]}, {"b": [1]}], r"has the columns \['b'\], and the first one had \['a'\]"),
        ("t.parquet", [{"a": [1]}, {"a": ["x"]}], "differ from those of the first"),
        ("t.parquet", [{"a": [1]}, {"a": [1.5]}], "differ from those of the first"),
    ],
)
def test_tables_that_cannot_be_written(tmp_path, name, chunks, words):
    def write_all():
        with TableWriter(tmp_path / name) as writer:
            for chunk in chunks:
                writer.write(chunk)

    with pytest.raises(InputError, match=words):
        write_all()
    assert os.listdir(tmp_path) == []


def test_paths_that_cannot_be_written(tmp_path):
    (tmp_path / "d.csv").mkdir()
    for path, words in (
        (tmp_path / "t.xlsx", "not written in the format of .*t.xlsx: .* end in one of .csv, .*--output-format"),
        (tmp_path / "t.npy", "not written in the format of .*t.npy: .* choose csv, tsv, jsonl, parquet or arrow"),
        (tmp_path / "t.npz", "not written in the format of"),
        (tmp_path / "t", "not written in the format of"),
        (tmp_path / "absent" / "t.csv", "cannot write .*: no such file or directory"),
        (tmp_path / "d.csv", "is a directory"),
    ):
        with pytest.raises(StorageError, match=words), TableWriter(path):
            pass
    for chosen in ("npy", "xlsx"):
        with pytest.raises(ConfigError, match=f"not written as {chosen}: choose csv, tsv, jsonl, parquet or arrow"):
            TableWriter(tmp_path / "t.csv", format=chosen)
    assert os.listdir(tmp_path) == ["d.csv"]


def test_a_writer_without_tables_is_an_error(tmp_path):
    with pytest.raises(StorageError, match="no table was written"), TableWriter(tmp_path / "t.csv"):
        pass
    assert os.listdir(tmp_path) == []


def test_writing_outside_the_block_is_an_error(tmp_path):
    writer = TableWriter(tmp_path / "t.csv")
    with pytest.raises(StorageError, match="inside its with block"):
        writer.write(TABLE)


def test_a_new_file_has_the_default_permissions(tmp_path):
    (tmp_path / "other").touch()
    with TableWriter(tmp_path / "t.csv") as writer:
        writer.write(TABLE)
    assert (tmp_path / "t.csv").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_an_error_of_the_block_itself_is_not_changed(tmp_path):
    """Not even an OSError, which the writer would report in other words if it were its own."""
    with pytest.raises(OSError, match="the caller's") as caught, TableWriter(tmp_path / "t.csv") as writer:
        writer.write(TABLE)
        raise OSError("the caller's")
    assert type(caught.value) is OSError
    assert os.listdir(tmp_path) == []


def test_a_link_is_followed_and_permissions_stay(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("old")
    path.chmod(0o604)
    (tmp_path / "link.csv").symlink_to("t.csv")
    with TableWriter(tmp_path / "link.csv") as writer:
        writer.write(TABLE)
    assert (tmp_path / "link.csv").is_symlink()
    assert read_table(path).num_rows == 3
    assert path.stat().st_mode & 0o777 == 0o604


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz"])
@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None, 3]),
        pa.array([0.5, None, None]),
        pa.array([True, None, False]),
        pa.array(["x", None, 'a\n\n"b"']),
        pa.array([dt.date(2024, 1, 1), None, None]),
        pa.array([0, None, 1_500_000], pa.timestamp("us")),
        pa.nulls(3),
    ],
)
def test_missing_cells_of_a_single_column_are_rows(tmp_path, name, column):
    table = pa.table({"a": column})
    with TableWriter(tmp_path / name) as writer:
        writer.write(table.slice(0, 1))
        writer.write(table.slice(1, 2))
    assert read_table(tmp_path / name).equals(table)
    assert pa.concat_tables(stream_table(tmp_path / name, 2, types={"a": column.type})).num_rows == 3


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (["x"], [1], "'a' is int64, and was string"),
        ([1], ["2"], "'a' is string, and was int64"),
        ([True], [2], "'a' is int64, and was bool"),
        ([dt.datetime(2020, 1, 1)], [5], "'a' is int64, and was timestamp"),
        ([None], [1], "was null, without any value"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_later_table_of_another_type_is_refused(tmp_path, name, first, second, words):
    with pytest.raises(InputError, match=words), TableWriter(tmp_path / name) as writer:
        writer.write({"a": first})
        writer.write({"a": second})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([1]), pa.array([2.0])),
        (pa.array([1.5]), pa.array([2], pa.uint8())),
        (pa.array([1]), pa.nulls(1)),
        (pa.array(["x"]), pa.array(["y"], pa.large_string())),
        (pa.array(["x"]).dictionary_encode(), pa.array(["y"])),
        (pa.array([0], pa.timestamp("us")), pa.array([1], pa.timestamp("s"))),
    ],
)
def test_a_later_table_of_the_same_kind_is_written(tmp_path, first, second):
    with TableWriter(tmp_path / "t.parquet") as writer:
        writer.write(pa.table({"a": first}))
        writer.write(pa.table({"a": second}))
    assert read_table(tmp_path / "t.parquet")["a"].to_pylist() == [*first.to_pylist(), *second.to_pylist()]


def test_what_is_no_path_is_refused():
    with pytest.raises(InputError, match="path of a file to write; got NoneType"):
        TableWriter(None)  # type: ignore[arg-type]


def test_the_folder_of_the_user_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with TableWriter("~/t.csv") as writer:
        writer.write({"a": [1, 2]})
    assert read_table("~/t.csv").num_rows == 2
    assert sum(part.num_rows for part in stream_table("~/t.csv")) == 2
    assert [PartedTable("~/t.csv").parts(5)] == [[(0, 0, 0)]]
    monkeypatch.chdir(tmp_path)
    with TableWriter("~nobody-of-this-name.csv") as writer:
        writer.write({"a": [1, 2]})
    assert read_table("~nobody-of-this-name.csv").num_rows == 2


@pytest.mark.parametrize("name", ["t.arrow", "t.parquet", "t.jsonl", "t.csv"])
def test_later_tables_have_other_categories(tmp_path, name):
    cells = [["a", "b"], ["c", "a"], [f"n{i}" for i in range(300)]]
    with TableWriter(tmp_path / name) as writer:
        for texts in cells:
            writer.write(pd.DataFrame({"c": pd.Categorical(texts)}))
    assert read_table(tmp_path / name)["c"].to_pylist() == [text for texts in cells for text in texts]


@pytest.mark.parametrize("form", ["csv", "jsonl", "arrow"])
def test_standard_output_gets_each_table_at_once(monkeypatch, form):
    """A program that reads a pipe does not wait until the 8 KiB of a buffer are full."""
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(_Raw(pipe))))
    sizes = []
    with TableWriter("-", form) as writer:
        for start in range(3):
            writer.write(TABLE.slice(start, 1))
            sizes.append(len(pipe.getvalue()))
    assert 0 < sizes[0] < sizes[1] < sizes[2]


class _Raw(io.RawIOBase):
    """A file without a buffer, whose bytes another one keeps."""

    def __init__(self, kept):
        self.kept = kept

    def writable(self):
        return True

    def write(self, data):
        return self.kept.write(data)
