"""Columns are recognized, and new tables are converted by them; each difference has a defined result."""

import datetime as dt
import decimal
import json
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pushforward.data import Column, Problem, Schema, as_table
from pushforward.errors import InputError, SchemaError, SchemaWarning, StorageError

INF, NAN = np.inf, np.nan


def column_of(values, **options):
    return Schema.infer({"c": values}, **options).columns[0]


def columns_of(n):
    """Columns of n cells that can be modeled, of every kind."""
    maybe = lambda values: st.one_of(st.none(), values)  # noqa: E731
    micro = st.integers(-(10**15), 10**15)
    kinds = [
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from([0.1, 0.2, 0.3]),
        st.integers(-(2**53), 2**53),
        st.booleans(),
        st.text(st.characters(codec="utf-8"), max_size=5),
        micro.map(lambda v: dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=v)),
        st.dates(),
        micro.map(lambda v: dt.timedelta(microseconds=v)),
        st.times(),
    ]
    lists = [st.lists(maybe(kind) if k % 2 else kind, min_size=n, max_size=n) for kind in kinds for k in (0, 1)]
    return st.one_of(lists).filter(lambda values: any(value not in (None, "") for value in values))


@st.composite
def tables(draw):
    n = draw(st.integers(1, 12))
    names = draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=1, max_size=4, unique=True))
    return pa.table({name: pa.array(draw(columns_of(n))) for name in names})


# -- recognizing --


@pytest.mark.parametrize(
    ("values", "kind", "lattice", "missing"),
    [
        ([1, 2, 5], "integer", (1.0, 1.0), False),
        ([10, None, 30], "integer", (10.0, 20.0), True),
        ([3, 3, 3], "integer", None, False),
        ([0, 10**9], "integer", (0.0, 1e9), False),
        ([0, 1, 10**9], "integer", None, False),
        ([2**60, 2**60 + 2], "integer", None, False),
        ([1.0, 2.0, 5.0], "integer", (1.0, 1.0), False),
        ([1.0, np.nan, 5.0], "integer", (1.0, 4.0), True),
        ([3.0, 3.0], "numeric", None, False),
        ([0.0, 1.0, 1e7], "numeric", None, False),
        ([1e300, -1e300, 0.0], "numeric", None, False),
        ([0.1, 0.2, 0.1, 0.7], "numeric", (0.1, 0.1), False),
        ([0.1, 0.2, 0.3], "numeric", None, False),
        ([True, False, None], "boolean", (0.0, 1.0), True),
        (["a", "b", "a"], "categorical", (0.0, 1.0), False),
        (["a", "", "a"], "categorical", (0.0, 1.0), True),
        ([decimal.Decimal("1.25"), decimal.Decimal("1.5"), decimal.Decimal("1.25")], "numeric", (1.25, 0.25), False),
    ],
)
def test_kinds_and_lattices(values, kind, lattice, missing):
    column = column_of(values)
    assert (column.kind, column.missing) == (kind, missing)
    assert column.lattice == (None if lattice is None else pytest.approx(lattice))


@pytest.mark.parametrize(
    ("values", "time", "seconds"),
    [
        ([dt.datetime(1970, 1, 2), dt.datetime(1969, 12, 31, 23, 59, 59, 500_000)], "timestamp", [86400.0, -0.5]),
        (pd.to_datetime(["1970-01-01", "1970-01-02"]).tz_localize("Europe/Oslo"), "timestamp_utc", [-3600.0, 82800.0]),
        ([dt.date(1970, 1, 3), dt.date(1969, 12, 31)], "date", [172800.0, -86400.0]),
        ([dt.time(0, 0, 1), dt.time(10, 0)], "time", [1.0, 36000.0]),
        ([dt.timedelta(days=1), dt.timedelta(milliseconds=-250)], "duration", [86400.0, -0.25]),
        (pa.array([1, 2500], pa.timestamp("ms")), "timestamp", [0.001, 2.5]),
        (pa.array([86_400_000, 0], pa.date64()), "date", [86400.0, 0.0]),
        (pa.array([1, 61], pa.time32("s")), "time", [1.0, 61.0]),
        (pa.array([1, 2], pa.duration("ns")), "duration", [1e-9, 2e-9]),
    ],
)
def test_instants_are_seconds(values, time, seconds):
    table = pa.table({"c": pa.array(values) if not isinstance(values, pa.Array) else values})
    schema = Schema.infer(table)
    assert (schema.columns[0].kind, schema.columns[0].time) == ("numeric", time)
    assert schema.encode(table)[0][:, 0].tolist() == pytest.approx(seconds, rel=1e-12)


