"""JSON Lines: instants keep their text and time zone, keys may come late, and a byte order mark is no content."""

from __future__ import annotations

import datetime as dt
import io
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pushforward.data import Schema
from pushforward.errors import InputError, SchemaError
from pushforward.io import PartedTable, TablePart, read_table, stream_table

BLOCK = 1 << 20
"""What the reader looks at to find the columns."""


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def long(row: dict[str, Any], *last: dict[str, Any]) -> list[dict[str, Any]]:
    """More than two blocks of one row, then others."""
    return [row] * (5 * BLOCK // 2 // (len(json.dumps(row)) + 1)) + list(last)


def pipe(monkeypatch: pytest.MonkeyPatch, content: bytes) -> str:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    return "-"


# -- instants --

INSTANTS = [
    (["2024-01-20T09:34:19+01:00", "2024-01-20T09:34:19Z"], pa.timestamp("us", "UTC")),
    (["2024-01-20T09:34:19Z", "2024-01-20 09:34:19.25+01"], pa.timestamp("us", "UTC")),
    (["2024-01-20 09:34:19", "2024-01-20"], pa.timestamp("us")),
    (["2024-01-20T09:34", "2024-01-20T09:34:19.123456789"], pa.timestamp("us")),
    (["2024-01-20", "1500-02-28"], pa.date32()),
    (["2024-01-20", None, ""], pa.date32()),
    (["2024-01-20T09:34:19Z", "2024-01-20T09:34:19"], pa.string()),
    (["2024-01-20", "2024-01-20T09:34:19Z"], pa.string()),
    (["2024-01-20", "x"], pa.string()),
    (["x", "2024-01-20"], pa.string()),
    (["20240120", "20240121"], pa.string()),
]


@pytest.mark.parametrize(("cells", "kind"), INSTANTS)
def test_instants_of_a_whole_file_have_the_types_of_csv(tmp_path: Path, cells: list[str | None], kind: Any) -> None:
    table = read_table(write(tmp_path / "t.jsonl", *({"t": cell, "n": 1} for cell in cells)))
    assert table.schema.types == [kind, pa.int64()]
    if kind != pa.string() or None in cells:
        (tmp_path / "t.csv").write_text("t,n\n" + "".join(f"{cell or ''},1\n" for cell in cells))
        assert table.equals(read_table(tmp_path / "t.csv"))
    else:
        assert table["t"].to_pylist() == cells


def test_text_before_1677_with_a_fraction_is_an_instant(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.jsonl", {"t": "1500-01-01T00:00:00.5"}))
    assert table["t"].to_pylist() == [dt.datetime(1500, 1, 1, 0, 0, 0, 500_000)]


@pytest.mark.parametrize(("cells", "kind"), INSTANTS)
def test_streamed_instants_are_the_text_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: list[str | None], kind: Any
) -> None:
    path = write(tmp_path / "t.jsonl", *({"t": cell, "n": 1} for cell in cells))
    for source in (path, pipe(monkeypatch, path.read_bytes())):
        table = pa.concat_tables(stream_table(source))
        assert table.schema.types == [pa.string(), pa.int64()]
        assert table["t"].to_pylist() == cells


def test_instants_in_lists_and_objects_are_text(tmp_path: Path) -> None:
    row = {"u": {"v": "2024-01-20T00:00:00+01:00", "w": [{"x": "2024-01-20"}]}, "l": ["2024-01-20"]}
    path = write(tmp_path / "t.jsonl", row)
    assert read_table(path).to_pylist() == [row]
    assert pa.concat_tables(stream_table(path)).to_pylist() == [row]


def test_a_fraction_of_a_second_late_in_the_file(tmp_path: Path) -> None:
    rows = long({"t": "2024-01-20T09:34:19Z"}, {"t": "2024-01-20T09:34:19.25Z"})
    path = write(tmp_path / "t.jsonl", *rows)
    assert pa.concat_tables(stream_table(path))["t"].to_pylist() == [row["t"] for row in rows]
    table = read_table(path)
    assert table["t"].type == pa.timestamp("us", "UTC")
    assert table["t"][-1].as_py() == dt.datetime(2024, 1, 20, 9, 34, 19, 250_000, dt.UTC)


def test_instants_and_dates_in_the_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "day=2024-01-01").mkdir()
    write(tmp_path / "day=2024-01-01" / "1.jsonl", {"t": "2024-01-20"})
    write(tmp_path / "day=2024-01-01" / "2.jsonl", {"t": "2024-01-20T10:00:00.5"})
    table = read_table(tmp_path)
    assert table.schema.types == [pa.timestamp("us"), pa.string()]


