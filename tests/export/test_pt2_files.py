"""Guards as .pt2 files, which plain PyTorch loads without this library."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from mixed_tables import mixed_table, strange_rows

import pushforward as pf
from pushforward.cli import main
from pushforward.detection import ConformalCalibrator
from pushforward.detection.scores import (
    CodeLength,
    DoSE,
    LatentDependence,
    LatentMahalanobis,
    Likelihood,
    LikelihoodPath,
    Log,
    Neighbors,
    TwoSided,
)
from pushforward.errors import ConfigError
from pushforward.export import compare, export_score
from pushforward.graphs.scores import StatisticGraph

PLAIN = """
import json, sys, warnings
sys.modules["pushforward"] = None  # an import of it fails
warnings.simplefilter("ignore")
import numpy as np, torch
more = {"pushforward.json": ""}
program = torch.export.load(sys.argv[1], extra_files=more)
rows = torch.from_numpy(np.load(sys.argv[2]))
found = {name: torch.cat([program.module()(part)[name] for part in rows.split(7)]).tolist() for name in ("p_value", "alarm")}
print(json.dumps({"found": found, "facts": json.loads(more["pushforward.json"])}))
"""


def test_the_command_writes_a_file_that_a_process_without_the_library_runs(mixed_guard, tmp_path, capsys):
    mixed_guard.save(tmp_path / "g.safetensors")
    guard, new = str(tmp_path / "g.safetensors"), tmp_path / "new.csv"
    mixed_table(50, seed=4).to_csv(new, index=False)
    assert main(["export", guard, "-o", str(tmp_path / "g.pt2"), "--check", str(new), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["different alarms"] == 0
    table = strange_rows()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unseen categories are what is tested
        np.save(tmp_path / "rows.npy", mixed_guard.schema_.encode(table)[0])
        expected = mixed_guard.assess(table)
    command = [sys.executable, "-c", PLAIN, str(tmp_path / "g.pt2"), str(tmp_path / "rows.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["found"]["p_value"] == expected["p_value"].tolist()
    assert answer["found"]["alarm"] == expected["alarm"].tolist()
    assert answer["facts"]["alpha"] == 0.1
    assert [column["index"] for column in answer["facts"]["columns"]] == list(range(8))


def test_checks_of_distributions_stay_on(mixed_guard, tmp_path):
    """PyTorch's exporter turns them off once in a process, so this needs one of its own."""
    mixed_guard.save(tmp_path / "g.safetensors")
    code = """
import sys, torch
import pushforward as pf
pf.Guard.load(sys.argv[1]).export(sys.argv[2])
try:
    torch.distributions.Normal(0.0, -1.0)
except ValueError:
    print("refused")
"""
    command = [sys.executable, "-c", code, str(tmp_path / "g.safetensors"), str(tmp_path / "g.pt2")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "refused\n"


def test_the_command_refuses_wrong_names_and_options(mixed_guard, tmp_path, capsys):
    mixed_guard.save(tmp_path / "g.safetensors")
    guard = str(tmp_path / "g.safetensors")
    assert main(["export", guard, "-o", str(tmp_path / "g.bin")]) == 1
    assert "must end in .onnx (ONNX) or .pt2" in capsys.readouterr().err
    assert main(["export", guard, "-o", str(tmp_path / "g.pt2"), "--example", "x.csv"]) == 1
    assert "--example is for the guard of a network" in capsys.readouterr().err
    assert main(["export", guard, "-o", guard]) == 1  # the guard's own name has another ending
    assert "must end in" in capsys.readouterr().err


def test_scores_with_parts_that_no_graph_has_are_refused(tmp_path):
    x = torch.randn(200, 1, 8, 8).mul(40).add(128).clamp(0, 255).round()
    flow = pf.models.Glow((1, 8, 8), scales=2, layers=1, hidden=(4,))
    score = DoSE(LikelihoodPath(flow)).fit(x[:100])
    calibrator = ConformalCalibrator(score(x[100:]))
    with pytest.raises(
        ConfigError,
        match=r"LikelihoodPath of a model with dequantization.*hash of each row.*exportable=True.*fit --exportable",
    ):
        export_score(score, calibrator, tmp_path / "score.pt2", x[:2], alpha=0.05)
    codes = DoSE(Log(CodeLength("png", "zlib"))).fit(x[:100])
    with pytest.raises(
        ConfigError, match=r"code length of png and zlib.*compressor.*exportable=True.*fit --exportable"
    ):
        export_score(codes, ConformalCalibrator(codes(x[100:])), tmp_path / "score.pt2", x[:2], alpha=0.05)
    with pytest.raises(ConfigError, match="needs a Score"):
        export_score(LikelihoodPath(flow), calibrator, tmp_path / "score.pt2", x[:2])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_guard_of_images_needs_to_be_exportable(tmp_path):
    from pushforward.data import load_image_sample

    images = load_image_sample("mnist")[:400]
    options = {"alpha": 0.1, "max_steps": 5, "random_state": 0}
    # The path of the flow is the first of the parts that no graph has; the code lengths after it are refused too (above).
    with pytest.raises(ConfigError, match=r"LikelihoodPath of a model with dequantization.*exportable=True"):
        pf.Guard(**options).fit(images).export(tmp_path / "guard.pt2")
    guard = pf.Guard(exportable=True, **options).fit(images)
    guard.export(tmp_path / "guard.pt2")
    assert compare(guard, tmp_path / "guard.pt2", images).agrees
    pytest.importorskip("onnxruntime")
    guard.export(tmp_path / "guard.onnx")
    assert compare(guard, tmp_path / "guard.onnx", images).agrees


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:there are images with numbers outside")
def test_a_guard_of_16_bit_images_and_numbers_beyond_its_range(tmp_path):
    pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    images = (30_000 + np.linspace(0, 100, 8)[:, None] + rng.normal(scale=5, size=(240, 8, 8))).round().astype(np.int32)
    guard = pf.Guard(0.1, exportable=True, max_steps=5, random_state=0).fit(images[:200])
    new = images[200:].copy()
    new[0, 0, 0], new[1, 0, 0], new[2] = 40_000, 0, new[2, ::-1]
    assert (guard.predict(new)[:2] == -1).all()
    for name in ("guard.pt2", "guard.onnx"):
        guard.export(tmp_path / name)
        assert compare(guard, tmp_path / name, new).agrees


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["neighbors", "likelihood", "splines", "two-sided", "dose", "kde"])
def test_a_score_that_a_user_chose(tmp_path, kind):
    onnxruntime = pytest.importorskip("onnxruntime")
    x = torch.randn(900, 3)
    flow = pf.models.RealNVP(features=3, hidden=(8,)).eval()
    score = {
        "neighbors": lambda: Neighbors(),
        "likelihood": lambda: Likelihood(flow),
        "splines": lambda: Likelihood(pf.models.NSF(features=3, layers=1, hidden=(8,)).eval()),
        "two-sided": lambda: TwoSided(Likelihood(flow)),
        "dose": lambda: DoSE(LikelihoodPath(flow), LatentMahalanobis(flow), density="gmm"),
        "kde": lambda: DoSE(Likelihood(flow), Neighbors(), density="kde"),
    }[kind]().fit(x[:400])
    calibrator = ConformalCalibrator(score(x[400:800]))
    new = torch.cat((x[800:], 3 * torch.randn(100, 3)))
    export_score(score, calibrator, tmp_path / "score.onnx", x[:2], alpha=0.1)
    session = onnxruntime.InferenceSession(tmp_path / "score.onnx")
    p, alarm, _ = session.run(None, {"x": new.numpy()})
    expected = calibrator.p_value(score(new).numpy())
    threshold = calibrator.threshold(0.1)
    near = np.abs(expected - threshold) * (calibrator.n + 1) < 1.5
    assert not ((alarm != (expected <= threshold)) & ~near).any()
    assert np.abs(p - expected).max() <= 2 / (calibrator.n + 1)  # float32 networks


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["neighbors", "likelihood", "dependence"])
def test_rows_of_double_precision_have_an_onnx_graph(tmp_path, kind):
    onnxruntime = pytest.importorskip("onnxruntime")
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flow = pf.models.RealNVP(3, layers=2, hidden=(8,)).eval()
    flow.initialize(x.float())
    score = {
        "neighbors": lambda: Neighbors(),
        "likelihood": lambda: TwoSided(Likelihood(flow)),
        "dependence": lambda: LatentDependence(flow),
    }[kind]().fit(x[:200])
    calibrator = ConformalCalibrator(score(x[200:300]))
    export_score(score, calibrator, tmp_path / "score.onnx", x[:2], alpha=0.1)
    new = torch.cat((x[300:], torch.tensor([[1e39, 0, 0], [torch.inf, 0, 0], [torch.nan, 0, 0]]).double()))
    session = onnxruntime.InferenceSession(tmp_path / "score.onnx")
    for rows in (new, new[:1], new[:0]):
        p, alarm, found = session.run(None, {"x": rows.numpy()})
        given = rows[~rows.isnan().any(1)]
        np.testing.assert_allclose(found[: len(given)], score(given).numpy(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(p[: len(given)], calibrator.p_value(score(given)), atol=2 / 101)
        assert alarm[len(given) :].all()


def test_distances_in_small_units_are_compared_in_these_units(tmp_path):
    x = 1e-9 * torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    score = Neighbors().fit(x[:200])
    calibrator = ConformalCalibrator(score(x[200:400]))
    export_score(score, calibrator, tmp_path / "score.pt2", x[:2], alpha=0.05)
    new = torch.cat((x[400:], 3 * x[400:]))
    expected = calibrator.p_value(score(new).numpy())
    found = torch.export.load(tmp_path / "score.pt2").module()(new)
    np.testing.assert_allclose(found["p_value"].numpy(), expected, atol=1e-9)
    assert found["alarm"].tolist() == (expected <= calibrator.threshold(0.05)).tolist()
    assert found["alarm"].sum() > 20


def test_a_density_of_kernels_has_a_graph_for_any_number_of_rows(tmp_path):
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    score = DoSE(Neighbors(), Neighbors(k=2), density="kde").fit(x[:100]).train()
    export_score(score, ConformalCalibrator(score(x[100:])), tmp_path / "score.pt2", x[:2], alpha=0.05)
    assert all(module.training for module in score.modules())  # as before
    new = torch.cat((x[:50], torch.tensor([[1e200, 0.0], [torch.inf, 0.0]])))
    found = torch.export.load(tmp_path / "score.pt2").module()(new)
    np.testing.assert_allclose(found["anomaly_score"].numpy(), score(new).numpy(), rtol=1e-8)


@pytest.mark.parametrize("end", [-torch.inf, torch.inf])
def test_a_number_within_rounding_of_a_reference_number_is_a_tie(end):
    x = torch.randn(99, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    score = TwoSided(Neighbors()).fit(x)
    expected = score(x)
    score.reference = torch.nextafter(score.reference, torch.tensor(end, dtype=torch.float64))
    found = StatisticGraph(score)(x)[:, 0]
    assert (found <= expected + 1e-9).all()
    torch.testing.assert_close(
        StatisticGraph(score)(torch.full((1, 2), end)).double(), torch.tensor([[torch.inf]]).double()
    )


def test_the_graph_keeps_nothing_for_gradients(tmp_path):
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    flow = pf.models.MAF(2, layers=1, hidden=(4,)).eval()
    flow.initialize(x)
    score = Likelihood(flow).fit(x[:100])
    export_score(score, ConformalCalibrator(score(x[100:])), tmp_path / "score.pt2", x[:2], alpha=0.05)
    program = torch.export.load(tmp_path / "score.pt2").module()
    assert not any(value.requires_grad for value in (*program(x).values(), *program.parameters()))
    assert all(weight.requires_grad for weight in flow.parameters())  # the user's model is as before