def test_categories_are_ordered_by_frequency_then_name():
    assert column_of(["b", "c", "a", "c", None, "a"]).categories == ("a", "c", "b")


def test_numbers_in_a_pandas_category_are_categories():
    assert column_of(pd.Series(pd.Categorical([2, 1, 2]))).categories == ("2", "1")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([None, None], "'c' has only missing cells: drop it or name it in ignore=, on the command line --drop"),
        ([np.nan, np.nan], "'c' has only missing cells: .* --drop"),
        (["", ""], "'c' has only missing cells: .* --drop"),
        ([1.0, INF, 2.0], "'c', row 1 .*the cell is inf"),
        ([1.0, 2.0, -INF], "'c', row 2 .*the cell is -inf"),
        ([f"id{i}" for i in range(30)], "30 different texts in 30 rows.*drop it"),
        ([str(i % 1001) + "x" for i in range(5000)], "1001 different texts"),
        (["x" * 1001, "y"], "more than 1000 characters"),
        (pa.array([b"a", b"b"]), "'c' has the type binary"),
        (pa.array([[1], [2]]), "'c' has the type list"),
        (pa.array([{"u": 1}]), "'c' has the type struct"),
    ],
)
def test_columns_that_cannot_be_modeled(values, words):
    with pytest.raises(SchemaError, match=words):
        column_of(values)


def test_up_to_a_thousand_categories_and_twenty_in_few_rows():
    assert len(column_of([f"v{i % 1000}" for i in range(3000)]).categories) == 1000
    assert len(column_of([f"v{i}" for i in range(20)]).categories) == 20


def test_a_table_without_rows_is_refused():
    with pytest.raises(InputError, match="0 rows"):
        Schema.infer({"a": []})


# -- encoding --

TRAIN = {
    "x": [0.5, 1.25, None, 2.0],
    "n": [1, 2, 3, 4],
    "flag": [True, False, True, True],
    "city": ["Oslo", "Bern", "Oslo", None],
    "code": ["1", "2", "2", "10"],
}
SCHEMA = Schema.infer(TRAIN)
ENCODED = np.array(
    [[0.5, 1, 1, 0, 1], [1.25, 2, 0, 1, 0], [np.nan, 3, 1, 0, 0], [2.0, 4, 1, np.nan, 2]], dtype=np.float64
)


def altered(**columns):
    return {**TRAIN, **columns}


@pytest.mark.parametrize("frame", [as_table, pd.DataFrame, pl.DataFrame, lambda data: data])
def test_the_training_table_is_encoded_without_problems(frame):
    encoded, problems = SCHEMA.encode(frame(TRAIN))
    np.testing.assert_array_equal(encoded, ENCODED)
    assert problems == []


def test_columns_are_matched_by_name_without_a_warning():
    shuffled = {name: TRAIN[name] for name in ("code", "flag", "x", "city", "n")}
    np.testing.assert_array_equal(SCHEMA.encode(shuffled)[0], ENCODED)


@given(order=st.permutations(list(TRAIN)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_columns_does_not_matter(order):
    np.testing.assert_array_equal(SCHEMA.encode(as_table(TRAIN).select(order))[0], ENCODED)


def test_chunks_and_dictionary_encoding_do_not_matter():
    table = as_table(TRAIN)
    table = table.set_column(3, "city", table.column("city").dictionary_encode())
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1, 0), table.slice(1, 3)])
    np.testing.assert_array_equal(SCHEMA.encode(pieces)[0], ENCODED)


