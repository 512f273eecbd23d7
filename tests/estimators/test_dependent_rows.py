"""Rows that depend on each other: calibration by group and in the order of time, and again with new rows."""

import warnings

import numpy as np
import pandas as pd
import pytest

import pushforward as pf
from pushforward import Guard
from pushforward.data import Schema
from pushforward.detection import realized_interval
from pushforward.errors import CalibrationError, ConfigError, InputError, PushforwardWarning
from pushforward.estimators.dependent_rows import labels_of, rows_of_groups, rows_of_time, warn_of_dependence

NUMBERS = np.random.default_rng(0).normal(size=(1000, 3))


def sales(n: int, seed: int) -> pd.DataFrame:
    """Sales of sixty days, in random order, of one shop."""
    rng = np.random.default_rng(seed)
    when = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 60 * 86400, n), unit="s")
    return pd.DataFrame({"when": when, "items": rng.poisson(3, n), "kind": rng.choice(["card", "cash"], n), "shop": 7})


def walks(groups: int, length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a group are near its own center."""
    rng = np.random.default_rng(seed)
    center = np.repeat(3 * rng.normal(size=(groups, 3)), length, axis=0)
    return center + 0.3 * rng.normal(size=center.shape), np.repeat(np.arange(groups), length)


@pytest.mark.slow
def test_the_promise_for_new_groups_needs_calibration_by_group() -> None:
    """A random choice has other rows of each calibration group among the training rows, so new groups raise alarms."""
    rates: dict[str, list[float]] = {"random": [], "groups": []}
    for seed in range(8):
        x, label = walks(160, 10, seed)
        new, _ = walks(400, 10, 100 + seed)
        for how, given in (("random", None), ("groups", label)):
            guard = pf.Guard(alpha=0.1, effort="fast", calibration=0.25, random_state=seed).fit(x, groups=given)
            rates[how].append(float((guard.predict(new) == -1).mean()))
    assert np.mean(rates["random"]) > 0.2
    assert abs(np.mean(rates["groups"]) - 4 / 41) < 3 * np.sqrt(4 / 41 * 37 / 41 / 42 / 8)  # 40 groups: a Beta(4, 37)


def test_one_row_of_each_of_some_groups_calibrates(tmp_path) -> None:
    x, label = walks(60, 5, 0)
    guard = pf.Guard(alpha=0.1, effort="fast", random_state=0).fit(x, groups=label)
    assert guard.calibrator_.n == 15
    assert str(guard.calibration_).endswith("(one row of each of 15 groups was kept for calibration)")
    guard.save(tmp_path / "g")
    assert pf.Guard.load(tmp_path / "g").calibration_ == guard.calibration_
    fitted, kept = rows_of_groups(label, 15, seed=0)
    assert len(kept) == len(set(label[kept])) == 15
    assert len(fitted) == 45 * 5
    assert not set(label[fitted]) & set(label[kept])
    assert (
        len({int(k % 5) for seed in range(9) for k in rows_of_groups(label, 15, seed=seed)[1]}) == 5
    )  # any row of a group


def distance(x: np.ndarray) -> np.ndarray:
    return np.hypot(x[:, 0], x[:, 1])


def test_the_rate_for_new_groups_is_the_promised_one_with_few_groups() -> None:
    """Of 60 groups 19 calibrate, so the rate of a guard is a Beta(1, 19): mean 5 %, standard deviation 4.8 %."""
    rates = []
    for seed in range(80):
        x, label = walks(60, 20, seed)
        new, _ = walks(200, 20, 1000 + seed)
        guard = pf.Guard(alpha=0.05, score=distance, random_state=seed).fit(x, groups=label)
        assert guard.calibrator_.n == 19
        rates.append(float((guard.predict(new) == -1).mean()))
    assert abs(np.mean(rates) - 0.05) < 3 * 0.0476 / np.sqrt(80)


def test_too_few_groups_raise_no_alarm() -> None:
    x, label = walks(30, 50, 0)
    with pytest.warns(PushforwardWarning, match="needs 19 calibration groups, and there are 8: .* at least 38 groups"):
        guard = pf.Guard(alpha=0.05, score=distance).fit(x, groups=label)
    assert (guard.predict(100 * x) == 1).all()
    with pytest.raises(CalibrationError, match="of 30 groups, 40 calibrate"):
        pf.Guard(alpha=0.05, score=distance, calibration=40).fit(x, groups=label)


@pytest.mark.parametrize("how", ["groups", "time"])
def test_the_column_that_orders_or_groups_the_rows_is_set_aside(how, tmp_path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(1200, 2)), columns=["a", "b"]).assign(key=np.repeat(np.arange(240), 5))
    guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(table[:800], **{how: "key"})
    assert guard.ignored_ == ("key",)
    alarms = int((guard.predict(table[800:]) == -1).sum())
    low, high = realized_interval(guard.calibrator_.n, 400, 0.05, level=0.999)
    assert low <= alarms / 400 <= high
    assert guard.predict(table[800:].drop(columns="key")).tolist() == guard.predict(table[800:]).tolist()
    again = pf.Guard(alpha=0.05, effort="fast", ignore=["key"], random_state=0).fit(table[:800], **{how: "key"})
    assert again.ignored_ == ("key",)
    with pytest.raises(ConfigError, match="every column"):
        pf.Guard(alpha=0.05).fit(table[["key"]], **{how: "key"})


def test_rows_that_calibrate_again_need_the_groups_or_the_time_of_the_first(tmp_path) -> None:
    x, label = walks(80, 5, 0)
    more, _ = walks(80, 5, 1)
    guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(x, groups=label)
    for method in (guard.recalibrate, guard.update):
        with pytest.raises(InputError, match=r"rows of new groups.*give groups="):
            method(more)
    with pytest.raises(CalibrationError, match="needs at least 19 calibration groups; got 4"):
        guard.recalibrate(more[:20], groups=label[:20])
    with pytest.raises(CalibrationError, match="19 of the new groups for calibration, so give at least 21; got 20"):
        guard.update(more[:100], groups=label[:100])
    before = guard.calibrator_.scores.copy()
    guard.recalibrate(more, "more", groups=label)
    assert guard.calibrator_.n == 80
    assert not np.array_equal(before, guard.calibrator_.scores)
    assert str(guard.calibration_) == (
        "rows of new groups like those of the last recalibration (more) (one row of each of 80 groups was kept), and no longer rows like the "
        "training rows"
    )
    guard.update(more, groups=label)
    assert (guard.calibrator_.n, guard.calibration_.chosen) == (20, "20 groups")
    guard.save(tmp_path / "g")
    assert pf.Guard.load(tmp_path / "g").calibration_ == guard.calibration_

    late = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(x, time=np.arange(400))
    with pytest.raises(InputError, match=r"for later rows.*give time="):
        late.update(more)
    with pytest.raises(ConfigError, match="not both"):
        late.update(more, groups=label, time=label)
    late.update(more, time=np.arange(400))
    assert late.calibration_.chosen == "latest"
    assert late.recalibrate(more).calibrator_.n == 400


@pytest.mark.slow
def test_the_rate_for_new_groups_stays_after_an_update() -> None:
    rates = []
    for seed in range(10):
        x, label = walks(60, 20, seed)
        more, _ = walks(60, 20, 100 + seed)
        new, _ = walks(200, 20, 200 + seed)
        guard = pf.Guard(alpha=0.05, effort="fast", random_state=seed).fit(x, groups=label).update(more, groups=label)
        rates.append(float((guard.predict(new) == -1).mean()))
    assert abs(np.mean(rates) - 0.05) < 3 * 0.0476 / np.sqrt(10)


def test_the_latest_rows_calibrate(tmp_path) -> None:
    table = sales(1000, 8)
    guard = pf.Guard(alpha=0.05, effort="fast", calibration=0.25, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard.fit(table, time="when")
    times = table["when"].sort_values()
    assert guard.table_features_.instants[0][4] < times.iloc[-250].timestamp()  # a quartile of the rows that fitted
    assert guard.table_features_.instants[0][2] == times.iloc[-1].timestamp()
    assert str(guard.calibration_).startswith("rows like the latest training rows (250 of them")
    guard.save(tmp_path / "g")
    assert pf.Guard.load(tmp_path / "g").calibration_ == guard.calibration_
    fitted, kept = rows_of_time(np.array([3, 1, 2, 2, 0]), 2)
    assert (fitted.tolist(), kept.tolist()) == ([1, 4], [0, 2, 3])


def test_a_column_of_instants_whose_rows_are_alike_suggests_time() -> None:
    rng = np.random.default_rng(0)
    drift = np.cumsum(rng.normal(size=600))
    table = pd.DataFrame({"when": pd.date_range("2024-01-01", periods=600, freq="h"), "level": drift})
    with pytest.warns(PushforwardWarning, match=r"follow each other in 'when' are alike .*fit\(X, time='when'\)"):
        pf.Guard(alpha=0.05, effort="fast", calibration=0.25, random_state=0).fit(table.sample(frac=1, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pf.Guard(alpha=0.05, effort="fast", calibration=0.25, random_state=0).fit(
            table.assign(level=rng.normal(size=600))
        )


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"groups": "nope"}, InputError, r"names no column of the table: give one of '\w+'"),
        ({"groups": [1, 2]}, InputError, "one label for each of the 100 rows"),
        ({"groups": "shop"}, InputError, "one group"),
        ({"time": "shop"}, InputError, "same in all rows"),
        ({"time": [None] + [1.0] * 99}, InputError, "missing in 1 rows"),
        ({"time": [f"week {k}" for k in range(100)]}, InputError, "'week 0', whose order is not that of time"),
        ({"time": ["2026-01-01", "Tuesday"] * 50}, InputError, "'Tuesday', whose order is not that of time"),
        ({"time": "items", "groups": "kind"}, ConfigError, "not both"),
    ],
)
def test_impossible_groups_and_times(arguments, error, words) -> None:
    with pytest.raises(error, match=words):
        pf.Guard(alpha=0.05, effort="fast", calibration=0.25).fit(sales(100, 9), **arguments)


@pytest.mark.parametrize(
    ("rows", "warns"),
    [
        (np.repeat(NUMBERS[:200], 4, axis=0), True),
        (np.vstack([NUMBERS, np.repeat(NUMBERS[:40], 5, axis=0)]), True),  # some classes oversampled
        (np.repeat(np.random.default_rng(2).normal(size=(300, 5)).round(2), 3, axis=0), True),  # of few digits
        (np.random.default_rng(2).integers(0, 4, (900, 4)), False),
        (NUMBERS, False),
        (np.vstack([NUMBERS, np.zeros((400, 3))]), False),  # a standby
        (np.round(NUMBERS), False),
        (np.column_stack([NUMBERS[:, 0].round(1), np.zeros((len(NUMBERS), 2))]), False),
    ],
)
def test_copies_of_rows_are_named(rows, warns) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_dependence(Schema.infer(rows), rows)
    found = [str(each.message) for each in caught if "copies" in str(each.message)]
    assert len(found) == warns
    copies = len(rows) - len(np.unique(rows, axis=0))
    assert all(f"{copies} of {len(rows)} rows are copies" in text and "groups=" in text for text in found)


def test_fit_warns_of_copies_unless_they_are_groups() -> None:
    rows, labels = np.repeat(NUMBERS[:100], 4, axis=0), np.repeat(np.arange(100), 4)
    with pytest.warns(PushforwardWarning, match="300 of 400 rows are copies of another row"):
        Guard(alpha=0.1, max_steps=2, random_state=0).fit(rows)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*copies")
        Guard(alpha=0.1, max_steps=2, random_state=0).fit(rows, groups=labels)


def test_nan_in_an_array_of_labels_is_missing() -> None:
    x = np.zeros((300, 2))
    for name, labels in (("time", np.r_[np.nan, np.arange(299.0)]), ("groups", np.r_[[np.nan] * 2, np.arange(298.0)])):
        with pytest.raises(InputError, match=f"{name} is missing in"):
            labels_of(name, x, labels)


def test_groups_of_a_dictionary_of_columns():
    rng = np.random.default_rng(0)
    table = {"v": rng.normal(size=300), "machine": np.repeat(np.arange(60), 5)}
    by_name = pf.Guard(alpha=0.1, effort="fast", random_state=0).fit(table, groups="machine")
    by_label = pf.Guard(alpha=0.1, effort="fast", random_state=0).fit(table, groups=table["machine"])
    assert by_name.calibration_.chosen == by_label.calibration_.chosen
    with pytest.raises(InputError, match="each of the 300 rows"):
        pf.Guard(alpha=0.1, effort="fast").fit(table, groups=table["machine"][:-1])


def later(n: int, seed: int, start: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    elapsed = start + np.arange(n, dtype=float)
    return pd.DataFrame(
        {"a": rng.normal(size=n), "b": rng.normal(size=n), "elapsed": pd.to_timedelta(elapsed, unit="s")}
    )


def test_a_time_that_is_a_duration_is_set_aside() -> None:
    guard = Guard(0.05, n_estimators=1, max_steps=20, random_state=0).fit(later(400, 0), time="elapsed")
    assert guard.ignored_ == ("elapsed",)
    assert (guard.predict(later(200, 1, 1000.0)) < 0).mean() < 0.3


def test_groups_that_are_dates_are_set_aside() -> None:
    rows = sales(600, 0)
    rows["day"] = rows["when"].dt.floor("D")
    guard = Guard(0.05, n_estimators=1, max_steps=20, random_state=0).fit(rows.drop(columns="when"), groups="day")
    assert guard.ignored_ == ("day",)
    assert guard.p_value(sales(20, 1).drop(columns="when")).shape == (20,)


def test_lazy_frames_have_groups_and_times() -> None:
    import polars as pl

    rows = pl.DataFrame({"a": NUMBERS[:400, 0], "b": NUMBERS[:400, 1], "g": np.repeat(np.arange(40), 10)})
    fitted = [Guard(0.05, n_estimators=1, max_steps=20, random_state=0).fit(x, groups="g") for x in (rows, rows.lazy())]
    assert np.array_equal(fitted[0].calibrator_.scores, fitted[1].calibrator_.scores)
