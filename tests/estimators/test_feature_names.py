"""scikit-learn's methods of a guard keep scikit-learn's contract on the names of columns; the others match by name."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch

import pushforward as pf
from pushforward.errors import InputError, SchemaError, SchemaWarning
from pushforward.estimators.comparing import compare_guards
from pushforward.estimators.reporting import row_parts

pd = pytest.importorskip("pandas")
X = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 3)), columns=["width", "height", "mass"])
MAKE = {
    "pandas": lambda f: f,
    "polars": pl.from_pandas,
    "arrow": lambda f: pa.Table.from_pandas(f, preserve_index=False),
}


@pytest.fixture(scope="module")
def guard() -> pf.Guard:
    return pf.Guard(0.1, random_state=0).fit(X)


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize("method", ["predict", "decision_function", "score_samples"])
def test_another_order_is_refused_and_says_what_matches_by_name(guard, make, method: str) -> None:
    other = make(X[["mass", "width", "height"]])
    with pytest.raises(SchemaError, match=r"same order as they were in fit\.\n.*match columns by name"):
        getattr(guard, method)(other)
    np.testing.assert_array_equal(guard.anomaly_score(other), -guard.score_samples(make(X)))


def test_missing_columns_are_listed_with_a_similar_name(guard) -> None:
    with pytest.raises(SchemaError, match=r"now missing:\n- mass\n.*lacks the column 'mass'.*it has 'masss'"):
        guard.predict(X.rename(columns={"mass": "masss"}))
    with pytest.raises(SchemaError, match=r"unseen at fit time:\n- masss\n"):
        guard.predict(X.rename(columns={"mass": "masss"}))


def test_further_columns_and_arrays_are_read(guard) -> None:
    with pytest.warns(SchemaWarning, match="'more'"):
        found = guard.predict(X.assign(more=1.0)[["more", "width", "height", "mass"]])
    with pytest.warns(SchemaWarning, match="matched by position"):
        np.testing.assert_array_equal(found, guard.predict(X.to_numpy()))
    np.testing.assert_array_equal(guard.predict({name: X[name] for name in ["mass", "height", "width"]}), found)


def test_text_under_column_numbers_is_not_said_to_need_a_data_frame() -> None:
    frame = pd.DataFrame({0: np.arange(60.0), 1: ["a", "b", "c"] * 20})  # as read_csv(..., header=None) makes it
    with pytest.raises(
        InputError, match=r"names of the columns are not text, such as 0, .* X\.columns = \[str\(name\)"
    ):
        pf.Guard(alpha=0.1, effort="fast").fit(frame)
    frame.columns = [str(name) for name in frame.columns]
    assert pf.Guard(alpha=0.1, effort="fast", random_state=0).fit(frame).p_value(frame).shape == (60,)


@pytest.mark.parametrize("name", ["column_names", "slice", "select"])
def test_a_column_of_pandas_may_have_the_name_of_a_method_of_another_library(name: str) -> None:
    table = X.rename(columns={"height": name})
    guard = pf.Guard(0.1, effort="fast", random_state=0).fit(table)
    np.testing.assert_array_equal(guard.score_samples(table), -guard.anomaly_score(table))
    with pytest.raises(SchemaError, match="same order"):
        guard.predict(table[table.columns[::-1]])
    assert compare_guards(guard, guard, table).to_dict()["only_a"] == 0


@pytest.mark.parametrize("name", ["column_names", "select"])
def test_a_network_reads_such_a_column_by_its_name(name: str) -> None:
    table = X.rename(columns={"height": name})
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
    guard = pf.NetworkGuard(net, 0.1, score="Mahalanobis").fit(table[:150], calibration=table[150:])
    other = table[table.columns[::-1]]
    np.testing.assert_array_equal(guard.anomaly_score(other), guard.anomaly_score(table))


def test_rows_are_compared_by_their_position_whatever_the_index() -> None:
    table = X.set_index(np.linspace(-1.0, 1.0, len(X)))
    guard = pf.Guard(0.1, effort="fast", random_state=0).fit(table)
    parts = list(row_parts(table, 130))
    assert [len(part) for part in parts] == [130, 130, 40]
    pd.testing.assert_frame_equal(pd.concat(parts), table)
    found = compare_guards(guard, guard, table).to_dict()
    assert sum(found[name] for name in ("both", "only_a", "only_b", "neither")) == len(table)
