"""Times of day in files of text: with fractions of a second, as polars writes them, and with hours of one digit."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pushforward.data import Schema
from pushforward.io import read_table, stream_table

WRITTEN = {
    "nanoseconds": ["17:43:43.000000000", "08:00:01.500000000"],
    "milliseconds": ["17:43:43.000", "08:00:01.500"],
    "mixed": ["17:43:43", "08:00:01.5"],
    "one digit": ["17:43:43", " 8:00:01.5"],
}


def write(path: Path, cells: list[str | None]) -> Path:
    if path.suffix == ".csv":
        path.write_text("t,x\n" + "".join(f"{'' if cell is None else cell},0.5\n" for cell in cells))
    else:
        path.write_text("".join(json.dumps({"t": cell, "x": 0.5}) + "\n" for cell in cells))
    return path


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("form", WRITTEN)
def test_fractions_of_a_second_are_times_of_day(tmp_path: Path, form: str, ending: str) -> None:
    path = write(tmp_path / f"t.{ending}", [*WRITTEN[form], None])
    table = read_table(path)
    assert table.schema.field("t").type == pa.time64("us")
    assert table["t"].to_pylist() == [dt.time(17, 43, 43), dt.time(8, 0, 1, 500_000), None]
    schema = Schema.infer({"t": [dt.time(1), dt.time(2), None], "x": [1.0, 2.5, 3.5]})  # as of a data frame
    parts = pa.concat_tables(stream_table(path, types=schema.pyarrow_types()))
    np.testing.assert_array_equal(schema.encode(parts)[0][:, 0], [63823.0, 28801.5, np.nan])
    assert [cell.strip() for cell in parts["t"].to_pylist()[:2]] == [cell.strip() for cell in WRITTEN[form]]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("cells", [["17:43:43.5", "later"], ["1:30", "2:15"], ["25:00:00.5"], ["30600", "17:43:43.5"]])
def test_other_text_stays_text(tmp_path: Path, cells: list[str], ending: str) -> None:
    table = read_table(write(tmp_path / f"t.{ending}", list(cells)))
    assert table["t"].to_pylist() == cells


def test_the_files_of_a_folder_may_differ_in_fractions(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ["17:43:43"])
    write(tmp_path / "b.csv", ["08:00:01.5"])
    assert read_table(tmp_path)["t"].to_pylist() == [dt.time(17, 43, 43), dt.time(8, 0, 1, 500_000)]


def test_a_column_that_is_missing_at_first(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", [*([None] * 1500), "17:43:43.5"])
    assert read_table(tmp_path / "t.csv")["t"].to_pylist()[-1] == dt.time(17, 43, 43, 500_000)
    write(tmp_path / "empty.jsonl", ["", "NA"])
    assert read_table(tmp_path / "empty.jsonl")["t"].to_pylist() == ["", "NA"]
