import itertools
import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pushforward.detection import ConformalCalibrator, benjamini_hochberg
from pushforward.errors import CalibrationError, ConfigError, InputError

steady = settings(deadline=None, derandomize=True)  # the same examples every time, on any machine
RARE = 1e-6
"""Chance with which a right answer may fail a simulation test; seeds are fixed as well."""

scores = st.one_of(
    st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 5e-324, 1.0, 1.7976931348623157e308, math.inf]),  # plenty of ties
    st.floats(allow_nan=False),
)


def slow_p(calibration, score) -> Fraction:
    return Fraction(1 + sum(1 for s in calibration if s >= score), len(calibration) + 1)


# p-values


@steady
@given(st.lists(scores, min_size=1, max_size=30), st.lists(scores, max_size=10))
def test_p_value_is_the_definition(calibration, new):
    p = ConformalCalibrator(calibration).p_value(new)
    assert p.dtype == np.float64
    assert p.tolist() == [float(slow_p(calibration, s)) for s in new]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_super_uniform_by_enumeration(n):
    """Exchangeable rows: each of the n + 1 is the new one equally often. Every multiset of scores, ties and all."""
    for pool in itertools.combinations_with_replacement([-math.inf, 0.0, 1.0, 2.0, math.inf], n + 1):
        p = sorted(ConformalCalibrator(pool[:i] + pool[i + 1 :]).p_value([pool[i]]).item() for i in range(n + 1))
        assert all(p[j] >= (j + 1) / (n + 1) for j in range(n + 1))  # P(p <= a) <= a for every a
        if len(set(pool)) == n + 1:
            assert p == [(j + 1) / (n + 1) for j in range(n + 1)]  # and exactly uniform without ties


def test_infinities():
    calibrator = ConformalCalibrator([1.0, -math.inf, 2.0])
    assert calibrator.p_value([math.inf, -math.inf]).tolist() == [0.25, 1.0]
    assert ConformalCalibrator([1.0, math.inf, math.inf]).p_value([math.inf]).tolist() == [0.75]


def test_one_calibration_row():
    calibrator = ConformalCalibrator([3.0])
    assert calibrator.p_value([2.0, 3.0, 4.0]).tolist() == [1.0, 1.0, 0.5]
    assert calibrator.threshold(0.5) == 0.5
    assert calibrator.threshold(0.999999) == 0.5


def test_row_does_not_depend_on_the_others():
    rng = np.random.default_rng(0)
    calibrator = ConformalCalibrator(rng.normal(size=50))
    new = rng.normal(size=20)
    assert calibrator.p_value(new).tolist() == [calibrator.p_value([s]).item() for s in new]


def test_order_and_container_of_the_scores_do_not_matter():
    values = [3, 1, 2, 2]
    expected = [0.8, 0.4, 0.2]
    for container in (values, tuple(values), np.array(values), np.array(values, np.float32), pd.Series(values),
                      torch.tensor(values), torch.tensor(values, dtype=torch.float16)):  # fmt: skip
        calibrator = ConformalCalibrator(container)
        assert calibrator.scores.tolist() == [1.0, 2.0, 2.0, 3.0]
        assert calibrator.p_value(torch.tensor([2, 3, 4])).tolist() == expected


def test_the_calibrator_keeps_its_own_sorted_copy():
    values = np.array([2.0, 1.0])
    calibrator = ConformalCalibrator(values)
    values[:] = 100.0
    assert calibrator.scores.tolist() == [1.0, 2.0]
    assert calibrator.n == 2
    with pytest.raises(ValueError, match="read-only"):
        calibrator.scores[0] = 0.0
    assert repr(calibrator) == "ConformalCalibrator(2 rows, scores 1 to 2)"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ([1.0, math.nan, math.nan], "2 NaN among 3 values, the first at index 1"),
        ([[1.0], [2.0]], r"shape \(2, 1\)"),
        (3.0, r"shape \(\)"),
        (["a"], "real numbers"),
        ([True, False], "bool"),
        ([1j], "complex"),
        ([1.0, None], "object"),
        ([[1.0], [1.0, 2.0]], "one-dimensional"),
        (torch.ones(2, requires_grad=True), "grad"),
    ],
)
def test_bad_scores_are_refused(bad, says):
    with pytest.raises(InputError, match=says):
        ConformalCalibrator(bad)
    with pytest.raises(InputError, match=says):
        ConformalCalibrator([1.0]).p_value(bad)


