"""Every kind of table becomes a pyarrow table, numbers stay a NumPy array, and other data are refused."""

import datetime as dt
import decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch

from pushforward.data import InputTypeError, as_table, is_frame, is_positional
from pushforward.data.tables import number_array
from pushforward.errors import InputError

VALUES = {"a": [1, 2], "b": ["x", None]}
MATRIX = np.array([[1.0, 2.0], [3.0, 4.0]]).view(np.matrix)
"""NumPy warns of its constructor."""


@pytest.mark.parametrize(
    "data",
    [
        pa.table(VALUES),
        pa.RecordBatch.from_pydict(VALUES),
        pd.DataFrame(VALUES),
        pl.DataFrame(VALUES),
        pl.DataFrame(VALUES).lazy(),
        VALUES,
        {"a": np.array([1, 2]), "b": pd.Series(["x", None])},
        {"a": torch.tensor([1, 2]), "b": pl.Series(["x", None])},
    ],
    ids=lambda data: type(data).__name__,
)
def test_tables_with_names_keep_names_and_cells(data):
    table = as_table(data)
    assert table.to_pydict() == VALUES
    assert is_frame(data)
    assert not is_positional(table)


@pytest.mark.parametrize(
    "data",
    [
        np.array([[1.0, 2.0], [3.0, 4.0]]),
        np.array([[1, 2], [3, 4]]),
        np.array([[1.0, 2.0], [3.0, 4.0]], dtype=">f4"),
        np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float16),
        np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.longdouble),
        np.array([[1.0, 2.0], [3.0, 4.0]], order="F")[::1],
        np.array([[1.0, 2.0], [3.0, 4.0]], dtype=object),
        MATRIX,
        torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.bfloat16),
        [[1.0, 2.0], [3.0, 4.0]],
        [(1, 2), (3, 4)],
        pd.DataFrame([[1.0, 2.0], [3.0, 4.0]]),
    ],
)
def test_arrays_have_positions_and_no_names(data):
    table = as_table(data)
    assert table.to_pydict() == {"x0": [1, 3], "x1": [2, 4]}
    assert is_positional(table)
    assert not is_frame(data)


@pytest.mark.parametrize(
    "data",
    [
        np.array([[1.0, 2.0], [3.0, 4.0]]),
        np.array([[1, 2], [3, 4]], dtype=np.uint8),
        np.array([[1.0, 2.0], [3.0, 4.0]], dtype=">f4"),
        MATRIX,
        torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.bfloat16),
        [[1.0, 2.0], [3.0, 4.0]],
    ],
)
def test_numbers_stay_an_array(data):
    array = number_array(data)
    assert type(array) is np.ndarray
    assert array.tolist() == [[1, 2], [3, 4]]
    assert array is data or not isinstance(data, np.ndarray) or np.shares_memory(array, data)


@pytest.mark.parametrize(
    "data",
    [
        np.array([[True]]), np.array([["a"]]), np.array([[1.0]], dtype=object), np.eye(2) * 1j, np.zeros(3), np.zeros((2, 0)),
        np.ma.masked_array([[1.0]], mask=[[True]]), np.zeros(1, dtype=[("u", "f8")]), torch.eye(2).to_sparse(), pd.DataFrame([[1.0]]),
        {"a": [1.0]}, [[1.0, "a"]], "text", None,
    ],
    ids=lambda data: type(data).__name__,
)  # fmt: skip
def test_other_data_are_not_an_array_of_numbers(data):
    assert number_array(data) is None


def test_structured_arrays_have_names():
    data = np.array([(1.5, 2)], dtype=[("u", "f8"), ("v", "i4")])
    assert as_table(data).to_pydict() == {"u": [1.5], "v": [2]}
    assert is_frame(data)


def test_masked_cells_are_null():
    data = np.ma.masked_array([[1.0, 2.0], [3.0, 4.0]], mask=[[True, False], [False, False]])
    assert as_table(data).to_pydict() == {"x0": [None, 3.0], "x1": [2.0, 4.0]}


def test_numbers_beside_text_become_text_so_that_the_cell_can_be_named_later():
    assert as_table(pd.DataFrame({"a": [1.5, "abc", None]})).to_pydict() == {"a": ["1.5", "abc", None]}
    assert as_table([[1, "a"], [2, "b"]]).to_pydict() == {"x0": [1, 2], "x1": ["a", "b"]}


def test_pandas_types():
    frame = pd.DataFrame(
        {
            "category": pd.Categorical(["u", "v"]),
            "nullable": pd.array([1, None], dtype="Int64"),
            "date": [dt.date(2024, 1, 1)] * 2,
            "sparse": pd.arrays.SparseArray([0, 1]),
            "nan": [np.nan, 1.0],
        }
    )
    assert as_table(frame).to_pydict() == {
        "category": ["u", "v"],
        "nullable": [1, None],
        "date": [dt.date(2024, 1, 1)] * 2,
        "sparse": [0, 1],
        "nan": [None, 1.0],
    }