def test_an_absent_column_is_named_with_the_nearest_name():
    table = as_table(TRAIN).rename_columns(["x", "n", "flag", "City", "code"])
    with pytest.raises(SchemaError, match="lacks the column 'city', which the fitted table had; it has 'City'"):
        SCHEMA.encode(table)
    with pytest.raises(SchemaError, match=r"lacks the columns 'n', 'flag', 'city', \.\.\."):
        SCHEMA.encode({"x": [1.0]})
    with pytest.raises(SchemaError, match=r"lacks the column 'amount', which the fitted table had\.$"):
        Schema.infer({"amount": [1.0, 2.5], "country": ["a", "b"]}).encode({"country": ["a"]})  # not alike


def test_extra_columns_are_ignored_with_one_warning():
    extra = altered(u=[0] * 4, v=[0] * 4, w=[0] * 4, z=[0] * 4)
    with pytest.warns(SchemaWarning, match="4 columns that .* are ignored: 'u', 'v', 'w', ...") as caught:
        encoded, problems = SCHEMA.encode(extra)
    assert len(caught) == 1
    np.testing.assert_array_equal(encoded, ENCODED)
    assert problems == [Problem("extra", "", 4, ("u", "v", "w"))]


def test_a_new_category_is_infinity():
    with pytest.warns(
        SchemaWarning, match="'city': 2 rows have a value that no row had at fit .'Rome', 'oslo'.; this raises"
    ):
        encoded, problems = SCHEMA.encode(altered(city=["Rome", "Bern", "oslo", None]))
    assert encoded[:, 3].tolist()[:3] == [INF, 1.0, INF]
    assert np.isnan(encoded[3, 3])
    assert problems == [Problem("new", "city", 2, ("Rome", "oslo"))]


def test_a_missing_cell_in_a_column_that_had_none_is_nan_with_a_warning():
    with pytest.warns(SchemaWarning, match="'n': 1 row has a missing value and no row had one at fit; this raises"):
        encoded, _ = SCHEMA.encode(altered(n=[1, None, 3, 4]))
    np.testing.assert_array_equal(encoded[:, 1], [1.0, NAN, 3.0, 4.0])
    with pytest.warns(SchemaWarning, match="'code': 2 rows have a missing value"):
        encoded, _ = SCHEMA.encode(altered(code=["", "1", None, "1"]))
    np.testing.assert_array_equal(encoded[:, 4], [NAN, 1.0, NAN, 1.0])


def test_each_column_gives_one_warning():
    with pytest.warns(SchemaWarning) as caught:
        SCHEMA.encode(altered(city=["?"] * 4, flag=["?"] * 4, n=[None] * 4))
    assert len(caught) == 3


def test_warnings_can_be_turned_off():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, problems = SCHEMA.encode(altered(city=["?"] * 4), warn=False)
    assert [problem.kind for problem in problems] == ["new"]


def test_problems_of_chunks_add_up():
    chunks = [
        Problem("new", "city", 2, ("a", "b")),
        Problem("extra", "", 1, ("z",)),
        Problem("new", "city", 3, ("b", "c", "d")),
        Problem("extra", "", 1, ("z",)),
    ]
    assert Problem.merge(chunks) == [Problem("new", "city", 5, ("a", "b", "c")), Problem("extra", "", 1, ("z",))]


def test_infinities_are_kept_at_scoring():
    encoded, problems = SCHEMA.encode(altered(x=[INF, -INF, 0.0, 1.0]))
    assert encoded[:2, 0].tolist() == [INF, -INF]
    assert problems == []


