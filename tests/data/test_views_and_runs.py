"""Tables of pyarrow with views of text and with runs, which pyarrow itself takes no rows of."""

import numpy as np
import pyarrow as pa
import pytest

import pushforward as pf
from pushforward.data import as_table

NAMES = np.random.default_rng(0).choice(["red", "blue"], 400)
PLAIN = pa.table({"x": np.random.default_rng(1).normal(size=400), "color": pa.array(NAMES, pa.large_string())})


def other(form: str) -> pa.Table:
    column = PLAIN["color"].combine_chunks()
    column = column.cast(pa.string_view()) if form == "view" else pa.compute.run_end_encode(column)
    return PLAIN.set_column(1, "color", column)


@pytest.mark.parametrize("form", ["view", "runs"])
def test_they_are_the_same_table(form):
    found = as_table(other(form))
    assert found["color"].to_pylist() == NAMES.tolist()
    assert found.take([3, 1]).num_rows == 2


@pytest.mark.parametrize("form", ["view", "runs"])
def test_a_guard_fits_scores_and_reports_them(form):
    options = {"n_estimators": 1, "max_steps": 20, "random_state": 0}
    plain, guard = (pf.Guard(0.05, **options).fit(rows) for rows in (PLAIN, other(form)))
    assert np.array_equal(guard.p_value(other(form)), plain.p_value(PLAIN))
    assert "color" in guard.report(other(form)).to_html()
