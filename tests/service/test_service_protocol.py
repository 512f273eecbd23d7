"""The Open Inference Protocol: the conformance script, and a real client where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
from conformance import check

from pushforward import Guard


def test_conformance(server):
    assert check(server.url, "numbers", 3) == []


def test_the_script_finds_what_does_not_conform(server):
    assert check(server.url, "absent", 3)
    assert any("infer" in text for text in check(server.url, "numbers", 4))


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
