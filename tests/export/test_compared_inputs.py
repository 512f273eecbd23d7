"""The inputs that `run_graph` and `compare` make for a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import pushforward as pf
from pushforward.errors import InputError
from pushforward.export import compare, graph_inputs


@pytest.mark.parametrize("text", [False, True], ids=["numbers", "text"])
def test_the_only_column_may_have_the_name_of_a_matrix(tmp_path, text) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    cells = rng.choice(["a", "b", "c"], 80, p=[0.6, 0.3, 0.1]) if text else rng.normal(size=80)
    frame = pd.DataFrame({"X": cells})
    guard = pf.Guard(0.1, effort="fast", random_state=0).fit(frame)
    for inputs in ("columns", "matrix"):
        guard.export(tmp_path / "guard.onnx", inputs=inputs)
        assert compare(guard, tmp_path / "guard.onnx", frame).agrees
    assert graph_inputs(guard, frame, ("X",))["X"].shape == (80, 1)
    assert graph_inputs(guard, frame, ("X",), matrix=False)["X"].shape == (80,)


def test_images_of_every_type_that_the_guard_reads(tmp_path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    guard = pf.Guard(0.1, max_steps=2, exportable=True, random_state=0).fit(images)
    whole = graph_inputs(guard, images[:3], ("images",))["images"]
    for same in (images[:3].astype(np.int64), images[:3].astype(np.float32), images[:3].tolist(), images[:3, None]):
        found = graph_inputs(guard, same, ("images",))["images"]
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, whole)
    with pytest.raises(InputError, match=r"takes images of uint8, and these have numbers up to 300"):
        graph_inputs(guard, np.full((1, 8, 8), 300), ("images",))


def test_inputs_of_a_network_become_its_features(tmp_path) -> None:
    rows = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
    guard = pf.Guard(0.1, effort="fast", embed=torch.nn.Linear(3, 2).eval(), random_state=0).fit(rows)
    guard.export(tmp_path / "guard.pt2")
    assert compare(guard, tmp_path / "guard.pt2", rows).agrees


@pytest.mark.parametrize(("channels", "given"), [(3, 1), (1, 3)])
def test_images_have_the_channels_that_the_graph_takes(channels, given):
    from types import SimpleNamespace

    from pushforward.export.compare import _pixels

    guard: Any = SimpleNamespace(score_=SimpleNamespace(shape=(channels, 8, 8)))
    gray = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    found = _pixels(guard, np.repeat(gray, given, 1))
    assert found.flags.c_contiguous
    assert np.array_equal(found, np.repeat(gray, channels, 1))
