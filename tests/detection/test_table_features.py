"""The feature matrix of a table: constants, missing values, unseen cells, and the inverse."""

import json
import math

import numpy as np
import pytest

import pushforward as pf
from pushforward.data import Column, Schema
from pushforward.detection.table_features import TableFeatures
from pushforward.errors import SchemaWarning, StorageError
from pushforward.transforms import AugmentMissing, LatticeDequantize

NAN = math.nan


@pytest.fixture
def features() -> TableFeatures:
    rows = np.array([[1.0, 5.0, 0.3, 2.0], [2.0, 5.0, NAN, 2.0], [3.0, 5.0, 0.9, 4.0], [2.0, 5.0, 0.5, 2.0]])
    schema = Schema(
        (
            Column("a", "integer", lattice=(0.0, 1.0), missing=True),  # missing only in rows for early stopping
            Column("b", "numeric"),
            Column("c", "numeric", missing=True),
            Column("d", "integer", lattice=(0.0, 2.0)),
        )
    )
    return TableFeatures.fit(schema, rows)


def test_constant_columns_are_left_out_and_missing_values_get_an_indicator(features: TableFeatures) -> None:
    assert features.kept == (0, 2, 3)
    assert features.constants == ((1, 5.0),)
    assert features.indicators == (1,)
    assert features.n_features == 4
    assert features.lattices == ((0, 0.0, 1.0), (2, 0.0, 2.0), (3, 0.0, 1.0))
    assert features.fills == (2.0, 0.5, 2.0)


def test_unseen_cells_cost_the_rule_of_succession(features: TableFeatures) -> None:
    rows = np.array([[1.0, 5.0, NAN, 2.0], [NAN, 6.0, 0.1, 4.0], [1.0, NAN, 0.1, 4.0]])
    price = math.log(4 + 2)
    np.testing.assert_array_equal(features.unseen_cost(rows), [[0, 0, 0, 0], [price, price, 0, 0], [0, price, 0, 0]])
    np.testing.assert_array_equal(
        features.transform(rows), [[1.0, 0.5, 2.0, 1.0], [2.0, 0.1, 4.0, 0.0], [1.0, 0.1, 4.0, 0.0]]
    )


def test_a_missing_number_where_none_was_missing_is_infinitely_unlikely(features: TableFeatures) -> None:
    rows = np.array([[1.0, 5.0, 0.1, NAN]])
    assert features.transform(rows)[0, 2] == math.inf
    assert features.unseen_cost(rows).sum() == 0


def test_infinities_are_passed_to_the_density(features: TableFeatures) -> None:
    rows = np.array([[math.inf, 5.0, 0.1, 2.0]])
    assert features.transform(rows)[0, 0] == math.inf
    assert features.unseen_cost(rows).sum() == 0


def test_unseen_categories_cost_the_same_and_do_not_reach_the_density() -> None:
    schema = Schema((Column("a", "boolean", lattice=(0.0, 1.0)), Column("b", "numeric")))
    features = TableFeatures.fit(schema, np.array([[0.0, 1.0], [1.0, 2.0], [1.0, 4.0]]))
    rows = np.array([[math.inf, 1.5], [1.0, math.inf], [NAN, 1.5]])
    np.testing.assert_array_equal(features.unseen_cost(rows), [[math.log(5), 0.0], [0.0, 0.0], [math.log(5), 0.0]])
    np.testing.assert_array_equal(features.transform(rows), [[1.0, 1.5], [1.0, math.inf], [1.0, 1.5]])


def test_a_new_category_costs_little_where_many_rows_have_one_of_their_own() -> None:
    """Good 1953, eq. 9: the next row has a new category with a probability of about s / n."""
    schema = Schema((Column("a", "categorical", ("x", "y", "z", "w"), lattice=(0.0, 1.0)), Column("b", "numeric")))
    rows = np.array([[0.0, 1.0], [0.0, 2.0], [1.0, 4.0], [2.0, 5.0], [3.0, 6.0]])
    features = TableFeatures.fit(schema, rows)
    assert features.singletons == ((0, 3),)
    news = np.array([[math.inf, 1.5], [NAN, 1.5], [0.0, 1.5]])  # a missing cell is as new as ever
    expected = [[math.log(7 / 4), 0.0], [math.log(7), 0.0], [0.0, 0.0]]
    np.testing.assert_allclose(features.unseen_cost(news), expected)
    usual, others = features.row_costs(news, np.array([[True, False], [True, False], [False, False]]))
    np.testing.assert_allclose(usual, [math.log(7 / 4), 0.0, 0.0])
    np.testing.assert_allclose(others, [0.0, math.log(7), 0.0])
    assert TableFeatures.from_json(features.to_json()) == features
    old = features.to_json()
    del old["singletons"]  # a file of an earlier version
    np.testing.assert_allclose(TableFeatures.from_json(old).unseen_cost(news)[0, 0], math.log(7))
    for wrong in ([[1, 2]], [[0, 9]], [[0, -1]]):
        with pytest.raises(StorageError):
            TableFeatures.from_json(features.to_json() | {"singletons": wrong})


