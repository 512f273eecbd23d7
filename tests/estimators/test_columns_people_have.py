"""Tables as people have them: instants, identifiers, strict columns."""

import datetime
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import pushforward as pf
from pushforward.data.calendar import calendar_columns, periods_of
from pushforward.detection import realized_interval
from pushforward.errors import ConfigError, InputError, PushforwardWarning, SchemaError, SchemaWarning
from pushforward.estimators.dependent_rows import labels_of


def shop(n: int, seed: int, first_day: int = 0, days: int = 60) -> pd.DataFrame:
    """Sales between 8 and 18 o'clock."""
    rng = np.random.default_rng(seed)
    hour = np.clip(rng.normal(13, 2, n), 8, 18)
    seconds = (first_day + rng.integers(0, days, n)) * 86400 + hour * 3600
    return pd.DataFrame({
        "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds, unit="s"),
        "amount": rng.lognormal(3, 0.5, n),
        "items": rng.poisson(3, n),
        "kind": rng.choice(["card", "cash"], n),
        "shop": 7,
    })  # fmt: skip


@pytest.fixture(scope="module")
def guard() -> pf.Guard:
    return pf.Guard(alpha=0.05, effort="fast", calibration=0.25, random_state=0).fit(shop(1600, 0))


# -- instants --


