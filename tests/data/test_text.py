"""Text cells: the tightest type for a whole column, however it is cut, and the numbers in it."""

import math

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pushforward.data.text import convert, first_bad_number, narrow, parse_numbers
from pushforward.errors import SchemaError


def kind_of(cells, **options):
    return narrow(pa.null(), pa.array(cells, pa.string()), **options)


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "2", ""], pa.int64(), [1, 2, None]),
        ([" 1", "2 ", "NA"], pa.int64(), [1, 2, None]),
        (["1", "2.5", "nan"], pa.float64(), [1.0, 2.5, None]),
        (["+3", "1e3", ".5", "inf"], pa.float64(), [3.0, 1000.0, 0.5, math.inf]),
        (["99999999999999999999"], pa.float64(), [1e20]),
        (["1", "007"], pa.string(), ["1", "007"]),
        (["2.5", "007"], pa.string(), ["2.5", "007"]),
        (["0x10"], pa.string(), ["0x10"]),
        (["0", "-0", "0.5"], pa.float64(), [0.0, 0.0, 0.5]),
        (["true", "False", ""], pa.bool_(), [True, False, None]),
        (["true", "1"], pa.string(), ["true", "1"]),
        (["a", "NA", ""], pa.string(), ["a", "NA", None]),
        (["", "NA", "?"], pa.null(), [None, None, None]),
        (["2024-01-01", "2024-01-01T00:00:00Z"], pa.string(), ["2024-01-01", "2024-01-01T00:00:00Z"]),
        (["1,000"], pa.string(), ["1,000"]),
    ],
)
def test_types_and_values(cells, kind, values):
    assert kind_of(cells) == kind
    assert convert(pa.array(cells), kind).to_pylist() == values


def test_dates_and_instants():
    assert kind_of(["2024-01-01"]) == pa.date32()
    assert kind_of(["2024-01-01", "2024-01-02 10:00:00.5"]) == pa.timestamp("us")
    assert kind_of(["2024-01-01T00:00:00Z", "2024-01-01T00:00:00+02:00"]) == pa.timestamp("us", "UTC")


def test_leading_zeros_are_numbers_where_numbers_are_expected():
    assert kind_of(["007"], codes=False) == pa.int64()
    assert kind_of(["0x10"], codes=False) == pa.string()


def test_a_cell_that_does_not_fit_is_an_error():
    with pytest.raises(SchemaError, match="changed while it was read"):
        convert(pa.array(["a"]), pa.int64())


CELLS = st.sampled_from(
    ["1", "-2", "2.5", "1e5", "007", "true", "False", "2024-01-01", "2024-01-01 10:00:00", "2024-01-01T10:00:00Z", "",
     "NA", "x", "99999999999999999999", " 3 ", "+4", "inf", "nan"]
)  # fmt: skip


@given(cells=st.lists(CELLS, min_size=1, max_size=8), cut=st.integers(0, 8))
@settings(max_examples=400, deadline=None)
def test_the_type_does_not_depend_on_how_the_column_is_cut(cells, cut):
    whole = kind_of(cells)
    parts = [pa.array(cells[:cut], pa.string()), pa.array(cells[cut:], pa.string())]
    known = pa.null()
    for part in parts:
        known = narrow(known, part)
    assert known == whole
    pieces = [value for part in parts for value in convert(part, known).to_pylist()]
    assert pieces == convert(pa.array(cells, pa.string()), whole).to_pylist()


@given(st.lists(st.one_of(st.floats(allow_nan=False), st.integers(-(10**15), 10**15)), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_numbers_are_read_as_python_reads_them(numbers):
    values, bad = parse_numbers(pa.array([repr(number) for number in numbers]))
    assert values.tolist() == [float(number) for number in numbers]
    assert not bad.any()
    # With one unreadable cell the slow path reads the others: to the same numbers.
    values, bad = parse_numbers(pa.array([*(f" {number!r} " for number in numbers), "x"]))
    assert values[:-1].tolist() == [float(number) for number in numbers]
    assert bad.tolist() == [False] * len(numbers) + [True]


def test_unreadable_cells_are_found():
    text = pa.array(["3", "", None, "NA", "?", "1_0", "0x1", "٣", "1 2", "--1"])
    _, bad = parse_numbers(text)
    assert bad.tolist() == [False] * 5 + [True] * 5
    assert first_bad_number(text) == (5, "1_0")
    assert first_bad_number(pa.array(["1", None])) is None