def test_the_usual_category_is_the_most_frequent_one() -> None:
    """Not the median of the codes."""
    schema = Schema((Column("a", "categorical", ("x", "y", "z", "w"), lattice=(0.0, 1.0)), Column("b", "integer")))
    rows = np.array([[3.0, 9.0], [3.0, 2.0], [0.0, 1.0], [1.0, 4.0], [2.0, 5.0]])
    assert TableFeatures.fit(schema, rows).fills == (3.0, 4.0)


def test_a_column_that_is_constant_but_for_missing_cells() -> None:
    schema = Schema((Column("a", "numeric", missing=True),))
    features = TableFeatures.fit(schema, np.array([[3.0], [NAN], [3.0]]))
    assert features.lattices == ((0, 3.0, 1.0), (1, 0.0, 1.0))
    np.testing.assert_array_equal(features.transform(np.array([[3.0], [NAN]])), [[3.0, 0.0], [3.0, 1.0]])


@pytest.mark.parametrize(("middle", "spread"), [(0.0, 1e-12), (0.0, 1e-30), (1e10, 1.0), (-1e-15, 1e-17)])
def test_a_column_in_small_units_or_far_from_zero_is_not_constant(middle: float, spread: float) -> None:
    values = middle + spread * np.linspace(-1, 1, 9)
    features = TableFeatures.fit(Schema((Column("a", "numeric"),)), values[:, None])
    assert features.kept == (0,)


@pytest.mark.parametrize(("base", "span", "shift"), [(10**14, 3, 30), (2**53, 1000, 5000), (-(10**14), 3, -30)])
def test_large_integers_of_a_small_range_are_no_constant(base: int, span: int, shift: int) -> None:
    rng = np.random.default_rng(0)
    rows = {"a": rng.normal(size=600), "k": base + rng.integers(0, span, 600)}
    guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(rows)
    assert guard.table_features_.constants == ()
    new = {"a": np.r_[0.0, 0.1, 0.0], "k": np.array([base + 1, base + 2, base + shift])}
    assert guard.predict(new).tolist() == [1, 1, -1]
    assert f"k is {base + shift}" in str(guard.explain(new)).partition("row 2")[2]
    single = {"a": rng.normal(size=600), "k": np.full(600, base)}
    guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(single)
    with pytest.warns(SchemaWarning, match=f"'k': rows have another value than {base}, and no row had one at fit"):
        assert "in every training row it is" in str(guard.explain({"a": np.zeros(1), "k": np.array([base + shift])}))


def test_many_columns_that_were_constant_have_one_warning() -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate((rng.normal(size=(300, 2)), np.zeros((300, 9))), axis=1)
    guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(rows)
    new = rows[:4].copy()
    new[1, 3:] = 1.0
    with pytest.warns(SchemaWarning) as given:
        assert guard.predict(new)[1] == -1
    [warning] = given
    assert str(warning.message).startswith(
        "8 columns that had one value ('x3', 'x4', 'x5', ...): rows have another one"
    )
    new[1, 5:] = 0.0
    with pytest.warns(SchemaWarning) as given:
        guard.predict(new)
    assert [str(w.message)[:13] for w in given] == ["column 'x3': ", "column 'x4': "]


@pytest.mark.parametrize(
    ("kind", "value", "same", "other"),
    [
        ("numeric", 0.1, (0.1, float(np.float32(0.1)), 0.1 + 2e-17), (0.1 + 2e-9, 0.0, NAN)),
        ("numeric", float(np.float32(0.1)), (float(np.float32(0.1)), 0.1), (0.1 - 1e-8,)),
        ("numeric", 0.0, (0.0, -0.0, 2e-16), (1e-12,)),  # 1e-12 may be a current in ampere
        ("numeric", 5e-12, (5e-12, float(np.float32(5e-12))), (6e-12, 0.0)),
        ("numeric", 1e10, (1e10, 1e10 + 1e-3), (1e10 + 1,)),
        ("numeric", 1e300, (1e300,), (1.01e300, math.inf)),  # infinite in float32
        ("numeric", 1e-50, (1e-50,), (2e-50, 0.0)),  # 0 in float32
        ("integer", 20260101.0, (20260101.0,), (20260102.0, 20260100.0)),
        ("integer", 20260101235.0, (20260101235.0,), (20260101236.0,)),
        ("integer", 1e14, (1e14,), (1e14 + 1, 1e14 - 1, NAN)),
        ("integer", 2.0**60, (2.0**60, float(2**60 + 1)), (2.0**60 + 256,)),  # float64 has no number between
    ],
)
def test_which_numbers_are_another_value_of_a_constant_column(kind: str, value: float, same, other) -> None:
    features = TableFeatures.fit(Schema((Column("a", kind),)), np.full((4, 1), value))
    assert features.constants == ((0, value),)
    assert features.unseen_cost(np.array(same)[:, None]).max() == 0
    assert features.unseen_cost(np.array(other)[:, None]).min() > 0