@pytest.mark.parametrize("column", ["x", "n"])
def test_the_error_for_text_in_a_number_column_names_the_cell(column):
    bad = altered(**{column: ["1", "2.5", "abc", "4"]})
    with pytest.raises(SchemaError, match=rf"column '{column}', row 2 .*'abc' is not a number"):
        SCHEMA.encode(bad)
    with pytest.raises(SchemaError, match="row 102 "):
        SCHEMA.encode(bad, first_row=100)
    with pytest.raises(SchemaError, match="row 2 "):
        SCHEMA.encode(pd.DataFrame(altered(**{column: [1.0, 2.5, "abc", 4]})))


def test_text_in_a_number_column_is_infinity_unless_strict():
    with pytest.warns(SchemaWarning, match="'n': 1 row has text that cannot be read .'abc'"):
        encoded, _ = SCHEMA.encode(altered(n=["1", "2.5", "abc", "4"]), strict=False)
    assert encoded[:, 1].tolist() == [1.0, 2.5, INF, 4.0]


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["1", " 2.5", "NA", "-3e2"], [1.0, 2.5, np.nan, -300.0]),
        ([True, False, True, None], [1.0, 0.0, 1.0, np.nan]),
        (pa.array([1, 2, 3, 4], pa.uint8()), [1.0, 2.0, 3.0, 4.0]),
        (np.array([1.5, 2, 3, 4], dtype=np.float16), [1.5, 2.0, 3.0, 4.0]),
        ([decimal.Decimal("1.5"), None, None, None], [1.5, np.nan, np.nan, np.nan]),
        ([None] * 4, [np.nan] * 4),
    ],
)
def test_text_that_is_read_as_numbers(values, numbers):
    np.testing.assert_array_equal(SCHEMA.encode(altered(x=values))[0][:, 0], numbers)


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        ([1, 0, 0, 1], [1, 0, 0, 1]),
        ([1.0, 0.0, 0.0, 1.0], [1, 0, 0, 1]),
        (["true", "False", "0", "1"], [1, 0, 0, 1]),
        ([2, 0, 1, 1], [INF, 0, 1, 1]),
        (["yes", "true", "true", "true"], [INF, 1, 1, 1]),
    ],
)
def test_text_that_is_read_as_flags(values, flags):
    assert SCHEMA.encode(altered(flag=values), warn=False)[0][:, 2].tolist() == flags


@pytest.mark.parametrize(
    "values", [[1, 2, 2, 10], [1.0, 2.0, 2.0, 10.0], ["1", "2", "2", "10"], ["1.0", "2.00", 2, 10]]
)
def test_numbers_match_categories_through_their_text(values):
    assert SCHEMA.encode(altered(code=values))[0][:, 4].tolist() == [1.0, 0.0, 0.0, 2.0]


def test_codes_with_leading_zeros_are_other_categories():
    assert SCHEMA.encode(altered(code=["01", "1", "1", "1"]), warn=False)[0][0, 4] == INF


def test_negative_and_fractional_numbers_as_categories():
    schema = Schema.infer({"c": ["-0.5", "0.5", "0.5", "-0"]})
    places = [schema.columns[0].categories.index(text) for text in ("-0.5", "0.5", "-0")]
    assert schema.encode({"c": [-0.5, 0.5, 0.0]})[0][:, 0].tolist() == places


def test_instants_as_text_and_as_seconds():
    schema = Schema.infer({"t": [dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 2)]})
    seconds = 1704067200.0
    for values in (["2024-01-01"], ["2024-01-01T01:00:00+01:00"], [seconds], [dt.date(2024, 1, 1)]):
        assert schema.encode({"t": values}, warn=False)[0].tolist() == [[seconds]]
    with pytest.raises(SchemaError, match=r"column 't', row 0 .*'soon' is not a timestamp"):
        schema.encode({"t": ["soon"]})
    with pytest.raises(SchemaError, match="must be timestamps, and its type is duration"):
        schema.encode({"t": [dt.timedelta(1)]})
    with pytest.raises(SchemaError, match="'x' must be numbers, and its type is timestamp"):
        SCHEMA.encode(altered(x=[dt.datetime(2024, 1, 1)] * 4))


