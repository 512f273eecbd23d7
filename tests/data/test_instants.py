"""Ends of instants, and the periods that they span."""

import numpy as np
import pytest

from pushforward.data.calendar import PERIODS, calendar_columns, periods_of
from pushforward.data.instants import ends_of

DAY = 86_400.0


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("far", [[400], [400, 401], [400, 401, 402]])
def test_few_instants_far_from_all_others_do_not_count(far, sign, rng):
    near = rng.uniform(0, 30, size=3000)
    values = sign * DAY * np.concatenate((near, far))
    assert sorted(sign * end / DAY for end in ends_of(rng.permutation(values))) == [near.min(), near.max()]


def test_more_than_one_in_a_thousand_count(rng):
    values = np.concatenate((rng.uniform(0, 30, size=1500), [400, 401]))
    assert ends_of(values)[1] == 401


def test_mistyped_years_at_both_ends_do_not_hide_each_other(rng):
    near = DAY * rng.uniform(0, 30, size=500)
    assert ends_of(np.concatenate((near, [-9e4 * DAY, 8e4 * DAY]))) == (near.min(), near.max())


@pytest.mark.parametrize(
    "values",
    [[1.0], [0.0, 1.0, 1000.0], np.exp(np.linspace(0, 3, 200)), np.linspace(0, 1, 5000), [0.0] * 100 + [7 * DAY]],
    ids=["one", "few", "growth", "even", "a week later"],
)
def test_other_ends_are_the_smallest_and_the_largest(values):
    assert ends_of(values) == (min(values), max(values))


def test_a_mistyped_year_adds_no_period(rng):
    month = DAY * np.sort(rng.uniform(0, 28, size=800))
    assert periods_of(month, "timestamp") == ("day", "week")
    assert periods_of(np.append(month, [180 * 365 * DAY, np.nan]), "timestamp") == ("day", "week")


@pytest.mark.parametrize("period", ["day", "week", "year"])
def test_the_same_time_of_other_periods_is_the_same_point(period):
    length = PERIODS[period]
    turns = np.arange(-3000.0, 3000.0)
    circle = calendar_columns(turns * length + length / 8, period)
    assert (circle == circle[0]).all()
    np.testing.assert_allclose(circle[0], 0.5**0.5, atol=1e-12)


def test_instants_at_the_same_height_of_the_circle_are_ties():
    hours = 3600.0 * np.arange(24)
    cos, sin = calendar_columns(hours, "day").T
    assert (cos[1:] == cos[:0:-1]).all()
    assert (sin[1:] == -sin[:0:-1]).all()
    assert cos[6] == cos[18] == 0
