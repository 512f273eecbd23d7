"""`Guard(score=...)`: detectors of other libraries and functions, with their signs, calibration, answers and files."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import pushforward as pf
from pushforward import io, registry
from pushforward.cli import main
from pushforward.detection import realized_interval
from pushforward.detection.scorers import scorer_of
from pushforward.detection.scores import CodeLength, Neighbors
from pushforward.errors import ConfigError, InputError, SchemaError, StorageError
from pushforward.estimators import ShiftedGuard
from pushforward.estimators.cards import guard_card

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1200, 3))
NEW = RNG.normal(size=(1000, 3))
ODD = RNG.normal(6, 1, size=(30, 3))


class DistanceOfPyOD:
    """With PyOD's convention: ``decision_function`` is higher for anomalies, and ``decision_scores_`` are the training rows'."""

    decision_scores_ = None

    def fit(self, X, y=None):
        self.center_ = X.mean(0)
        self.decision_scores_ = self.decision_function(X)
        return self

    def decision_function(self, X):
        return np.linalg.norm(X - self.center_, axis=1)

    def predict(self, X):
        return (self.decision_function(X) > 2).astype(int)


class BareDecision:
    """Nothing says whether higher is more anomalous."""

    def fit(self, X):
        return self

    def decision_function(self, X):
        return X.sum(1)


def far(rows) -> np.ndarray:
    return np.abs(rows).sum(1)


OWN = {
    "IsolationForest": lambda: IsolationForest(n_estimators=20, random_state=0),
    "KernelDensity": KernelDensity,
    "LOF": lambda: LocalOutlierFactor(novelty=True),
    "EllipticEnvelope": lambda: EllipticEnvelope(random_state=0),
    "pipeline": lambda: make_pipeline(StandardScaler(), IsolationForest(n_estimators=20, random_state=0)),
    "PyOD": DistanceOfPyOD,
    "function": lambda: far,
    "torch function": lambda: lambda rows: torch.from_numpy(rows).norm(dim=1),
    "Score": Neighbors,
}


def fitted(name: str, **options) -> pf.Guard:
    return pf.Guard(0.05, score=OWN[name](), calibration=400, random_state=0, **options).fit(X)


@pytest.mark.parametrize("name", OWN)
def test_every_kind_finds_anomalies_and_keeps_the_promise(name: str) -> None:
    guard = fitted(name)
    found = guard.evaluate(np.concatenate([NEW, ODD]), np.repeat([0, 1], [1000, 30]))
    assert found.auroc.value > 0.99  # a wrong sign would give less than 0.01
    assert found.detected.count >= 28
    low, high = realized_interval(400, 1000, 0.05, 0.999)
    assert low <= found.false_alarms.fraction <= high
    assert guard.recalibrate(NEW).calibrator_.n == 1000
    assert guard.monitor().update(guard.anomaly_score(NEW)) is not None
    assert guard.report(NEW).to_dict()["data"]["rows"] == 1000


@pytest.mark.parametrize("name", OWN)
def test_scores_are_those_of_the_detector_on_the_rows_that_do_not_calibrate(name: str) -> None:
    detector = OWN[name]()
    before = repr(vars(detector)) if hasattr(detector, "__dict__") and name != "Score" else ""
    guard = fitted(name)
    sign = -1.0 if hasattr(guard.score_.scorer, "score_samples") else 1.0
    call = getattr(guard.score_.scorer, "score_samples", None) or getattr(
        guard.score_.scorer, "decision_function", None
    )
    expected = (call or guard.score_.scorer)(torch.from_numpy(NEW) if name == "Score" else NEW)
    np.testing.assert_allclose(guard.anomaly_score(NEW), sign * np.asarray(expected), rtol=1e-12)
    if before:
        assert repr(vars(detector)) == before  # a copy is fitted


def test_a_detector_of_pytorch_ood() -> None:
    detector = pytest.importorskip("pytorch_ood.detector").KNN(None, k=5, normalize=False)
    guard = pf.Guard(0.05, score=detector, random_state=0).fit(X)
    assert guard.evaluate(np.concatenate([NEW, ODD]), np.repeat([0, 1], [1000, 30])).auroc.value > 0.99


def test_images_and_features_are_read() -> None:
    images = torch.randint(0, 200, (300, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    bright = torch.full((5, 1, 6, 6), 255, dtype=torch.uint8)
    seen = []

    def brightness(rows):
        seen.append(tuple(rows.shape[1:]))
        return rows.double().flatten(1).mean(1)

    for score in (brightness, IsolationForest(n_estimators=20, random_state=0)):
        guard = pf.Guard(0.1, score=score, random_state=0).fit(images)
        assert (guard.predict(bright) == -1).all()
    assert set(seen) == {(1, 6, 6)}
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3))
    guard = pf.Guard(0.1, score=IsolationForest(random_state=0), embed=net, random_state=0).fit(images.float())
    assert guard.p_value(images.float()[:3]).shape == (3,)


# -- tables -------------------------------------------------------------------------------------------------------------


def test_frames_are_matched_by_name_and_words_are_refused() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    guard = pf.Guard(0.05, score=lambda rows: rows[:, 0], random_state=0).fit(frame)
    np.testing.assert_array_equal(guard.anomaly_score(frame[["c", "b", "a"]][:5]), X[:5, 0])
    with pytest.raises(SchemaError, match=r"'word' has words.*ignore="):
        pf.Guard(0.05, score=far).fit(frame.assign(word=["x", "y"] * 600))
    ignoring = pf.Guard(0.05, score=far, ignore=["word"], random_state=0).fit(frame.assign(word=["x", "y"] * 600))
    np.testing.assert_array_equal(ignoring.anomaly_score(frame[:5]), far(X[:5]))


def test_infinite_rows_are_infinitely_far_and_missing_cells_reach_the_detector() -> None:
    holes = X.copy()
    holes[::7, 1] = np.nan
    guard = pf.Guard(0.05, score=lambda rows: np.nan_to_num(np.abs(rows), nan=9.0).sum(1), random_state=0).fit(holes)
    frame = pf.data.as_table({"x0": [1.0, np.inf], "x1": [None, 0.0], "x2": [2.0, 0.0]})
    np.testing.assert_array_equal(guard.anomaly_score(frame), [12.0, np.inf])


# -- errors -------------------------------------------------------------------------------------------------------------


def noisy(rows) -> np.ndarray:
    return far(rows) + np.random.default_rng(len(rows)).normal(size=len(rows))


@pytest.mark.parametrize(
    ("score", "error", "text"),
    [
        (BareDecision(), ConfigError, "whether higher is more anomalous"),
        (LocalOutlierFactor(), ConfigError, "needs novelty=True"),
        (IsolationForest, ConfigError, r"is a class: give IsolationForest\(\)"),
        (3, ConfigError, "score=int"),
        (lambda rows: far(rows) / far(rows).sum(), ConfigError, "among others and .* by itself"),
        (noisy, ConfigError, "on chance"),
        (lambda rows: far(rows)[:1], InputError, "one score for each of"),
        (lambda rows: far(rows) * np.nan, InputError, "gave NaN for row 0"),
        (KernelDensity(bandwidth=-1.0), InputError, "cannot be fitted"),
    ],
    ids=["bare", "lof", "class", "number", "batch", "chance", "short", "nan", "options"],
)
def test_what_cannot_be_a_score_is_refused_in_one_sentence(score, error, text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        pf.Guard(0.05, score=score, random_state=0).fit(X)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"density": True},
        {"smoothing": 0.5},
        {"exportable": True},
        {"strict": True},
        {"max_time": 5.0},
        {"effort": "thorough"},
    ],
    ids=str,
)
def test_options_of_the_guards_own_score_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match=r"leave it or score= out"):
        pf.Guard(0.05, score=far, **options).fit(X)


@pytest.mark.parametrize("method", ["explain", "log_prob"])
def test_answers_of_the_guards_own_score_are_refused(method: str) -> None:
    with pytest.raises(ConfigError, match=f"{method} is for the score that a guard fits itself"):
        getattr(fitted("function"), method)(NEW)


# -- files --------------------------------------------------------------------------------------------------------------


def test_a_score_of_this_library_is_in_the_file(tmp_path) -> None:
    guard = fitted("Score")
    guard.save(tmp_path / "g.safetensors")
    again = pf.Guard.load(tmp_path / "g.safetensors")
    np.testing.assert_array_equal(again.p_value(NEW), guard.p_value(NEW))
    with pytest.raises(ConfigError, match="leave score out"):
        pf.Guard.load(tmp_path / "g.safetensors", score=far)


def test_a_file_with_a_score_of_an_unknown_class(tmp_path, monkeypatch, capsys) -> None:
    path = tmp_path / "g.safetensors"
    fitted("Score").save(path)
    name = next(key for key, value in registry._CLASSES.items() if value is Neighbors)
    monkeypatch.delitem(registry._CLASSES, name)
    with pytest.raises(StorageError, match=rf"g.safetensors: the file names the class '{name}', .* import the module"):
        pf.Guard.load(path)
    pd.DataFrame(NEW, columns=list("abc")).to_csv(tmp_path / "x.csv", index=False)
    assert main(["score", str(path), str(tmp_path / "x.csv")]) == 1
    error = capsys.readouterr().err
    assert "in Python: the commands import no modules of yours" in error
    assert "does not contain a guard" not in error


def test_a_shifted_guards_file_with_a_score_of_an_unknown_class(tmp_path, monkeypatch) -> None:
    path = tmp_path / "g.safetensors"
    ShiftedGuard(fitted("Score"), X, weights=lambda rows: np.ones(len(rows))).save(path)
    name = next(key for key, value in registry._CLASSES.items() if value is Neighbors)
    monkeypatch.delitem(registry._CLASSES, name)
    with pytest.raises(StorageError) as caught:
        ShiftedGuard.load(path, weights=lambda rows: np.ones(len(rows)))
    assert str(caught.value).startswith(f"{path}: the file names the class")
    assert str(caught.value).count(str(path)) == 1


@pytest.mark.parametrize("name", ["IsolationForest", "PyOD", "function"])
def test_another_score_is_given_back_and_recognized(tmp_path, name: str) -> None:
    guard, path = fitted(name), tmp_path / "g.safetensors"
    with pytest.raises(ConfigError, match=r"without pickle: save\(path, without_score=True\)"):
        guard.save(path)
    assert not path.exists()
    guard.save(path, without_score=True)
    with pytest.raises(ConfigError, match=r"without its score, .*: pass the fitted one"):
        pf.Guard.load(path)
    again = pf.Guard.load(path, score=guard.score_.scorer)
    np.testing.assert_array_equal(again.p_value(NEW), guard.p_value(NEW))
    assert again.evaluate(NEW[:50], [0] * 50).to_dict() == guard.evaluate(NEW[:50], [0] * 50).to_dict()
    for other in (lambda rows: 2 * far(rows), IsolationForest(n_estimators=20, random_state=1).fit(X)):
        with pytest.raises(StorageError, match="is not the score that the guard was calibrated with"):
            pf.Guard.load(path, score=other)
    with pytest.raises(StorageError, match="cannot score rows"):
        pf.Guard.load(path, score=IsolationForest())  # not fitted


def test_info_says_what_a_file_without_its_score_has(tmp_path, capsys) -> None:
    guard, path = fitted("IsolationForest"), tmp_path / "g.safetensors"
    guard.save(path, without_score=True)
    assert main(["info", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "IsolationForest, not in this file" in shown
    assert re.search(rf"calibration rows *{guard.calibrator_.n}\b", shown)
    assert main(["info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["lacks"], facts["calibration_rows"], facts["columns"]) == (
        ["score"],
        guard.calibrator_.n,
        ["x0", "x1", "x2"],
    )
    assert main(["score", str(path), str(path)]) == 1  # nothing but info reads it


def test_no_training_row_is_in_the_file(tmp_path) -> None:
    guard = fitted("function")
    guard.save(tmp_path / "g.safetensors", without_score=True)
    _, tensors = io.read(tmp_path / "g.safetensors")
    probes = tensors["score.probes"].numpy()
    assert probes.shape == (8, 3)
    assert np.isin(probes, X).all()
    assert not (probes[:, None] == X).all(-1).any()


@pytest.mark.parametrize(
    "change",
    [{"schema": None}, {"shape": [1, 2, 2]}, {"name": 3, "detector": {"class": "x"}}, {"extra": 1, "schema": {}}],
)
def test_damaged_descriptions_are_refused(tmp_path, change: dict) -> None:
    guard = fitted("function")
    header, tensors = guard.contents()
    header["score"] = header["score"] | change
    io.write(tmp_path / "g.safetensors", header, tensors)
    with pytest.raises((StorageError, ConfigError)):
        pf.Guard.load(tmp_path / "g.safetensors", score=far)


# -- scikit-learn -------------------------------------------------------------------------------------------------------


def test_options_clone_and_nested_parameters() -> None:
    guard = pf.Guard(0.1, score=IsolationForest(n_estimators=7))
    assert clone(guard).get_params()["score__n_estimators"] == 7
    assert guard.set_params(score__n_estimators=9).score.n_estimators == 9
    assert not hasattr(pf.Guard(), "score")  # scikit-learn takes such an attribute for a method
    assert pf.Guard().get_params()["score"] is None
    assert "IsolationForest" in repr(guard)
    json.dumps(pf.Guard().get_params())


def test_the_function_of_a_detector_says_its_sign() -> None:
    assert scorer_of(IsolationForest(), X).sign == -1
    assert scorer_of(DistanceOfPyOD(), X).sign == 1
    assert scorer_of(far, X).sign == 1


def test_a_statistic_without_a_score_is_named() -> None:
    with pytest.raises(ConfigError, match=r"CodeLength describes a row, .* give TwoSided\(CodeLength\(\.\.\.\)\)"):
        pf.Guard(score=CodeLength("png")).fit(np.zeros((300, 8, 8), np.uint8))


def test_the_card_says_that_the_score_is_of_the_user_and_promises_no_certificate():
    guard = pf.Guard(alpha=0.05, score=Neighbors(5), random_state=0).fit(X)
    text = guard_card(guard)
    assert "The score was given by whoever fitted the guard" in text
    assert "certified" not in text
