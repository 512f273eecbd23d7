"""Tables in files of every format, whole and in chunks, and one clear error for each kind of damage."""

import gzip
import io
import json
import random
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pushforward.data import Schema, is_positional
from pushforward.errors import ConfigError, InputError, PushforwardError, SchemaError, SchemaWarning, StorageError
from pushforward.io import PartedTable, TablePart, read_table, stream_table

TABLE = pa.table({"a": [1, 2, 3], "b": [0.5, None, 2.0], "c": ["x", "y", None]})


def write_arrow(path, table, new=pa.ipc.new_file):
    with new(str(path), table.schema) as sink:
        sink.write_table(table)


def write(path, table):
    """Write a table with other code than that of pushforward."""
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        table.to_pandas().astype({"a": "Int64"}).to_csv(path, index=False)
    elif name.endswith((".tsv", ".tsv.gz")):
        table.to_pandas().astype({"a": "Int64"}).to_csv(path, index=False, sep="\t")
    elif name.endswith(".parquet"):
        pq.write_table(table, path)
    else:
        write_arrow(path, table)
    return path


NAMES = ["t.csv", "t.csv.gz", "T.CSV", "t.tsv", "t.tsv.gz", "t.parquet", "t.arrow", "t.feather"]


@pytest.mark.parametrize("name", NAMES)
def test_every_format_is_read(tmp_path, name):
    path = write(tmp_path / name, TABLE)
    assert read_table(path).equals(TABLE)
    assert read_table(str(path), columns=["c", "a"]).equals(TABLE.select(["c", "a"]))


def test_arrow_streams_are_read(tmp_path):
    write_arrow(tmp_path / "t.arrow", TABLE, pa.ipc.new_stream)
    assert read_table(tmp_path / "t.arrow").equals(TABLE)


def test_arrays(tmp_path):
    x = np.arange(6.0).reshape(3, 2)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "one.npz", anything=x)
    np.savez_compressed(tmp_path / "two.npz", X=x, y=np.zeros(3))
    for name in ("x.npy", "one.npz", "two.npz"):
        table = read_table(tmp_path / name)
        assert is_positional(table)
        np.testing.assert_array_equal(table.to_pandas(), x)
        chunks = list(stream_table(tmp_path / name, rows=2))
        assert [chunk.num_rows for chunk in chunks] == [2, 1]
        assert all(is_positional(chunk) for chunk in chunks)
    np.save(tmp_path / "columns.npy", np.asfortranarray(x))
    assert pa.concat_tables(stream_table(tmp_path / "columns.npy", 2)).to_pydict() == {"x0": [0, 2, 4], "x1": [1, 3, 5]}
    np.save(tmp_path / "s.npy", np.array([(1, 2.5)], dtype=[("u", "i8"), ("v", "f8")]))
    assert read_table(tmp_path / "s.npy").to_pydict() == {"u": [1], "v": [2.5]}
    assert next(stream_table(tmp_path / "s.npy")).to_pydict() == {"u": [1], "v": [2.5]}


def test_a_typical_text_file(tmp_path):
    path = tmp_path / "t.csv"
    header = b"\xef\xbb\xbfid,n,x,flag,day,zip,note\r\n"
    path.write_bytes(header + b'1, 5,2,true,2024-01-01,007,"a, ""b""\nc"\r\n\r\n2,NA,.5,False,,010,\r\n')
    assert [str(kind) for kind in read_table(path).schema.types] == [
        "int64", "int64", "double", "bool", "date32[day]", "string", "string",
    ]  # fmt: skip
    row, other = read_table(path).to_pylist()
    assert (row["id"], row["n"], row["x"], row["flag"], row["zip"]) == (1, 5, 2.0, True, "007")
    assert row["note"] == 'a, "b"\nc'
    assert (other["n"], other["x"], other["flag"], other["day"], other["note"]) == (None, 0.5, False, None, None)


