"""A guard that is calibrated again, and a guard under a known shift: what is promised, to whom, and whether it is kept."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

import pushforward as pf
from pushforward.detection import realized_interval, rows_needed
from pushforward.errors import (
    CalibrationError,
    ConfigError,
    InputError,
    PushforwardWarning,
    SchemaError,
    SchemaWarning,
    StorageError,
)
from pushforward.estimators import ShiftedGuard

ALPHA = 0.05


def rows(n, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    x[:, 0] += shift
    x[:, 1] += 0.5 * x[:, 0]
    return x


def fitted():
    return pf.Guard(ALPHA, n_estimators=1, max_steps=100, random_state=0).fit(rows(1000, 0))


@pytest.fixture(scope="module")
def guard():
    return fitted()


def test_false_alarms_after_recalibration_over_20_redraws(guard, tmp_path):
    """Rows with another mean: far too many false alarms before, and inside the beta-binomial interval in each redraw after."""
    low, high = realized_interval(500, 1000, ALPHA, level=1 - 1e-4)
    guard.save(tmp_path / "g.safetensors")
    rates = []
    for seed in range(20):
        again = pf.Guard.load(tmp_path / "g.safetensors")
        new = rows(1000, 2000 + seed, shift=2)
        assert np.mean(again.predict(new) == -1) > high
        again.recalibrate(rows(500, 1000 + seed, shift=2))
        rates.append(np.mean(again.predict(new) == -1))
    assert low <= min(rates) <= max(rates) <= high
    # 20 independent rates: a standard error of the mean of about 0.0027
    assert abs(np.mean(rates) - ALPHA) < 0.011


def test_the_record_says_what_the_promise_refers_to(tmp_path):
    guard = fitted()
    assert str(guard.calibration_) == "rows like the training rows (100 of them were kept for calibration)"
    guard.recalibrate(rows(300, 5), note="plant 2")
    assert guard.recalibrate(rows(400, 6), note="plant 3") is guard
    assert (guard.calibration_.rows, guard.calibration_.times) == (400, 2)
    guard.save(tmp_path / "g.safetensors")
    again = pf.Guard.load(tmp_path / "g.safetensors")
    assert str(again.calibration_) == str(guard.calibration_)
    assert "the 400 rows of the last recalibration (plant 3), and no longer" in str(again.calibration_)
    np.testing.assert_array_equal(again.p_value(rows(50, 7)), guard.p_value(rows(50, 7)))
    assert again.fit(rows(500, 8)).calibration_.times == 0


def test_a_compiled_guard_is_calibrated_by_its_model():
    guard, plain = fitted().compile(), fitted()
    x = rows(300, 5)
    guard.recalibrate(x)
    plain.recalibrate(x)
    np.testing.assert_array_equal(guard.calibrator_.scores, plain.calibrator_.scores)
    np.testing.assert_array_equal(guard.compile().p_value(rows(50, 7)), plain.p_value(rows(50, 7)))


def test_a_recalibration_that_fails_changes_nothing():
    guard = fitted()
    before = guard.p_value(rows(50, 7))
    for x, error, words in (
        (rows(10, 5), CalibrationError, "needs at least 19 calibration rows"),
        (np.zeros((100, 3)), SchemaError, "3 features"),
        ([["a", "b"]] * 50, InputError, "convert"),
    ):
        with pytest.raises(error, match=words):
            guard.recalibrate(x)
    np.testing.assert_array_equal(guard.p_value(rows(50, 7)), before)
    assert guard.calibration_.times == 0
    with pytest.raises(pf.errors.PushforwardError, match="not fitted"):
        pf.Guard().recalibrate(rows(50, 0))


@pytest.mark.parametrize(
    "record", [{"rows": 3, "times": 0, "note": ""}, {"rows": 250}, "x", {"rows": 250, "times": -1, "note": ""}]
)
def test_a_record_that_does_not_fit_the_file(tmp_path, record):
    guard = fitted()
    path = tmp_path / "g.safetensors"
    guard.save(path)
    header, tensors = pf.io.read(path)
    pf.io.write(path, {**header, "calibrated": record}, tensors)
    with pytest.raises(StorageError, match="its record of the calibration"):
        pf.Guard.load(path)


def test_a_file_without_a_record_is_a_guard_as_it_was_fitted(tmp_path):
    guard = fitted()
    guard.save(tmp_path / "g.safetensors")
    header, tensors = pf.io.read(tmp_path / "g.safetensors")
    del header["calibrated"]
    pf.io.write(tmp_path / "g.safetensors", header, tensors)
    assert pf.Guard.load(tmp_path / "g.safetensors").calibration_.times == 0


# -- a known shift --

SHIFT = 0.8


def ratio(x):
    """dQ/dP for column 0 from N(0, 1) to N(0.8, 1), while column 1 given column 0 stays what it is."""
    return np.exp(SHIFT * x[:, 0] - SHIFT**2 / 2)


@pytest.mark.parametrize("redraws", [8, pytest.param(20, marks=pytest.mark.slow)])
def test_false_alarms_under_a_known_shift(guard, redraws):
    """The mean of the rates is alpha within three standard errors, each rate is near it, and without weights it is not."""
    rates, estimated, plain = [], [], []
    for seed in range(redraws):
        x, new = rows(1000, 3000 + seed), rows(1000, 4000 + seed, shift=SHIFT)
        shifted = ShiftedGuard(guard, x, ratio)
        rates.append(np.mean(shifted.predict(new) == -1))
        by_classifier = ShiftedGuard(guard, x, shifted=rows(1000, 5000 + seed, shift=SHIFT))
        estimated.append(np.mean(by_classifier.predict(new) == -1))
        plain.append(np.mean(guard.predict(new) == -1))
    error = np.std(rates, ddof=1) / np.sqrt(redraws)
    assert ALPHA - 4 * error < np.mean(rates) < ALPHA + 3 * error
    assert max(rates) < 2 * ALPHA
    assert abs(np.mean(estimated) - ALPHA) < 0.02
    assert np.mean(plain) > ALPHA + 0.02


def test_weights_as_numbers(guard):
    x, new = rows(400, 1), rows(50, 2, shift=SHIFT)
    by_function, by_numbers = ShiftedGuard(guard, x, ratio), ShiftedGuard(guard, x, ratio(x))
    np.testing.assert_array_equal(by_function.p_value(new), by_numbers.p_value(new, ratio(new)))
    assert 100 < by_function.calibrator_.effective_rows < 400
    assert "with the given likelihood ratios" in by_function.promise
    with pytest.raises(ConfigError, match="give the weights of these rows too"):
        by_numbers.predict(new)
    with pytest.raises(InputError, match="there are 3 for 400 scores"):
        ShiftedGuard(guard, x, [1.0, 2.0, 3.0])


def test_an_estimated_ratio_says_that_it_is_approximate():
    frame = pd.DataFrame({"x": rows(600, 1)[:, 0], "c": np.random.default_rng(0).choice(["u", "v"], 600)})
    guard = pf.Guard(0.1, n_estimators=1, max_steps=30, random_state=0).fit(frame)
    shifted = ShiftedGuard(guard, frame, shifted=frame.assign(c="v"))
    assert "approximate" in shifted.promise
    assert "estimated" in repr(shifted)
    assert shifted.calibrator_.n == 300
    with pytest.warns(SchemaWarning, match="no row had at fit"):
        assert shifted.predict(frame.assign(c="new")).shape == (600,)
    assert shifted.ratio_.auroc_ > 0.6


def test_weights_or_rows_and_not_both(guard):
    for options in ({}, {"weights": ratio, "shifted": rows(50, 1)}):
        with pytest.raises(ConfigError, match="either weights"):
            ShiftedGuard(guard, rows(50, 1), **options)


def test_options_of_the_estimate(guard):
    x = rows(400, 1)
    assert ShiftedGuard(guard, x, shifted=rows(200, 2), seed=-1).calibrator_.n == 200
    with pytest.raises(ConfigError, match="seed must be an integer"):
        ShiftedGuard(guard, x, shifted=rows(200, 2), seed=1.5)
    with pytest.raises(ConfigError, match="ratio must be a ClassifierRatio or None; got str"):
        ShiftedGuard(guard, x, shifted=rows(200, 2), ratio="abc")


def test_too_few_rows_for_an_alarm_are_a_warning(guard):
    needed = rows_needed(guard.alpha)
    with pytest.warns(PushforwardWarning, match=f"count as {needed - 1}, and alpha={guard.alpha:g} needs {needed}"):
        shifted = ShiftedGuard(guard, rows(needed - 1, 1), np.ones(needed - 1))
    assert (shifted.predict(1e6 * rows(5, 2), np.ones(5)) == 1).all()
    assert (ShiftedGuard(guard, rows(needed, 1), np.ones(needed)).predict(1e6 * rows(5, 2), np.ones(5)) == -1).all()


def test_a_small_rate_is_not_written_as_none(guard):
    shifted = copy.copy(ShiftedGuard(guard, rows(400, 1), ratio))
    with pytest.warns(PushforwardWarning, match="needs 99999 calibration rows"):
        shifted.guard = copy.copy(guard).set_params(alpha=1e-5)
    assert shifted.promise.startswith("at most 0.001% false alarms")


def test_later_changes_of_the_guard_do_not_reach_a_shifted_one(guard):
    own = copy.copy(guard)
    shifted, new = ShiftedGuard(own, rows(400, 1), ratio), rows(50, 2)
    before = shifted.p_value(new)
    own.fit(5 * rows(300, 3))
    np.testing.assert_array_equal(shifted.p_value(new), before)


def test_a_shifted_guard_of_something_else_is_refused():
    with pytest.raises(ConfigError, match=r"guard must be a fitted pushforward\.Guard; got NetworkGuard"):
        ShiftedGuard(pf.NetworkGuard(torch.nn.Linear(2, 2)), rows(50, 1), ratio)
