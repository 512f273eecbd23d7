"""A guard as an MLflow model: saved, logged, loaded and served by MLflow itself, with the guard's own answers."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import pushforward as pf
from pushforward.data import load_image_sample
from pushforward.errors import ConfigError, StorageError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("mlflow.pyfunc")

from pushforward.export.mlflow import load_model, log_model, save_model, signature

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow warns about itself


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=200),
            "n": rng.integers(0, 50, 200),
            "gap": np.where(rng.random(200) < 0.2, np.nan, rng.normal(size=200)),
            "flag": rng.random(200) < 0.5,
            "word": rng.choice(["u", "v"], 200),
            "day": pd.date_range("2024-01-01", periods=200).as_unit("us"),
        }
    )
    return frame


@pytest.fixture(scope="module")
def guard(frame):
    return pf.Guard(0.1, n_estimators=1, max_steps=20, random_state=0).fit(frame)


def test_mlflow_loads_it_with_the_same_answers(tmp_path, guard, frame):
    save_model(guard, tmp_path / "model")
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    found = model.predict(frame)
    assert list(found) == ["anomaly_score", "p_value", "alarm"]
    for name, values in guard.assess(frame).items():
        np.testing.assert_array_equal(found[name], values)
    assert model.metadata.signature.inputs.input_names() == list(frame)
    np.testing.assert_array_equal(load_model(str(tmp_path / "model")).p_value(frame), guard.p_value(frame))


def test_nothing_in_the_folder_is_pickled(tmp_path, guard):
    save_model(guard, tmp_path / "model")
    files = sorted(file.name for file in (tmp_path / "model").rglob("*") if file.is_file())
    assert files == ["MLmodel", "conda.yaml", "guard.safetensors", "python_env.yaml", "requirements.txt"]


def test_the_signature_refuses_other_columns(tmp_path, guard, frame):
    save_model(guard, tmp_path / "model")
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    with pytest.raises(mlflow.exceptions.MlflowException, match="missing inputs"):
        model.predict(frame.drop(columns="x"))
    kinds = {column.name: str(column.type) for column in signature(guard).inputs.inputs}
    assert "double" in kinds["x"]
    whole = frame.assign(n=frame["n"].astype(float))  # as pandas makes a column of integers with a missing cell
    np.testing.assert_array_equal(model.predict(whole)["p_value"], guard.p_value(frame))


@pytest.mark.parametrize("cells", [["a", "b"], [1, 2]], ids=["text", "integers"])
def test_columns_of_categories_of_pandas_are_read(tmp_path, cells):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"kind": pd.Categorical(rng.choice(cells, 80)), "x": rng.normal(size=80)})
    guard = pf.Guard(0.1, effort="fast", random_state=0).fit(frame)
    save_model(guard, tmp_path / "model")
    found = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    for given in (frame, frame.astype({"kind": str}), frame.astype({"kind": object})):
        np.testing.assert_array_equal(found.predict(given)["p_value"], guard.p_value(frame))


def test_it_is_logged_and_registered(tmp_path, guard, frame, monkeypatch):
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.sqlite")
    try:
        with mlflow.start_run():
            info = log_model(guard, "guard", registered_model_name="watch")
        np.testing.assert_array_equal(load_model(info.model_uri).p_value(frame), guard.p_value(frame))
        np.testing.assert_array_equal(
            mlflow.pyfunc.load_model("models:/watch/1").predict(frame)["p_value"], guard.p_value(frame)
        )
    finally:
        mlflow.set_tracking_uri(None)


def test_arrays_and_images(tmp_path):
    x = np.random.default_rng(0).normal(size=(200, 3))
    guard = pf.Guard(0.1, n_estimators=1, max_steps=20, random_state=0).fit(x)
    save_model(guard, tmp_path / "array")
    found = mlflow.pyfunc.load_model(str(tmp_path / "array")).predict(x)
    np.testing.assert_array_equal(found["p_value"], guard.p_value(x))
    images = np.asarray(load_image_sample("fashion-mnist", "train"))[:200].reshape(-1, 1, 28, 28).astype(np.uint8)
    guard = pf.Guard(0.1, max_steps=3, random_state=0).fit(images)
    save_model(guard, tmp_path / "images")
    found = mlflow.pyfunc.load_model(str(tmp_path / "images")).predict(images[:20])
    assert list(found) == ["anomaly_score", "p_value", "alarm"]
    np.testing.assert_array_equal(found["p_value"], guard.p_value(images[:20]))


def test_its_server_answers_over_http(tmp_path, guard, frame):
    """MLflow's own scoring server, called as its clients call it."""
    client_of = pytest.importorskip("fastapi.testclient").TestClient
    server = pytest.importorskip("mlflow.pyfunc.scoring_server")
    plain = frame.drop(columns="day")
    guard = pf.Guard(0.1, n_estimators=1, max_steps=20, random_state=0).fit(plain)
    save_model(guard, tmp_path / "model")
    with client_of(server.init(mlflow.pyfunc.load_model(str(tmp_path / "model")))) as client:
        cells = [[None if cell != cell else cell for cell in row] for row in plain.head(5).to_numpy().tolist()]
        body = json.loads(json.dumps({"dataframe_split": {"columns": list(plain), "data": cells}}))
        answer = client.post("/invocations", json=body)
        assert answer.status_code == 200, answer.text
        found = pd.DataFrame(answer.json()["predictions"])
        np.testing.assert_allclose(found["p_value"], guard.p_value(plain.head(5)), rtol=1e-12)
        assert (
            client.post("/invocations", json={"dataframe_split": {"columns": ["x"], "data": [[1]]}}).status_code == 400
        )


def test_other_models_are_refused(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(StorageError, match="is not an MLflow model of a guard"):
        load_model(str(tmp_path / "model"))


def test_a_guard_that_mlflow_could_not_load_is_refused(tmp_path):
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    embedded = pf.Guard(0.1, effort="fast", embed=torch.nn.Linear(3, 2).eval(), random_state=0).fit(rows)
    for guard, words in ((embedded, "cannot load a guard with embed="), (pf.FlowDensity(), "got FlowDensity")):
        with pytest.raises(ConfigError, match=words):
            save_model(guard, tmp_path / "model")
    assert not (tmp_path / "model").exists()