# -- in chunks --


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A table whose first rows mislead about the types of its columns."""
    generator = np.random.default_rng(0)
    n = 30_000
    frame = pd.DataFrame(
        {
            "late_float": [*range(n - 1), 3.5],
            "late_number": pd.array([None] * (n - 1) + [7], dtype="Int64"),
            "late_text": [*map(str, range(n - 1)), "end"],
            "x": generator.normal(size=n),
            "word": generator.choice(["red", "green", ""], n),
            "day": pd.date_range("2024-01-01", periods=n, freq="min").strftime("%Y-%m-%d %H:%M:%S"),
        }
    )
    path = tmp_path_factory.mktemp("long") / "t.csv"
    frame.to_csv(path, index=False)
    return path, frame


@pytest.mark.parametrize("rows", [1000, 7777, 65_536])
def test_chunks_are_the_whole(long, rows, monkeypatch):
    monkeypatch.setattr("pushforward.io.csv._BLOCK", 1 << 16)
    path, frame = long
    whole = read_table(path)
    chunks = list(stream_table(path, rows, types=dict(zip(whole.column_names, whole.schema.types, strict=True))))
    assert [chunk.num_rows for chunk in chunks] == [
        min(rows, len(frame) - start) for start in range(0, len(frame), rows)
    ]
    assert len({chunk.schema for chunk in chunks}) == 1
    assert pa.concat_tables(chunks).equals(whole)
    assert [str(kind) for kind in whole.schema.types] == [
        "double", "int64", "string", "double", "string", "timestamp[us]",
    ]  # fmt: skip
    np.testing.assert_array_equal(whole["x"].to_numpy(), frame["x"])
    assert whole["late_float"][-1].as_py() == 3.5
    assert whole["late_text"].to_pylist() == list(frame["late_text"])


@pytest.mark.parametrize("name", NAMES)
def test_chunks_of_every_format(tmp_path, name):
    path = write(tmp_path / name, TABLE)
    for rows in (1, 2, 3, 100):
        chunks = list(stream_table(path, rows, types=dict(zip(TABLE.column_names, TABLE.schema.types, strict=True))))
        assert [chunk.num_rows for chunk in chunks] == [min(rows, 3 - start) for start in range(0, 3, rows)]
        assert pa.concat_tables(chunks).equals(TABLE)
    assert next(stream_table(path, columns=["b"])).column_names == ["b"]


def test_row_groups_and_batches_are_joined_and_cut(tmp_path):
    table = pa.table({"a": range(100), "w": pa.array(["u", "v"] * 50).dictionary_encode()})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=7)
    with pa.ipc.new_file(str(tmp_path / "t.arrow"), table.schema) as sink:
        sink.write_table(table, max_chunksize=7)
    for name in ("t.parquet", "t.arrow"):
        chunks = list(stream_table(tmp_path / name, 30))
        assert [chunk.num_rows for chunk in chunks] == [30, 30, 30, 10]
        assert pa.concat_tables(chunks).to_pydict() == table.to_pydict()


def test_known_columns(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("n,code,x\n1,7,007\n2,8,5\n")
    assert read_table(path).to_pydict() == {"n": [1, 2], "code": [7, 8], "x": ["007", "5"]}
    schema = Schema.infer({"n": [1, 2], "code": ["7", "8"], "x": [0.5, 5.5]})
    chunk = next(stream_table(path, types=schema.pyarrow_types()))
    assert chunk.to_pydict() == {"n": [1, 2], "code": ["7", "8"], "x": [7, 5]}
    assert schema.encode(chunk)[0].tolist() == [[1.0, 0.0, 7.0], [2.0, 1.0, 5.0]]


@pytest.mark.parametrize("bad", ["abc", "2024-01-01", "0x10", "1;5"])
def test_text_in_a_known_number_column_is_found_before_the_first_chunk(tmp_path, bad, monkeypatch):
    monkeypatch.setattr("pushforward.io.csv._BLOCK", 1000)
    path = tmp_path / "t.csv"
    path.write_text("a,x\n" + "1,2\n" * 5000 + f"1,{bad}\n1,2\n")
    chunks = stream_table(path, 10, types={"x": pa.float64()})
    with pytest.raises(SchemaError, match=f"column 'x', row 5000 .*{bad!r} is not a number"):
        next(chunks)


def test_a_flag_in_a_known_number_column_is_an_error(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("x\n1\ntrue\n")
    with pytest.raises(SchemaError, match=r"column 'x', row 1 .*'true' is not a number"):
        next(stream_table(path, types={"x": pa.float64()}))


def test_a_row_that_does_not_fit_is_counted_after_quoted_line_breaks_and_blank_lines(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('a,x\n"1\n1",2\n\n1,2\n1,abc\n')
    with pytest.raises(SchemaError, match="column 'x', row 2 "):
        next(stream_table(path, columns=["x"], types={"x": pa.float64()}))


def test_columns_of_a_text_file_that_are_not_known_stay_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,x,n\n007,1.50,NA\n8,2,\n")
    (chunk,) = stream_table(path, types={"x": pa.float64()})
    assert chunk.to_pydict() == {"id": ["007", "8"], "x": [1.5, 2.0], "n": ["NA", None]}


def test_a_scored_file_is_encoded_as_the_fitted_one(tmp_path):
    """Every kind of column that a text file can have, read whole to fit and with the types of the schema to score."""
    path = tmp_path / "t.csv"
    path.write_text(
        "n,x,flag,day,at,utc,clock,zip,word\n"
        "1,.5,true,2024-01-01,2024-01-01 10:00:00.25,2024-01-01T00:00:00Z,10:20,007,u\n"
        "2,NA,False,,2024-01-02 10:00:00,2024-01-01T00:00:00+02:00,11:30:05,8,\n"
    )
    whole = read_table(path)
    assert [str(kind) for kind in whole.schema.types] == [
        "int64", "double", "bool", "date32[day]", "timestamp[us]", "timestamp[us, tz=UTC]", "time32[s]", "string", "string",
    ]  # fmt: skip
    schema = Schema.infer(whole)
    (chunk,) = stream_table(path, types=schema.pyarrow_types())
    np.testing.assert_array_equal(schema.encode(chunk)[0], schema.encode(whole)[0])


def test_a_text_file_is_encoded_by_a_schema_without_names(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,0.5\nNA,1\n")
    schema = Schema.infer(np.array([[1.0, 0.5], [np.nan, 1.5]]))
    (chunk,) = stream_table(path, types=schema.pyarrow_types())
    np.testing.assert_array_equal(schema.encode(chunk, warn=False)[0], [[1.0, 0.5], [np.nan, 1.0]])


def test_a_first_line_of_numbers_gives_a_warning(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("1.5,2\n3,4\n")
    with pytest.warns(SchemaWarning, match="contains only numbers"):
        read_table(path)
    with pytest.warns(SchemaWarning, match="contains only numbers") as caught:
        list(stream_table(path))
    assert len(caught) == 1


PEAK = """
import resource, sys
from pushforward.io import PartedTable, TablePart, read_table, stream_table
import pyarrow.csv, pyarrow.parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = sum(chunk.num_rows for chunk in stream_table(sys.argv[1], rows=10_000))
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.npy"])
def test_memory_does_not_grow_with_the_file(tmp_path, name):
    """400,000 more rows (32 MB of numbers) take less than half of their size in memory."""
    peaks = []
    for n in (50_000, 450_000):
        x = np.random.default_rng(0).normal(size=(n, 10))
        path = tmp_path / f"{n}{name}"
        table = pa.table({f"c{i}": x[:, i] for i in range(10)})
        if name.endswith(".npy"):
            np.save(path, x)
        elif name.endswith(".csv"):
            import pyarrow.csv

            pyarrow.csv.write_csv(table, path)
        else:
            pq.write_table(table, path, row_group_size=n)
        result = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True)
        rows, peak = result.stdout.split()
        assert int(rows) == n
        peaks.append(float(peak))
    if name.endswith(".npy"):
        # Pages of a mapped file count as resident until the system needs the memory, so the bound is the size of the file.
        assert peaks[1] < 36 + 30
    else:
        assert peaks[1] - peaks[0] < 16


