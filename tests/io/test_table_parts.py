"""The parts of a table, one after the other, are the table."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from pushforward.errors import ConfigError, InputError, StorageError
from pushforward.io import PartedTable, TablePart, stream_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(0)
    table = pa.table({"a": rng.normal(size=100), "b": rng.integers(0, 9, 100), "c": rng.choice(["u", "v"], 100)})
    for kind in ("parquet", "csv", "jsonl", "arrow"):
        for day in range(2):
            (path / kind / f"day={day}").mkdir(parents=True)
            file, rows = path / kind / f"day={day}" / f"x.{kind}", table.slice(50 * day, 50)
            if kind == "parquet":
                pq.write_table(rows, file, row_group_size=20)
            elif kind == "csv":  # the columns of the second file are in another order
                pyarrow.csv.write_csv(rows.select(["c", "b", "a"]) if day else rows, file)
            elif kind == "jsonl":
                rows.to_pandas().to_json(file, orient="records", lines=True)
            else:
                pyarrow.feather.write_feather(rows, file, compression="uncompressed")
    return path


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "arrow"])
def test_the_parts_are_the_table(folder: Path, kind: str) -> None:
    types = {"a": pa.float64(), "b": pa.int64(), "c": pa.string()}
    table = PartedTable(folder / kind)
    parts = table.parts(40)
    assert len(parts) == (4 if kind == "parquet" else 2)
    chunks = [chunk for part in parts for chunk in table.read(part, 7, types)]
    assert max(chunk.num_rows for chunk in chunks) == 7
    whole = pa.concat_tables(stream_table(folder / kind, types=types))
    assert pa.concat_tables(chunks).combine_chunks().equals(whole.combine_chunks())
    assert whole.num_rows == 100


def test_row_groups_are_parts_of_at_most_so_many_rows(folder: Path) -> None:
    table = PartedTable(folder / "parquet")  # row groups of 20, 20 and 10 rows in each file
    assert table.parts(20) == [TablePart(f, g, g + 1) for f in range(2) for g in range(3)]
    assert table.parts(1) == table.parts(20)
    assert table.parts(30) == [part for f in range(2) for part in (TablePart(f, 0, 1), TablePart(f, 1, 3))]
    assert table.parts(1000) == [TablePart(0, 0, 3), TablePart(1, 0, 3)]


def test_parts_without_rows(tmp_path: Path) -> None:
    """They are chunks without rows where that is asked for, so that each part has the columns of the table."""
    table = pa.table({"a": [1.5, 2.5], "b": [1, 2]})
    types = {"a": pa.float64(), "b": pa.int64()}
    (tmp_path / "csv").mkdir()
    for name, content in (("0.csv", "a,b\n1.5,1\n2.5,2\n"), ("1.csv", "a,b\n"), ("2.csv", "a,b")):
        (tmp_path / "csv" / name).write_text(content)
    parted = PartedTable(tmp_path / "csv")
    assert parted.integer_columns(dict.fromkeys(types, pa.float64())) == {"b": pa.int64()}
    found = [list(parted.read(part, 10, types, empty=True)) for part in parted.parts(10)]
    assert [[chunk.num_rows for chunk in chunks] for chunks in found] == [[2], [0], [0]]
    assert all(chunks[0].schema == table.schema for chunks in found)
    with pytest.raises(InputError, match=r"1\.csv has a header and no rows"):
        list(parted.read(TablePart(1), 10, types))

    for groups in (0, 1):  # both forms exist
        (tmp_path / str(groups) / "day=1").mkdir(parents=True)
        with pq.ParquetWriter(tmp_path / str(groups) / "day=1" / "x.parquet", table.schema) as writer:
            for _ in range(groups):
                writer.write_table(table.slice(0, 0))
        parted = PartedTable(tmp_path / str(groups))
        (part,) = parted.parts(10)
        (chunk,) = parted.read(part, 10, empty=True)
        assert (chunk.num_rows, chunk.column_names) == (0, ["a", "b", "day"])
        assert list(parted.read(part, 10)) == []
    pq.write_table(table, tmp_path / "1" / "day=1" / "y.parquet")
    assert PartedTable(tmp_path / "1").parts(10) == [TablePart(1, 0, 1)]


def test_the_state_is_that_of_the_files(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("a\n1\n")
    before = PartedTable(file).state()
    assert PartedTable(file).state() == before
    file.write_text("a\n12\n")
    assert PartedTable(file).state() != before


def test_what_has_no_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for day, header in enumerate(("a,b", "a,x")):
        (tmp_path / f"{day}.csv").write_text(header + "\n1,2\n")
    table = PartedTable(tmp_path)
    with pytest.raises(InputError, match=r"has the columns \['a', 'x'\], and the first file of the folder has"):
        list(table.read(TablePart(1), 10, {}))
    with pytest.raises(StorageError, match="there is no file or folder"):
        PartedTable(tmp_path / "absent.csv")
    pipe = io.TextIOWrapper(io.BytesIO(b"a\n1\n"))
    monkeypatch.setattr(sys, "stdin", pipe)
    with pytest.raises(StorageError, match="can be read only once"):
        PartedTable("-", format="csv")


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("rows", [0, -1, 1.5, "x"])
def test_a_number_of_rows_that_is_no_number_of_rows(folder: Path, kind: str, rows: object) -> None:
    table = PartedTable(folder / kind)
    with pytest.raises(ConfigError, match="rows must be an integer of at least 1"):
        table.parts(rows)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="rows must be an integer of at least 1"):
        list(table.read(TablePart(0), rows))  # type: ignore[arg-type]


def test_a_part_that_the_table_does_not_have(folder: Path) -> None:
    table = PartedTable(folder / "parquet")
    with pytest.raises(ConfigError, match=r"part\.file must be an integer from 0 to 1; got 9"):
        list(table.read(TablePart(9), 5))
    with pytest.raises(ConfigError, match=r"no part of a file with 3 row groups: take one of parts\(rows\)"):
        list(table.read(TablePart(0, 2, 4), 5))


def test_a_part_without_row_groups_is_a_whole_file(folder: Path) -> None:
    for kind in ("parquet", "csv"):
        (chunk,) = PartedTable(folder / kind).read(TablePart(1), 100)
        assert chunk.num_rows == 50
