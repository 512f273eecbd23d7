"""Tables at URIs and in the file systems of pyarrow, to read and to write."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from pushforward.errors import ConfigError, InputError, SchemaError, StorageError
from pushforward.io import TableWriter, read_table, stream_table

TABLE = pa.table({"a": [1, 2, 3], "b": [0.5, None, 2.0]})


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A file system under the scheme "bucket", which is a folder here, and that folder."""
    inside = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    real = fs.FileSystem.from_uri

    def from_uri(uri):
        return (inside, uri.removeprefix("bucket://")) if uri.startswith("bucket://") else real(uri)

    monkeypatch.setattr("pushforward.io.input_file._open_uri", from_uri)
    return tmp_path, inside


@pytest.mark.parametrize(
    "name", ["t.csv", "t.csv.gz", "t.csv.zst", "t.tsv", "t.jsonl", "t.jsonl.zst", "t.parquet", "t.arrow"]
)
def test_what_is_written_comes_back(bucket, name):
    folder, inside = bucket
    with TableWriter(f"bucket://{name}") as writer:
        writer.write(TABLE.slice(0, 2))
        assert not (folder / name).exists()
        writer.write(TABLE.slice(2))
    for found in (read_table(f"bucket://{name}"), read_table(name, filesystem=inside), read_table(folder / name)):
        assert found.equals(TABLE)
    types = dict(zip(TABLE.column_names, TABLE.schema.types, strict=True))
    assert pa.concat_tables(stream_table(f"bucket://{name}", 2, types=types)).equals(TABLE)
    assert read_table(f"bucket://{name}", ["b"]).equals(TABLE.select(["b"]))


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.arrow", "t.jsonl"])
def test_a_folder_with_partitions(bucket, name):
    folder, _ = bucket
    for year, rows in ((2023, TABLE.slice(0, 1)), (2024, TABLE.slice(1))):
        (folder / "rows" / f"year={year}").mkdir(parents=True)
        with TableWriter(folder / "rows" / f"year={year}" / name) as writer:
            writer.write(rows)
    (folder / "rows" / "_SUCCESS").touch()
    whole = TABLE.append_column("year", pa.array([2023, 2024, 2024], pa.int32()))
    assert read_table("bucket://rows").equals(whole)
    assert read_table((folder / "rows").as_uri()).equals(whole)
    types = dict(zip(TABLE.column_names, TABLE.schema.types, strict=True))
    assert [chunk.num_rows for chunk in stream_table("bucket://rows", 2, types=types)] == [2, 1]


def test_arrays(bucket):
    folder, _ = bucket
    np.save(folder / "x.npy", np.eye(3))
    np.testing.assert_array_equal(read_table("bucket://x.npy").to_pandas(), np.eye(3))


def test_a_file_uri_is_a_local_path(tmp_path):
    path = tmp_path / "with space.csv"
    with TableWriter(path.as_uri()) as writer:
        writer.write(TABLE)
    assert read_table(path.as_uri()).equals(TABLE)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_absent_places_and_unknown_schemes(bucket):
    folder, _ = bucket
    (folder / "empty.csv").touch()
    (folder / "cut.csv.gz").write_bytes(gzip.compress(b"a\n" + b"1234\n" * 1000)[:40])
    for uri, error, words in (
        ("bucket://none.csv", StorageError, "there is no file or folder bucket://none.csv"),
        ("bucket://empty.csv", StorageError, "bucket://empty.csv is empty"),
        ("bucket://cut.csv.gz", StorageError, "cannot read bucket://cut.csv.gz"),
        ("bucket://t.xls", StorageError, "there is no file"),
        ("gopher://host/t.csv", StorageError, "cannot open gopher://host/t.csv"),
        ("file:///none/t.csv", StorageError, "there is no file"),
    ):
        with pytest.raises(error, match=words):
            read_table(uri)
    with pytest.raises(StorageError, match="cannot open gopher"):
        TableWriter("gopher://host/t.csv")


def test_a_write_that_fails_leaves_nothing(bucket):
    folder, _ = bucket
    with pytest.raises(InputError), TableWriter("bucket://t.csv") as writer:
        writer.write(TABLE)
        writer.write({"z": [1]})
    (folder / "dir.csv").mkdir()
    with (
        pytest.raises(StorageError, match=r"cannot write bucket://dir\.csv"),
        TableWriter("bucket://dir.csv") as writer,
    ):
        writer.write(TABLE)
    assert [file.name for file in folder.iterdir()] == ["dir.csv"]


def test_encodings_and_formats_that_names_do_not_tell(tmp_path):
    text = "ort;größe\nKöln;1\nBrühl;2\n"
    for encoding in ("latin-1", "utf-16", "utf-8-sig", "cp1252"):
        for name, content in (("a.txt", text.encode(encoding)), ("a.dat", gzip.compress(text.encode(encoding)))):
            (tmp_path / name).write_bytes(content)
            options = {"format": "csv", "encoding": encoding, "delimiter": ";"}
            expected = {"ort": ["Köln", "Brühl"], "größe": [1, 2]}
            assert read_table(tmp_path / name, **options).to_pydict() == expected
            (chunk,) = stream_table(tmp_path / name, types={"größe": pa.int64()}, **options)
            assert chunk.to_pydict() == expected
    (tmp_path / "d.csv").write_text("x;y\n1,5;2\n")
    numbers = {"x": [1.5], "y": [2]}
    assert read_table(tmp_path / "d.csv", delimiter=";", decimal=",").to_pydict() == numbers
    types = {"x": pa.float64(), "y": pa.int64()}
    (chunk,) = stream_table(tmp_path / "d.csv", types=types, delimiter=";", decimal=",")
    assert chunk.to_pydict() == numbers
    with pytest.raises(SchemaError, match=r"'1,5' is not a number.*--decimal ','"):
        next(stream_table(tmp_path / "d.csv", types=types, delimiter=";"))
    with pytest.raises(ConfigError, match="decimal must be"):
        read_table(tmp_path / "d.csv", decimal=";")
    (tmp_path / "j.txt").write_bytes('{"ort": "Köln"}\n'.encode("utf-16"))
    assert read_table(tmp_path / "j.txt", format="jsonl", encoding="utf-16").to_pydict() == {"ort": ["Köln"]}
    (tmp_path / "parts").mkdir()
    for part in range(3):
        pq.write_table(TABLE.slice(part, 1), tmp_path / "parts" / f"part-{part}")
    assert read_table(tmp_path / "parts", format="parquet").equals(TABLE)
