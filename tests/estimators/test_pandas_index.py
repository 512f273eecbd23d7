"""The index of a pandas frame is no feature of the Parquet or Arrow file that pandas wrote, as it is none of the frame."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import pushforward as pf
from pushforward.cli import main
from pushforward.data import Schema, as_table, as_tensor_data
from pushforward.io import read_table, stream_table

AUTO = "__index_level_0__"


def frame(n: int, seed: int) -> pd.DataFrame:
    """Some rows of a table, so that pandas stores the index as a column."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"a": rng.normal(size=2 * n), "b": rng.normal(size=2 * n)})
    return table.sample(n, random_state=seed)


def guard(**options) -> pf.Guard:
    return pf.Guard(0.05, effort="fast", random_state=0, **options)


@pytest.mark.parametrize("name", [None, "id"])
def test_a_table_of_pyarrow_has_the_columns_of_the_frame(name) -> None:
    rows = frame(5, 0).rename_axis(name)
    table = pa.Table.from_pandas(rows)
    assert table.num_columns == 3
    assert as_table(table).column_names == as_table(table.to_batches()[0]).column_names == ["a", "b"]
    assert as_table(table, index=True).column_names == ["a", "b", name or AUTO]
    assert Schema.infer(table).names == ("a", "b")
    assert as_tensor_data(table)[0].shape == (5, 2)


def test_columns_named_as_an_index_without_the_notes_of_pandas() -> None:
    plain = pa.Table.from_pandas(frame(5, 0)).replace_schema_metadata(None)
    for table in (plain, pl.from_arrow(plain), plain.replace_schema_metadata({"pandas": "not JSON"})):
        assert as_table(table).column_names == ["a", "b"]
    assert as_table({"index": [1], "a": [2]}).column_names == ["index", "a"]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", [None, "id"])
def test_a_file_of_pandas_is_fitted_and_scored_as_the_frame(tmp_path, name, several) -> None:
    train, new = (frame(n, seed).rename_axis(name) for n, seed in ((400, 0), (40, 1)))
    new.index += 10_000
    for folder, rows in (("train", train), ("new", new)):
        (tmp_path / folder).mkdir()
        for part in range(1 + several):
            rows[part :: 1 + several].to_parquet(tmp_path / folder / f"{part}.parquet")
    where = "" if several else "0.parquet"
    fitted = guard().fit(read_table(tmp_path / "train" / where))
    assert list(fitted.feature_names_in_) == ["a", "b"]
    output = tmp_path / "scored.csv"
    fitted.save(tmp_path / "g")
    assert main(["score", str(tmp_path / "g"), str(tmp_path / "new" / where), "-o", str(output), "-q"]) == 0
    scored = pd.read_csv(output)
    assert scored["alarm"].mean() < 0.3
    assert sorted(scored[name or AUTO]) == sorted(new.index)  # the rows can still be found
    for chunk in stream_table(tmp_path / "new" / where, 7):
        assert fitted.schema_.encode(chunk)[1] == []


def test_the_index_can_name_groups_time_and_labels_and_be_dropped() -> None:
    rows = frame(200, 0).set_index(pd.Index(np.arange(200) // 2, name="id"))
    table = pa.Table.from_pandas(rows)
    for options in ({"groups": "id"}, {"time": "id"}):
        assert list(guard().fit(table, **options).feature_names_in_) == ["a", "b"]
    fitted = guard(ignore=["id"]).fit(table)
    assert fitted.ignored_ == ("id",)
    odd = pa.Table.from_pandas(rows.set_index(pd.Index(np.arange(200) % 2, name="y")))
    assert fitted.evaluate(odd, "y").anomalous == 100


def test_a_model_that_knows_the_column_reads_it_from_the_file(tmp_path) -> None:
    rows = frame(200, 0).rename_axis("id")
    fitted = guard(ignore=None).fit(rows.reset_index())
    rows.to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    np.testing.assert_array_equal(fitted.anomaly_score(table), fitted.anomaly_score(rows.reset_index()))
    assert read_table(tmp_path / "t.parquet", ["id", "a"]).schema.metadata is None
    assert Schema.infer(read_table(tmp_path / "t.parquet", ["id", "a"])).names == ("id", "a")


def test_densities_and_networks_do_not_see_the_index() -> None:
    table = pa.Table.from_pandas(frame(100, 0))
    assert pf.FlowDensity(max_steps=2).fit(table).n_features_in_ == 2
    from pushforward.estimators.feature_names import in_order, names_of

    assert names_of(table) == ["a", "b"]
    assert in_order(None, table).column_names == ["a", "b"]
    assert in_order([AUTO, "a"], table).column_names == [AUTO, "a"]