def test_transform_does_not_change_its_input(features: TableFeatures) -> None:
    rows = np.array([[NAN, 6.0, NAN, NAN]])
    before = rows.copy()
    features.transform(rows)
    features.unseen_cost(rows)
    np.testing.assert_array_equal(rows, before)


def test_inverse_transform_and_json(features: TableFeatures) -> None:
    rows = np.array([[1.0, 5.0, NAN, 2.0], [3.0, 5.0, 0.9, 4.0]])
    np.testing.assert_array_equal(features.inverse_transform(features.transform(rows)), rows)
    assert TableFeatures.from_json(json.loads(json.dumps(features.to_json()))) == features


def test_terms_add_up_by_column(features: TableFeatures) -> None:
    np.testing.assert_array_equal(features.by_column(np.array([[1.0, 2.0, 4.0, 8.0]])), [[1.0, 0.0, 10.0, 4.0]])


def test_decodable_rows_have_codes_that_exist() -> None:
    codes = Column("b", "categorical", ("u", "v", "w"), lattice=(0.0, 1.0))
    schema = Schema((Column("a", "boolean", lattice=(0.0, 1.0)), codes, Column("c", "numeric")))
    features = TableFeatures.fit(schema, np.array([[0.0, 1.0, 0.5], [1.0, 2.0, 0.1], [1.0, 0.0, 0.7]]))
    rows = np.array([[1, 2, 9], [2, 2, 9], [1, 3, 9], [-1, 0, 9], [NAN, NAN, NAN], [math.inf, 0, 0]], dtype=float)
    assert features.decodable(rows).tolist() == [True, False, False, False, True, False]


def test_missing_cells_are_augmented_and_lattices_dequantized(features: TableFeatures) -> None:
    augment, dequantize, *_ = features.preprocessing()
    assert isinstance(augment, AugmentMissing)
    assert (augment.columns, augment.indicators, augment.steps) == ((1,), (3,), (1.0,))
    assert isinstance(dequantize, LatticeDequantize)
    assert (dequantize.columns, dequantize.origins, dequantize.steps) == ((0, 2, 3), (0.0, 0.0, 0.0), (1.0, 2.0, 1.0))


def test_a_missing_cell_is_drawn_with_the_step_of_its_column() -> None:
    columns = (Column("a", "integer", lattice=(0.0, 1.0)), Column("b", "integer", lattice=(0.0, 100.0), missing=True))
    features = TableFeatures.fit(Schema(columns), np.array([[1.0, 300.0], [2.0, NAN], [4.0, 500.0]]))
    augment = features.preprocessing()[0]
    assert isinstance(augment, AugmentMissing)
    assert (augment.columns, augment.indicators, augment.steps) == ((1,), (2,), (100.0,))


@pytest.mark.parametrize("lattice", [(1e44, 1e43), (0.0, 1e43), (1e44, 1.0), (1e-44, 1e-45)])
def test_a_lattice_beyond_float32_is_not_dequantized(lattice: tuple[float, float]) -> None:
    """Its steps were an error that named no column."""
    columns = (Column("a", "numeric", lattice=lattice, missing=True), Column("b", "integer", lattice=(0.0, 2.0)))
    rows = np.array([[1e44, 0.0], [NAN, 2.0], [3e44, 4.0]])
    augment, dequantize, *_ = TableFeatures.fit(Schema(columns), rows).preprocessing()
    assert isinstance(augment, AugmentMissing)
    assert augment.steps == (1.0,)
    assert isinstance(dequantize, LatticeDequantize)
    assert dequantize.columns == (1, 2)


@pytest.mark.parametrize(
    "change",
    [{"schema": None}, {"kept": [0, 2, 9]}, {"kept": [0, 2]}, {"kept": [0, 0, 2, 3]}, {"fills": [1.0]}, {"fills": [1.0, "x", 2.0]},
     {"rows": -1}, {"rows": True}, {"lattices": [[0, 0.0, 0.0]]}, {"lattices": [[0, 0.0, 1.0], [0, 0.0, 2.0]]}, {"indicators": [1, 1]},
     {"constants": [[1]]}, {"kept": None}, {"fills": [1.0, math.inf, 2.0]}, {"fills": [1.0, 10**400, 2.0]}],
    ids=str,
)  # fmt: skip
def test_invalid_json_from_a_file_is_refused(features: TableFeatures, change: dict) -> None:
    with pytest.raises(StorageError):
        TableFeatures.from_json(features.to_json() | change)


@pytest.mark.parametrize("data", [None, [], "x", {}, {"kept": []}])
def test_other_json_is_refused(data) -> None:
    with pytest.raises(StorageError):
        TableFeatures.from_json(data)