def test_times_of_day_as_text() -> None:
    opened = [dt.time(8, 30), dt.time(17, 5, 1, 500_000), None]
    schema = Schema.infer({"opened": opened})
    written = {"opened": ["08:30", " 17:05:01.5 ", "", "30600"]}  # a number is seconds
    np.testing.assert_array_equal(schema.encode(written)[0][:, 0], [30600.0, 61501.5, np.nan, 30600.0])
    for bad in ("noon", "25:00", "08:30+01:00"):
        with pytest.raises(
            SchemaError, match="is not a time, as the cells of the fitted column are: write it as 23:59:59"
        ):
            schema.encode({"opened": [bad]})


@pytest.mark.parametrize("column", ["x", "flag", "city"])
def test_nested_cells_are_refused(column):
    with pytest.raises(SchemaError, match=f"'{column}'.*list"):
        SCHEMA.encode({**TRAIN, column: pa.array([[1]] * 4)})


def test_no_rows():
    empty = as_table(TRAIN).slice(0, 0)
    assert SCHEMA.encode(empty)[0].shape == (0, 5)
    assert Schema.infer(np.eye(3)).encode(np.zeros((0, 3)))[0].shape == (0, 3)


# -- tables without names --


def test_arrays_are_matched_by_position():
    schema = Schema.infer(np.array([[0.5, 1.0], [1.5, 2.0]]))
    assert schema.positional
    assert schema.encode([[3, 4]])[0].tolist() == [[3.0, 4.0]]
    with pytest.raises(SchemaError, match="X has 3 features, but Guard is expecting 2 features as input"):
        schema.encode(np.zeros((1, 3)), owner="Guard")


@given(
    rows=st.integers(1, 30), seed=st.integers(0, 10**6), dtype=st.sampled_from(["f8", "f4", "f2", ">f8", "i8", "u2"]),
    kind=st.sampled_from(["normal", "steps", "missing", "constant"]),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_an_array_of_numbers_is_read_as_its_arrow_table_is(rows, seed, dtype, kind):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    if kind == "steps" or dtype[-2] in "iu":
        x = np.abs(np.round(10 * x))
    if kind == "constant":
        x[:, 1] = 3
    if kind == "missing" and dtype[-2] == "f":
        x[1:][rng.random((rows - 1, 3)) < 0.3] = np.nan
    x = x.astype(dtype)
    schema, encoded = Schema.infer_encode(x)
    assert schema == Schema.infer(as_table(x)) == Schema.infer(x)
    assert encoded.dtype == np.float64
    for data in (x, as_table(x), torch.from_numpy(x.astype(dtype[-2:])) if dtype != "u2" else x, x.tolist()):
        again, problems = schema.encode(data)
        assert problems == []
        np.testing.assert_array_equal(again, encoded)
    flagged = Schema((*schema.columns[:2], Column("x2", "boolean", lattice=(0.0, 1.0))), positional=True)
    for data in (x, as_table(x)):
        np.testing.assert_array_equal(*(flagged.encode(form, warn=False)[0] for form in (data, as_table(x))))


def test_the_matrix_of_a_float64_array_is_not_copied():
    x = np.random.default_rng(0).normal(size=(9, 2))
    schema, encoded = Schema.infer_encode(x)
    assert np.shares_memory(encoded, x)
    assert np.shares_memory(schema.encode(x)[0], x)


@given(tables())
@settings(max_examples=50, deadline=None)
def test_infer_encode_is_infer_and_encode(table):
    schema, encoded = Schema.infer_encode(table)
    assert schema == Schema.infer(table)
    np.testing.assert_array_equal(encoded, schema.encode(table)[0])


def test_an_array_against_names_and_names_against_an_array():
    named, unnamed = Schema.infer({"a": [0.5, 1.5], "b": [0.1, 0.7]}), Schema.infer(np.array([[0.5, 0.1], [1.5, 0.7]]))
    with pytest.warns(SchemaWarning, match="had column names and this one has none"):
        assert named.encode([[1.0, 2.0]])[0].tolist() == [[1.0, 2.0]]
    with pytest.warns(SchemaWarning, match="had no column names and this one has some"):
        assert unnamed.encode({"a": [1.0], "b": [2.0]})[0].tolist() == [[1.0, 2.0]]
    with pytest.raises(SchemaError, match="expecting 2 features"):
        named.encode(np.zeros((1, 3)))
    assert unnamed.encode(unnamed.decode(np.array([[1.0, 2.0]])))[0].tolist() == [[1.0, 2.0]]


# -- decoding --


def test_decode():
    table = SCHEMA.decode(ENCODED)
    assert table.to_pydict() == TRAIN
    assert table.schema.types == [pa.float64(), pa.int64(), pa.bool_(), pa.string(), pa.string()]


def test_decode_rounds():
    assert SCHEMA.decode([[0.5, 1.6, 0.7, 0.4, 1.9]]).to_pylist() == [
        {"x": 0.5, "n": 2, "flag": True, "city": "Oslo", "code": "10"}
    ]


@pytest.mark.parametrize(
    ("column", "value"), [(1, INF), (1, 1e19), (1, -1e19), (2, 2.0), (2, -1.0), (3, 2.0), (3, INF), (4, -0.6)]
)
def test_decode_refuses_impossible_values(column, value):
    row = np.array([[0.5, 1, 1, 0, 1]] * 2)
    row[1, column] = value
    with pytest.raises(SchemaError, match=f"column '{SCHEMA.names[column]}', row 1 "):
        SCHEMA.decode(row)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (1, 2, 5)])