# -- JSON Lines and folders --


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_json_lines(tmp_path, name):
    path = tmp_path / name
    text = b'{"a": 1, "b": 0.5, "c": "x"}\n{"a": 2, "c": "y"}\n{"a": 3, "b": 2, "c": null}\n'
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert read_table(path).equals(TABLE)
    assert pa.concat_tables(stream_table(path, 2)).equals(TABLE)
    assert read_table(path, columns=["c", "a"]).equals(TABLE.select(["c", "a"]))


def test_json_lines_whose_first_rows_mislead(tmp_path):
    """Integers that become fractions after the first block, and a key that is absent before it."""
    path = tmp_path / "t.jsonl"
    path.write_text('{"x": 1, "late": null, "code": "007"}\n' * 100_000 + '{"x": 2.5, "late": 3.0}\n')
    schema = Schema.infer({"x": [0.5, 5.5], "late": [1.5, 2.0], "code": ["007", "8"]})
    chunks = list(stream_table(path, types=schema.pyarrow_types()))
    assert [chunk.num_rows for chunk in chunks] == [65_536, 34_465]
    assert chunks[-1].slice(34_464).to_pylist() == [{"x": 2.5, "late": 3.0, "code": None}]


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"\n\n", InputError, "no rows"),
        (b"a,b\n1,2\n", InputError, "not JSON Lines"),
        (b"[1, 2]\n", InputError, "not JSON Lines|JSON types"),
        (b'{"a": 1}\n{"a"', InputError, "not JSON Lines"),
        (b'{"a": 1, "a": 2}\n', InputError, "not JSON Lines.*line 1 has the key 'a' twice"),
        (b'{"a": "\xff"}\n', InputError, "not UTF-8"),
        (b'{"a": 1}\n{"a": "x"}\n', SchemaError, "column 'a' .* number and string"),
        (b'{"a": 1}\n' * 200_000 + b'{"a": 2.5}\n', SchemaError, "the value '2.5' later"),
    ],
)
def test_json_lines_that_cannot_be_read(tmp_path, content, error, words):
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with pytest.raises(error, match=words) as caught:
        list(stream_table(path))
    assert "\n" not in str(caught.value)


