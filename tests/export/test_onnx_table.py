"""A guard of a table as an ONNX file, in ONNX Runtime for Python and for Node."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from mixed_tables import mixed_table, strange_rows
from run_node import run_node

import pushforward as pf
from pushforward.cli import main
from pushforward.export import compare, graph_inputs

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model(mixed_guard, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "guard.onnx"
    mixed_guard.export(path)
    return path


@pytest.fixture(scope="module")
def session(model):
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def columns(table) -> dict[str, np.ndarray]:
    """What a user of ONNX Runtime writes: float64 with NaN, seconds, and text with nothing where missing."""
    feeds = {}
    for name in table.columns:
        column, key = table[name], "input.alarm" if name == "alarm" else name
        if name in ("city", "grade"):
            feeds[key] = column.fillna("").to_numpy(dtype=object)
        elif name == "when":
            feeds[key] = column.astype("datetime64[us]").astype("int64").to_numpy() / 1e6
        else:
            feeds[key] = column.to_numpy(dtype=float)
    return feeds


def expected(guard: pf.Guard, table) -> dict[str, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unseen categories are what is tested
        return guard.assess(table)


def test_inputs_are_the_columns_and_outputs_have_names_and_types(session):
    inputs = {value.name: (value.type, value.shape) for value in session.get_inputs()}
    number, text = ("tensor(double)", ["rows"]), ("tensor(string)", ["rows"])
    assert inputs == {
        "income": number, "visits": number, "member": number, "city": text, "when": number, "input.alarm": number,
        "grade": text, "unit": number,
    }  # fmt: skip
    outputs = {value.name: (value.type, value.shape) for value in session.get_outputs()}
    assert outputs == {"p_value": number, "alarm": ("tensor(bool)", ["rows"]), "anomaly_score": number}


@pytest.mark.parametrize("rows", [0, 1, 300, 1024, 1025, 2500])
def test_alarms_and_p_values_are_those_of_the_guard(session, mixed_guard, rows):
    table = mixed_table(rows, seed=1) if rows else mixed_table(1, seed=1)[:0]
    p, alarm, score = session.run(None, columns(table))
    assert p.shape == alarm.shape == score.shape == (rows,)
    if rows:
        answers = expected(mixed_guard, table)
        np.testing.assert_array_equal(alarm, answers["alarm"])
        np.testing.assert_array_equal(p, answers["p_value"])
        np.testing.assert_allclose(score, answers["anomaly_score"], rtol=1e-8)  # distances have eight digits


def test_unseen_missing_and_far_cells_mean_what_they_mean_to_the_guard(session, mixed_guard):
    table = strange_rows()
    p, alarm, score = session.run(None, columns(table))
    answers = expected(mixed_guard, table)
    np.testing.assert_array_equal(p, answers["p_value"])
    np.testing.assert_array_equal(alarm, answers["alarm"])
    np.testing.assert_allclose(score, answers["anomaly_score"], rtol=1e-8)
    assert np.isposinf(score[1:3]).all()  # of infinite numbers
    assert np.isfinite(score[3])  # of 1e300


def test_the_metadata_say_what_the_file_is(session, mixed_guard, tmp_path):
    facts = session.get_modelmeta().custom_metadata_map
    mixed_guard.save(tmp_path / "guard.safetensors")
    assert facts["digest"] == hashlib.sha256((tmp_path / "guard.safetensors").read_bytes()).hexdigest()
    assert facts["alpha"] == "0.1"
    assert facts["pushforward"] == pf.__version__
    about = {column["name"]: column for column in json.loads(facts["columns"])}
    assert about["alarm"]["input"] == "input.alarm"
    assert about["city"]["categories"] == list(mixed_guard.schema_.columns[3].categories)
    assert about["when"]["unit"] == "seconds since 1970-01-01"


def test_compare_makes_the_inputs_itself(mixed_guard, model):
    table = mixed_table(400, seed=2)
    agreement = compare(mixed_guard, model, table)
    assert agreement.rows == 400
    assert agreement.alarms == expected(mixed_guard, table)["alarm"].sum() > 0
    assert agreement.different == 0
    assert agreement.agrees


def test_node_gives_the_same_alarms(mixed_guard, model, tmp_path):
    table = mixed_table(1500, seed=3)
    feeds = columns(table)
    made = graph_inputs(mixed_guard, table, tuple(feeds))
    for name, values in feeds.items():
        np.testing.assert_array_equal(made[name], values)
    found, answers = run_node("onnxruntime-node", model, feeds, tmp_path), expected(mixed_guard, table)
    np.testing.assert_array_equal(found["alarm"], answers["alarm"])
    np.testing.assert_array_equal(found["p_value"], answers["p_value"])


@pytest.mark.slow
def test_the_browser_build_gives_the_same_alarms(mixed_guard, model, tmp_path):
    table = mixed_table(1500, seed=3)
    found = run_node("onnxruntime-web", model, columns(table), tmp_path)
    np.testing.assert_array_equal(found["p_value"], expected(mixed_guard, table)["p_value"])


@pytest.mark.slow
def test_the_command_exports_a_csv_guard_and_checks_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mixed_table(400, seed=0).to_csv("train.csv", index=False)
    mixed_table(300, seed=1).to_csv("new.csv", index=False)
    assert main(["fit", "train.csv", "-o", "guard.safetensors", "--alpha", "0.1", "--effort", "fast", "-q"]) == 0
    capsys.readouterr()
    assert main(["export", "guard.safetensors", "-o", "guard.onnx", "--check", "new.csv", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["rows"] == 300
    assert facts["alarms"] > 0
    assert facts["different alarms"] == 0
