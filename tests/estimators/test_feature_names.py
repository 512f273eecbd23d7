"""scikit-learn's methods of a guard keep scikit-learn's contract on the names of columns; the others match by name."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import pushforward as pf
from pushforward.errors import InputError, SchemaError, SchemaWarning

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
