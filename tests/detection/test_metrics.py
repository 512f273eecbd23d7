import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from pushforward.detection import (
    auroc,
    average_precision,
    fpr_at_tpr,
    miss_rate_at_acceptance,
    normal_average_precision,
    oscr,
    partial_auroc,
    separation,
    tpr_at_fpr,
)
from pushforward.errors import ConfigError, InputError

steady = settings(deadline=None, derandomize=True)  # the same examples every time, on any machine
coarse = st.lists(st.sampled_from([-math.inf, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, math.inf]), min_size=1, max_size=25)
fine = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=25)
groups = st.one_of(st.tuples(coarse, coarse), st.tuples(fine, fine))


def labeled(normal, anomalous):
    """Labels and scores as scikit-learn reads them; ranks stand for scores because it refuses infinities."""
    ranks = stats.rankdata([*normal, *anomalous], method="dense")
    return np.r_[np.zeros(len(normal)), np.ones(len(anomalous))], ranks


@steady
@given(groups)
def test_against_scikit_learn(pair):
    labels, ranks = labeled(*pair)
    assert auroc(*pair) == pytest.approx(sk.roc_auc_score(labels, ranks), abs=1e-12)
    assert average_precision(*pair) == pytest.approx(sk.average_precision_score(labels, ranks), abs=1e-12)
    assert normal_average_precision(*pair) == pytest.approx(sk.average_precision_score(1 - labels, -ranks), abs=1e-12)


@steady
@given(groups)
def test_auroc_is_the_fraction_of_ordered_pairs(pair):
    normal, anomalous = pair
    twice = sum(2 * (a > x) + (a == x) for x in normal for a in anomalous)
    assert auroc(normal, anomalous) == twice / (2 * len(normal) * len(anomalous))


@steady
@given(groups, st.integers(0, 100))
def test_rates_are_the_best_point_of_the_roc_curve(pair, percent):
    """Every threshold there is, in exact arithmetic."""
    normal, anomalous = pair
    share = Fraction(percent, 100)
    points = [(Fraction(0), Fraction(0))] + [
        (Fraction(sum(x >= t for x in normal), len(normal)), Fraction(sum(a >= t for a in anomalous), len(anomalous)))
        for t in {*normal, *anomalous}
    ]
    assert tpr_at_fpr(normal, anomalous, percent / 100) == float(max(t for f, t in points if f <= share))
    if percent:
        assert fpr_at_tpr(normal, anomalous, percent / 100) == float(min(f for f, t in points if t >= share))