def test_no_scores():
    with pytest.raises(InputError, match="empty"):
        ConformalCalibrator([])
    assert ConformalCalibrator([1.0]).p_value([]).shape == (0,)


# thresholds


def test_marginal_threshold_is_the_largest_level_within_alpha():
    for n in (1, 2, 9, 19, 99, 100, 143, 999):
        calibrator = ConformalCalibrator(np.arange(n))
        for hundredths in range(1, 100):
            alpha = hundredths / 100
            k = max(k for k in range(n + 1) if Fraction(k, n + 1) <= Fraction(hundredths, 100))
            if k == 0:
                with pytest.raises(CalibrationError):
                    calibrator.threshold(alpha)
            else:
                assert calibrator.threshold(alpha) == k / (n + 1)


@pytest.mark.parametrize(("alpha", "n"), [(1 - 0.9, 9), (1 - 0.8, 4), (0.1 + 0.2, 9), (1 / 3, 2), (1 / 49, 48)])
def test_rounding_in_alpha_costs_no_row(alpha, n):
    assert ConformalCalibrator(np.arange(n)).threshold(alpha) == pytest.approx(alpha, rel=1e-12)


@pytest.mark.parametrize("n", [1, 7, 58, 59, 60, 298, 299, 1000])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.37, 0.9])
@pytest.mark.parametrize("delta", [0.01, 0.05, 0.5])
def test_pac_threshold_against_all_levels(n, alpha, delta):
    levels = np.arange(1, n + 1)
    kept = stats.beta(levels, n + 1 - levels).cdf(alpha) >= 1 - delta
    calibrator = ConformalCalibrator(np.arange(n))
    if not kept.any():
        with pytest.raises(CalibrationError):
            calibrator.threshold(alpha, "pac", delta)
    else:
        assert calibrator.threshold(alpha, "pac", delta) == levels[kept].max() / (n + 1)


@pytest.mark.parametrize("guarantee", ["marginal", "pac"])
@steady
@given(st.lists(scores, min_size=6, max_size=30), st.lists(scores, max_size=10), st.floats(0.4, 0.95))
def test_score_threshold_decides_as_the_p_value_does(guarantee, calibration, new, alpha):
    calibrator = ConformalCalibrator(calibration)
    level = calibrator.threshold(alpha, guarantee, 0.2)
    new = new + calibration
    new += [math.nextafter(s, side) for s in new for side in (math.inf, -math.inf)] + [math.inf]
    alarms = calibrator.p_value(new) <= level
    try:
        threshold = calibrator.score_threshold(alpha, guarantee, 0.2)
    except CalibrationError:
        assert not alarms.any()
    else:
        assert ((np.array(new) >= threshold) == alarms).all()


def test_score_threshold_where_nothing_could_alarm():
    with pytest.raises(CalibrationError, match=r"2 of the 4 calibration scores are \+inf"):
        ConformalCalibrator([0.0, 1.0, math.inf, math.inf]).score_threshold(0.4)
    assert ConformalCalibrator([0.0, 1.0, math.inf, math.inf]).score_threshold(0.6) == math.nextafter(1.0, 2.0)


def test_marginal_false_alarm_rate():
    """One new row for each of 5,000 calibration sets: alarms are independent with probability exactly 5/100."""
    draws = np.random.default_rng(1).standard_cauchy(size=(5000, 100))
    alarms = 0
    for row in draws:
        calibrator = ConformalCalibrator(row[1:])
        alarms += calibrator.p_value(row[:1]).item() <= calibrator.threshold(0.05)
    assert stats.binom.ppf(RARE, 5000, 0.05) <= alarms <= stats.binom.isf(RARE, 5000, 0.05)