def partitioned(folder, name):
    """Two years of a table, one file for each, and files that are not part of it."""
    for year, rows in ((2023, TABLE.slice(0, 1)), (2024, TABLE.slice(1, 2))):
        (folder / f"year={year}").mkdir(parents=True)
        write(folder / f"year={year}" / name, rows)
    (folder / "_SUCCESS").touch()
    (folder / ".hidden.csv").write_text("z\n1\n")
    (folder / "notes.txt").write_text("not a table")
    return folder


@pytest.mark.parametrize("name", [name for name in NAMES if name != "T.CSV"])
def test_a_folder_is_one_table(tmp_path, name):
    folder = partitioned(tmp_path / "t", name)
    whole = TABLE.append_column("year", pa.array([2023, 2024, 2024], pa.int32()))
    assert read_table(folder).equals(whole)
    assert read_table(folder, columns=["year", "a"]).equals(whole.select(["year", "a"]))
    types = dict(zip(TABLE.column_names, TABLE.schema.types, strict=True))
    chunks = list(stream_table(folder, 2, types=types))
    assert [chunk.num_rows for chunk in chunks] == [2, 1]
    assert pa.concat_tables(chunks).equals(whole)


@pytest.mark.parametrize("name", ["t.csv", "t.arrow", "t.parquet"])
def test_a_key_of_integers_that_one_folder_lacks(tmp_path, name):
    for year in ("2023", "__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / f"year={year}").mkdir()
        write(tmp_path / f"year={year}" / name, TABLE)
    years = pa.chunked_array([pa.array([2023] * 3 + [None] * 3, pa.int32())])
    assert read_table(tmp_path)["year"].equals(years)
    assert pa.concat_tables(stream_table(tmp_path, 4))["year"].equals(years)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_linked_folders_are_read_and_links_to_nothing_are_an_error(tmp_path, name):
    (tmp_path / "real").mkdir()
    write(tmp_path / "real" / name, TABLE)
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / name, TABLE)
    (folder / "linked").symlink_to(tmp_path / "real")
    (folder / "again").symlink_to(folder)
    assert read_table(folder).num_rows == 6
    (folder / f"gone-{name}").symlink_to(tmp_path / "gone")
    with pytest.raises(StorageError, match="gone-t"):
        read_table(folder)


def test_parquet_files_of_other_columns_and_types(tmp_path):
    write(tmp_path / "a.parquet", TABLE)
    write(tmp_path / "b.parquet", TABLE.append_column("d", TABLE["a"]))
    read = (
        lambda: read_table(tmp_path),
        lambda: pa.concat_tables(stream_table(tmp_path)),
        lambda: pa.concat_tables(PartedTable(tmp_path).read(TablePart(1), 5)),
    )
    for call in read:
        with pytest.warns(SchemaWarning, match=r"b\.parquet has columns .* left out: 'd'"):
            assert call().column_names == TABLE.column_names
    write(tmp_path / "b.parquet", TABLE.set_column(0, "a", pa.array([1.5, 2.0, 3.0])))
    for call in read:
        with pytest.raises(InputError, match=r"column 'a' is int64 in the first file .* and double in .*b\.parquet"):
            call()