@pytest.mark.parametrize("n", [7, 20, 100, 300])
def test_percentages_are_not_changed_by_rounding(n):
    scores = np.arange(n)
    for percent in range(1, 101):
        to_catch = -(-percent * n // 100)
        # Anomalies at 0..n-1 and one normal row just under each: as many normal rows alarm above the threshold.
        assert fpr_at_tpr(scores - 0.5, scores, percent / 100) == (to_catch - 1) / n
        assert tpr_at_fpr(scores - 0.5, scores, percent / 100) == min((percent * n // 100 + 1), n) / n


@steady
@given(groups)
def test_exchanging_the_groups_and_the_sign_changes_nothing(pair):
    normal, anomalous = (np.array(group) for group in pair)
    assert auroc(-anomalous, -normal) == pytest.approx(auroc(normal, anomalous), abs=1e-15)
    # The other convention of FPR95: normal rows are positive, and 95% of them are accepted.
    for share in (0.95, 0.8, 1.0):
        accepted = miss_rate_at_acceptance(normal, anomalous, share)
        assert accepted == pytest.approx(_accepted(normal, anomalous, share), abs=1e-15)


def _accepted(normal, anomalous, share):
    """Fraction of anomalies at or below the lowest threshold that accepts a fraction of the normal rows."""
    accepted = [t for t in sorted(normal) if np.mean(normal <= t) >= share]
    return np.mean(anomalous <= accepted[0])


def test_the_two_conventions_differ():
    normal, anomalous = np.arange(100.0), np.r_[np.full(50, 50.5), np.full(50, 1000.0)]
    assert fpr_at_tpr(normal, anomalous) == 0.49  # 95% of the anomalies are caught at 50.5, as are 49 normal rows
    assert (
        miss_rate_at_acceptance(normal, anomalous) == 1 - tpr_at_fpr(normal, anomalous) == 0.5
    )  # 95% of the normal rows are accepted, as is half of the anomalies


def test_perfect_chance_inverted():
    low, high = [0.0, 1.0], [2.0, math.inf]
    assert (auroc(low, high), auroc(high, low), auroc(low, low)) == (1.0, 0.0, 0.5)
    assert (average_precision(low, high), average_precision([1.0], [1.0])) == (1.0, 0.5)
    assert (fpr_at_tpr(low, high), fpr_at_tpr(high, low)) == (0.0, 1.0)
    assert (tpr_at_fpr(low, high), tpr_at_fpr(high, low)) == (1.0, 0.0)
    assert auroc([0.0], [0.0]) == 0.5
    assert auroc([math.inf], [math.inf]) == 0.5
    assert auroc([-math.inf], [math.inf]) == 1.0


def test_close_scores_far_from_zero_are_distinguished():
    """A sigmoid or float32 on the way would tie these."""
    assert auroc([7000.0], [7000.0 + 1e-9]) == 1.0
    assert auroc([-1e300], [1e300]) == 1.0


def test_many_rows_do_not_overflow():
    n = 100_000
    assert auroc(np.zeros(n, np.int32), np.arange(n, dtype=np.int32)) == pytest.approx(1 - 0.5 / n, rel=1e-15)


@pytest.mark.parametrize(
    "measure",
    [
        auroc,
        average_precision,
        normal_average_precision,
        fpr_at_tpr,
        tpr_at_fpr,
        miss_rate_at_acceptance,
        partial_auroc,
        separation,
    ],
)
@pytest.mark.parametrize("bad", [[], [math.nan], [1.0, math.nan], [[1.0]], ["a"], [True], 1.0, None])
def test_bad_scores_are_refused(measure, bad):
    with pytest.raises(InputError, match="the normal scores"):
        measure(bad, [1.0])
    with pytest.raises(InputError, match="the anomalous scores"):
        measure([1.0], bad)


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan, "0.5", None, True])
def test_bad_fractions_are_refused(bad):
    with pytest.raises(ConfigError, match="tpr must be"):
        fpr_at_tpr([1.0], [1.0], bad)
    with pytest.raises(ConfigError, match="fpr must be"):
        tpr_at_fpr([1.0], [1.0], bad)
    with pytest.raises(ConfigError, match="fpr must be"):
        partial_auroc([1.0], [1.0], bad)
    with pytest.raises(ConfigError, match="acceptance must be"):
        miss_rate_at_acceptance([1.0], [1.0], bad)
    with pytest.raises(ConfigError, match=r"\(0, 1\]; got 0"):
        fpr_at_tpr([1.0], [1.0], 0)


@steady
@given(groups, st.sampled_from([0.01, 0.05, 0.3, 0.5, 0.99]))
def test_partial_auroc_against_scikit_learn(pair, fpr):
    labels, ranks = labeled(*pair)
    standardized = partial_auroc(*pair, fpr, standardized=True)
    assert standardized == pytest.approx(sk.roc_auc_score(labels, ranks, max_fpr=fpr), abs=1e-12)
    assert partial_auroc(*pair, 1.0) == pytest.approx(auroc(*pair), abs=1e-12)


def test_partial_auroc_by_hand():
    # At no false alarm 3 of 5 are caught (5, 6, 7), and from one false alarm of four on, all.
    assert partial_auroc([0, 1, 2, 4.5], [2.5, 4, 5, 6, 7], 0.25) == pytest.approx(0.6)
    assert partial_auroc([0, 1, 2, 4.5], [2.5, 4, 5, 6, 7], 0.5) == pytest.approx(0.8)
    assert partial_auroc([1.0], [1.0], 0.1) == pytest.approx(0.05)  # chance
    assert partial_auroc([0.0], [1.0], 0.05) == 1.0


def oscr_curve(normal, correct, anomalous):
    """The area under the curve itself, by trapezoids over every threshold."""
    normal, correct, anomalous = np.array(normal), np.array(correct), np.array(anomalous)
    points = [
        (np.mean(anomalous <= threshold), np.mean(correct & (normal <= threshold)))
        for threshold in sorted({*normal, *anomalous})
    ]
    x, y = np.array([(0.0, 0.0), *points]).T
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


@steady
@given(groups, st.randoms(use_true_random=False))
def test_oscr_is_the_area_under_its_curve(pair, random):
    normal, anomalous = pair
    correct = [random.random() < 0.7 for _ in normal]
    assert oscr(normal, correct, anomalous) == pytest.approx(oscr_curve(normal, correct, anomalous), abs=1e-12)
    assert oscr(normal, [True] * len(normal), anomalous) == pytest.approx(auroc(normal, anomalous), abs=1e-12)


def test_oscr_refuses_other_arrays_than_masks():
    assert oscr([0.0, 1.0], [False, False], [2.0]) == 0.0
    for bad in ([1, 0], [True], [[True, False]], [True, None]):
        with pytest.raises(InputError, match="one boolean for each of the 2"):
            oscr([0.0, 1.0], bad, [2.0])
    with pytest.raises(InputError, match="correct must be an array"):
        oscr([0.0, 1.0], [[True], [True, False]], [2.0])


def test_the_figures_at_once():
    rng = np.random.default_rng(0)
    normal, anomalous = rng.normal(size=200), rng.normal(size=100) + 1
    figures = separation(normal, anomalous)
    assert figures["auroc"] == auroc(normal, anomalous)
    assert figures["fraction_of_anomalies"] == pytest.approx(1 / 3)
    assert figures["false_alarms_at_80_detection"] == fpr_at_tpr(normal, anomalous, 0.8)
    assert figures["misses_at_80_acceptance"] == miss_rate_at_acceptance(normal, anomalous, 0.8)
    assert figures["false_alarms_at_95_detection"] > figures["false_alarms_at_80_detection"]
    assert figures["misses_at_95_acceptance"] > figures["misses_at_80_acceptance"]
    assert all(0 <= value <= 1 for value in figures.values())


def test_random_scores_have_the_prevalence_as_average_precision():
    rng = np.random.default_rng(1)
    normal, anomalous = rng.normal(size=20_000), rng.normal(size=5_000)
    figures = separation(normal, anomalous)
    # Standard deviations are about 0.003, 0.002 and 0.005.
    assert figures["average_precision_of_anomalies"] == pytest.approx(0.2, abs=0.015)
    assert figures["average_precision_of_normal"] == pytest.approx(0.8, abs=0.01)
    assert figures["auroc"] == pytest.approx(0.5, abs=0.025)
