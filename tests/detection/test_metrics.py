import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from pushforward.detection import auroc, average_precision, fpr_at_tpr, mean_rank, tpr_at_fpr, wins
from pushforward.errors import ConfigError, InputError

steady = settings(deadline=None, derandomize=True)  # the same examples every time, on any machine
coarse = st.lists(st.sampled_from([-math.inf, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, math.inf]), min_size=1, max_size=25)
fine = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=25)
groups = st.one_of(st.tuples(coarse, coarse), st.tuples(fine, fine))


def labelled(normal, anomalous):
    """Labels and scores as scikit-learn reads them; ranks stand for scores because it refuses infinities."""
    ranks = stats.rankdata([*normal, *anomalous], method="dense")
    return np.r_[np.zeros(len(normal)), np.ones(len(anomalous))], ranks


@steady
@given(groups)
def test_against_scikit_learn(pair):
    labels, ranks = labelled(*pair)
    assert auroc(*pair) == pytest.approx(sk.roc_auc_score(labels, ranks), abs=1e-12)
    assert average_precision(*pair) == pytest.approx(sk.average_precision_score(labels, ranks), abs=1e-12)


@steady
@given(groups)
def test_auroc_is_the_share_of_ordered_pairs(pair):
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
def test_shares_of_a_hundred_are_not_moved_by_rounding(n):
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
    assert fpr_at_tpr(-anomalous, -normal) == pytest.approx(_accepted(normal, anomalous, 0.95), abs=1e-15)


def _accepted(normal, anomalous, share):
    """Share of anomalies at or below the lowest threshold that accepts `share` of the normal rows."""
    accepted = [t for t in sorted(normal) if np.mean(normal <= t) >= share]
    return np.mean(anomalous <= accepted[0])


def test_the_two_conventions_differ():
    normal, anomalous = np.arange(100.0), np.r_[np.full(50, 50.5), np.full(50, 1000.0)]
    assert fpr_at_tpr(normal, anomalous) == 0.49  # 95% of the anomalies are caught at 50.5, as are 49 normal rows
    assert 1 - tpr_at_fpr(normal, anomalous) == 0.5  # 95% of the normal rows are accepted, as is half of the anomalies


def test_perfect_chance_inverted():
    low, high = [0.0, 1.0], [2.0, math.inf]
    assert (auroc(low, high), auroc(high, low), auroc(low, low)) == (1.0, 0.0, 0.5)
    assert (average_precision(low, high), average_precision([1.0], [1.0])) == (1.0, 0.5)
    assert (fpr_at_tpr(low, high), fpr_at_tpr(high, low)) == (0.0, 1.0)
    assert (tpr_at_fpr(low, high), tpr_at_fpr(high, low)) == (1.0, 0.0)
    assert auroc([0.0], [0.0]) == 0.5
    assert auroc([math.inf], [math.inf]) == 0.5
    assert auroc([-math.inf], [math.inf]) == 1.0


def test_close_scores_far_from_zero_are_told_apart():
    """A sigmoid or float32 on the way would tie these."""
    assert auroc([7000.0], [7000.0 + 1e-9]) == 1.0
    assert auroc([-1e300], [1e300]) == 1.0


def test_many_rows_do_not_overflow():
    n = 100_000
    assert auroc(np.zeros(n, np.int32), np.arange(n, dtype=np.int32)) == pytest.approx(1 - 0.5 / n, rel=1e-15)


@pytest.mark.parametrize("measure", [auroc, average_precision, fpr_at_tpr, tpr_at_fpr])
@pytest.mark.parametrize("bad", [[], [math.nan], [1.0, math.nan], [[1.0]], ["a"], [True], 1.0, None])
def test_bad_scores_are_refused(measure, bad):
    with pytest.raises(InputError, match="the normal scores"):
        measure(bad, [1.0])
    with pytest.raises(InputError, match="the anomalous scores"):
        measure([1.0], bad)


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan, "0.5", None, True])
def test_bad_shares_are_refused(bad):
    with pytest.raises(ConfigError, match="tpr must be"):
        fpr_at_tpr([1.0], [1.0], bad)
    with pytest.raises(ConfigError, match="fpr must be"):
        tpr_at_fpr([1.0], [1.0], bad)
    with pytest.raises(ConfigError, match=r"\(0, 1\]; got 0"):
        fpr_at_tpr([1.0], [1.0], 0)


tables = st.integers(1, 6).flatmap(
    lambda width: st.lists(
        st.lists(st.sampled_from([0.1, 0.5, 0.9, math.inf, -math.inf]), min_size=width, max_size=width),
        min_size=1,
        max_size=5,
    )
)


@steady
@given(tables)
def test_mean_rank_and_wins_against_scipy(rows):
    table = {f"method {i}": row for i, row in enumerate(rows)}
    figures = np.array(rows)
    ranks = stats.rankdata(-figures, axis=0)  # the average rank where tied
    for ours, sign in ((mean_rank(table), 1), (mean_rank(table, higher_is_better=False), -1)):
        assert list(ours) == list(table)
        assert list(ours.values()) == pytest.approx(stats.rankdata(-sign * figures, axis=0).mean(1))
    assert sum(mean_rank(table).values()) == pytest.approx(len(rows) * (len(rows) + 1) / 2)
    won = wins(table)
    assert sum(won.values()) == pytest.approx(figures.shape[1])
    best = stats.rankdata(-figures, axis=0, method="min") == 1
    for i, name in enumerate(table):
        assert won[name] == pytest.approx(sum(best[i, j] / best[:, j].sum() for j in range(figures.shape[1])))
        assert 1 <= ranks[i].mean() <= len(rows)


def test_wins_of_one_method_against_another():
    table = {"flow": [0.9, 0.8, 0.7, 0.6], "knn": [0.8, 0.8, 0.9, 0.5]}
    assert wins(table) == {"flow": 2.5, "knn": 1.5}
    assert wins(table, higher_is_better=False) == {"flow": 1.5, "knn": 2.5}
    assert mean_rank(table) == {"flow": 1.375, "knn": 1.625}


@pytest.mark.parametrize("summary", [mean_rank, wins])
def test_bad_tables_are_refused(summary):
    for bad in ({}, [[0.1]], None):
        with pytest.raises(InputError, match="the table must map"):
            summary(bad)
    with pytest.raises(InputError, match=r"\{'a': 2, 'b': 1\}"):
        summary({"a": [0.1, 0.2], "b": [0.1]})
    with pytest.raises(InputError, match="the figures of 'b' hold NaN"):
        summary({"a": [0.1], "b": [math.nan]})
    with pytest.raises(InputError, match="the figures of 'a' are empty"):
        summary({"a": []})