def test_decode_refuses_other_shapes(shape):
    with pytest.raises(InputError, match=r"\(rows, 5\)"):
        SCHEMA.decode(np.zeros(shape))


@pytest.mark.parametrize("time", ["timestamp", "timestamp_utc", "date", "time", "duration"])
def test_decode_refuses_impossible_instants(time):
    schema = Schema((Column("t", "numeric", time=time),))
    for value in (INF, -INF, 1e30):
        with pytest.raises(SchemaError, match="column 't', row 0"):
            schema.decode([[value]])
    assert schema.decode([[np.nan]]).to_pydict() == {"t": [None]}


@given(tables())
@settings(max_examples=200, deadline=None)
def test_encode_decode_and_json_round_trips(table):
    schema = Schema.infer(table)
    encoded, problems = schema.encode(table)
    assert problems == []
    assert np.isfinite(encoded[~np.isnan(encoded)]).all()
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema
    decoded = schema.decode(encoded)
    again, _ = schema.encode(decoded)
    np.testing.assert_array_equal(again, encoded)
    for column, name in zip(schema.columns, table.column_names, strict=True):
        before, after = table.column(name).to_pylist(), decoded.column(name).to_pylist()
        if column.kind == "categorical":
            before = [value or None for value in before]
        if not column.time:
            assert after == before


# -- in a file --


def test_json_is_plain():
    plain = json.loads(json.dumps(SCHEMA.to_json()))
    assert plain == SCHEMA.to_json()
    assert Schema.from_json(plain) == SCHEMA


