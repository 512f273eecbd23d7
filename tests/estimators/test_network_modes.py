"""Modes of PyTorch around a guard of a network: autocast, inference mode, and pickles of its answers."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pushforward as pf
from pushforward.detection import network as scores
from pushforward.errors import PushforwardWarning, StorageError

torch.manual_seed(0)
X = torch.randn(1500, 6)
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def fitted(net: nn.Module, score: object = "default") -> pf.NetworkGuard:
    return pf.NetworkGuard(net, 0.05, score=score).fit((X[:600], Y[:600]), calibration=X[600:1100])


class Distances:
    """A detector in the form of pytorch-ood, with a product of matrices."""

    def fit_features(self, z: Tensor, y: Tensor) -> None:
        self.map = torch.linalg.inv(z.T @ z / len(z))

    def predict_features(self, z: Tensor) -> Tensor:
        return ((z @ self.map) * z).sum(1)

    def predict(self, x: Tensor) -> Tensor:
        raise NotImplementedError


def own_scores() -> list[object]:
    one = [
        name for name, kind in scores.SCORES.items()
        if kind.cost == "one forward pass" and name not in ("FeatureFlow", "DeepSVDD")
    ]  # fmt: skip
    single = [scores.ViM(single=True), scores.RelativeMahalanobis(single=True), scores.LayerMahalanobis(single=True)]
    return ["default", *one, *single, scores.FeatureFlow(max_steps=5), scores.External(Distances(), reads="features")]


@pytest.mark.parametrize("score", own_scores(), ids=lambda score: score if isinstance(score, str) else "")
def test_statistics_do_not_depend_on_autocast(score):
    guard = fitted(network(), score)
    reading = guard._read(X[1100:])
    expected = guard._surprise(guard._columns(reading), reading)
    nearest = guard.examples_.nearest(reading.features, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(guard._surprise(guard._columns(reading), reading), expected)
        np.testing.assert_array_equal(guard.examples_.nearest(reading.features, 3)[0], nearest[0])


def test_fitting_does_not_depend_on_autocast():
    """The network leaves autocast itself, so only the statistics could differ."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return self.net(x)

    for score in (["Mahalanobis", "GramMatrices"], "default", scores.DeepSVDD(max_steps=5)):
        expected = fitted(Plain().eval(), score).score_.state_dict()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = fitted(Plain().eval(), score).score_.state_dict()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_call_in_another_autocast_warns(tmp_path):
    guard = fitted(network())
    guard.save(tmp_path / "guard")
    for each in (guard, pf.NetworkGuard.load(tmp_path / "guard", network())):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with pytest.warns(
                PushforwardWarning, match=r"calibrated without torch.autocast, .* of bfloat16, .* same torch.autocast"
            ):
                each(X[1100:])
            with pytest.warns(PushforwardWarning, match="without torch.autocast"):
                each.p_value(X[1100:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard(X[1100:])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = fitted(network())
            assert half.autocast_ == "bfloat16"
            assert (half.p_value(X[1100:]) <= 0.05).mean() < 0.12
    with pytest.warns(PushforwardWarning, match=r"of bfloat16, and is called without"):
        half(X[1100:])


def test_a_file_without_the_autocast_gives_no_warning(tmp_path):
    fitted(network(), "Energy").save(tmp_path / "guard")
    header, tensors = pf.io.read(tmp_path / "guard")
    del header["autocast"]
    pf.io.write(tmp_path / "old", header, tensors)
    guard = pf.NetworkGuard.load(tmp_path / "old", network())
    with warnings.catch_warnings(), torch.autocast("cpu", dtype=torch.bfloat16):
        warnings.simplefilter("error")
        guard(X[1100:])
    pf.io.write(tmp_path / "wrong", header | {"autocast": 3}, tensors)
    with pytest.raises(StorageError, match="autocast must be text"):
        pf.NetworkGuard.load(tmp_path / "wrong", network())


@pytest.mark.parametrize("score", ["default", "ODIN", scores.FeatureFlow(max_steps=5), scores.DeepSVDD(max_steps=5)])
def test_inference_mode_changes_nothing(score, tmp_path):
    net = network()
    plain = fitted(net, score)
    expected, gradient = plain(X[1100:]), plain.explain(X[:2], gradient=score != "ODIN").gradient
    with torch.inference_mode():
        rows = X[1100:] + 0.0  # a tensor of inference mode
        assert torch.equal(plain(rows).score, expected.score)
        inside = fitted(net, score)
        inside.save(tmp_path / "guard")
        loaded = pf.NetworkGuard.load(tmp_path / "guard", net)
        assert torch.equal(inside(rows).score, expected.score)
        assert torch.equal(loaded(rows).score, expected.score)
    assert torch.equal(inside(rows).score, expected.score)
    if gradient is not None:
        for guard in (inside, loaded):
            with torch.inference_mode():
                np.testing.assert_array_equal(guard.explain(X[:2] + 0.0, gradient=True).gradient, gradient)
            np.testing.assert_array_equal(guard.explain(X[:2], gradient=True).gradient, gradient)


def test_gradients_of_several_inputs_of_inference_mode():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.net(a * b)

    net = Two().eval()
    with torch.inference_mode():
        ones = torch.ones(1500, 6)
        data = {"train": ((X[:600], ones[:600]), Y[:600]), "calibration": ((X[600:1100], ones[600:1100]),)}
        guard = pf.NetworkGuard(net, 0.05, score="ODIN").fit(**data)
        found = guard((X[1100:], ones[1100:]))
    assert torch.equal(found.score, fitted(network(), "ODIN")(X[1100:]).score)


def test_answers_are_pickled_with_their_reasons():
    out = fitted(network())(torch.cat((X[1100:1110], 20 * X[1100:1103])))
    again = pickle.loads(pickle.dumps(out))
    assert again.reason == out.reason
    assert any(again.reason)
    assert torch.equal(again.p_value, out.p_value)
    assert repr(again) == repr(out)
