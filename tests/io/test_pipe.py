"""Tables from standard input and named pipes: read once in constant memory, recognized, decompressed, and no row lost."""

import gzip
import io
import os
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pushforward.errors import ConfigError, InputError, SchemaError, SchemaWarning, StorageError
from pushforward.io import read_table, stream_table
from pushforward.io.input_file import InputFile, TextFormat
from pushforward.io.pipe import Pipe

CSV = b'a,b,c\n1,0.5,"x\ny"\n2,,z\n3,2,\n'
TABLE = pa.table({"a": [1, 2, 3], "b": [0.5, None, 2.0], "c": ["x\ny", "z", None]})
TYPES = dict(zip(TABLE.column_names, TABLE.schema.types, strict=True))


@pytest.fixture
def stdin(monkeypatch):
    """Give a process these bytes as standard input."""

    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))  # pyright: ignore[reportArgumentType]

    return give


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


def binary(write) -> bytes:
    sink = io.BytesIO()
    write(sink)
    return sink.getvalue()


def write_stream(sink):
    with pa.ipc.new_stream(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)


JSON = b'{"a": 1, "b": 0.5, "c": "x\\ny"}\n{"a": 2, "c": "z"}\n{"a": 3, "b": 2}\n'
PARQUET = binary(lambda sink: pq.write_table(TABLE, sink))
STREAM = binary(write_stream)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (CSV, {"format": "csv"}),
        (CSV.replace(b",", b"\t"), {"format": "tsv"}),
        (CSV.replace(b",", b";"), {"format": "csv", "delimiter": ";"}),
        (CSV.replace(b"\n", b"\r\n").replace(b"x\r\ny", b"x\ny"), {"format": "csv"}),
        (b"\xef\xbb\xbf\n" + CSV, {"format": "csv"}),
        (gzip.compress(CSV, mtime=0), {"format": "csv"}),
        (gzip.compress(CSV[:20], mtime=0) + gzip.compress(CSV[20:], mtime=0), {"format": "csv"}),
        (zstd(CSV), {"format": "csv"}),
        (CSV.decode().encode("utf-16"), {"format": "csv", "encoding": "utf-16"}),
        (gzip.compress(CSV.decode().encode("utf-16"), mtime=0), {"format": "csv", "encoding": "UTF16"}),
        (JSON, {}),
        (JSON, {"format": "jsonl"}),
        (gzip.compress(JSON, mtime=0), {}),
        (zstd(JSON), {}),
        (PARQUET, {}),
        (PARQUET, {"format": "parquet"}),
        (STREAM, {}),
    ],
)
def test_every_format_of_standard_input(stdin, content, options):
    stdin(content)
    assert read_table("-", **options).equals(TABLE)
    stdin(content)
    chunks = list(stream_table("-", 2, types=TYPES, **options))
    assert [chunk.num_rows for chunk in chunks] == [2, 1]
    assert pa.concat_tables(chunks).equals(TABLE)
    stdin(content)
    assert read_table("-", columns=["c", "a"], **options).equals(TABLE.select(["c", "a"]))
    stdin(content)
    assert next(stream_table("-", columns=["c"], types=TYPES, **options)).column_names == ["c"]


def test_arrays_on_standard_input(stdin):
    stdin(binary(lambda sink: np.save(sink, np.eye(3))))
    np.testing.assert_array_equal(read_table("-").to_pandas(), np.eye(3))
    stdin(binary(lambda sink: np.savez(sink, X=np.eye(3))))
    np.testing.assert_array_equal(next(stream_table("-")).to_pandas(), np.eye(3))


def test_a_named_pipe(tmp_path):
    path = tmp_path / "rows.csv"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(CSV,))
    writer.start()
    assert pa.concat_tables(stream_table(path, types=TYPES)).equals(TABLE)
    writer.join()


@pytest.mark.parametrize(
    ("content", "options", "error", "words"),
    [
        (b"", {"format": "csv"}, StorageError, "standard input is empty"),
        (CSV, {}, StorageError, "the format of standard input is unknown.*--format"),
        (CSV, {"format": "xls"}, ConfigError, "format must be 'csv', 'tsv'"),
        (CSV, {"format": "csv", "encoding": "latin-0"}, ConfigError, "encoding must be"),
        (CSV, {"format": "csv", "delimiter": "ab"}, ConfigError, "delimiter must be one character"),
        (CSV.replace(b",", b";"), {"format": "csv"}, InputError, "standard input has one column.*--delimiter ';'"),
        (b"a,b,c\n", {"format": "csv"}, InputError, "a header and no rows"),
        (b"a,b,c\n1,2,3\n1,2\n", {"format": "csv"}, InputError, "row 1 .* of standard input has 2 cells"),
        (b"a,b,c\n1,x,3\n", {"format": "csv"}, SchemaError, "column 'b', row 0 .* of standard input: 'x' is not a number"),
        (b'a,b,c\n1,2,"x\n4,5,z\n', {"format": "csv"}, InputError, "quotation mark that is never closed"),
        ("a,b,c\n1,2,é\n".encode("latin-1"), {"format": "csv"}, InputError, "not UTF-8 text.*--encoding"),
        ("a,b,c\n1,2,x\n".encode("utf-16"), {"format": "csv"}, InputError, "not UTF-8 text.*utf-16"),
        (CSV + b"\x81,1,2", {"format": "csv", "encoding": "cp1252"}, InputError, "not CP1252 text"),
        (gzip.compress(CSV, mtime=0)[:-12], {"format": "csv"}, StorageError, "standard input"),
        (b'{"a": 1}\n{"a": "x"}\n', {}, SchemaError, "number and string"),
        (b"a,b\n1,2\n", {"format": "jsonl"}, InputError, "standard input is not JSON Lines"),
        (PARQUET[:40], {}, StorageError, "standard input is damaged"),
    ],
)  # fmt: skip
def test_what_cannot_be_read(stdin, content, options, error, words):
    stdin(content)
    with pytest.raises(error, match=words) as caught:
        list(stream_table("-", types=TYPES, **options))
    assert "\n" not in str(caught.value)