def changed(change):
    data = json.loads(json.dumps(SCHEMA.to_json()))
    change(data)
    return data


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.clear(),
        lambda d: d.update(more=1),
        lambda d: d.update(columns={}),
        lambda d: d.update(columns=[]),
        lambda d: d.update(columns=[3]),
        lambda d: d.update(columns=d["columns"] * 2),
        lambda d: d.update(columns=d["columns"] * 50_000),
        lambda d: d.update(positional=1),
        lambda d: d["columns"][0].update(name=3),
        lambda d: d["columns"][0].update(name="x" * 100_000),
        lambda d: d["columns"][0].update(kind="complex"),
        lambda d: d["columns"][0].update(kind=["numeric"]),
        lambda d: d["columns"][0].update(missing=0),
        lambda d: d["columns"][0].update(categories=["a"]),
        lambda d: d["columns"][0].update(time="century"),
        lambda d: d["columns"][0].update(time=[]),
        lambda d: d["columns"][1].update(time="date"),
        lambda d: d["columns"][0].update(lattice=[0.0]),
        lambda d: d["columns"][0].update(lattice=[0.0, 0.0]),
        lambda d: d["columns"][0].update(lattice=[0.0, -1.0]),
        lambda d: d["columns"][0].update(lattice=[0.0, float("nan")]),
        lambda d: d["columns"][0].update(lattice=[True, 1.0]),
        lambda d: d["columns"][0].update(lattice=["0", "1"]),
        lambda d: d["columns"][0].update(lattice=[0, 10**400]),
        lambda d: d["columns"][0].update(lattice="01"),
        lambda d: d["columns"][0].update(lattice={}),
        lambda d: d["columns"][2].update(lattice=None),
        lambda d: d["columns"][3].update(categories=[]),
        lambda d: d["columns"][3].update(categories=["a", "a"]),
        lambda d: d["columns"][3].update(categories=[""]),
        lambda d: d["columns"][3].update(categories=[1, 2]),
        lambda d: d["columns"][3].update(categories="ab"),
        lambda d: d["columns"][3].update(categories=[f"{i}" for i in range(1001)]),
        lambda d: d["columns"][3].update(categories=["x" * 100_000]),
        lambda d: d["columns"][3].update(unknown=1),
        lambda d: d["columns"][3].pop("missing"),
    ],
)
def test_a_false_description_is_refused(change):
    with pytest.raises(StorageError):
        Schema.from_json(changed(change))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, st.sampled_from(["", "positional", "columns", "name", "kind", "categories", "missing", "lattice", "time"]))
@settings(max_examples=300, deadline=None)
def test_any_json_under_any_key_is_a_schema_or_a_clear_error(value, key):
    data = json.loads(json.dumps(SCHEMA.to_json()))
    if key in ("positional", "columns"):
        data[key] = value
    elif key:
        data["columns"][3][key] = value
    try:
        schema = Schema.from_json(data if key else value)
    except StorageError:
        return
    assert Schema.from_json(schema.to_json()) == schema


def test_types_for_a_text_reader():
    numbers, text = dict.fromkeys("xn", pa.float64()), dict.fromkeys(SCHEMA.names, pa.string())
    assert SCHEMA.pyarrow_types() == text | numbers
    assert Schema.infer(np.eye(2)).pyarrow_types() == {}


def test_str_says_what_a_column_is():
    assert str(SCHEMA).splitlines() == [
        "x: numeric, may be missing",
        "n: integer",
        "flag: boolean",
        "city: categorical (2), may be missing",
        "code: categorical (3)",
    ]


def test_the_encoding_of_a_row_does_not_depend_on_other_rows():
    table = as_table(altered(city=["Rome", "Bern", "Oslo", None], code=[1.0, 2.0, 3.0, 10.0]))
    whole, _ = SCHEMA.encode(table, warn=False)
    for row in range(4):
        np.testing.assert_array_equal(SCHEMA.encode(table.slice(row, 1), warn=False)[0], whole[row : row + 1])


def test_bytes_that_are_not_text_are_a_clear_error():
    """A damaged Parquet file can have them: Arrow does not check them."""

    def column(cells: bytes) -> pa.Table:
        ends = np.arange(len(cells) + 1, dtype=np.int32)
        return pa.table(
            {"c": pa.Array.from_buffers(pa.string(), len(cells), [None, pa.py_buffer(ends), pa.py_buffer(cells)])}
        )

    with pytest.raises(InputError, match="column 'c' has bytes that are not UTF-8 text"):
        Schema.infer(column(b"x\x80xxxxxx"))
    with pytest.raises(InputError, match="column 'c' has bytes that are not UTF-8 text"):
        Schema.infer(column(b"xyxyxyxy")).encode(column(b"xy\x80x"))


