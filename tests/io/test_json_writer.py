"""JSON Lines as other programs read them."""

import datetime as dt
import decimal
import json
import sys

import pandas as pd
import pyarrow as pa
import pytest

from pushforward.errors import InputError
from pushforward.io import TableWriter, read_table


def lines(path, table):
    with TableWriter(path) as writer:
        writer.write(table)
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def test_every_kind_of_cell(tmp_path):
    table = pa.table(
        {
            "n": [1, None],
            "x": [0.1, 1e-300],
            "far": [float("inf"), float("-inf")],
            "nan": pa.array([float("nan"), 1.0], from_pandas=False),
            "flag": [True, False],
            'te"xt': ['a "b"\nc', "é"],
            "day": [dt.date(2024, 1, 2), None],
            "at": [dt.datetime(2024, 1, 2, 3, 4, 5, 600_000), None],
            "took": [dt.timedelta(seconds=1.5), None],
            "price": pa.array([decimal.Decimal("12.30"), None], pa.decimal128(6, 2)),
            "list": [[1, None], [float("inf")]],
            "map": [{"k": 1.5}, None],
            "word": pa.array(["u", "v"]).dictionary_encode(),
        }
    )
    assert lines(tmp_path / "t.jsonl", table) == [
        {"n": 1, "x": 0.1, "far": sys.float_info.max, "nan": None, "flag": True, 'te"xt': 'a "b"\nc', "day": "2024-01-02",
         "at": "2024-01-02T03:04:05.600000", "took": 1.5, "price": 12.3, "list": [1, None], "map": {"k": 1.5}, "word": "u"},
        {"n": None, "x": 1e-300, "far": -sys.float_info.max, "nan": 1.0, "flag": False, 'te"xt': "é", "day": None,
         "at": None, "took": None, "price": None, "list": [sys.float_info.max], "map": None, "word": "v"},
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson", "t.jsonl.gz", "t.jsonl.zst"])
def test_pandas_and_pushforward_read_it(tmp_path, name):
    table = pa.table({"n": [1, 2], "x": [0.5, None], "c": ["x", "ö"]})
    with TableWriter(tmp_path / name) as writer:
        writer.write(table.slice(0, 1))
        writer.write(table.slice(1))
    assert read_table(tmp_path / name).equals(table)
    if not name.endswith("zst"):
        assert pd.read_json(tmp_path / name, lines=True).to_dict("list")["c"] == ["x", "ö"]


def test_bytes_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="column 'b' of type binary cannot be written as JSON"):
        lines(tmp_path / "t.jsonl", pa.table({"b": [b"x"]}))
    assert list(tmp_path.iterdir()) == []


def test_nan_in_a_map_is_null(tmp_path):
    table = pa.table({"m": pa.array([[("a", float("nan")), ("b", 1.0)]], pa.map_(pa.string(), pa.float64()))})
    assert lines(tmp_path / "t.jsonl", table) == [{"m": [["a", None], ["b", 1.0]]}]
