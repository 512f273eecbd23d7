"""Reasons of cells that are odd: times of day, instants outside the calendar, missing cells among the training rows, and constants."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import pushforward as pf
from pushforward.data.arrow import object_column
from pushforward.data.cells import flag_cells
from pushforward.data.text import parse_numbers
from pushforward.errors import ConfigError, InputError, SchemaError

RNG = np.random.default_rng(0)


def fitted(table: Any) -> pf.Guard:
    return pf.Guard(alpha=0.1, effort="fast", random_state=0).fit(table)


def hours(count: int) -> Any:
    return pa.array([1767225600 + 3600 * k for k in range(count)], pa.timestamp("s"))


TIMES = {
    "time": [datetime.time(8 + k % 9, k * 7 % 60) for k in range(200)],
    "date": [datetime.date(2026, 1, 1) + datetime.timedelta(days=k * 7 % 90) for k in range(200)],
    "instant": [datetime.datetime(2026, 1, 1) + datetime.timedelta(hours=k * 7 % 900) for k in range(200)],
    "zone": [
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(hours=k * 7 % 900) for k in range(200)
    ],
    "duration": [datetime.timedelta(minutes=10 + k % 50) for k in range(200)],
}


@pytest.mark.parametrize("kind", TIMES)
def test_every_kind_of_time_is_explained_and_reported(kind: str, tmp_path) -> None:
    guard = fitted({"t": TIMES[kind], "v": RNG.normal(size=200)})
    rows = {"t": TIMES[kind][:5], "v": [0.0, 1.0, 9.0, 0.0, 0.0]}
    assert len(guard.explain(rows).to_records()) >= 5
    guard.report(rows, show_rows=True).save(tmp_path / "r.html")


def test_an_instant_outside_the_calendar_of_python(tmp_path) -> None:
    guard = fitted({"ts": hours(400), "v": RNG.normal(size=400)})
    bad = {"ts": pa.array([10**12] * 3, pa.timestamp("s")), "v": [0.0, 9.0, 9.0]}
    with pytest.warns(Warning, match="are after the normal rows that are known"):
        found = guard.explain(bad)
    assert found.reasons(1)[0].column == "v"
    guard.report(bad, show_rows=True).save(tmp_path / "r.html")


def test_no_range_of_instants_is_said_to_be_usual() -> None:
    guard = fitted({"ts": hours(400), "v": RNG.normal(size=400)})
    found = guard.explain({"ts": hours(400)[399:], "v": [0.0]}).reasons(0, 2)
    assert all(reason.usual == () for reason in found if reason.column == "ts")


def test_shares_and_ranges_are_of_rows_that_have_a_value() -> None:
    rng = np.random.default_rng(1)
    names = np.where(rng.random(1200) < 0.5, None, np.where(rng.random(1200) < 0.6, "A", "B"))
    guard = fitted(pd.DataFrame({"c": names, "v": rng.normal(size=1200)}))
    evidence = guard.explain(pd.DataFrame({"c": ["B"] * 40, "v": np.linspace(-2, 2, 40)})).evidence
    rare = evidence.p_value[:, 0]  # P(B), or 1 where the near rows have more of it than of A
    assert rare[rare < 1].mean() == pytest.approx(0.4, abs=0.08)
    numbers = rng.normal(size=1200)
    numbers[rng.random(1200) < 0.6] = np.nan
    guard = fitted(pd.DataFrame({"m": numbers, "v": rng.normal(size=1200)}))
    evidence = guard.explain(pd.DataFrame({"m": [0.0], "v": [0.0]})).evidence
    assert evidence.own_low[0, 0] == pytest.approx(-1.96, abs=0.3)
    assert evidence.own_high[0, 0] == pytest.approx(1.96, abs=0.3)


@pytest.mark.parametrize("change", [1, 10, 60])
def test_a_constant_instant_that_changed_by_seconds(change: int) -> None:
    at = datetime.datetime(2026, 5, 1, 12, 34, 56)
    guard = fitted(pd.DataFrame({"t": [at] * 200, "x": RNG.normal(size=200)}))
    rows = pd.DataFrame({"t": [at, at + datetime.timedelta(seconds=change)], "x": [0.0, 0.0]})
    with pytest.warns(Warning, match="'t': rows have another value than 2026-05-01 12:34:56, and no row"):
        assert np.diff(guard.anomaly_score(rows)) > 3


def test_a_whole_constant_that_changed_by_one() -> None:
    guard = fitted(pd.DataFrame({"t": [16777217.0] * 200, "x": RNG.normal(size=200)}))
    with pytest.warns(Warning, match="'t': rows have another value than 16777217, and no row"):
        scores = guard.anomaly_score(pd.DataFrame({"t": [16777217.0, 16777216.0, 16777218.0], "x": [0.0] * 3}))
    assert (scores[1:] > scores[0] + 3).all()


def test_dates_beside_instants_cut_no_instant() -> None:
    day, noon = datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 1, 12)
    for cells in ([day, noon], [noon, day]):
        found = object_column("t", np.array(cells, dtype=object)).to_pylist()
        assert set(found) == {noon, datetime.datetime(2026, 1, 2)}
    zoned = noon.replace(tzinfo=datetime.UTC)
    assert str(object_column("t", np.array([day, zoned], dtype=object)).type) == "timestamp[us, tz=UTC]"


def test_dates_with_missing_cells_stay_dates() -> None:
    day = datetime.date(2026, 1, 2)
    assert str(object_column("t", np.array([day, pd.NaT, None], dtype=object)).type) == "date32[day]"
    mixed = np.array([day, datetime.datetime(2026, 1, 1), "x"], dtype=object)
    with pytest.raises(InputError, match="'t'"):
        object_column("t", mixed)


def test_numbers_of_several_types_are_numbers() -> None:
    from decimal import Decimal

    cells = np.array([Decimal("1.5"), 2.0, None, 2**64, Decimal("Infinity")], dtype=object)
    assert object_column("p", cells).to_pylist() == [1.5, 2.0, None, 2.0**64, np.inf]
    assert str(object_column("p", np.array([Decimal("1.5"), "x"], dtype=object)).type) == "string"


def test_every_form_of_nan_is_missing_whatever_the_other_cells_are() -> None:
    for extra in ("1.5", " 1.5"):
        values, unreadable = parse_numbers(pa.array(["NAN", "-nan", "Nan", "nan(ind)", extra]))
        assert np.isnan(values).tolist() == [True] * 4 + [False]
        assert not unreadable.any()
    assert parse_numbers(pa.array([" 1", "NaNo"]))[1].tolist() == [False, True]


def test_flags_are_numbers_in_any_form() -> None:
    from decimal import Decimal

    for cells in (
        pa.array([-0.0, 1.0, 0.5, None]),
        pa.array([Decimal("0.00"), Decimal("1.00"), Decimal("0.50"), None]),
    ):
        found = flag_cells("f", cells)
        np.testing.assert_array_equal(found.values[:2], [0.0, 1.0])
        assert found.unseen.tolist() == [False, False, True, False]


def test_a_column_of_intervals_is_refused_by_name() -> None:
    table = pa.table({"i": pa.array([pa.MonthDayNano([1, 2, 3])] * 30), "x": RNG.normal(size=30)})
    with pytest.raises(SchemaError, match="'i'"):
        fitted(table)


def test_raw_rows_of_a_guard_without_names_are_in_their_place(tmp_path) -> None:
    guard = fitted(RNG.normal(size=(200, 2)))
    swapped = pd.DataFrame({"x1": [50.0] * 20, "x0": [0.25] * 20})
    shown = guard.report(swapped, show_rows=True).to_json()
    assert shown.index("50") < shown.index("0.25")


def times_of(seconds: np.ndarray) -> list[datetime.time]:
    return [datetime.time(s // 3600, s // 60 % 60, s % 60) for s in seconds.tolist()]


def test_the_usual_time_of_day_does_not_follow_the_cell() -> None:
    """The place on the circle of the day tells the time itself; the other columns tell nothing, so all ranges are one."""
    rng = np.random.default_rng(0)
    guard = fitted({"time": times_of(rng.integers(7 * 3600, 20 * 3600, 1000)), "v": rng.normal(size=1000)})
    new = [datetime.time(3), datetime.time(7, 40), datetime.time(13), datetime.time(19)]
    found = [
        next(r for r in reasons if r.column == "time")
        for reasons in (guard.explain({"time": new, "v": [0.0] * 4}).reasons(k, 2) for k in range(4))
    ]
    assert len({reason.usual for reason in found}) == 1
    low, high = found[0].usual
    assert datetime.time(7) <= low < datetime.time(8, 15)  # 95 % of uniform times are from 7:20 to 19:40
    assert datetime.time(19) < high <= datetime.time(20)
    assert low.microsecond == high.microsecond == 0
    assert found[0].p_value < 0.05 < min(found[2].p_value, found[3].p_value)


@pytest.mark.parametrize("count", [60, 1000])
def test_noon_is_unusual_where_others_are_around_midnight(count: int) -> None:
    rng = np.random.default_rng(0)
    late = np.mod(rng.integers(22 * 3600, 26 * 3600, count), 86_400)
    guard = fitted({"time": times_of(late), "v": rng.normal(size=count)})
    reason = guard.explain({"time": [datetime.time(12)], "v": [0.0]}).reasons(0, 1)[0]
    assert reason.p_value < 0.05
    assert reason.sentence == "time is 12:00:00; given the other columns, this time of day is unusual."


def test_the_p_value_of_an_instant_is_that_of_its_place_in_the_calendar() -> None:
    """Orders between 9 and 17 o'clock of 90 days; one at night has a usual date."""
    rng = np.random.default_rng(0)

    def orders(count: int) -> pd.DataFrame:
        seconds = 86_400 * rng.integers(0, 90, count) + rng.integers(9 * 3600, 17 * 3600, count)
        return pd.DataFrame(
            {"ordered": pd.Timestamp("2025-01-01") + pd.to_timedelta(seconds, unit="s"), "v": rng.normal(size=count)}
        )

    guard = fitted(orders(800))
    night = pd.DataFrame({"ordered": pd.to_datetime(["2025-02-12 03:00:00"]), "v": [0.0]})
    assert guard.explain(night).evidence.p_value[0, 0] < 0.05
    usual = guard.explain(orders(400)).evidence.p_value[:, 0]
    assert (usual < 0.05).mean() < 0.05 + 4 * np.sqrt(
        0.05 * 0.95 / 400
    )  # the smallest of five times five is no more often small