def test_a_key_of_a_folder_that_its_parquet_file_has_too(tmp_path):
    (tmp_path / "a=1").mkdir()
    write(tmp_path / "a=1" / "t.parquet", TABLE)
    with pytest.raises(InputError, match="one type in its files and another by the names of its folders"):
        read_table(tmp_path)


def test_arrow_files_of_other_types_are_no_damage(tmp_path):
    write(tmp_path / "a.arrow", TABLE)
    write(tmp_path / "b.arrow", TABLE.set_column(0, "a", pa.array([1.5, 2.0, 3.0])))
    with pytest.raises(
        InputError, match=r"same columns of the same types: one has .'a: int64'. where another has .'a: double'"
    ):
        list(stream_table(tmp_path))


def test_the_types_of_a_folder_fit_all_of_its_files(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,NA\n")
    (tmp_path / "b.csv").write_text("x,y\n2.5,3\n")
    assert read_table(tmp_path).to_pydict() == {"x": [1.0, 2.5], "y": [None, 3]}
    (tmp_path / "c.csv").write_text("x,y\na,3\n")
    with pytest.raises(InputError, match="column has different types in the files"):
        read_table(tmp_path)
    with pytest.raises(SchemaError, match=r"column 'x', row 0 .*c.csv: 'a' is not a number"):
        next(stream_table(tmp_path, types={"x": pa.float64()}))
    (tmp_path / "c.csv").write_text("x,z\n1,3\n")
    with pytest.raises(InputError, match=r"c\.csv has the columns \['x', 'z'\]"):
        next(stream_table(tmp_path))


def test_a_folder_of_several_formats_is_refused(tmp_path):
    write(tmp_path / "a.csv", TABLE)
    write(tmp_path / "a.parquet", TABLE)
    with pytest.raises(StorageError, match=r"one format .*it has csv, parquet"):
        read_table(tmp_path)


# -- damaged, absent, foreign --


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("t.csv", b"", StorageError, "is empty"),
        ("t.parquet", b"", StorageError, "is empty"),
        ("t.txt", b"a\n1\n", StorageError, "must end in one of .csv"),
        ("t.csv", b"a,b\n", InputError, "a header and no rows"),
        ("t.csv", b"a,b", InputError, "a header and no rows"),
        ("t.csv", b" ", InputError, "at least one row"),
        ("t.csv", b"\n\n", InputError, "not a table"),
        ("t.csv", b"a,b\n1,2\n3\n", InputError, "row 1 .*has 1 cells and the header has 2"),
        ("t.csv", b"a,b\n1,2\n\n3,4,5\n", InputError, "row 1 .*has 3 cells and the header has 2"),
        ("t.csv", b"a,b\n1,\xff\n", InputError, "not UTF-8"),
        ("t.csv", b"a\xff,b\n1,2\n", InputError, "not UTF-8"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), InputError, "not UTF-8"),
        ("t.csv", b"a,a\n1,2\n", InputError, "more than one column named 'a'"),
        ("t.csv", b"a;b\n1;2\n", InputError, r"separated by ';' and not by ','.*--delimiter ';'"),
        ("t.tsv", b"a,b\n1,2\n", InputError, r"separated by ',' and not by '\\t'"),
        ("t.csv", b'a,b\n1,"x\n2,y\n', InputError, "quotation mark that is never closed"),
        ("t.csv", b'a,b\n1,"' + b"x\n" * 3_000_000, InputError, "quotation mark that is never closed"),
        ("t.csv.gz", b"a,b\n1,2\n", StorageError, "cannot read"),
        (
            "t.csv.gz",
            gzip.compress(random.Random(0).randbytes(5000).hex().encode())[:300],
            StorageError,
            "cannot read",
        ),
        ("t.parquet", b"PAR1", StorageError, "damaged"),
        ("t.parquet", b"a,b\n1,2\n" * 9, StorageError, "damaged"),
        ("t.arrow", b"ARROW1", StorageError, "damaged"),
        ("t.npy", b"hello", StorageError, "damaged"),
        ("t.npz", b"PK\x03\x04xxxx", StorageError, "damaged"),
    ],
)
def test_files_that_are_not_a_table(tmp_path, name, content, error, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(error, match=words):
        read_table(path)
    with pytest.raises(error, match=words):
        list(stream_table(path))


def test_a_quotation_mark_inside_a_cell_is_not_an_open_one(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('a,b\n3" disk,1\n')
    assert read_table(path).to_pydict() == {"a": ['3" disk'], "b": [1]}


def test_absent_files_empty_folders_and_devices(tmp_path):
    with pytest.raises(StorageError, match="there is no file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(StorageError, match="it has no table"):
        read_table(tmp_path)
    with pytest.raises(StorageError, match="not a regular file"):
        read_table("/dev/null")
    with pytest.raises(StorageError, match="null"):
        read_table("a\0.csv")
    with pytest.raises(StorageError, match="the name of the file or folder is empty"):
        read_table("")
    with pytest.raises(InputError, match="path of a file or folder; got NoneType"):
        read_table(None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("save", "error", "words"),
    [
        (lambda p: np.save(p / "t.npy", np.array([[{}]], dtype=object)), InputError, "Python objects"),
        (lambda p: np.savez(p / "t.npz", X=np.array([[{}]], dtype=object)), InputError, "Python objects"),
        (lambda p: np.savez(p / "t.npz", u=np.eye(2), v=np.eye(2)), InputError, "no array 'X'; it has u, v"),
        (lambda p: np.savez(p / "t.npz"), InputError, "it has none"),
        (lambda p: np.save(p / "t.npy", np.zeros(3)), InputError, r"reshape\(-1, 1\)"),
        (lambda p: np.save(p / "t.npy", np.zeros((0, 3))), InputError, "no rows"),
        (lambda p: pq.write_table(TABLE.slice(0, 0), p / "t.parquet"), InputError, "no rows"),
        (lambda p: write_arrow(p / "t.arrow", TABLE.slice(0, 0)), InputError, "no rows"),
        (lambda p: write_arrow(p / "t.arrow", pa.table([[1], [2]], names=["a", "a"])), InputError, "more than one"),
    ],
)  # fmt: skip
def test_arrays_and_tables_that_cannot_be_used(tmp_path, save, error, words):
    save(tmp_path)
    (path,) = tmp_path.iterdir()
    with pytest.raises(error, match=words):
        read_table(path)
    with pytest.raises(error, match=words):
        list(stream_table(path))


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.arrow"])
def test_absent_columns_are_named(tmp_path, name):
    path = write(tmp_path / name, TABLE)
    with pytest.raises(SchemaError, match="no column 'z'; it has 'a', 'b', 'c'"):
        read_table(path, columns=["a", "z"])
    with pytest.raises(SchemaError, match="no column 'z'"):
        list(stream_table(path, columns=["z"]))
    for columns in ([], "a", ["a", "a"]):
        with pytest.raises(ConfigError, match="list of different names"):
            read_table(path, columns=columns)
    with pytest.raises(ConfigError, match="rows must be an integer of at least 1"):
        stream_table(path, 0)


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    contents = {}
    for name in ("t.csv", "t.csv.gz", "t.parquet", "t.arrow"):
        contents[name] = write(folder / name, TABLE).read_bytes()
    np.save(folder / "t.npy", np.eye(3))
    np.savez_compressed(folder / "t.npz", X=np.eye(3))
    return folder, contents | {name: (folder / name).read_bytes() for name in ("t.npy", "t.npz")}


@given(data=st.data())
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_give_a_table_or_a_clear_error(whole_files, data):
    """A file that is cut or overwritten anywhere never causes the error of a library, and never a crash."""
    folder, contents = whole_files
    name = data.draw(st.sampled_from(sorted(contents)))
    content = bytearray(contents[name])
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = folder / f"damaged{threading.get_ident()}.{name.split('.', 1)[1]}"
    path.write_bytes(content)
    sentence = ""
    try:
        Schema.infer(read_table(path)).encode(read_table(path))
    except PushforwardError as error:
        sentence = str(error)
    assert len(sentence.splitlines()) <= 1


def test_flags_of_a_stream_are_those_of_the_whole_file(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,flag\n1,true\n2, false\n3,NA\n4, NA\n5,False\n6,n/a\n7,\n")
    table = read_table(path)
    schema = Schema.infer(table)
    assert schema.columns[1].kind == "boolean"
    for chunk in stream_table(path, types=schema.pyarrow_types()):
        found, problems = schema.encode(chunk)
        np.testing.assert_array_equal(found, schema.encode(table)[0])
        assert problems == []


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith(".gz")])
def test_a_table_without_rows_is_an_error_or_one_empty_chunk(tmp_path, name):
    path = write(tmp_path / name, TABLE.slice(0, 0))
    types = {"a": pa.float64(), "b": pa.float64()}
    with pytest.raises(InputError, match="no rows"):
        list(stream_table(path, types=types))
    (chunk,) = stream_table(path, types=types, empty=True)
    assert (chunk.num_rows, chunk.column_names) == (0, ["a", "b", "c"])
    (chunk,) = stream_table(path, columns=["c"], empty=True)
    assert chunk.column_names == ["c"]
    with pytest.raises(SchemaError, match="no column 'z'"):
        list(stream_table(path, columns=["z"], empty=True))


def test_a_file_without_rows_in_a_folder(tmp_path):
    write(tmp_path / "1.csv", TABLE)
    write(tmp_path / "2.csv", TABLE.slice(0, 0))
    (tmp_path / "3.csv").write_text("a,b,c")
    types = {"a": pa.float64(), "b": pa.float64()}
    table = pa.concat_tables(stream_table(tmp_path, types=types, empty=True, integers=True))
    assert table.equals(TABLE)  # "a" has only integers, though not in all files


@pytest.mark.parametrize("content", [b"a,b,c", b"\xef\xbb\xbfa,b,c", b"\n\na,b,c", b'a,"b",c', b"a,b,c\r"])
def test_a_header_without_a_line_end_is_a_table_without_rows(tmp_path, monkeypatch, content):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    types = {"a": pa.float64(), "b": pa.float64()}
    for piped in (False, True):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        source = "-" if piped else path
        (chunk,) = stream_table(source, types=types, format="csv", empty=True, integers=True)
        assert (chunk.num_rows, chunk.column_names) == (0, ["a", "b", "c"])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        with pytest.raises(InputError, match="a header and no rows"):
            read_table(source, format="csv")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b,c\n1,2,u\n1,2\n", r"row 1 \(counted from 0, without blank lines\) of .* has 2 cells and the header has 3"),
        ("a,b,\xe9\n1,2,3\n".encode("latin-1"), "is not UTF-8 text.*--encoding"),
        ("a,b,c\n1,2,\xe9\n".encode("latin-1"), "is not UTF-8 text.*--encoding"),
        (b'a,b,c\n1,2,"u\n1,2,v\n', "quotation mark that is never closed"),
        (b'a,b,c\n1,2,"u' + b"x\n" * 3_000_000, "quotation mark that is never closed"),
        (b" ", "is not a table"),
    ],
)  # fmt: skip
def test_the_search_for_integers_reports_what_other_readers_report(tmp_path, content, words):
    (tmp_path / "t.csv").write_bytes(content)
    types = {"a": pa.float64()}
    found = []
    for read in (
        lambda: list(stream_table(tmp_path / "t.csv", types=types, empty=True, integers=True)),
        lambda: list(stream_table(tmp_path / "t.csv", types=types)),
        lambda: list(PartedTable(tmp_path / "t.csv").read(TablePart(0), 10, types, empty=True)),
        lambda: read_table(tmp_path / "t.csv"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            read()
        found.append(str(caught.value))
    assert len(set(found)) == 1


def test_identifiers_keep_all_digits(tmp_path) -> None:
    big = [9007199254740993, 9007199254740995, 1700000000000000001]
    table = pa.table({"id": big, "n": pa.array([1, None, 3]), "half": [1.0, 2.0, 2.5], "x": [0.5, 1.5, 2.5]})
    types = dict.fromkeys(table.column_names, pa.float64())
    (tmp_path / "t.csv").write_text("id,n,half,x\n" + "".join(f"{i},{n},{h},{x}\n" for i, n, h, x in zip(
        big, ("1", "", " 3"), ("1", "2", "2.5"), ("0.5", "1.5", "2.5"), strict=True)))  # fmt: skip
    lines = [{"id": i, **({"n": n} if n else {}), "half": h, "x": x} for i, n, h, x in zip(
        big, (1, None, 3), (1, 2, 2.5), (0.5, 1.5, 2.5), strict=True)]  # fmt: skip
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in ("t.csv", "t.jsonl"):
        (found,) = stream_table(tmp_path / name, types=types, integers=True)
        assert [str(kind) for kind in found.select(["id", "n", "half", "x"]).schema.types] == [
            "int64",
            "int64",
            "double",
            "double",
        ]
        assert found.column("id").to_pylist() == big
        assert found.column("n").to_pylist() == [1, None, 3]
        (found,) = stream_table(tmp_path / name, types=types)
        assert str(found.schema.field("id").type) == "double"


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize(("other", "kind"), [([1, 2], "uint64"), ([-1, 2], "double"), ([0.5, 1.0], "double")])
def test_a_folder_with_one_file_of_large_integers(tmp_path, ending, other, kind) -> None:
    for name, cells in (("a", [2**63 + 5, 7]), ("b", other)):
        lines = ["id", *map(str, cells)] if ending == "csv" else [json.dumps({"id": cell}) for cell in cells]
        (tmp_path / f"{name}.{ending}").write_text("\n".join(lines) + "\n")
    column = read_table(tmp_path).column("id")
    assert str(column.type) == kind
    cells = [2**63 + 5, 7, *other]
    assert column.to_pylist() == (cells if kind == "uint64" else [float(cell) for cell in cells])


def test_all_of_uint64_is_read(tmp_path) -> None:
    cells = [
        0,
        2**63,
        2**64 - 1,
        18 * 10**18,
        18446744073709551599,
        *np.random.default_rng(0).integers(0, 2**64, 300, dtype=np.uint64).tolist(),
    ]
    (tmp_path / "t.csv").write_text("id\n" + "\n".join(map(str, cells)) + "\n")
    assert read_table(tmp_path / "t.csv").column("id").to_pylist() == cells
    (tmp_path / "t.csv").write_text(f"id\n{2**63}\n{2**64}\n")
    assert str(read_table(tmp_path / "t.csv").column("id").type) == "double"


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_integers_beyond_int64_keep_their_digits(tmp_path, name) -> None:
    large = [2**63 + 1, 12345678901234567890, None, 3]
    rows = [{"id": value, "other": value, "x": 0.5} for value in large]
    if name == "t.csv":
        text = "id,other,x\n" + "".join(f"{row['id'] or ''},{row['other'] or ''},0.5\n" for row in rows)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / name).write_text(text)
    types = {"id": pa.float64(), "x": pa.float64()}
    (found,) = stream_table(tmp_path / name, types=types, integers=True)
    assert found.column("id").to_pylist() == large
    if name == "t.jsonl":  # in CSV a column without a type is text
        assert found.column("other").to_pylist() == large
    whole = read_table(tmp_path / name)
    assert whole.column("id").to_pylist() == large
    assert whole.column("x").to_pylist() == [0.5] * 4
    (tmp_path / "r.jsonl").write_text('{"a": 12345678901234567890}\n{"a": 0.5}\n')
    assert read_table(tmp_path / "r.jsonl").column("a").to_pylist() == [12345678901234567890.0, 0.5]


@pytest.mark.parametrize(
    "cells",
    [
        ["007", "12", "18446744073709551616"],
        ["-1", "12", "9223372036854775808"],
        ["1e3", "2", "3"],
        ["1", "x", "2"],
        ["", "NaN", "null"],
    ],
)
def test_columns_that_are_not_all_integers_stay_as_they_are(tmp_path, cells) -> None:
    from pushforward.io.csv import integer_columns
    from pushforward.io.input_file import InputFile

    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{cell},1\n" for cell in cells))
    assert integer_columns([InputFile("t.csv", str(tmp_path / "t.csv"), None, "csv")], ["a"]) == {}


@pytest.mark.parametrize("name", ["t.npy", "t.npz"])
def test_a_single_number_is_no_table(tmp_path, name):
    (np.save if name == "t.npy" else np.savez)(tmp_path / name, np.array(3.0))
    for read in (read_table, lambda path: list(stream_table(path))):
        with pytest.raises(InputError, match="this is one number"):
            read(tmp_path / name)