@pytest.mark.parametrize("time", ["timestamp", "timestamp_utc", "date"])
def test_a_schema_of_instants_reads_both_formats_alike(tmp_path: Path, time: str) -> None:
    """A guard whose columns were found when an instant of JSON Lines had no time zone reads them too."""
    zone = "Z" if time == "timestamp_utc" else ""
    cells = [f"2024-01-{day:02}" if time == "date" else f"2024-01-{day:02}T10:00:00{zone}" for day in range(1, 20)]
    write(tmp_path / "t.jsonl", *({"t": cell, "a": 0.5} for cell in cells))
    (tmp_path / "t.csv").write_text("t,a\n" + "".join(f"{cell},0.5\n" for cell in cells))
    for fitted in ("t.jsonl", "t.csv"):
        schema = Schema.infer(read_table(tmp_path / fitted))
        assert (schema.columns[0].kind, schema.columns[0].time) == ("numeric", time)
        for name in ("t.jsonl", "t.csv"):
            table = pa.concat_tables(stream_table(tmp_path / name, types=schema.pyarrow_types()))
            values, problems = schema.encode(table)
            assert problems == []
            assert values[0, 0] == dt.datetime.fromisoformat(cells[0]).replace(tzinfo=dt.UTC).timestamp()
            assert table["t"].to_pylist() == cells
    old = Schema.infer({"t": pa.array([0, 1], pa.timestamp("s")), "a": [0.5, 1.5]})
    problems = old.encode(pa.concat_tables(stream_table(tmp_path / "t.jsonl", types=old.pyarrow_types())), warn=False)[
        1
    ]
    assert [(problem.kind, problem.count) for problem in problems] == ([("zoned", 19)] if zone else [])