@pytest.mark.filterwarnings("ignore::pushforward.errors.SchemaWarning")
@pytest.mark.parametrize("compiled", [False, True])
def test_an_infinite_number_in_a_constant_column_is_infinitely_far(compiled: bool) -> None:
    x = np.random.default_rng(0).normal(size=(300, 3))
    x[:, 2] = 3.5
    guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(x)
    guard = guard.compile() if compiled else guard
    rows = [[0.0, 0.0, np.inf], [0.0, 0.0, -np.inf], [0.0, 0.0, 4.0], [0.0, 0.0, 3.5]]
    assert np.isinf(guard.score_samples(rows)).tolist() == [True, True, False, False]
    reason = guard.explain(rows).reasons(0)[0]
    assert (reason.column, reason.kind, reason.excess) == ("x2", "infinite", np.inf)
    assert 0 < reason.p_value < 0.01


def test_new_cells_are_first_in_guards_of_few_rows_too() -> None:
    x = np.random.default_rng(0).normal(size=(15, 3))
    guard = pf.Guard(alpha=0.4, effort="fast", random_state=0).fit(x)
    with pytest.warns(pf.errors.SchemaWarning):
        assert guard.explain([[np.nan, 0.0, 1e6]]).reasons()[0].kind == "new missing"


@pytest.mark.parametrize("k", [0, -1, 2.0, "3"])
def test_the_number_of_reasons_is_a_positive_integer(k: Any) -> None:
    found = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(np.random.default_rng(0).normal(size=(99, 2)))
    explanation = found.explain([[0.0, 0.0]])
    for call in (explanation.reasons, explanation.main_reasons, explanation.sentences, explanation.top):
        with pytest.raises(ConfigError, match="k must be an integer of at least 1"):
            call(0, k)
    with pytest.raises(ConfigError, match=r"row 0\.5 cannot be explained"):
        explanation.reasons(0.5)  # pyright: ignore[reportArgumentType]
