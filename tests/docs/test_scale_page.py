"""The recipes of the page on scale run, and give the scores of the guard."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pushforward as pf
from pushforward.io import read_table

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "scale.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pa.Table:
    """The files that the recipes read, in the present directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    table = pa.table({"a": rng.normal(size=3000), "b": rng.integers(0, 9, 3000), "c": rng.choice(["u", "v"], 3000)})
    pf.Guard(0.05, effort="fast", random_state=0).fit(table.slice(0, 400)).save("guard.safetensors")
    pq.write_table(table, "new.parquet")
    return table


def run(*blocks: int) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    for block in blocks:
        exec(BLOCKS[block], scope)
    return scope


@needs("duckdb")
def test_duckdb(rows: pa.Table) -> None:
    found = run(1, 2)
    p = pf.Guard.load("guard.safetensors").p_value(rows)
    most = read_table("most-anomalous.parquet")
    assert most.column_names == [*rows.column_names, "anomaly_score", "p_value", "alarm"]
    np.testing.assert_array_equal(most["p_value"].to_numpy(), np.sort(p)[:100])
    np.testing.assert_array_equal(np.sort(found["alarms"]["a"].to_numpy()), np.sort(rows["a"].to_numpy()[p <= 0.05]))
    assert 0 < found["alarms"].num_rows < 3000


@needs("pyspark")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas")
def test_spark(rows: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    found = run(0)
    found["spark"].stop()
    scores = read_table("spark-scores").sort_by("a")
    expected = pf.Guard.load("guard.safetensors").assess(rows.sort_by("a"))
    assert scores.column_names == [*rows.column_names, *expected]
    for name, values in expected.items():
        np.testing.assert_array_equal(scores[name].to_numpy(), values)