@pytest.mark.parametrize(
    ("names", "hint"),
    [(["x", " k"], "' k', with spaces: rename the columns"), (["X", "k"], "'X'"), (["k", "other"], "")],
)
def test_a_header_that_differs_by_case_or_spaces_gives_a_hint(names, hint):
    schema = Schema.infer({"x": [1.0, 2.0], "k": [0.5, 0.25]})
    with pytest.raises(SchemaError) as error:
        schema.encode({name: [1.0] for name in names})
    assert str(error.value).endswith(f"which the fitted table had{'; it has ' + hint if hint else ''}.")


def test_a_header_that_looks_the_same_is_said_to_have_other_characters():
    one, two = "Gr\u00f6\u00dfe", "Gro\u0308\u00dfe"  # as of Linux and of macOS
    schema = Schema.infer({one: [1.0, 2.5], "k": [0.5, 0.25]})
    with pytest.raises(
        SchemaError, match=f"lacks the column '{one}'.*it has '{two}', which looks the same and has other Unicode"
    ):
        schema.encode({two: [1.0], "k": [0.5]})


@pytest.mark.parametrize("flag", [True, False])
def test_flags_as_text_with_spaces_and_words_for_missing(flag):
    column = Schema.infer({"c": [True, False, None]}).columns[0]
    text = str(flag).lower()
    found = column.read(pa.array([f" {text}", f"{text} ", "NA", " NA", "?", "", None, "yes"]))
    np.testing.assert_array_equal(found.values, [flag, flag, NAN, NAN, NAN, NAN, NAN, NAN])
    assert found.unseen.tolist() == [False] * 7 + [True]


def test_a_dictionary_of_views_is_read_as_text():
    views = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array(["u", "v"], pa.string_view()))
    assert Schema.infer(pa.table({"c": views})).columns[0].categories == ("u", "v")
    assert Column("c", "numeric").read(pa.array(["1", "2.5"], pa.string_view())).values.tolist() == [1.0, 2.5]


NAIVE = ["2024-01-01 10:00:00", "2024-06-01T11:00", None, "2024-01-02"]
ZONED = ["2024-01-01 10:00:00Z", "2024-06-01T11:00+02:00", None, "2024-01-02 00:00+0000"]


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize(("fitted", "kind", "words"), [("UTC", "unzoned", "have no time zone, .* read as UTC"),
                                                       (None, "zoned", "have a time zone, .* read in UTC")])  # fmt: skip
def test_another_use_of_time_zones_is_named(typed, fitted, kind, words) -> None:
    instants = pa.array([0, 10**9, None], pa.timestamp("us", fitted))
    schema = Schema.infer(pa.table({"t": instants}))
    same, other = (ZONED, NAIVE) if fitted else (NAIVE, ZONED)
    if typed:
        same = instants
        other = pa.array([0, 10**9, 5, None], pa.timestamp("us", None if fitted else "Europe/Oslo"))
    assert schema.encode({"t": same})[1] == []
    with pytest.warns(SchemaWarning, match=words):
        _, problems = schema.encode({"t": other})
    assert problems == [Problem(kind, "t", 3 if typed or kind == "zoned" else 2)]  # a date alone has no zone
    merged = Problem.merge([*problems, *problems])
    assert [p.count for p in merged] == [2 * problems[0].count]


@pytest.mark.parametrize(
    ("fine", "coarse", "first"),
    [
        (pa.timestamp("ns"), pa.timestamp("us"), 1_700_000_000_000_000),
        (pa.timestamp("ns", "UTC"), pa.timestamp("us", "UTC"), -1_700_000_000_000_000),
        (pa.time64("ns"), pa.time64("us"), 0),
        (pa.duration("ns"), pa.duration("us"), -(10**9)),
    ],
)
def test_nanoseconds_are_the_seconds_that_microseconds_are(fine, coarse, first) -> None:
    ticks = first + 1000 * np.random.default_rng(0).integers(0, 86_400_000, 2000)
    schema, seconds = Schema.infer_encode(pa.table({"t": pa.array(ticks, coarse)}))
    assert np.array_equal(schema.encode(pa.table({"t": pa.array(1000 * ticks, fine)}))[0], seconds)
