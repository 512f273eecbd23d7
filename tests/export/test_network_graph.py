"""A network and its guard as one graph: prediction, p-value and alarm, in ONNX Runtime and in PyTorch."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import pushforward as pf
from pushforward.errors import ConfigError, InputError, PushforwardWarning
from pushforward.graphs.graph import Promise
from pushforward.graphs.network import NetworkGraph, named, network_graph


@pytest.fixture(scope="module")
def rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (900,), generator=generator)
    x = torch.randn(900, 5, generator=generator)
    x[torch.arange(900), y] += 3
    return x, y


def guard_of(rows, **options) -> pf.NetworkGuard:
    x, y = rows
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with torch.no_grad():  # logit k grows with input k
        net[0].weight[:3], net[2].weight[:, :3] = 2 * torch.eye(3, 5), torch.eye(3)
    return pf.NetworkGuard(net, alpha=0.1, **options).fit((x[:300], y[:300]), calibration=x[300:])


@pytest.mark.parametrize("options", [{}, {"per_class": True}, {"score": ["Energy", "Neighbors"]}])
def test_the_module_gives_the_answers_of_the_guard(rows, options):
    guard = guard_of(rows, **options)
    new = torch.cat((rows[0][:50], 5 * torch.randn(50, 5)))
    promises = {k: Promise(c.scores, guard.levels_[k], 1e-9) for k, c in guard.calibrators_.items()}
    found = NetworkGraph(guard.reader_, guard.score_, guard.classes_, promises)(new)
    expected = guard(new)
    assert list(found) == ["output", "p_value", "alarm", "anomaly_score"]
    torch.testing.assert_close(found["output"], expected.output)
    # the rounding of a promise is the only difference, in favor of the larger p-value
    assert torch.equal(found["p_value"], expected.p_value)
    assert torch.equal(found["alarm"], expected.alarm)
    assert found["alarm"].any()


def test_outputs_of_several_tensors_have_names():
    pair = torch.zeros(2), torch.ones(2)
    assert list(named(pair)) == ["output_0", "output_1"]
    assert list(named({"logits": pair[0], "alarm": pair[1], "note": "text"})) == ["logits", "output.alarm"]
    with pytest.raises(ConfigError, match="returns str cannot be exported"):
        named("text")


def test_wrong_arguments_are_one_sentence(rows, tmp_path):
    guard = guard_of(rows)
    x = rows[0]
    for path, example, options, error, message in (
        ("g.pt", x, {}, ConfigError, r"must end in \.onnx"),
        ("g.pt2", {"x": x}, {}, ConfigError, "keyword arguments"),
        ("g.pt2", x[:0], {}, InputError, "at least one row"),
        ("g.pt2", x, {"inputs": ["a", "b"]}, ConfigError, "inputs must name 1 inputs"),
    ):
        with pytest.raises(error, match=message):
            guard.export(tmp_path / path, example, **options)
    with pytest.raises(ConfigError, match="ODIN cannot be exported"):
        guard_of(rows, score="ODIN").export(tmp_path / "g.pt2", x)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("per_class", [False, True])
def test_files_give_the_answers_of_the_guard(rows, tmp_path, per_class):
    onnxruntime = pytest.importorskip("onnxruntime")
    guard = guard_of(rows, per_class=per_class)
    new = torch.cat((rows[0][:300], 5 * torch.randn(300, 5)))
    expected = guard(new)
    ranks = min(c.n for c in guard.calibrators_.values()) + 1
    guard.export(tmp_path / "g.onnx", new[:1], inputs=["features"])
    session = onnxruntime.InferenceSession(tmp_path / "g.onnx")
    assert [value.name for value in session.get_inputs()] == ["features"]
    output, p, alarm, _ = session.run(None, {"features": new.numpy()})
    np.testing.assert_allclose(output, expected.output.numpy(), atol=1e-5)
    assert np.abs(p - expected.p_value.numpy()).max() <= 1.5 / ranks  # float32: one rank
    assert (alarm != expected.alarm.numpy()).mean() < 0.01
    assert session.run(None, {"features": new[:1].numpy()})[1].shape == (1,)
    guard.export(tmp_path / "g.pt2", new[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the inside of torch.export
        found = torch.export.load(tmp_path / "g.pt2").module()(new)
    assert (found["p_value"] - expected.p_value).abs().max() <= 1.5 / ranks


def test_small_differences_of_the_largest_softmax_count(rows):
    x = rows[0]
    net = nn.Linear(5, 3).eval()
    with torch.no_grad():  # the largest softmax is within 1e-6 of 1
        net.weight.copy_(torch.eye(3, 5) * torch.tensor([[1.0], [0.0], [0.0]]))
        net.bias.copy_(torch.tensor([22.0, 0.0, 0.0]))
    guard = pf.NetworkGuard(net, alpha=0.2, score="MaxSoftmax", task="classify").fit(x[:300], calibration=x[300:])
    expected = guard(x)
    assert expected.alarm.sum() > 50
    assert float(expected.score.max()) < -1 + 1e-6
    levels, scores = guard.levels_, {k: c.scores for k, c in guard.calibrators_.items()}
    graph = network_graph(guard.reader_, guard.score_, 3, scores, levels, (x[:2],), ("x",), {})
    found = graph.module(x)
    assert torch.equal(found["alarm"], expected.alarm)
    assert (found["p_value"] - expected.p_value).abs().max() < 0.01


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x):
        hidden = self.inner(x).relu()
        return self.last(hidden) if float(hidden.sum()) > 0 else self.last(2 * hidden)


def test_a_network_that_cannot_be_traced_is_an_error_and_keeps_no_hooks(rows, tmp_path):
    x, y = rows
    net = Branches().eval()
    guard = pf.NetworkGuard(net, alpha=0.1).fit((x[:300], y[:300]), calibration=x[300:])
    before = guard(x).score
    with pytest.raises(ConfigError, match=r"torch\.export cannot trace this guard .* depend on values"):
        guard.export(tmp_path / "g.pt2", x[:2])
    assert not any(module._forward_hooks for module in net.modules())
    assert torch.equal(guard(x).score, before)


def test_a_guard_of_autocast_warns_outside_of_it(rows, tmp_path):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        guard = guard_of(rows, score="Energy")
        guard.as_module()  # no warning
    with pytest.warns(PushforwardWarning, match="called without torch.autocast"):
        guard.as_module()
    with pytest.warns(PushforwardWarning, match="called without torch.autocast"), pytest.raises(InputError):
        guard.export(tmp_path / "g.pt2", rows[0][:0])


class Named(nn.Module):
    """The name of its input is that of an output of the guard, one of its outputs too, and another one is a number."""

    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, alarm, logits=None):
        hidden = self.inner(alarm).relu()
        return {"logits": self.last(hidden), "alarm": hidden.sum(1), "weight": self.last.weight, "scale": hidden.mean()}


def test_inputs_and_outputs_of_one_name_and_outputs_without_rows(rows, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    x, y = rows
    guard = pf.NetworkGuard(Named().eval(), alpha=0.1, score="Energy").fit((x[:300], y[:300]), calibration=x[300:])
    guard.export(tmp_path / "g.onnx", x[:2])
    session = onnxruntime.InferenceSession(tmp_path / "g.onnx")
    assert [value.name for value in session.get_inputs()] == ["input.alarm"]
    assert {value.name: value.shape for value in session.get_outputs()} == {
        "logits": ["rows", 3], "output.alarm": ["rows"], "weight": [3, 8], "scale": [],
        "p_value": ["rows"], "alarm": ["rows"], "anomaly_score": ["rows"],
    }  # fmt: skip
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["alarm at p-values up to"]) == guard.levels_[None]
    found = session.run(["p_value", "scale"], {"input.alarm": x.numpy()})
    assert np.abs(found[0] - guard(x).p_value.numpy()).max() <= 1.5 / 601  # float32: one rank
    assert found[1] == pytest.approx(guard(x).output["scale"].numpy())
