"""Rows for the score and rows for calibration."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from pushforward.errors import CalibrationError, PushforwardWarning
from pushforward.estimators import calibration_rows
from pushforward.estimators.calibration_rows import score_in_time, split_rows, take


@pytest.mark.parametrize(
    ("rows", "calibration", "alpha", "count"),
    [
        (1000, 0.25, 0.01, 250),
        (1000, 100, 0.01, 100),
        (200, 0.25, 0.01, 99),  # raised to what alpha needs: 1 / (99 + 1)
        (10**6, 0.25, 0.01, 10_000),
        (10**6, 0.25, 1e-5, 99_999),
        (3000, None, 0.05, 300),
        (600, None, 0.05, 100),
        (200, None, 0.05, 50),
        (200, None, 0.01, 99),
        (10**6, None, 0.05, 10_000),
    ],
)
def test_numbers_of_rows(rows: int, calibration: float | None, alpha: float, count: int) -> None:
    fitted, kept, _ = split_rows(rows, calibration, alpha, "marginal", 0.05, seed=0)
    assert len(kept) == count
    assert np.array_equal(np.sort(np.concatenate([fitted, kept])), np.arange(rows))


def test_too_few_rows() -> None:
    with pytest.warns(PushforwardWarning, match="needs 99 calibration rows, and there are 25: predict raises no alarm"):
        _, kept, _ = split_rows(100, 0.25, 0.01, "marginal", 0.05, seed=0)
    assert len(kept) == 25
    with pytest.raises(
        CalibrationError, match="2 calibrate, and at least 2 must be left to fit the score: give at least 4 rows"
    ):
        split_rows(3, 2, 0.5, "marginal", 0.05, seed=0)


@pytest.mark.parametrize("contamination", [0.01, 0.05, 0.1, 0.25])
def test_as_many_more_calibrate_as_may_be_left_out(contamination: float) -> None:
    _, kept, _ = split_rows(600, None, 0.01, "marginal", 0.05, seed=0, contamination=contamination)
    assert len(kept) - int(contamination * len(kept)) >= 99
    assert len(kept) <= 133


@pytest.mark.parametrize(
    ("rows", "calibration", "count"), [(21, None, 19), (30, None, 19), (30, 60, 19), (200, 60, 60), (40, 100, 20)]
)
def test_an_update_calibrates_with_as_many_as_alpha_needs(rows: int, calibration: int | None, count: int) -> None:
    fitted, kept, _ = split_rows(rows, calibration, 0.05, "marginal", 0.05, seed=0, update=True)
    assert (len(kept), len(fitted)) == (count, rows - count)


def test_rows_of_the_first_instant_leave_too_few() -> None:
    instants = np.r_[np.zeros(285), np.arange(1, 16)]
    with pytest.warns(PushforwardWarning, match="the 15 later ones are fewer than the 19 .* predict raises no alarm"):
        split_rows(300, None, 0.05, "marginal", 0.05, seed=0, time=instants)
    with pytest.raises(CalibrationError, match="the 15 later ones are fewer than the 19"):
        split_rows(300, None, 0.05, "marginal", 0.05, seed=0, time=instants, update=True)


def test_scoring_stops_when_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reading of the clock is a second later; the rows that were scored by then calibrate."""
    rows = np.random.default_rng(1).normal(size=(6000, 1))
    calibration = np.arange(500, 5500)
    ticks = iter(range(10**6))
    monkeypatch.setattr(calibration_rows.time, "monotonic", lambda: float(next(ticks)))
    scores = score_in_time(lambda x: x[:, 0], rows, calibration, 0, 11.9)
    assert len(scores) == 4 * 1024
    order = np.random.default_rng(0).permutation(calibration)[: len(scores)]
    np.testing.assert_array_equal(scores, rows[order, 0])
    assert len(score_in_time(lambda x: x[:, 0], rows, calibration, 0, 0.0)) == 0


def test_take_of_each_kind_of_rows() -> None:
    index = np.array([2, 0])
    x = np.arange(6.0).reshape(3, 2)
    assert take(x, index).tolist() == [[4, 5], [0, 1]]
    assert take(torch.from_numpy(x), index).tolist() == [[4, 5], [0, 1]]
    assert take(pa.table({"a": [1, 2, 3]}), index).column("a").to_pylist() == [3, 1]
