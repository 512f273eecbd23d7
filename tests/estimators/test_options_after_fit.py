"""Options that are set after fit: the promise counts at once, others at the next fit, and a file is the guard in memory."""

from __future__ import annotations

import numpy as np
import pytest

from pushforward import Guard
from pushforward.errors import ConfigError, PushforwardWarning

ROWS = np.random.default_rng(0).normal(size=(500, 2))
NEW = np.random.default_rng(1).normal(size=(400, 2)) * 1.5


@pytest.fixture
def guard():
    return Guard(alpha=0.1, random_state=0).fit(ROWS)


@pytest.mark.parametrize(
    "promise", [{"alpha": 0.02}, {"guarantee": "pac"}, {"alpha": 0.05, "guarantee": "pac", "delta": 0.2}]
)
def test_a_new_promise_counts_at_once(guard, promise):
    fresh = Guard(**{"alpha": 0.1, "random_state": 0} | promise, calibration=guard.calibrator_.n).fit(ROWS)
    np.testing.assert_array_equal(fresh.calibrator_.scores, guard.calibrator_.scores)  # the promise alone differs
    before = guard.predict(NEW)
    assert guard.set_params(**promise) is guard
    np.testing.assert_array_equal(guard.predict(NEW), fresh.predict(NEW))
    assert (guard.level_, guard.offset_) == (fresh.level_, fresh.offset_)
    assert (guard.predict(NEW) != before).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 2}, "alpha must be"),
        ({"guarantee": "sure"}, "guarantee must be"),
        ({"alpha": 0.05, "delta": -1}, "delta must be"),
    ],
)
def test_an_impossible_promise_changes_nothing(guard, options, message):
    before, level = guard.get_params(), guard.level_
    with pytest.raises(ConfigError, match=message):
        guard.set_params(strict=True, **options)
    assert (guard.get_params(), guard.level_) == (before, level)


def test_too_few_rows_for_a_new_promise(guard):
    with pytest.warns(PushforwardWarning, match=r"needs 9999 calibration rows, and this guard has 100: until"):
        guard.set_params(alpha=1e-4)
    assert (guard.predict(NEW) == 1).all()
    guard.set_params(alpha=0.1)
    assert (guard.predict(NEW) == -1).any()


def test_before_fit_nothing_is_checked():
    assert Guard().set_params(alpha=2).alpha == 2  # fit says what is wrong, as in scikit-learn


def test_trimming_follows_the_promise():
    guard = Guard(alpha=0.1, max_contamination=0.05, guarantee="pac", random_state=0).fit(
        np.vstack([ROWS, ROWS[:20] * 9])
    )
    assert guard.calibration_.trimmed
    before = guard.calibration_.higher
    guard.set_params(alpha=0.2, delta=0.5, max_contamination=0.4)
    fresh = Guard(
        alpha=0.2, delta=0.5, guarantee="pac", max_contamination=0.05, random_state=0,
        calibration=guard.calibrator_.n + guard.calibration_.trimmed,
    ).fit(np.vstack([ROWS, ROWS[:20] * 9]))  # fmt: skip
    assert guard.calibration_ == fresh.calibration_
    assert guard.calibration_.higher != before


def test_a_file_is_the_guard_in_memory(guard, tmp_path):
    guard.set_params(alpha=0.05, smoothing=0.5, strict=True, effort="thorough", store_rows=False)
    guard.save(tmp_path / "guard.pf")
    loaded = Guard.load(tmp_path / "guard.pf")
    np.testing.assert_array_equal(loaded.predict(NEW), guard.predict(NEW))
    assert (loaded.alpha, loaded.smoothing, loaded.strict, loaded.effort) == (0.05, None, False, "default")
    assert loaded.options_ == guard.options_ | {"alpha": 0.05}
    loaded.save(tmp_path / "again.pf")
    assert Guard.load(tmp_path / "again.pf").get_params() == loaded.get_params()


def test_the_next_fit_takes_the_new_options(guard):
    guard.set_params(strict=True, effort="fast").fit(ROWS)
    assert (guard.options_["strict"], guard.options_["effort"]) == (True, "fast")