def test_no_rows_are_fine():
    assert as_table(np.zeros((0, 3))).shape == (0, 3)
    assert as_table(pd.DataFrame({"a": []})).shape == (0, 1)


def test_a_table_is_returned_without_a_copy():
    table = pa.table(VALUES)
    assert as_table(table) is table


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros(3), r"reshape\(-1, 1\)"),
        ([1, 2], r"reshape\(-1, 1\)"),
        (pd.Series([1.0]), r"reshape\(-1, 1\)"),
        (np.zeros((2, 2, 2)), "flatten"),
        (torch.tensor(1.0), "one number"),
        (np.zeros((3, 0)), r"0 feature\(s\) \(shape=\(3, 0\)\) while a minimum of 1 is required"),
        (pd.DataFrame(), "no columns"),
        (pl.DataFrame(), "no columns"),
        ({}, "no columns"),
        (np.eye(2) * 1j, "Complex data not supported"),
        (torch.eye(2, dtype=torch.complex64), "Complex data not supported"),
        (np.array([[1 + 2j, "a"]], dtype=object), "Complex data not supported"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "more than one column named 'a'"),
        (pa.table([[1], [2]], names=["a", "a"]), "more than one column named 'a'"),
        ({"a": [1], "b": [1, 2]}, "'a' has 1 rows and 'b' has 2"),
        ({"a": np.eye(2)}, "one-dimensional"),
        ([[1], [1, 2]], "unequal length"),
        (np.array([[b"\xff"]]), "not UTF-8"),
    ],
)
def test_data_that_are_not_a_table_are_refused(data, words):
    with pytest.raises(InputError, match=words):
        as_table(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (sp.eye(3, format="csr"), "sparse"),
        (sp.coo_array(np.eye(2)), "sparse"),
        (torch.eye(2).to_sparse(), "sparse"),
        (np.array([[{"foo": "bar"}, 1.0]], dtype=object), "argument must be a string or a number"),
        ({"a": [[1], [2]]}, "argument must be a string or a number"),
        (pd.DataFrame({"a": [[1], [2]]}), "argument must be a string or a number"),
        (np.zeros(2, dtype=[("a", "f8", (2,))]), "argument must be a string or a number"),
        (pd.DataFrame([[1, 2]], columns=["a", 1]), "column names"),
        ({1: [2]}, "column names must be text"),
        (np.zeros((2, 2), dtype="V3"), "raw bytes"),
        (None, "got NoneType"),
        (3, "got int"),
        ("x.csv", "got str"),
        (b"x", "got bytes"),
        (iter([1]), "expected a table"),
    ],
)
def test_types_that_can_never_be_a_table_are_also_type_errors(data, words):
    with pytest.raises(InputTypeError, match=words) as caught:
        as_table(data)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


def test_intervals_and_periods_of_pandas_are_text():
    a = pd.Series([0.5, 1.5, 9.0])
    frame = pd.DataFrame({"cut": pd.cut(a, [0, 1, 2]), "interval": pd.arrays.IntervalArray.from_breaks(range(4)),
                          "period": pd.period_range("2024-01", periods=3, freq="M")})  # fmt: skip
    assert as_table(frame).to_pydict() == {
        "cut": ["(0, 1]", "(1, 2]", None],
        "interval": ["(0, 1]", "(1, 2]", "(2, 3]"],
        "period": ["2024-01", "2024-02", "2024-03"],
    }


def test_one_number_for_a_column_says_what_to_give():
    with pytest.raises(
        InputError, match=r"column 'a' must be one-dimensional; got shape \(\): for one row .* \{'a': \[1\.5\]\}"
    ):
        as_table({"a": 1.5})


def test_instants_with_and_without_a_zone_cannot_be_compared():
    with_zone, without = dt.datetime(2025, 1, 1, tzinfo=dt.UTC), dt.datetime(2025, 1, 2)
    for cells in ([with_zone, without, without], [without, without, None, dt.date(2025, 1, 3), with_zone]):
        with pytest.raises(InputError, match=r"'t' has instants .* and others without \(2 of 3\).*: give all"):
            as_table({"t": np.array(cells, dtype=object)})
    both = {"t": np.array([with_zone, pd.NaT, dt.date(2025, 1, 3)], dtype=object)}
    assert as_table(both)["t"].to_pylist() == [with_zone, None, dt.datetime(2025, 1, 3, tzinfo=dt.UTC)]


@pytest.mark.skipif(not hasattr(pa, "decimal32"), reason="an old pyarrow has no short decimals")
def test_short_decimals_have_the_type_with_which_pyarrow_computes() -> None:
    column = as_table(pa.table({"a": pa.array([decimal.Decimal("1.25"), None], pa.decimal32(5, 2))}))["a"]
    assert column.type == pa.decimal128(5, 2)
    assert column.to_pylist() == [decimal.Decimal("1.25"), None]