def test_times_of_day_after_a_block_of_nulls(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", *long({"t": None, "f": None, "n": 1}, {"t": "09:00:00", "f": True, "n": 1}))
    types = {"t": pa.time64("us"), "f": pa.string()}
    table = pa.concat_tables(stream_table(path, types=types))
    assert table.slice(table.num_rows - 1).to_pylist() == [{"t": "09:00:00", "f": True, "n": 1}]


# -- keys that come late --

LATE = {"a": 1, "x": 2.5, "n": 7, "flag": True, "c": "u", "t": "2024-01-20T09:34:19Z", "other": 1}
TYPES = {
    "a": pa.float64(),
    "x": pa.float64(),
    "n": pa.float64(),
    "flag": pa.string(),
    "c": pa.string(),
    "t": pa.string(),
}


def test_a_key_that_comes_late_is_missing_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.jsonl", *long({"a": 1}, LATE, {"a": 2}))
    wanted = {key: value for key, value in LATE.items() if key != "other"}
    table = pa.concat_tables(stream_table(path, types=TYPES, integers=True))
    assert {name: str(kind) for name, kind in zip(table.column_names, table.schema.types, strict=True)} == {
        "a": "int64", "x": "double", "n": "int64", "flag": "bool", "c": "string", "t": "string"
    }  # fmt: skip
    none = dict.fromkeys(wanted)
    end = table.num_rows - 2
    assert table.slice(0, 1).to_pylist() == [none | {"a": 1}]
    assert table.slice(end).to_pylist() == [wanted, none | {"a": 2}]
    assert table["x"].null_count == table.num_rows - 1
    piped = pa.concat_tables(stream_table(pipe(monkeypatch, path.read_bytes()), types=TYPES))
    assert piped.column_names == list(TYPES)
    assert piped.slice(end).to_pylist() == [wanted | {"flag": "true"}, none | {"a": 2}]
    assert piped["t"].null_count == table.num_rows - 1
    chosen = stream_table(pipe(monkeypatch, path.read_bytes()), types=TYPES, columns=["x"])
    assert pa.concat_tables(chosen).column_names == ["x"]


def test_a_key_of_a_later_file(tmp_path: Path) -> None:
    for day, row in enumerate(({"a": 1}, {"a": 2, "x": 0.5})):
        (tmp_path / f"day={day}").mkdir()
        write(tmp_path / f"day={day}" / "t.jsonl", row)
    types = {"a": pa.float64(), "x": pa.float64(), "day": pa.float64()}
    rows = [{"a": 1, "x": None, "day": 0}, {"a": 2, "x": 0.5, "day": 1}]
    assert pa.concat_tables(stream_table(tmp_path, types=types)).to_pylist() == rows
    parted = PartedTable(tmp_path)
    parts = [chunk for part in parted.parts(10) for chunk in parted.read(part, 10, types)]
    assert pa.concat_tables(parts).to_pylist() == rows
    assert next(parted.read(TablePart(0), 10, types)).schema == parts[1].schema


def test_a_key_that_no_row_has_is_no_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.jsonl", *long({"a": 1}, {"a": 1, "late": 1.0, "X": 2}))
    types = {"a": pa.float64(), "late": pa.float64(), "x": pa.float64()}
    assert next(stream_table(path, types=types)).column_names == ["a", "late"]
    with pytest.raises(SchemaError, match="lacks the column 'x', which the fitted table had; it has 'X'"):
        list(stream_table(pipe(monkeypatch, path.read_bytes()), types=types))
    # A pipe whose first lines are all lines says so as a file does, before the first rows.
    assert next(stream_table(pipe(monkeypatch, b'{"a": 1}\n'), types=types)).column_names == ["a"]


def test_a_key_that_is_null_where_it_comes_late_is_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.jsonl", *long({"a": 1}, {"a": 1, "x": None}))
    types = {"a": pa.float64(), "x": pa.float64()}
    for source in (path, pipe(monkeypatch, path.read_bytes())):
        table = pa.concat_tables(stream_table(source, types=types))
        assert table.schema.types[1] == pa.float64()
        assert table["x"].null_count == table.num_rows


def test_late_values_of_another_type_on_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(json.dumps(row) + "\n" for row in long({"a": 1}, {"a": 1, "x": "many"}))
    with pytest.raises(
        SchemaError, match=r"column 'x' of standard input has values of the type string.*read as double"
    ):
        list(stream_table(pipe(monkeypatch, rows.encode()), types={"x": pa.float64()}))


def test_a_line_that_is_longer_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.jsonl", *long({"a": 1}, {"a": 1, "x": "y" * (3 * BLOCK)}))
    for source in (path, pipe(monkeypatch, path.read_bytes())):
        with pytest.raises(InputError, match="is not JSON Lines"):
            list(stream_table(source, types={"x": pa.string()}))


# -- byte order mark --


def test_a_byte_order_mark_is_no_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b'\xef\xbb\xbf{"a": 1, "t": "2024-01-20"}\n'
    (tmp_path / "t.jsonl").write_bytes(content)
    wanted = [{"a": 1, "t": dt.date(2024, 1, 20)}]
    assert read_table(tmp_path / "t.jsonl").to_pylist() == wanted
    assert read_table(pipe(monkeypatch, content)).to_pylist() == wanted
    (found,) = stream_table(pipe(monkeypatch, content))
    assert found.to_pylist() == [{"a": 1, "t": "2024-01-20"}]
    long_one = content + content[3:] * 50_000 + b'{"a": 2, "x": 1}\n'
    (tmp_path / "t.jsonl").write_bytes(long_one)
    for source in (tmp_path / "t.jsonl", pipe(monkeypatch, long_one)):
        assert pa.concat_tables(stream_table(source, types={"x": pa.float64()}))["x"][-1].as_py() == 1.0