def test_rows_before_a_wrong_one_are_delivered(stdin, monkeypatch):
    """Unlike a file, which is read twice, a pipe delivers what came before the error."""
    monkeypatch.setattr("pushforward.io.csv._BLOCK", 1000)
    stdin(b"a,x\n" + b"1,2\n" * 5000 + b"1,abc\n")
    chunks, rows = stream_table("-", 10, types={"x": pa.float64()}, format="csv"), 0
    with pytest.raises(SchemaError, match="column 'x', row 5000"):
        for chunk in chunks:
            rows += chunk.num_rows
    assert 0 < rows <= 5000


def test_another_separator_in_the_header_is_a_hint(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a;b,c;d;e\n1;2,3;4;5\n")
    with pytest.warns(SchemaWarning, match="3 ';' and 1 ','.*--delimiter ';'"):
        read_table(path)
    path.write_text("a;b\n1,5;2\n3,5;4\n")
    with pytest.raises(InputError, match=r"one column, 'a;b'.*--delimiter ';'"):
        read_table(path)
    path.write_text('"a;b;c"\n1\n')
    assert read_table(path).to_pydict() == {"a;b;c": [1]}
    path.write_text("a\tb\n1\t2\n")
    with pytest.raises(InputError, match="--delimiter tab"):
        read_table(path)
    path.write_text("x|y\n1\n2\n")
    with pytest.raises(InputError, match=r"separated by '\|'"):
        read_table(path)
    assert read_table(path, delimiter=",").to_pydict() == {"x|y": [1, 2]}


POOL = pa.proxy_memory_pool(pa.default_memory_pool())
"""Memory of pyarrow's that counts its own blocks alone, not those that other tests free meanwhile."""


@pytest.fixture
def own_memory():
    """Let pyarrow allocate in `POOL` alone."""
    usual = pa.default_memory_pool()
    pa.set_memory_pool(POOL)
    yield
    pa.set_memory_pool(usual)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_blocks_for_the_readers_belong_to_pyarrow(encoding, tmp_path, own_memory):
    """A thread of a reader frees the last one. If it were of Python and the interpreter ends, the process is aborted (one run in four)."""
    content = b"a,b\n" + b"0.123456789,0.5\n" * 100_000
    text = TextFormat(encoding=encoding)
    streams = [Pipe(io.BytesIO(content), "a pipe", "csv", text).open_text()]
    if encoding == "latin-1":
        (tmp_path / "table.csv").write_bytes(content)
        streams.append(InputFile("table", str(tmp_path / "table.csv"), None, "csv", None, text).open_text())
    for stream in streams:
        with stream:
            before = POOL.bytes_allocated()
            block = stream.read_buffer(500_000)
            assert block.size == 500_000
            assert POOL.bytes_allocated() - before >= 500_000
            del block


PEAK = """
import resource, sys
from pushforward.io import stream_table
import pyarrow.csv, pyarrow.json
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = sum(chunk.num_rows for chunk in stream_table("-", rows=10_000, format=sys.argv[1]))
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_memory_does_not_grow_with_what_comes_through_a_pipe(format):
    """400,000 more rows (40 MB of text) take less than half of their size in memory."""
    line = (
        b"0.123456789," * 8 + b"0.5\n"
        if format == "csv"
        else b'{"a": 0.123456789, "b": 0.123456789, "c": "text", "d": 0.987654321, "e": 0.123456789, "f": 2}\n'
    )
    head = b",".join(b"c%d" % i for i in range(9)) + b"\n" if format == "csv" else b""
    peaks = []
    for n in (50_000, 450_000):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, format], input=head + line * n, capture_output=True, check=True
        )
        rows, peak = done.stdout.split()
        assert int(rows) == n
        peaks.append(float(peak))
    assert peaks[1] - peaks[0] < 16


@pytest.mark.parametrize("key", ["a", "a/b"])
def test_a_key_that_is_there_twice(stdin, key):
    stdin(b'{"a": 1, "a": 2}' if key == "a" else b'{"a": {"b": 1, "b": 2}}')
    with pytest.raises(InputError, match=f"an object has the key '{key}' twice"):
        list(stream_table("-"))


def test_a_pipe_of_unknown_format_is_closed(tmp_path):
    path = tmp_path / "rows.dat"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(CSV,))
    writer.start()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StorageError, match=r"the format of .* is unknown") as caught:
        read_table(path)
    writer.join()
    assert caught.tb is not None  # which keeps what the frames refer to
    assert len(os.listdir("/proc/self/fd")) <= before
