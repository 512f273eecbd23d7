"""The guard of a network reads data frames by the names of their columns."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import pushforward as pf
from pushforward.cli import main
from pushforward.errors import SchemaError, StorageError

NAMES = ["age", "height", "income", "debt"]
OTHER_ORDER = ["debt", "income", "age", "height"]


def network() -> torch.nn.Module:
    """Two classes from four columns of different sizes."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2)).eval()


def people(n: int, seed: int = 0) -> pd.DataFrame:
    """Four columns of different sizes."""
    rows = np.random.default_rng(seed).normal(size=(n, 4)) * [1.0, 5.0, 0.2, 20.0]
    return pd.DataFrame(rows, columns=NAMES)


@pytest.fixture(scope="module")
def guard() -> pf.NetworkGuard:
    table = people(600)
    labels = (table["age"] > 0).astype(int).to_numpy()
    return pf.NetworkGuard(network(), 0.05).fit((table[:300], labels[:300]), calibration=table[300:])


def frames(table: pd.DataFrame) -> dict[str, Any]:
    """The same frame of three libraries."""
    return {
        "pandas": table,
        "polars": pl.from_pandas(table),
        "pyarrow": pa.Table.from_pandas(table, preserve_index=False),
    }


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_order_and_further_columns_do_not_matter(guard, library):
    table = people(50, 1)
    expected = guard.anomaly_score(table.to_numpy())
    given = frames(table[OTHER_ORDER].assign(id=range(50)))[library]
    np.testing.assert_array_equal(guard.anomaly_score(given), expected)
    np.testing.assert_array_equal(guard(given).score.numpy(), expected)
    np.testing.assert_array_equal(guard.p_value([given[:25], given[25:]]), guard.p_value(table.to_numpy()))
    np.testing.assert_array_equal(guard.explain(given).surprise, guard.explain(table.to_numpy()).surprise)


def test_labels_and_calibration_in_another_order(guard):
    table = people(600)
    labels = (table["age"] > 0).astype(int).to_numpy()
    other = pf.NetworkGuard(network(), 0.05).fit(
        (table[:300], labels[:300]), calibration=(table[OTHER_ORDER][300:], labels[300:])
    )
    np.testing.assert_array_equal(other.anomaly_score(table), guard.anomaly_score(table))


@pytest.mark.parametrize("count", [2, 3])
def test_batches_of_frames_in_other_orders(guard, count):
    table = people(600)
    labels = (table["age"] > 0).astype(int).to_numpy()
    parts = np.array_split(np.arange(300), count)
    batches = [(table.iloc[p][NAMES if k == 0 else OTHER_ORDER], labels[p]) for k, p in enumerate(parts)]
    other = pf.NetworkGuard(network(), 0.05).fit(batches, calibration=table[300:])
    np.testing.assert_allclose(other.anomaly_score(table[OTHER_ORDER]), guard.anomaly_score(table), rtol=1e-4)


def test_a_missing_column_is_named(guard):
    wrong = people(5).rename(columns={"height": "heights"})
    for call in (guard, guard.anomaly_score, guard.explain):
        with pytest.raises(SchemaError, match=r"lacks the column 'height', .* it has 'heights'"):
            call(wrong)


def test_a_guard_of_arrays_reads_frames_by_position():
    table = people(600)
    guard = pf.NetworkGuard(network(), 0.05).fit(table[:300].to_numpy(), calibration=table[300:])
    assert not hasattr(guard, "feature_names_in_")
    np.testing.assert_array_equal(guard.anomaly_score(table), guard.anomaly_score(table.to_numpy()))


def test_numbers_as_names_are_positions():
    table = pd.DataFrame(people(600).to_numpy())
    guard = pf.NetworkGuard(network(), 0.05).fit(table[:300], calibration=table[300:])
    assert not hasattr(guard, "feature_names_in_")


def test_a_second_fit_forgets_the_names(guard):
    table = people(600)
    again = pf.NetworkGuard(network(), 0.05).fit(table[:300], calibration=table[300:])
    again.fit(table[:300].to_numpy(), calibration=table[300:].to_numpy())
    assert not hasattr(again, "feature_names_in_")


