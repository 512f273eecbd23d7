import numpy as np
import pytest
from scipy import stats

from pushforward.detection import ConformalCalibrator, operating_point
from pushforward.errors import CalibrationError, ConfigError, InputError


def test_it_counts_the_alarms_of_the_calibrator():
    rng = np.random.default_rng(0)
    calibration, normal, anomalous = rng.normal(size=999), rng.normal(size=500), rng.normal(size=300) + 2
    calibrator = ConformalCalibrator(calibration)
    for alpha, guarantee in ((0.01, "marginal"), (0.05, "marginal"), (0.05, "pac")):
        point = operating_point(calibration, normal, anomalous, alpha, guarantee)
        limit = calibrator.threshold(alpha, guarantee)
        assert point.tpr == np.mean(calibrator.p_value(anomalous) <= limit)
        assert point.false_alarm_rate == np.mean(calibrator.p_value(normal) <= limit)
        assert point.alpha == alpha


def test_a_normal_shift_is_detected_at_the_theoretical_rate():
    """Scores N(0, 1) against N(2, 1): at a rate of 5% the threshold is z = 1.645, and P(N(2, 1) > z) = 0.639."""
    rng = np.random.default_rng(1)
    point = operating_point(rng.normal(size=100_000), rng.normal(size=100_000), rng.normal(size=100_000) + 2, 0.05)
    assert point.tpr == pytest.approx(stats.norm.sf(stats.norm.isf(0.05) - 2), abs=0.01)
    assert point.false_alarm_rate == pytest.approx(0.05, abs=0.004)
    assert point.within_expectation


def test_broken_guarantees_are_reported():
    rng = np.random.default_rng(2)
    point = operating_point(rng.normal(size=1000), rng.normal(size=1000) + 0.5, [9.0], 0.05)  # drift
    assert not point.within_expectation
    assert point.expected[0] < 0.05 < point.expected[1] < point.false_alarm_rate


def test_refusals():
    with pytest.raises(CalibrationError, match="needs at least 99"):
        operating_point([1.0] * 50, [1.0], [1.0], 0.01)
    with pytest.raises(InputError, match="the normal scores"):
        operating_point([1.0] * 100, [np.nan], [1.0], 0.05)
    with pytest.raises(ConfigError, match="alpha"):
        operating_point([1.0] * 100, [1.0], [1.0], 0)
