"""The inputs that `run_graph` and `compare` make for a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import pushforward as pf
from pushforward.detection import ConformalCalibrator
from pushforward.detection.scores import Neighbors
from pushforward.errors import ConfigError, InputError, StorageError
from pushforward.estimators.validation import NotFittedError
from pushforward.export import Agreement, compare, export_score, graph_inputs, run_graph


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


@pytest.mark.parametrize("name", ["guard.pt2", "guard.onnx"])
@pytest.mark.parametrize("content", [None, b"", b"hello" * 100])
def test_a_file_that_is_no_graph_is_named(tmp_path, name, content, capfd) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    words = "there is no file" if content is None else "is empty" if not content else "is damaged, or its name"
    x = np.random.default_rng(0).normal(size=(80, 2))
    guard = pf.Guard(0.1, effort="fast", random_state=0).fit(x)
    for call in (run_graph, compare):
        with pytest.raises(
            StorageError, match=f"{name} {words}" if content is not None else f"{words} or folder .*{name}"
        ):
            call(guard, tmp_path / name, x)
    assert "Traceback" not in capfd.readouterr().err


def test_inputs_are_those_of_a_fitted_guard() -> None:
    with pytest.raises(NotFittedError, match="not fitted yet"):
        graph_inputs(pf.Guard(), [[0.0]], ("X",))
    with pytest.raises(ConfigError, match=r"guard must be a pf\.Guard of tables or images; got int"):
        graph_inputs(3, [[0.0]], ("X",))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("guard_score", "graph_score", "expected"),
    [
        (1.0, 1.5, 0.25),
        (np.inf, np.inf, 0.0),
        (-np.inf, -np.inf, 0.0),
        (np.nan, np.nan, 0.0),
        (np.inf, 5.0, np.inf),
        (1.0, np.inf, np.inf),
        (np.inf, -np.inf, np.inf),
        (np.nan, 1.0, np.inf),
    ],
)
def test_scores_that_disagree_about_infinity_differ_by_infinity(guard_score, graph_score, expected) -> None:
    from types import SimpleNamespace

    guard: Any = SimpleNamespace(calibrator_=SimpleNamespace(n=20), level_=0.1)

    def outputs(score: float) -> dict[str, np.ndarray]:
        return {"p_value": np.full(2, 0.5), "alarm": np.zeros(2, bool), "anomaly_score": np.array([0.0, score])}

    assert Agreement.of(guard, outputs(guard_score), outputs(graph_score)).score == expected


@pytest.mark.parametrize(
    ("example", "calibrated", "error", "message"),
    [
        ([[0.0, 0.0]], True, InputError, "example must be a tensor.*got list"),
        (np.zeros((2, 2)), True, InputError, "example must be a tensor.*got ndarray"),
        (torch.tensor(1.0), True, InputError, "example has no rows"),
        (torch.zeros(2), True, InputError, r"needs real numbers of shape \(n, ...\), one row per input"),
        (torch.zeros(2, 3), True, InputError, "fitted on rows of 2 values; got rows of 3"),
        (torch.zeros(2, 2), False, ConfigError, "calibrator must be a ConformalCalibrator.*got int"),
    ],
)
def test_scores_need_a_calibrator_and_an_example(tmp_path, example, calibrated, error, message) -> None:
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    score = Neighbors().fit(x[:100])
    calibrator: Any = ConformalCalibrator(score(x[100:])) if calibrated else 3
    with pytest.raises(error, match=message):
        export_score(score, calibrator, tmp_path / "score.pt2", example, alpha=0.05)


@pytest.mark.parametrize("name", ["guard.pt2", "guard.onnx"])
def test_the_graph_of_another_guard_is_refused(tmp_path, name) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    x = np.random.default_rng(0).normal(size=(80, 3))
    guard, other = (pf.Guard(0.1, effort="fast", random_state=0).fit(rows) for rows in (x, x[:, :2]))
    other.export(tmp_path / name)
    for call in (run_graph, compare):
        with pytest.raises(InputError, match=f"{name} takes rows of 2 numbers, and those of the guard have 3"):
            call(guard, tmp_path / name, x)