def test_a_sale_at_night_is_an_alarm_and_a_sale_next_month_is_none(guard: pf.Guard) -> None:
    later = shop(400, 1, first_day=75, days=30)
    with pytest.warns(
        SchemaWarning, match=r"'when': rows are after the normal rows that are known .* day, week and year"
    ):
        alarms = guard.predict(later) == -1
    assert alarms.mean() < 0.1
    night = later.assign(when=later["when"].dt.normalize() + pd.Timedelta(hours=3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchemaWarning)
        assert (guard.predict(night) == -1).mean() > 0.95
        explanation = guard.explain(night.iloc[:5])
    assert all(explanation.top(i)[0][0] == "when" for i in range(5))
    assert "its date or its time of day, week or year is unusual" in explanation.reasons(0)[0].sentence


@pytest.mark.parametrize("row", [3, 700, 1599])
def test_one_mistyped_year_hides_no_later_rows(guard: pf.Guard, row: int) -> None:
    rows = shop(1600, 0)
    rows.loc[row, "when"] = pd.Timestamp("2205-03-01")
    with pytest.warns(PushforwardWarning, match=r"'when': 1 row is far from all others in time \(2205-03-01"):
        mistyped = pf.Guard(alpha=0.05, effort="fast", calibration=0.25, random_state=0).fit(rows)
    assert mistyped.score_.features.calendar == guard.score_.features.calendar
    later = shop(400, 1, first_day=75, days=30)
    with pytest.warns(SchemaWarning, match=r"'when': rows are after the normal rows"):
        assert (mistyped.predict(later) == -1).mean() < 0.1


def test_an_instant_in_the_year_42000_is_one_far_from_all_others() -> None:
    rng = np.random.default_rng(0)
    micros = (1.7e15 + rng.uniform(0, 50 * 86400e6, 500)).astype(np.int64)
    micros[4] += int(1e6 * 86400 * 365.25 * 40_000)
    table = pa.table({"when": pa.array(micros, pa.timestamp("us")), "x": rng.normal(size=500)})
    with pytest.warns(
        PushforwardWarning, match=r"1 row is far .* \(an instant outside the years 1 to 9999; the others are from 2023"
    ):
        guard = pf.Guard(0.05, effort="fast", random_state=0).fit(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (guard.predict(table.slice(10)) == -1).mean() < 0.1


def test_rows_in_the_training_range_give_no_warning(guard: pf.Guard) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard.predict(shop(50, 2))


def test_the_calendar_through_a_file(guard: pf.Guard, tmp_path) -> None:
    guard.save(tmp_path / "g")
    new = shop(50, 3)
    again = pf.Guard.load(tmp_path / "g")
    np.testing.assert_array_equal(again.anomaly_score(new), guard.anomaly_score(new))
    assert [period for _, period in again.table_features_.calendar] == ["day", "week"]


def test_periods_and_circles() -> None:
    day, hour = 86400.0, 3600.0
    assert periods_of(np.arange(0, 1.5 * day, hour), "timestamp") == ()
    assert periods_of(np.arange(0, 3 * day, hour), "timestamp") == ("day",)
    assert periods_of(np.arange(0, 1000 * day, day), "date") == ("week", "year")
    assert periods_of(np.arange(0, day, hour), "time") == ("day",)
    assert periods_of(np.arange(0, 99 * day, hour), "duration") == ()
    found = calendar_columns(np.array([0.0, day / 4, day, -day / 2, np.nan, np.inf]), "day")
    np.testing.assert_allclose(found, [[1, 0], [0, 1], [1, 0], [-1, 0], [0, 0], [0, 0]], atol=1e-12)


def test_warnings_point_at_the_line_of_the_user(guard: pf.Guard) -> None:
    new = shop(5, 1, first_day=200).assign(kind="voucher")
    for call in (guard.predict, guard.assess, guard.explain):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            call(new)
        assert found
        assert {each.filename for each in found} == {__file__}
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        pf.Guard(alpha=0.001, effort="fast", calibration=0.25).fit(shop(60, 0).drop(columns="when"))
    assert [each.filename for each in found] == [__file__]


# -- columns that are set aside --


def test_identifiers_are_refused_with_a_sentence_and_set_aside_on_request(tmp_path) -> None:
    table = shop(400, 4).drop(columns="when").assign(receipt=[f"R-{i:06}" for i in range(400)], number=range(400))
    with pytest.raises(SchemaError, match=r"'receipt' has 400 different texts .* drop it or name it in ignore="):
        pf.Guard(alpha=0.05, effort="fast", calibration=0.25).fit(table.drop(columns="number"))
    with pytest.warns(PushforwardWarning, match="'receipt' has identifiers or free text; 'number' counts the rows"):
        guard = pf.Guard(alpha=0.05, effort="fast", calibration=0.25, ignore="auto", random_state=0).fit(table)
    assert guard.ignored_ == ("receipt", "number")
    assert guard.feature_names_in_.tolist() == ["amount", "items", "kind", "shop"]
    new = table.iloc[:20].assign(receipt="?", number=-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # columns that are set aside are no news
        scores = guard.anomaly_score(new)
        np.testing.assert_array_equal(guard.anomaly_score(new.drop(columns=["receipt", "number"])), scores)
    assert "receipt" not in guard.explain(new).names
    guard.save(tmp_path / "g")
    assert pf.Guard.load(tmp_path / "g").ignored_ == ("receipt", "number")
    np.testing.assert_array_equal(pf.Guard.load(tmp_path / "g").anomaly_score(new), scores)


def test_dates_that_begin_with_the_day_are_named_as_such() -> None:
    when = pd.date_range("2024-01-01", periods=100, freq="7h").strftime("%d/%m/%Y %H:%M:%S")
    table = shop(100, 4).drop(columns="when").assign(sold=when)
    with pytest.raises(SchemaError, match=r"'01/01/2024 00:00:00', seem to be dates\. .*--drop"):
        pf.Guard(alpha=0.05, effort="fast").fit(table)


def test_instants_that_pandas_left_as_text_are_named_as_such() -> None:
    table = shop(100, 4).assign(when=lambda t: t["when"].astype(str))
    with pytest.raises(SchemaError, match=r"seem to be dates\. Convert the column .*pandas\.to_datetime"):
        pf.Guard(alpha=0.05, effort="fast").fit(table)


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d.%m.%Y"])
def test_few_dates_as_text_are_categories_with_a_warning(form: str) -> None:
    table = shop(300, 4).assign(when=lambda t: t["when"].dt.strftime(form))  # 60 days
    with pytest.warns(PushforwardWarning, match=r"'when' has dates as text, such as '.*--drop when"):
        pf.Guard(alpha=0.05, effort="fast").fit(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pf.Guard(alpha=0.05, effort="fast", ignore=["when"]).fit(table)


def test_a_time_as_text_is_in_the_order_of_time() -> None:
    table = shop(300, 4).drop(columns="when")
    day = np.random.default_rng(0).permutation(300)
    iso = pd.Timestamp("2024-01-20") + pd.to_timedelta(day, unit="D")
    expected = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(table, time=day).anomaly_score(table)
    for time in (iso.strftime("%Y-%m-%d"), [str(d) for d in day]):  # "9" is before "10"
        guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(table, time=np.asarray(time, dtype=object))
        np.testing.assert_array_equal(guard.anomaly_score(table), expected)
    with pytest.raises(InputError, match=r"whose order as text is not that of time"):
        pf.Guard(alpha=0.05, effort="fast").fit(table, time=np.asarray(iso.strftime("%d/%m/%Y"), dtype=object))


def test_instants_as_text_are_in_the_order_of_time_whatever_their_zones() -> None:
    seconds = 3600 * np.random.default_rng(0).permutation(200)
    zones = [datetime.timezone(datetime.timedelta(hours=(k % 5) - 2)) for k in range(200)]
    text = [datetime.datetime.fromtimestamp(int(s), zone).isoformat() for s, zone in zip(seconds, zones, strict=True)]
    labels = labels_of("time", np.zeros((200, 1)), np.array(text, dtype=object))
    np.testing.assert_array_equal(np.argsort(labels), np.argsort(seconds))


@pytest.mark.parametrize("text", [["2026-1-9", "2026-1-10"], ["2026-Jan-05", "2026-Feb-05"], ["2026Q1", "2026 Q2"]])
def test_text_whose_order_is_not_that_of_time_is_refused(text: list[str]) -> None:
    with pytest.raises(
        InputError, match=f"time has text such as '{text[1]}', whose order is not that of time: give instants"
    ):
        labels_of("time", np.zeros((2, 1)), np.array(text, dtype=object))
    quarters = labels_of("time", np.zeros((2, 1)), np.array(["2026Q1", "2025Q4"], dtype=object))
    assert np.argsort(quarters).tolist() == [1, 0]


def test_a_value_that_only_calibration_rows_have_is_no_news_while_fitting() -> None:
    table = shop(400, 4).drop(columns="when")
    last = np.arange(400)
    table.loc[399, "kind"] = "seen once"  # among the latest rows, so it calibrates
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard = pf.Guard(alpha=0.05, effort="fast", calibration=0.25).fit(table, time=last)
    with pytest.warns(SchemaWarning, match="no row had at fit"):
        guard.anomaly_score(table[399:])


def test_named_columns_are_set_aside() -> None:
    table = shop(300, 5).drop(columns="when").assign(number=range(300))
    with pytest.warns(PushforwardWarning, match=r"'number' counts the rows.*ignore=\['number'\]"):
        pf.Guard(alpha=0.05, effort="fast", calibration=0.25).fit(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard = pf.Guard(alpha=0.05, effort="fast", calibration=0.25, ignore=["number"]).fit(table)
    assert guard.ignored_ == ("number",)


@pytest.mark.parametrize(
    ("ignore", "error", "words"),
    [
        ("number", ConfigError, "ignore must be"),
        (3, ConfigError, "ignore must be"),
        (["nope"], SchemaError, "'nope', which the table lacks"),
        (["amount", "items", "kind", "shop"], ConfigError, "nothing to learn"),
    ],
)
def test_impossible_names(ignore, error, words) -> None:
    with pytest.raises(error, match=words):
        pf.Guard(alpha=0.05, ignore=ignore).fit(shop(100, 6).drop(columns="when"))


def test_columns_that_all_grow_are_named_and_read() -> None:
    table = pd.DataFrame({"meter": 3 * np.arange(120) + np.tile([0, 1], 60), "number": range(120)})
    with pytest.warns(PushforwardWarning) as caught:
        guard = pf.Guard(alpha=0.1, effort="fast", random_state=0).fit(table)
    said = " ".join(str(warning.message) for warning in caught)
    assert "'meter' grows from row to row" in said
    assert "'number' counts the rows" in said
    assert (guard.ignored_, guard.n_features_in_) == ((), 2)


def test_names_of_an_array() -> None:
    with pytest.raises(ConfigError, match="no names"):
        pf.Guard(alpha=0.05, ignore=["x0"]).fit(np.random.default_rng(0).normal(size=(60, 2)))


# -- strict --


def test_strict_raises_an_alarm_for_every_cell_that_no_training_row_has(tmp_path) -> None:
    train = shop(1600, 7).drop(columns="when")
    guard = pf.Guard(alpha=0.01, effort="fast", calibration=0.25, strict=True, random_state=0).fit(train)
    rows = train.iloc[:6].astype({"items": float, "shop": float, "amount": float}).reset_index(drop=True)
    usual = guard.predict(rows)
    rows.loc[0, "kind"] = "voucher"
    rows.loc[1, "shop"] = 8.0
    rows.loc[2, "items"] += 0.5
    rows.loc[3, "amount"] = np.nan
    guard.save(tmp_path / "g")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchemaWarning)
        for each in (guard, pf.Guard.load(tmp_path / "g")):
            assert np.isposinf(each.anomaly_score(rows)[:4]).all()
            assert each.predict(rows).tolist() == [-1, -1, -1, -1, *usual[4:]]
        kinds = [guard.explain(rows).reasons(i)[0].kind for i in range(4)]
    assert kinds == ["new category", "changed constant", "fraction", "new missing"]
    with pytest.raises(ConfigError, match="strict must be True or False"):
        pf.Guard(strict="yes").fit(train)


def test_strict_with_many_new_categories_raises_no_alarm_and_says_why() -> None:
    """Three of 100 calibration rows have a category that no row has which fitted the guard, more than alpha allows."""
    rng = np.random.default_rng(0)
    rare = pd.DataFrame({"a": rng.normal(size=400), "c": np.char.add("c", rng.integers(0, 120, 400).astype(str))})
    guard = pf.Guard(alpha=0.02, effort="fast", strict=True, random_state=0)
    with pytest.warns(PushforwardWarning) as found:
        guard.fit(rare)
    texts = [str(each.message) for each in found]
    assert any("of 100 calibration scores are +inf (with strict=True" in text for text in texts)
    assert not any("max_contamination" in text for text in texts)
    assert (guard.level_, guard.offset_) == (0.0, -np.inf)
    assert np.isposinf(guard.decision_function(rare[:1])).all()


def test_the_promise_is_kept_with_instants_categories_and_missing_cells() -> None:
    rates = []
    for seed in range(3):
        table = shop(3000, 20 + seed)
        table.loc[np.random.default_rng(seed).random(3000) < 0.2, "amount"] = np.nan
        guard = pf.Guard(alpha=0.1, effort="fast", calibration=0.25, random_state=seed).fit(table.iloc[:1500])
        rates.append(int((guard.predict(table.iloc[1500:]) == -1).sum()))
    low, high = realized_interval(375, 1500, 0.1, level=0.999)
    assert all(low <= rate / 1500 <= high for rate in rates)


def test_rows_of_the_time_that_calibrated_are_not_called_later(tmp_path) -> None:
    rows = shop(600, 5).sort_values("when", ignore_index=True)
    latest = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(rows, time="when")
    latest.save(tmp_path / "g")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        latest.predict(rows[-100:])  # the rows that calibrated
        pf.Guard.load(tmp_path / "g").predict(rows[-100:])
    with pytest.warns(
        SchemaWarning, match=r"'when': rows are after the normal rows that are known \(the last is 2024-02-29"
    ):
        latest.predict(shop(50, 6, first_day=75))
