"""Guards with smoothing: promises without attacks, and bounds that attacks do not break."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits

import pushforward as pf
from pushforward.detection import realized_interval
from pushforward.detection.smoothed_score import SmoothedScore, fit_smoothed_score
from pushforward.errors import ConfigError, InputError, SchemaError, SchemaWarning, StorageError


def normal_rows(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 4)) @ np.diag([1.0, 2.0, 0.5, 10.0])


@pytest.fixture(scope="module")
def guard():
    return pf.Guard(alpha=0.05, smoothing={"sigma": 0.5, "draws": 64}, random_state=0).fit(normal_rows(1500))


def test_an_attack_does_not_break_a_certificate(guard):
    """A search in the ball around anomalies, by the deployed p-value itself."""
    unit = guard.score_.scale
    anomalies = np.array([[5.0, 0, 0, 0], [0, 0, 2.5, 0], [3.0, 6.0, 0, 0], [0, 0, 0, 60.0]])
    radius = 0.5
    certificate = guard.certify(anomalies, radius, draws=2000)
    assert certificate.alarm.all()
    rng = np.random.default_rng(0)
    for row, bound in zip(anomalies, certificate.p_value, strict=True):
        best, lowest = row, guard.anomaly_score(row[None])[0]
        for _ in range(40):
            steps = rng.normal(size=(30, 4)) * rng.uniform(0.05, 1.0, size=(30, 1))
            moved = (best - row) / unit - 0.1 * np.sign(row) / 2 + 0.2 * steps  # toward the normal rows, and at random
            moved *= np.minimum(1.0, radius / np.linalg.norm(moved, axis=1))[:, None]
            scores = guard.anomaly_score(row + moved * unit)
            if scores.min() < lowest:
                best, lowest = row + moved[scores.argmin()] * unit, scores.min()
        assert guard.p_value(best[None])[0] <= bound
        assert lowest < guard.anomaly_score(row[None])[0]  # the attack does what it can


def test_bounds_are_above_the_p_value_and_grow_with_the_radius(guard):
    rows = np.r_[normal_rows(20, seed=1), [[4.0, 0, 0, 0], [9.0, 9.0, 9.0, 9.0]]]
    p = guard.p_value(rows)
    bounds = [guard.certify(rows, r, draws=1000) for r in (0.0, 0.25, 0.5, 5.0)]
    assert (p <= bounds[0].p_value).all()
    assert all((a.p_value <= b.p_value).all() for a, b in itertools.pairwise(bounds))
    assert (bounds[3].p_value == 1).all()  # far more noise than was drawn
    assert not bounds[3].alarm.any()
    assert bounds[1].alarm[-1]
    assert (bounds[1].confidence, bounds[1].attempts, bounds[1].radius) == (0.99, 10**6, 0.25)
    radii = guard.certified_radius(rows, draws=1000)
    for r, certificate in zip((0.0, 0.25, 0.5), bounds, strict=False):
        assert (certificate.alarm == (radii >= r)).all()  # NaN is no radius


def test_false_alarms_of_twenty_redraws():
    """The promise without an attack: each redraw is inside the beta-binomial distribution."""
    rows, outside = normal_rows(2000, seed=2), 0
    score = fit_smoothed_score(normal_rows(400, seed=3), 0.5, draws=32)
    scores = score.score(rows)
    low, high = realized_interval(500, 1500, 0.05)
    from pushforward.detection import ConformalCalibrator

    for seed in range(20):
        order = np.random.default_rng(seed).permutation(2000)
        calibrator = ConformalCalibrator(scores[order[:500]])
        rate = (calibrator.p_value(scores[order[500:]]) <= calibrator.threshold(0.05)).mean()
        outside += not low <= rate <= high
    assert outside <= 4  # binomial(20, 0.05) exceeds 4 once in 400


def test_images(tmp_path):
    """Digits of 8 x 8 pixels with 0 to 16 as 8-bit images; white frames are anomalies."""
    images = (load_digits().images * 15.9).astype(np.uint8)
    guard = pf.Guard(alpha=0.05, smoothing={"sigma": 0.2, "steps": 200}, random_state=0).fit(images[:1500])
    assert (guard.score_.smoothing.draws, guard.score_.smoothing.quantile) == (64, 0.9)
    bright = images[:2].astype(int)
    bright[1, 0, 0] = 255
    beyond = bright.copy()
    beyond[1, 0, 0] = 400
    assert (guard.p_value(beyond) == guard.p_value(bright)).all()  # numbers above the range count as its end
    assert guard.n_features_in_ == 64
    assert guard.reads_images
    odd = images[1500:1510].copy()
    odd[:, 0] = odd[:, -1] = 255
    certificate = guard.certify(odd, 0.25, draws=2000)
    assert certificate.alarm.all()
    assert (guard.predict(odd) == -1).all()
    assert (guard.predict(images[1500:]) == -1).mean() < 0.12
    guard.save(tmp_path / "guard.safetensors")
    again = pf.Guard.load(tmp_path / "guard.safetensors")
    assert (again.p_value(odd) == guard.p_value(odd)).all()
    assert (again.certify(odd, 0.25, draws=2000).score == certificate.score).all()
    with pytest.raises(InputError, match="shape"):
        guard.p_value(np.zeros((2, 9, 9), np.uint8))
    with pytest.raises(ConfigError, match="explain is not for guards with smoothing"):
        guard.explain(odd)


def test_scores_of_8_bit_images_can_be_smoothed_too():
    """A score that rounds to 8 bits and compresses: any function will do, at the price of one evaluation for each draw."""
    from pushforward.detection.image_score import ImageScore
    from pushforward.detection.scores import CodeLength, DoSE, Log, PrincipalDistances
    from pushforward.detection.smoothing import NoisyFunction, Smoothing

    images = torch.from_numpy((load_digits().images[:400] * 15.9).astype(np.uint8))[:, None]
    distances = PrincipalDistances((2, 4, 8)).fit(images[:250])
    dose = DoSE(Log(CodeLength("png")), distances, density="gaussian", refit=False)
    inner = ImageScore(dose, (1, 8, 8)).fit(images[250:])

    def rounded(rows):
        pixels = torch.from_numpy(rows * 255).round().clamp(0, 255).to(torch.uint8)
        return inner.score(pixels.reshape(-1, 1, 8, 8))

    smoothing, base = Smoothing(0.1, draws=16), NoisyFunction(rounded)
    rows = images[:3].flatten(1).double().numpy() / 255
    bound = smoothing.lower_bound(base, rows, 0.02, draws=200, attempts=1, confidence=0.9)
    assert (bound < smoothing.score(base, rows)).all()
    assert np.isfinite(bound).all()
    assert smoothing.score(base, rows[1:2])[0] == smoothing.score(base, rows)[1]


def test_sixteen_bit_images():
    images = torch.from_numpy((load_digits().images[:300] * 4000).astype(np.int64))[:, None]
    score = fit_smoothed_score(images, 0.2, draws=16, steps=5)
    assert score.top == 65535
    assert score.rows(images).max() < 1
    with pytest.raises(InputError, match="integers 0 to 65535"):
        score.score(images.double() + 0.5)


def test_images_of_zeros_and_ones():
    """Booleans are the same pictures as 0 and 255 of 8 bits."""
    images = np.zeros((300, 12, 12), bool)
    images[:, 3:9, 3:9] = np.random.default_rng(0).random((300, 6, 6)) > 0.3
    strange = np.zeros((20, 12, 12), bool)
    strange[:, :3] = True
    smoothing = {"sigma": 0.25, "steps": 0, "draws": 64}
    one = pf.Guard(alpha=0.05, smoothing=smoothing, random_state=0).fit(images)
    other = pf.Guard(alpha=0.05, smoothing=smoothing, random_state=0).fit(np.uint8(images) * 255)
    assert (one.score_.top, other.score_.top) == (1, 255)
    assert (one.predict(strange) == -1).all()
    np.testing.assert_allclose(one.anomaly_score(strange), other.anomaly_score(np.uint8(strange) * 255))
    assert one.certify(strange[:1], 0.25, draws=500, attempts=10).alarm[0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("far", [1e30, 1e80, 1e155, -1e200, 1.7e308])
def test_a_cell_far_away_is_an_alarm_of_its_row_alone(far):
    rows = np.random.default_rng(0).normal(size=(500, 3)) * 0.01  # a unit below 1: far / unit can overflow
    guard = pf.Guard(alpha=0.05, smoothing={"sigma": 0.5, "draws": 64}, random_state=0).fit(rows)
    assert guard.predict([[far, 0, 0], [0, 0, 0]]).tolist() == [-1, 1]
    assert guard.anomaly_score([[0, 0, 0]])[0] == guard.anomaly_score([[far, 0, 0], [0, 0, 0]])[1]
    assert guard.certify([[far, 0, 0]], 0.1, draws=500, attempts=10).alarm[0]
    assert guard.certified_radius([[far, 0, 0]], draws=500, attempts=10)[0] > 0.1


def test_tables_with_names_and_scales(tmp_path):
    frame = pd.DataFrame(normal_rows(1200), columns=list("abcd"))
    guard = pf.Guard(alpha=0.05, smoothing=0.5, random_state=0).fit(frame)
    assert list(guard.schema_.names) == list("abcd")
    far = pd.DataFrame([[0.0, 0.0, 0.0, 80.0]], columns=list("abcd"))
    assert guard.certify(far[list("dcba")], 0.5, draws=2000).alarm.all()
    guard.save(tmp_path / "guard.safetensors")
    again = pf.Guard.load(tmp_path / "guard.safetensors")
    assert (again.p_value(frame[:50]) == guard.p_value(frame[:50])).all()
    assert list(again.feature_names_in_) == list("abcd")
    # The standard scale does not depend on the unit of a column; radii on the user's own scale do.
    other = pf.Guard(alpha=0.05, smoothing=0.5, random_state=0).fit(frame * [1, 1, 1, 64.0])
    assert other.certified_radius(far * [1, 1, 1, 64.0], draws=500) == pytest.approx(
        guard.certified_radius(far, draws=500), abs=1e-6
    )
    own = {"sigma": 0.5, "scale": {"a": 1.0, "b": 2.0, "c": 0.5, "d": 10.0}}
    assert list(pf.Guard(alpha=0.05, smoothing=own, random_state=0).fit(frame).score_.scale) == [1.0, 2.0, 0.5, 10.0]
    raw = fit_smoothed_score(frame, 0.5, scale="input")
    assert (raw.scale == 1).all()
    assert (fit_smoothed_score(frame, 0.5, scale=[1, 2, 3, 4]).scale == [1, 2, 3, 4]).all()


def test_the_command_line_reads_it(guard, tmp_path):
    from typer.testing import CliRunner

    from pushforward.cli.commands import app

    guard.save(tmp_path / "guard.safetensors")
    np.savetxt(tmp_path / "new.csv", normal_rows(30, seed=4), delimiter=",", header="x0,x1,x2,x3", comments="")
    for arguments in (["info"], ["score", str(tmp_path / "new.csv"), "-o", str(tmp_path / "out.csv")]):
        done = CliRunner().invoke(app, [arguments[0], str(tmp_path / "guard.safetensors"), *arguments[1:]])
        assert done.exit_code == 0, done.output
    found = pd.read_csv(tmp_path / "out.csv")
    assert found["p_value"].to_numpy() == pytest.approx(guard.p_value(normal_rows(30, seed=4)), abs=1e-9)


def test_scikit_learn_clones_it(guard):
    assert clone(guard).smoothing == guard.smoothing
    assert guard.get_params()["smoothing"] == {"sigma": 0.5, "draws": 64}


def test_equal_rows_have_equal_p_values_in_any_batch(guard):
    rows = normal_rows(10, seed=5)
    p = guard.p_value(rows)
    assert all(guard.p_value(rows[i : i + 1])[0] == p[i] for i in range(10))


def test_wrong_use(guard):
    frame = pd.DataFrame({"a": [1.5, 2.5, 3.5] * 40, "b": ["x", "y", "x"] * 40})
    with pytest.raises(SchemaError, match="column 'b': smoothing needs a number in every cell; it is categorical"):
        pf.Guard(alpha=0.2, smoothing=0.5).fit(frame)
    holes = normal_rows(200)
    holes[3, 1] = math.nan
    with pytest.raises(SchemaError, match=r"column 'x1': .* missing cell"):
        pf.Guard(alpha=0.2, smoothing=0.5).fit(holes)
    table = pf.Guard(alpha=0.2, smoothing=0.5, random_state=0).fit(pd.DataFrame(normal_rows(200), columns=list("abcd")))
    with pytest.raises(SchemaError, match=r"column 'b': .* a missing cell"):
        table.p_value(pd.DataFrame([[0.0, None, 0.0, 0.0]], columns=list("abcd")))
    with pytest.raises(SchemaError, match=r"column 'c': .* an infinite value"):
        table.p_value(pd.DataFrame([[0.0, 0.0, math.inf, 0.0]], columns=list("abcd")))
    with pytest.warns(SchemaWarning, match="1 column that"):
        table.p_value(pd.DataFrame([[0.0] * 5], columns=list("abcde")))
    for wrong in (0.0, -1.0, "much", {}, {"draws": 5}, {"sigma": 1.0, "color": 1}, {"sigma": 1.0, "scale": np.ones(4)}):
        with pytest.raises(ConfigError, match="smoothing"):
            pf.Guard(alpha=0.2, smoothing=wrong).fit(normal_rows(100))
    for scale in ("wide", [1.0, 2.0], [1, 1, 1, -1], [1, 1, 1, math.nan], ["a"] * 4, {"x0": 1.0}):
        with pytest.raises(ConfigError, match="scale"):
            fit_smoothed_score(normal_rows(100), 0.5, scale=scale)
    for wrong in ({"radius": -1.0}, {"confidence": 0.0}, {"attempts": 0}, {"draws": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            guard.certify(normal_rows(2), **({"radius": 0.1} | wrong))
    plain = pf.Guard(alpha=0.2, n_estimators=1, max_steps=5, random_state=0).fit(normal_rows(100))
    with pytest.raises(ConfigError, match=r"certify needs a guard with smoothing: fit Guard\(smoothing=0.25\)"):
        plain.certify(normal_rows(2), 0.1)
    with pytest.raises(ConfigError, match="certified_radius needs"):
        plain.certified_radius(normal_rows(2))
    with pytest.raises(pf.errors.PushforwardError, match="not fitted"):
        pf.Guard(smoothing=0.5).certify(normal_rows(2), 0.1)


@pytest.mark.parametrize(
    "change",
    [
        lambda d, t: d.update(shape=[2, 2]),
        lambda d, t: d.update(schema=None),
        lambda d, t: d.update(smoothing={"sigma": -1}),
        lambda d, t: d.update(smoothing={"sigma": 1, "color": 2}),
        lambda d, t: d.update(smoothing=None),
        lambda d, t: d.pop("base"),
        lambda d, t: d.update(top="a"),
        lambda d, t: t.pop("s.scale"),
        lambda d, t: t.update({"s.scale": t["s.scale"] * 0}),
        lambda d, t: t.update({"s.scale": t["s.scale"][:1]}),
        lambda d, t: t.pop("s.base.mean"),
    ],
)
def test_damaged_files_are_refused(guard, change):
    description, tensors = guard.score_.pack("s.")
    description = json.loads(json.dumps(description))
    assert SmoothedScore.unpack(description, tensors, "s.").score(normal_rows(3)).shape == (3,)
    change(description, tensors)
    with pytest.raises(StorageError):
        SmoothedScore.unpack(description, tensors, "s.")
