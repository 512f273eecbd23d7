"""What is said of files that are not what their name says, or have a damaged line."""

from __future__ import annotations

import gzip
import io
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pushforward.errors import InputError, PushforwardError, SchemaError
from pushforward.io import holds_images, read_table

ROWS = b'{"a": 1, "b": "u"}\n{"a": 2, "b": "v"}\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            ROWS + b'{"a" 3}\n',
            r"line 3 is damaged, or goes on in the next one \(Expecting ':' delimiter at character 6\)",
        ),
        (ROWS + b"\n" + ROWS[:10], "line 4 is damaged, or goes on in the next one"),
        (b'{"a": 1, "a": 2}\n', "line 1 has the key 'a' twice"),
        (b'[{"a": 1}, {"a": 2}]\n', "line 1 is no object"),
        (ROWS + b"{\n", "line 3 is damaged"),
    ],
    ids=["damaged", "cut off", "twice", "array", "several lines"],
)
def test_a_line_that_is_no_object_is_named(tmp_path, content, words) -> None:
    (tmp_path / "t.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=f"is not JSON Lines, one object in each line: {words}"):
        read_table(tmp_path / "t.jsonl")


def test_a_line_with_another_type_is_named(tmp_path) -> None:
    (tmp_path / "t.jsonl").write_bytes(ROWS * 400 + b'{"a": "x", "b": "u"}\n' + ROWS)
    with pytest.raises(SchemaError, match=r"column 'a' .* number and string \(the first string is in line 801\)"):
        read_table(tmp_path / "t.jsonl")


def test_files_of_another_kind_are_recognized(tmp_path) -> None:
    text = b"a,b\n1,2\n"
    (tmp_path / "gzip.csv").write_bytes(gzip.compress(text))
    with zipfile.ZipFile(tmp_path / "zip.csv", "w") as file:
        file.writestr("t.csv", text)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "parquet.csv")
    for name, words in (
        ("gzip", r"gzip.*\.csv\.gz"),
        ("zip", "a zip file or a workbook"),
        ("parquet", "a Parquet file"),
    ):
        with pytest.raises(InputError, match=words):
            read_table(tmp_path / f"{name}.csv")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "# of 2026\na,b\n1,2\n",
            "the header has 1: if the first line, '# of 2026', does not have the column names, remove it",
        ),
        ("sep=,\na,b,c\n1,2,3\n", "if the first line, 'sep=,', does not have the column names"),
        ('a,b\n1,2\n"3,4\n5,6,7,8\n', "quotation mark"),
        ("a,b\n1,2,3\n", "has 3 cells and the header has 2: put a cell with ',' in it into quotation marks"),
        ("a,b\n1\n", "has 1 cells and the header has 2: give it all cells, which may be empty"),
    ],
    ids=["comment", "sep", "quote", "more", "fewer"],
)
def test_rows_of_another_length_say_what_to_do(tmp_path, content, words) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(PushforwardError, match=words):
        read_table(tmp_path / "t.csv")


def test_a_long_list_of_columns_begins_with_the_most_similar_one(tmp_path) -> None:
    names = [f"c{k}" for k in range(30)] + ["fault"]
    (tmp_path / "t.csv").write_text(",".join(names) + "\n" + ",".join("1" * 31) + "\n")
    with pytest.raises(SchemaError, match=r"no column 'Fault'; it has 'fault', 'c0', .*'c18' and 11 others\."):
        read_table(tmp_path / "t.csv", columns=["Fault"])


def test_a_binary_column_that_is_no_picture_makes_no_table_of_images(tmp_path) -> None:
    hashes, encoded = [bytes([k, 255 - k]) for k in range(9)], io.BytesIO()
    Image.new("L", (4, 4)).save(encoded, "ICO")
    picture = encoded.getvalue()
    for name, cells, images in (("hash", hashes, False), ("picture", [None, picture], True)):
        pq.write_table(pa.table({"x": cells, "n": list(range(len(cells)))}), tmp_path / f"{name}.parquet")
        assert holds_images(tmp_path / f"{name}.parquet") is images


def test_a_header_with_the_letters_of_another_format_is_text(tmp_path) -> None:
    (tmp_path / "t.csv").write_text("PAR1,PAR2\n1,2\n")
    assert read_table(tmp_path / "t.csv").column_names == ["PAR1", "PAR2"]


def test_a_long_line_and_a_deep_one(tmp_path) -> None:
    (tmp_path / "long.jsonl").write_text(json.dumps([{"a": k} for k in range(200_000)]))
    with pytest.raises(InputError, match="line 1 is longer than 1 MB"):
        read_table(tmp_path / "long.jsonl")
    deep = "[" * 100_000 + "]" * 100_000
    (tmp_path / "deep.jsonl").write_text(f'{{"a": {deep}}}\n{{"a": 1}}\n')
    with pytest.raises(PushforwardError, match="array"):
        read_table(tmp_path / "deep.jsonl")