def test_certificates_read_by_name():
    table = people(600).astype("float32")
    guard = pf.NetworkGuard(network(), 0.05, score="Mahalanobis", smoothing={"sigma": 0.5, "draws": 16})
    guard.fit(table[:300], calibration=table[300:])
    given = people(3, 1).astype("float32")
    bounds = [guard.certify(x, 0.1, draws=100).p_value for x in (given.to_numpy(), given[OTHER_ORDER])]
    np.testing.assert_array_equal(*bounds)


def test_the_file_keeps_the_names(guard, tmp_path: Path):
    guard.save(tmp_path / "g")
    loaded = pf.NetworkGuard.load(tmp_path / "g", network())
    assert list(loaded.feature_names_in_) == NAMES
    table = people(20, 1)
    np.testing.assert_array_equal(loaded.anomaly_score(table[OTHER_ORDER]), guard.anomaly_score(table))


def test_a_file_without_names_is_read_by_position(guard, tmp_path: Path):
    guard.save(tmp_path / "g")
    header, tensors = pf.io.read(tmp_path / "g")
    del header["columns"]
    pf.io.write(tmp_path / "old", header, tensors)
    assert not hasattr(pf.NetworkGuard.load(tmp_path / "old", network()), "feature_names_in_")
    pf.io.write(tmp_path / "wrong", header | {"columns": [1, 2]}, tensors)
    with pytest.raises(StorageError, match="names of its columns"):
        pf.NetworkGuard.load(tmp_path / "wrong", network())


CODE = """
import torch


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2)).eval()


def of_other_order():
    net = network()
    net[0].weight.data = net[0].weight.data[:, [3, 2, 0, 1]]
    return net
"""


def test_the_command_line(guard, tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "networks_of_people.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    guard.save("first.pf")
    new = people(40, 1)[OTHER_ORDER].assign(id=[f"customer {k}" for k in range(40)])
    pq.write_table(pa.Table.from_pandas(new, preserve_index=False), "new.parquet")
    words = ["score", "first.pf", "new.parquet", "-o", "out.parquet", "--network", "networks_of_people:network"]
    assert main(words) == 0, capsys.readouterr().err
    scores = pq.read_table("out.parquet")["anomaly_score"].to_numpy()
    np.testing.assert_allclose(scores, guard.anomaly_score(people(40, 1)), rtol=1e-5)
    assert main(["info", "first.pf"]) == 0
    assert "age, height, income, debt" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["report", "first.pf", "new.csv", "-o", "report.html", "--force"],
        ["evaluate", "first.pf", "new.csv", "--label", "odd", "--anomaly", "1"],
        ["export", "first.pf", "-o", "guard.pt2", "--example", "new.csv", "--force"],
    ],
    ids=["report", "evaluate", "export"],
)
def test_commands_take_the_same_rows_in_another_order(guard, words, tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "networks_of_three.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    guard.save("first.pf")
    new = people(60, 1).assign(odd=np.arange(60) % 2)
    told = []
    for names in (NAMES, OTHER_ORDER):
        new[[*names, "odd"]].to_csv("new.csv", index=False)
        assert main([*words, "--network", "networks_of_three:network"]) == 0, capsys.readouterr().err
        told.append(re.sub(r"seconds.*", "", capsys.readouterr().out))
    assert told[0] == told[1]


def test_the_difference_of_guards_whose_tables_have_other_orders(guard, tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "networks_of_two.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    guard.save("first.pf")
    turned = network()
    turned[0].weight.data = turned[0].weight.data[:, [NAMES.index(name) for name in OTHER_ORDER]]
    table, labels = people(600)[OTHER_ORDER], (people(600)["age"] > 0).astype(int).to_numpy()
    pf.NetworkGuard(turned, 0.05).fit((table[:300], labels[:300]), calibration=table[300:]).save("second.pf")
    people(100, 1).to_csv("new.csv", index=False)
    words = ["diff", "first.pf", "second.pf", "new.csv", "--json"]
    words += ["--network", "networks_of_two:network", "--network-b", "networks_of_two:of_other_order"]
    assert main(words) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["rank_correlation"] > 0.999
