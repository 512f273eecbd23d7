"""The type that ``pyarrow.csv`` infers for a column of text, with the rules that pushforward adds."""

import math

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pushforward.errors import SchemaError
from pushforward.io import read_table, stream_table
from pushforward.io.csv import stream_delimited
from pushforward.io.input_file import InputFile


def write(path, cells):
    """A file with these cells in the column "x", and a second column, because a line without cells is not a row."""
    path.write_text("x,y\n" + "".join(f"{cell},0\n" for cell in cells))
    return path


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "2", ""], pa.int64(), [1, 2, None]),
        ([" 1", "2 ", " NA"], pa.int64(), [1, 2, None]),
        (["1", "2.5", "nan"], pa.float64(), [1.0, 2.5, None]),
        (["+3", "1e3", ".5", "inf"], pa.float64(), [3.0, 1000.0, 0.5, math.inf]),
        (["99999999999999999999"], pa.float64(), [1e20]),
        (["1", "007"], pa.string(), ["1", "007"]),
        (["2.5", "007"], pa.string(), ["2.5", "007"]),
        (["1", " -01"], pa.string(), ["1", " -01"]),
        (["0x10"], pa.string(), ["0x10"]),
        (["0", "-0", "0.5"], pa.float64(), [0.0, 0.0, 0.5]),
        (["true", " False", ""], pa.bool_(), [True, False, None]),
        (["true", "1"], pa.string(), ["true", "1"]),
        (["a", "NA", ""], pa.string(), ["a", "NA", None]),
        (["", "NA", "?"], pa.null(), [None, None, None]),
        (["2024-01-01", "2024-01-01T00:00:00Z"], pa.string(), ["2024-01-01", "2024-01-01T00:00:00Z"]),
        (['"1,000"'], pa.string(), ["1,000"]),
    ],
)
def test_types_and_values(tmp_path, cells, kind, values):
    column = read_table(write(tmp_path / "t.csv", cells))["x"]
    assert column.type == kind
    assert column.to_pylist() == values


def test_dates_and_instants(tmp_path):
    def kind_of(cells):
        return read_table(write(tmp_path / "t.csv", cells)).schema.field("x").type

    assert kind_of(["2024-01-01"]) == pa.date32()
    assert kind_of(["10:20", "10:20:30"]) == pa.time32("s")
    assert kind_of(["2024-01-01", "2024-01-02 10:00:00.5"]) == pa.timestamp("us")
    assert kind_of(["2024-01-01T00:00:00Z", "2024-01-01T00:00:00+02:00"]) == pa.timestamp("us", "UTC")


def test_leading_zeros_are_numbers_where_the_schema_has_numbers(tmp_path):
    path = write(tmp_path / "t.csv", ["007", " 8 ", "NA"])
    (chunk,) = stream_table(path, types={"x": pa.float64()})
    assert chunk["x"].to_pylist() == [7.0, 8.0, None]


def test_a_code_in_the_last_row_makes_the_column_text(tmp_path, monkeypatch):
    monkeypatch.setattr("pushforward.io.csv._BLOCK", 1000)
    cells = [*map(str, range(5000)), "007"]
    assert read_table(write(tmp_path / "t.csv", cells))["x"].to_pylist() == cells


def test_a_file_that_changes_between_the_passes_is_an_error(tmp_path):
    path = write(tmp_path / "t.csv", ["1", "a"])
    with pytest.raises(SchemaError, match=r"column 'x', row 1 .*'a' is not a number"):
        list(stream_delimited(InputFile("t.csv", str(path), None, "csv"), ["x"], {"x": pa.float64()}))


CELLS = st.sampled_from(
    ["1", "-2", "2.5", "1e5", "007", "true", "False", "2024-01-01", "2024-01-01 10:00:00", "2024-01-01T10:00:00Z", "",
     "NA", "x", "99999999999999999999", " 3 ", "+4", "inf", "nan"]
)  # fmt: skip


@given(cells=st.lists(CELLS, min_size=1, max_size=8), size=st.integers(30, 120))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_type_does_not_depend_on_the_size_of_a_block(tmp_path, cells, size):
    path = write(tmp_path / "t.csv", cells)
    whole = read_table(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pushforward.io.csv._BLOCK", size)
        assert read_table(path).equals(whole)
