"""The cells of CSV as the page of the command line says that they are read."""

from __future__ import annotations

import datetime
from pathlib import Path

import pyarrow as pa
import pytest

import pushforward as pf

CELLS = """day,instant,zone,flag,code,hex,number,text,german
2026-12-31,2026-12-31 23:59:59,2026-12-31 23:59:59+01:00,TRUE,007,0x1F,?,,31/12/2026
2026-12-30,2026-12-31 23:59:58,2026-12-31 23:59:58Z,false,123,0x2F,1.5,a,30/12/2026
2026-12-30,2026-12-31 23:59:58,2026-12-31 23:59:58Z,true,123,0x2F,#N/A,NA,30/12/2026
"""


def test_the_types_of_cells(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(CELLS)
    table = pf.io.read_table(tmp_path / "t.csv")
    kinds = dict(zip(table.column_names, table.schema.types, strict=True))
    assert kinds == {
        "day": pa.date32(),
        "instant": pa.timestamp("us"),
        "zone": pa.timestamp("us", "UTC"),
        "flag": pa.bool_(),
        "code": pa.string(),
        "hex": pa.string(),
        "number": pa.float64(),
        "text": pa.string(),
        "german": pa.string(),
    }
    first = table.to_pylist()[0]
    assert first["zone"] == datetime.datetime(2026, 12, 31, 22, 59, 59, tzinfo=datetime.UTC)
    assert (first["code"], first["number"], first["text"]) == ("007", None, None)
    assert table["text"].to_pylist() == [None, "a", "NA"]


@pytest.mark.parametrize("word", ["NA", "N/A", "NaN", "null", "None", "#N/A", "?"])
def test_words_for_a_missing_number(tmp_path: Path, word: str) -> None:
    (tmp_path / "t.csv").write_text(f"a,b\n1.5,1\n{word},2\n")
    assert pf.io.read_table(tmp_path / "t.csv")["a"].to_pylist() == [1.5, None]
