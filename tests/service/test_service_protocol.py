"""The Open Inference Protocol: the conformance script, and a real client where it is installed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from conformance import check

from pushforward import Guard
from pushforward.errors import SchemaWarning


def test_conformance(server):
    assert check(server.url, "numbers", 3) == []


def test_the_script_finds_what_does_not_conform(server):
    assert check(server.url, "absent", 3)
    assert any("infer" in text for text in check(server.url, "numbers", 4))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("INT8", 300), ("INT8", -129), ("UINT8", -1), ("INT64", 0.7), ("INT64", 2**63), ("UINT64", 2**64), ("INT32", 1e300),
        ("BOOL", 2), ("BOOL", 0.5), ("FP64", "0.7"), ("INT16", "3"), ("INT8", [1]),
    ],
)  # fmt: skip
def test_a_value_that_its_datatype_does_not_have_is_refused(server, kind, value):
    tensor = {"name": "x", "shape": [2, 3], "datatype": kind, "data": [1, 0, 1, 0, value, None]}
    answer = server.client.post("/v2/models/numbers/infer", json={"inputs": [tensor]})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"].startswith(("input 'x' has the value", "the data of input 'x' are not numbers"))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("INT8", [-128, 127, 1.0]), ("UINT8", [0, 255, 3]), ("INT64", [2**63 - 1, -(2**63), 3]), ("INT64", [1, None, 2]),
        ("UINT64", [2**63, 0, 1]), ("BOOL", [True, False, True]), ("BOOL", [1, 0, None]), ("FP32", [0.5, None, 1]),
    ],
)  # fmt: skip
def test_a_value_of_its_datatype_is_read_as_it_is(server, number_guard_file, kind, values):
    tensor = {"name": "x", "shape": [1, 3], "datatype": kind, "data": values}
    answer = server.client.post("/v2/models/numbers/infer", json={"inputs": [tensor]})
    assert answer.status_code == 200, answer.text
    found = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    row = np.array([[np.nan if value is None else value for value in values]], np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchemaWarning)  # missing cells
        assert found["p_value"] == Guard.load(number_guard_file).assess(row)["p_value"].tolist()


@pytest.mark.parametrize("binary", [True, False])
def test_a_real_client(server, number_guard_file, binary):
    http = pytest.importorskip(
        "tritonclient.http", reason="tritonclient is not installed (pip install 'tritonclient[http]')."
    )
    x = np.random.default_rng(3).normal(size=(7, 3))
    with http.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("numbers")
        assert client.get_model_metadata("numbers")["platform"] == "pushforward"
        tensor = http.InferInput("x", list(x.shape), "FP64")
        tensor.set_data_from_numpy(x, binary_data=binary)
        answer = client.infer("numbers", [tensor], request_id="r1")
    want = Guard.load(number_guard_file).assess(x)
    np.testing.assert_array_equal(answer.as_numpy("p_value"), want["p_value"])
    np.testing.assert_array_equal(answer.as_numpy("alarm"), want["alarm"])
    assert answer.get_response()["id"] == "r1"
