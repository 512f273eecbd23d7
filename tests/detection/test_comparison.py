import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pushforward.detection import mean_rank, wins
from pushforward.errors import InputError

steady = settings(deadline=None, derandomize=True)  # the same examples every time, on any machine

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
        with pytest.raises(InputError, match="the table must be a mapping"):
            summary(bad)
    with pytest.raises(InputError, match=r"\{'a': 2, 'b': 1\}"):
        summary({"a": [0.1, 0.2], "b": [0.1]})
    with pytest.raises(InputError, match="the results of 'b' have 1 NaN"):
        summary({"a": [0.1], "b": [math.nan]})
    with pytest.raises(InputError, match="the results of 'a' are empty"):
        summary({"a": []})
