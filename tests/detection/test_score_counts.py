"""Ranks of a stream of scores: p-values, their uniformity, and the band of theory."""

import numpy as np
import pytest
from scipy import stats

from pushforward.detection import ConformalCalibrator, realized_interval
from pushforward.detection.conformal.score_counts import ScoreCounts


def counted(calibration, new, parts=3):
    counts = ScoreCounts(ConformalCalibrator(calibration))
    for part in np.array_split(np.asarray(new, dtype=float), parts):
        counts.add(part)
    return counts


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_p_values_and_of_scipy(ties, seed):
    rng = np.random.default_rng(seed)
    calibration, new = rng.normal(size=37), rng.normal(0.4, 1.2, size=80)
    if ties:
        calibration, new = np.round(2 * calibration), np.round(2 * new)
    counts = counted(calibration, new)
    p = ConformalCalibrator(calibration).p_value(new)
    levels = np.linspace(0, 1, 39)
    assert counts.with_p_at_most(levels).tolist() == [int((p <= level * (1 + 1e-9)).sum()) for level in levels]
    assert counts.uniformity().distance == pytest.approx(stats.ks_2samp(new, calibration).statistic)
    assert counts.rows == 80


def test_infinite_scores_have_the_smallest_p_value():
    counts = counted([1.0, 2.0, 3.0], [np.inf, -np.inf])
    assert counts.with_p_at_most([0.25, 0.99, 1.0]).tolist() == [1, 1, 2]


def test_the_sign_says_on_which_side_the_scores_are():
    calibration = np.arange(100.0)
    assert counted(calibration, calibration + 50).uniformity().excess > 0
    assert counted(calibration, calibration - 50).uniformity().excess < 0
    assert counted(calibration, []).uniformity().p_value == 1.0


def test_bins_contain_all_rows_and_bands_are_beta_binomial():
    rng = np.random.default_rng(0)
    counts = counted(rng.normal(size=199), rng.normal(size=500))
    found = counts.histogram(bins=20, level=0.95)
    assert found.counts.sum() == 500
    assert found.expected == pytest.approx(np.full(20, 25.0))
    low, high = realized_interval(199, 500, 0.05, 0.95)
    assert found.low == pytest.approx(np.full(20, 500 * low))
    assert found.high == pytest.approx(np.full(20, 500 * high))


def test_few_calibration_rows_give_few_bins():
    found = counted([1.0, 2.0], [0.0, 1.5, 9.0]).histogram(20)
    assert found.edges == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert found.counts.tolist() == [1, 1, 1]


def test_bars_leave_the_band_as_rarely_as_it_says():
    rng = np.random.default_rng(0)
    outside = []
    for _ in range(200):
        found = counted(rng.normal(size=99), rng.normal(size=60)).histogram(10, 0.9)
        outside.append(np.mean((found.counts < found.low) | (found.counts > found.high)))
    assert np.mean(outside) <= 0.1
    assert np.mean(outside) > 0.01  # the band is no wider than it must be for counts