@pytest.mark.parametrize(("n", "alpha", "delta"), [(59, 0.05, 0.05), (300, 0.05, 0.05), (1000, 0.01, 0.1)])
def test_pac_promise_over_calibration_sets(n, alpha, delta):
    rng = np.random.default_rng(2)
    broken = broken_with_ties = 0
    for _ in range(2000):
        draw = rng.normal(size=n)
        calibrator = ConformalCalibrator(draw)
        broken += stats.norm.sf(calibrator.score_threshold(alpha, "pac", delta)) > alpha
        # Scores rounded to tenths: P(score >= t) = P(normal > the midpoint below the lowest alarming tenth).
        tied = ConformalCalibrator(np.round(draw * 10))
        lowest = math.ceil(tied.score_threshold(alpha, "pac", delta))
        broken_with_ties += stats.norm.sf((lowest - 0.5) / 10) > alpha
    k = round(calibrator.threshold(alpha, "pac", delta) * (n + 1))
    exact = stats.binom.cdf(k - 1, n, alpha)  # fewer than k of n calibration rows beyond the true (1 - alpha)-quantile
    assert exact <= delta
    assert stats.binom.ppf(RARE, 2000, exact) <= broken <= stats.binom.isf(RARE, 2000, delta)
    assert broken_with_ties <= stats.binom.isf(RARE, 2000, delta)


# Benjamini-Hochberg


def slow_bh(p: list[Fraction], fdr: Fraction) -> list[bool]:
    m = len(p)
    good = [k for k in range(1, m + 1) if sorted(p)[k - 1] * m <= fdr * k]
    return [value in sorted(p)[: max(good, default=0)] for value in p]


@steady
@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 99))
def test_bh_against_exact_arithmetic(ranks, hundredths):
    """P-values k/60 and whole percents, so that many lie exactly on the line."""
    mask = benjamini_hochberg([k / 60 for k in ranks], hundredths / 100)
    assert mask.dtype == np.bool_
    assert mask.tolist() == slow_bh([Fraction(k, 60) for k in ranks], Fraction(hundredths, 100))


def test_bh_is_not_moved_by_rounding():
    assert 0.3 * 1 / 3 < 0.1  # in floating point; 0.1 lies on the line all the same
    assert benjamini_hochberg([0.1, 1.0, 1.0], 0.3).tolist() == [True, False, False]


def test_bh_steps_up():
    # 0.04 and 0.05 are over their own lines (0.025, 0.0375), but 0.05 is at the line of k = 4.
    assert benjamini_hochberg([0.05, 0.04, 0.05, 0.05], 0.05).all()
    # The worked example of Benjamini & Hochberg (1995): four of fifteen at 0.05, where Bonferroni has three.
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590,
         1.0000]  # fmt: skip
    assert benjamini_hochberg(p, 0.05).sum() == 4


def test_bh_granularity():
    """A single anomaly among m rows is found with n >= m / fdr - 1 calibration rows and not with one fewer."""
    m, fdr = 20, 0.1
    for n, found in ((199, 1), (198, 0)):
        calibrator = ConformalCalibrator(np.arange(n))
        p = calibrator.p_value(np.r_[np.zeros(m - 1), 1e9])
        assert benjamini_hochberg(p, fdr).sum() == found


def test_bh_edges():
    assert benjamini_hochberg([], 0.1).shape == (0,)
    assert benjamini_hochberg([0.0, 1.0], 0.1).tolist() == [True, False]
    for bad in ([-0.1], [1.1], [math.nan], [math.inf], [[0.1]], ["a"]):
        with pytest.raises(InputError):
            benjamini_hochberg(bad, 0.1)
    for bad in (0, 1, -1, math.nan, "0.1", True, None):
        with pytest.raises(ConfigError, match="fdr"):
            benjamini_hochberg([0.5], bad)


def test_bh_false_discovery_rate_with_a_shared_calibration_set():
    """80 normal rows and 20 anomalies a batch, a new calibration set a batch: FDR <= 0.8 * 0.2, and it finds most."""
    rng = np.random.default_rng(3)
    normal = np.arange(100) < 80
    shares, power = [], []
    for _ in range(2000):
        calibrator = ConformalCalibrator(rng.normal(size=500))
        chosen = benjamini_hochberg(calibrator.p_value(rng.normal(size=100) + 3.0 * ~normal), 0.2)
        shares.append((chosen & normal).sum() / max(chosen.sum(), 1))
        power.append(chosen[~normal].mean())
    error = stats.norm.isf(RARE) * np.std(shares) / math.sqrt(len(shares))
    assert abs(np.mean(shares) - 0.16) <= error  # with continuous scores and fdr * n in step, the bound is reached
    assert np.mean(power) > 0.8
