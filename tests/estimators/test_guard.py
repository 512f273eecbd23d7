"""`Guard` on tables: the false-alarm rate, the columns, the file, and errors."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pushforward.data import Schema
from pushforward.detection import Monitor, realized_interval
from pushforward.errors import (
    CalibrationError,
    ConfigError,
    InputError,
    PushforwardError,
    PushforwardWarning,
    SchemaError,
    SchemaWarning,
    StorageError,
    collected,
)
from pushforward.estimators import Guard
from pushforward.estimators.calibration_rows import split_rows
from pushforward.estimators.comparing import compare_guards

QUICK = {"random_state": 0}
FLOWS = {"density": True, "n_estimators": 2, "max_steps": 60, "random_state": 0}


def normal_rows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3)) @ np.array([[1.0, 0.5, 0], [0, 1, 0.2], [0, 0, 1]])


def mixed_frame(n: int = 600, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    size = rng.gamma(3.0, size=n)
    frame = pd.DataFrame(
        {
            "size": size,
            "count": rng.poisson(3 * size),
            "color": rng.choice(["red", "green", "blue"], n, p=[0.6, 0.3, 0.1]),
            "flag": rng.random(n) < 0.3,
            "level": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
            "unit": 7.0,
        }
    )
    return frame


@pytest.fixture(scope="module")
def guard() -> Guard:
    return Guard(0.05, **QUICK).fit(normal_rows(800))


@pytest.fixture(scope="module")
def mixed() -> Guard:
    return Guard(0.05, **QUICK).fit(mixed_frame())


@pytest.fixture(scope="module")
def with_density() -> Guard:
    return Guard(0.05, **FLOWS).fit(mixed_frame())


def test_far_rows_alarm_and_typical_rows_do_not(guard: Guard) -> None:
    np.testing.assert_array_equal(
        guard.predict([[0, 0, 0], [30, -30, 30], [1e6, 0, 0], [0, math.inf, 0]]), [1, -1, -1, -1]
    )
    assert guard.anomaly_score([[0, math.inf, 0]])[0] == math.inf


def test_the_false_alarm_rate_on_new_rows(guard: Guard) -> None:
    new = normal_rows(4000, seed=1)
    low, high = realized_interval(guard.calibrator_.n, len(new), 0.05, level=1 - 1e-6)
    assert low <= (guard.predict(new) == -1).mean() <= high


def test_signs_agree_between_methods(guard: Guard) -> None:
    x = np.vstack([normal_rows(200, seed=2), 6 * normal_rows(50, seed=3)])
    score, p = guard.anomaly_score(x), guard.p_value(x)
    np.testing.assert_array_equal(guard.score_samples(x), -score)
    alarm = guard.predict(x) == -1
    np.testing.assert_array_equal(alarm, p <= guard.level_)
    np.testing.assert_array_equal(alarm, guard.decision_function(x) < 0)
    report = guard.assess(x)
    np.testing.assert_array_equal(report["alarm"], alarm)
    np.testing.assert_array_equal(report["p_value"], p)
    calibration = guard.calibrator_.scores
    expected = [(1 + (calibration >= s).sum()) / (len(calibration) + 1) for s in score]
    np.testing.assert_allclose(p, expected, rtol=1e-15)


def test_a_row_is_scored_alone(mixed: Guard) -> None:
    frame = mixed_frame(40, seed=5)
    together = mixed.anomaly_score(frame)
    alone = np.array([mixed.anomaly_score(frame.iloc[[i]])[0] for i in range(len(frame))])
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(mixed.anomaly_score(frame.iloc[::-1])[::-1], together)


def test_a_row_has_the_same_bits_with_any_other_rows() -> None:
    """Matrix products of other sizes round differently, which must not reach the scores."""
    guard = Guard(0.2, **QUICK).fit(normal_rows(400))
    rows = 3 * normal_rows(700, seed=5)
    whole = guard.anomaly_score(rows)
    order = np.random.default_rng(0).permutation(700)
    assert np.array_equal(guard.anomaly_score(rows[order]), whole[order])
    assert np.array_equal(np.concatenate([guard.anomaly_score(part) for part in np.split(rows[:30], 10)]), whole[:30])


def test_pac_is_stricter_than_marginal() -> None:
    x = normal_rows(1000)
    marginal = Guard(0.05, **QUICK).fit(x)
    pac = Guard(0.05, guarantee="pac", **QUICK).fit(x)
    assert pac.level_ < marginal.level_ <= 0.05


def test_too_few_rows_warn_and_raise_no_alarm(tmp_path) -> None:
    with pytest.warns(PushforwardWarning, match=r"needs 99 calibration rows.*at least 198 rows"):
        guard = Guard(0.01, **QUICK).fit(normal_rows(100))
    with pytest.warns(PushforwardWarning, match="299"):
        Guard(0.01, guarantee="pac", **QUICK).fit(normal_rows(500))
    guard.save(tmp_path / "g.safetensors")
    far = [[0.0, 0.0, 0.0], [1e9, 0.0, 0.0], [math.inf, 0.0, 0.0]]
    for each in (guard, Guard.load(tmp_path / "g.safetensors")):
        assert each.level_ == 0
        np.testing.assert_array_equal(each.predict(far), [1, 1, 1])
        assert not each.assess(far)["alarm"].any()
        np.testing.assert_allclose(each.p_value(far[1:]), 1 / (guard.calibrator_.n + 1))


def test_too_few_calibration_rows_by_number_are_not_cured_by_more_rows() -> None:
    with pytest.warns(PushforwardWarning, match=r"there are 2: .*Give calibration=99, or a larger alpha"):
        Guard(0.01, calibration=2, **QUICK).fit(normal_rows(300))


@pytest.mark.parametrize(
    ("data", "what_to_do"),
    [
        ("train.csv", r"a path is no data: .* tables with pf\.io\.read_table"),
        (Path("train.csv"), r"a path is no data: .* tables with pf\.io\.read_table"),
        ([{"a": 1.0}, {"a": 2.0}], r"pandas\.DataFrame\(X\)"),
        ([["a", 1.0], ["b", 2.0]], r"'a': an array or a list of rows must be numbers.*pandas\.DataFrame\(X\)"),
        (pd.Series({"a": 1.0, "b": "x"}), r"df\.iloc\[\[0\]\] for one row"),
        (np.arange(3.0), r"got 1D array instead: Reshape your data"),
        (pd.DataFrame(index=range(9)), "no columns"),
    ],
)
def test_data_that_are_no_table_are_refused_with_what_to_do(data, what_to_do: str) -> None:
    with pytest.raises(InputError, match=what_to_do) as error:
        Guard(0.05).fit(data)
    assert "\n" not in str(error.value)


def test_hardly_any_rows_are_refused() -> None:
    with pytest.raises(CalibrationError, match="4 rows"):
        Guard(0.5, **QUICK).fit(normal_rows(2))
    with pytest.raises(CalibrationError, match="150 calibrate"):
        Guard(0.5, calibration=150, **QUICK).fit(normal_rows(150))


def test_the_calibration_part_grows_to_the_size_that_alpha_needs() -> None:
    assert Guard(0.01, **QUICK).fit(normal_rows(220)).calibrator_.n == 99


def test_select_bounds_false_discoveries(guard: Guard) -> None:
    x = np.vstack([normal_rows(300, seed=7), normal_rows(60, seed=8) + 25])
    chosen = guard.select(x, fdr=0.1)
    assert chosen[300:].all()
    assert chosen[:300].sum() <= 20


def test_explain_names_the_column(guard: Guard, mixed: Guard) -> None:
    explanation = guard.explain([[0.0, 0.0, 20.0]])
    assert explanation.names == ("x0", "x1", "x2")
    assert explanation.top(k=1)[0][0] == "x2"
    row = mixed_frame(1, seed=9).assign(unit=8.0)
    with pytest.warns(SchemaWarning, match="'unit': rows have another value than 7"):
        found = dict(mixed.explain(row).top(k=6))
    assert found["unit"] == pytest.approx(math.log(mixed.table_features_.rows + 2))


def test_without_a_density_one_sentence_says_how_to_get_it(guard: Guard) -> None:
    for call in (lambda: guard.sample(3), lambda: guard.log_prob([[0.0, 0.0, 0.0]])):
        with pytest.raises(ConfigError, match=r"density=True"):
            call()
    assert not hasattr(guard, "density_")
    assert set(guard.assess([[0.0, 0.0, 0.0]])) == {"anomaly_score", "p_value", "alarm"}


def test_the_density_does_not_change_the_score(mixed: Guard, with_density: Guard) -> None:
    frame = mixed_frame(40, seed=3)
    np.testing.assert_array_equal(with_density.anomaly_score(frame), mixed.anomaly_score(frame))
    report = with_density.assess(frame)
    np.testing.assert_array_equal(report["log_prob"], with_density.log_prob(frame))
    assert np.isfinite(report["log_prob"]).all()


def test_log_prob_is_the_density_of_the_flows() -> None:
    x = normal_rows(400)
    guard = Guard(0.05, model="nice", **FLOWS).fit(x)
    expected = guard.density_.log_prob(torch.from_numpy(x[:20])).double().detach().numpy()
    np.testing.assert_allclose(guard.log_prob(x[:20]), expected, rtol=1e-5, atol=1e-5)


def test_max_time_is_kept_or_refused() -> None:
    x = normal_rows(2000)
    guard = Guard(0.05, max_time="5m", **QUICK).fit(x)
    assert guard.calibrator_.n == 200
    assert guard.predict([[0, 0, 0], [30, -30, 30]]).tolist() == [1, -1]
    with pytest.raises(ConfigError, match=r"max_time='0.001s' is too short.* 0 of 19"):
        Guard(0.05, max_time="0.001s", **QUICK).fit(x)


def test_effort_is_a_fixed_amount_of_work() -> None:
    x = normal_rows(3000)
    sizes = []
    for effort in ("fast", "default"):
        first, again = (Guard(0.05, effort=effort, **QUICK).fit(x) for _ in range(2))
        np.testing.assert_array_equal(first.anomaly_score(x[:50]), again.anomaly_score(x[:50]))
        sizes.append(len(first.score_.pool.parts["soft"].reference))
    assert sizes == [1000, 2700]


def test_the_file_of_a_density(with_density: Guard, tmp_path) -> None:
    frame = mixed_frame(50, seed=4)
    with_density.save(tmp_path / "g.safetensors")
    again = Guard.load(tmp_path / "g.safetensors")
    np.testing.assert_array_equal(again.log_prob(frame), with_density.log_prob(frame))
    np.testing.assert_array_equal(again.anomaly_score(frame), with_density.anomaly_score(frame))


def test_file_round_trip_is_exact(mixed: Guard, guard: Guard, tmp_path) -> None:
    frame = mixed_frame(50, seed=4)
    mixed.save(tmp_path / "g.safetensors")
    again = Guard.load(tmp_path / "g.safetensors")
    np.testing.assert_array_equal(again.anomaly_score(frame), mixed.anomaly_score(frame))
    np.testing.assert_array_equal(again.predict(frame), mixed.predict(frame))
    assert again.get_params() == mixed.get_params()
    assert list(again.feature_names_in_) == list(mixed.feature_names_in_)
    guard.save(tmp_path / "plain.safetensors")
    assert not hasattr(Guard.load(tmp_path / "plain.safetensors"), "feature_names_in_")


def test_wrong_files_are_refused(guard: Guard, tmp_path) -> None:
    with pytest.raises(StorageError):
        Guard.load(tmp_path / "absent.safetensors")
    path = tmp_path / "g.safetensors"
    guard.save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError):
        Guard.load(path)


def test_reproducible_under_a_seed() -> None:
    x = normal_rows(200)
    first, second = (Guard(0.05, **QUICK).fit(x).anomaly_score(x) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("make", [lambda f: f, pl.from_pandas, pa.Table.from_pandas], ids=["pandas", "polars", "arrow"])
def test_all_kinds_of_frames_have_the_same_scores(mixed: Guard, make) -> None:
    frame = mixed_frame(30, seed=6)
    np.testing.assert_allclose(mixed.anomaly_score(make(frame)), mixed.anomaly_score(frame), rtol=1e-12)


def test_reordered_columns_are_matched_by_name(mixed: Guard) -> None:
    frame = mixed_frame(30, seed=6)
    np.testing.assert_array_equal(mixed.anomaly_score(frame[frame.columns[::-1]]), mixed.anomaly_score(frame))


def test_columns_that_differ_from_the_training_table(mixed: Guard) -> None:
    frame = mixed_frame(5, seed=6)
    usual = mixed.anomaly_score(frame)
    with pytest.raises(SchemaError, match="'count'"):
        mixed.predict(frame.drop(columns="count"))
    with pytest.warns(SchemaWarning, match="'more'"):
        np.testing.assert_array_equal(mixed.anomaly_score(frame.assign(more=1)), usual)
    with pytest.warns(SchemaWarning, match="mauve"):
        new = mixed.anomaly_score(frame.assign(color=["mauve", *frame["color"][1:]]))
    assert new[0] > usual[0]
    np.testing.assert_array_equal(new[1:], usual[1:])
    with pytest.raises(SchemaError, match=r"'size'.*row 2.*many"):
        mixed.predict(frame.astype({"size": object}).assign(size=["1", "2", "many", "4", "5"]))
    with pytest.warns(SchemaWarning, match="missing"):
        gone = mixed.anomaly_score(frame.assign(size=[np.nan, *frame["size"][1:]]))
    assert gone[0] > np.median(usual)


def test_samples_look_like_the_table(with_density: Guard) -> None:
    drawn = with_density.sample(200, random_state=0)
    frame = mixed_frame()
    assert drawn.column_names == list(frame.columns)
    assert set(drawn["color"].to_pylist()) <= {"red", "green", "blue"}
    assert drawn["unit"].to_pylist() == [7.0] * 200
    assert 0 < drawn["level"].null_count < 120
    assert all(isinstance(v, int) for v in drawn["count"].to_pylist())


@pytest.mark.parametrize("size", [44, -44])
def test_a_density_of_rounded_numbers_beyond_float32(size: int) -> None:
    """Luminosities in erg/s with two digits ended in an error about steps of float32."""
    rng = np.random.default_rng(0)
    cells = [float(f"{value:.1f}e{size}") for value in rng.uniform(1, 9, 300)]
    frame = pd.DataFrame({"luminosity": cells, "mass": rng.normal(size=300)})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="1 of 2 coordinates vary by less")
        guard = Guard(density=True, alpha=0.1, effort="fast", max_steps=20, random_state=0).fit(frame)
    assert np.isfinite(guard.log_prob(frame)).all()
    drawn = np.array(guard.sample(100, random_state=0)["luminosity"].to_pylist()) / 10.0**size
    np.testing.assert_allclose(10 * drawn, np.rint(10 * drawn), atol=1e-6)
    assert 0.5 < np.median(drawn) < 9.5


def test_samples_have_the_decimals_of_the_table_and_the_range_of_integers() -> None:
    """A flow in float32 gave 179.39999758 for 179.4, and ended in an error for integers beyond int64."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({
        "height": rng.normal(180, 10, 300).round(1), "size": 40.25 + rng.integers(0, 20, 300) / 4, "key": rng.integers(2**63 - 10**5, 2**63 - 1, 300)
    })  # fmt: skip
    drawn = Guard(density=True, effort="fast", max_steps=20, random_state=0).fit(frame).sample(100, random_state=0)
    height, size = drawn["height"].to_pylist(), drawn["size"].to_pylist()
    assert height == [round(value, 1) for value in height]
    assert size == [round(4 * value) / 4 for value in size]
    assert all(isinstance(value, int) for value in drawn["key"].to_pylist())


@pytest.mark.parametrize(
    "options",
    [{"alpha": 0}, {"alpha": 1.5}, {"alpha": "a"}, {"guarantee": "sure"}, {"delta": 0}, {"model": "glow"}, {"n_estimators": 0},
     {"n_draws": 1.5}, {"validation": 1}, {"calibration": 0}, {"max_steps": True}, {"max_time": "soon"}, {"learning_rate": 0}, {"jitter": -1},
     {"effort": "more"}, {"density": 1}],
    ids=str,
)  # fmt: skip
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        Guard(**({"alpha": 0.05} | FLOWS | options)).fit(normal_rows(200))


@pytest.mark.parametrize(
    "x", [[], [[]], 3, "text", None, [1, 2, 3], np.zeros((2, 2, 2)), np.zeros((50, 2)), [["a", "b"]] * 50,
          np.full((50, 2), np.inf), np.full((50, 2), np.nan), np.zeros((50, 0)), [[1j]] * 50, {"a": [1, 2], "b": [1]}],
    ids=lambda v: str(type(v).__name__) + str(np.shape(v) if not isinstance(v, dict) else ""),
)  # fmt: skip
def test_unreadable_tables_are_refused(x) -> None:
    with pytest.raises(PushforwardError), warnings.catch_warnings():
        warnings.simplefilter("ignore", SchemaWarning)
        Guard(0.05, **QUICK).fit(x)


def test_errors_of_fit_name_the_row_of_the_table() -> None:
    guard = Guard(0.05, random_state=0)
    fitted, _, _ = split_rows(400, guard.calibration, guard.alpha, "marginal", guard.delta, seed=0)
    for row in (fitted[0], fitted[150], fitted[-1]):
        frame = pd.DataFrame(normal_rows(400), columns=["a", "b", "c"])
        frame.loc[row, "b"] = math.inf
        with pytest.raises(SchemaError, match=f"'b', row {row} "):
            guard.fit(frame)


def test_an_unfitted_guard_is_an_error() -> None:
    for method in ("predict", "p_value", "select", "anomaly_score"):
        with pytest.raises(NotFittedError, match="fit") as caught:
            getattr(Guard(), method)([[0.0]])
        assert isinstance(caught.value, PushforwardError)


def test_wrong_width_is_refused(guard: Guard) -> None:
    with pytest.raises(InputError, match="3"):
        guard.predict([[0.0, 1.0]])


def test_pipeline_grid_and_clone() -> None:
    frame = pd.DataFrame(normal_rows(300), columns=["a", "b", "c"])
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), Guard(0.05, **QUICK))
    assert (pipeline.fit(frame).predict(frame) == 1).mean() > 0.8
    assert list(pipeline[-1].feature_names_in_) == ["a", "b", "c"]
    search = GridSearchCV(
        Guard(0.05, **QUICK),
        {"effort": ["fast", "default"]},
        cv=2,
        scoring=lambda est, X, y=None: est.score_samples(X).mean(),
    ).fit(frame)
    assert set(search.cv_results_["param_effort"]) == {"fast", "default"}
    assert clone(Guard(0.2)).alpha == 0.2


def test_one_column_table_works() -> None:
    x = np.concatenate([np.random.default_rng(0).normal(-5, 1, 300), np.random.default_rng(1).normal(5, 1, 300)])[
        :, None
    ]
    guard = Guard(0.05, random_state=0).fit(x)
    score = guard.anomaly_score([[0.0], [5.0], [-5.0]])
    assert score[0] > score[1:].max()


def test_a_monitor_alarms_after_a_change_and_not_before(tmp_path):
    guard = Guard(0.05, **QUICK).fit(normal_rows(1000))
    monitor = guard.monitor()
    monitor.update(guard.anomaly_score(normal_rows(300, seed=1)))
    assert not monitor.alarm
    monitor.save(tmp_path / "m.safetensors")
    again = Monitor.load(tmp_path / "m.safetensors")
    again.update(guard.anomaly_score(normal_rows(100, seed=2) + 4))
    assert again.alarm
    assert 300 < again.alarm_at < 350


def test_a_fit_that_fails_leaves_the_guard_as_it_was() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    guard = Guard(alpha=0.05, effort="fast", random_state=0).fit(x)
    before, queries = dict(vars(guard)), [[8.0, 8.0], [0.0, 0.0]]
    p = guard.p_value(queries)
    guard.set_params(score=lambda rows: np.full(len(rows), np.nan))
    with pytest.raises(InputError):
        guard.fit(rng.normal(size=(300, 3)))
    guard.set_params(score=None)
    assert vars(guard).keys() == before.keys()
    assert guard.n_features_in_ == 2
    np.testing.assert_array_equal(guard.p_value(queries), p)


def test_numbers_of_numpy_as_options_go_through_a_file(tmp_path) -> None:
    x = np.random.default_rng(0).normal(size=(300, 2))
    options: dict[str, Any] = {"alpha": np.float32(0.05), "calibration": np.int64(60)}
    for seed in (np.int64(3), np.random.RandomState(0)):
        guard = Guard(effort="fast", random_state=seed, **options).fit(x)
        guard.save(tmp_path / "guard")
        again = Guard.load(tmp_path / "guard")
        np.testing.assert_array_equal(again.p_value(x), guard.p_value(x))
        assert type(again.random_state) is int


@pytest.mark.parametrize("calibration", [math.inf, "0.2", True, 0, -3, math.nan, 1.5])
def test_impossible_numbers_of_calibration_rows(calibration) -> None:
    with pytest.raises(ConfigError, match="calibration must be a positive fraction or number of rows"):
        Guard(calibration=calibration).fit(np.zeros((50, 2)))


def test_no_filter_of_warnings_changes_for_other_threads(monkeypatch):
    rng = np.random.default_rng(0)
    table = {"a": rng.normal(size=200), "b": rng.choice(["x", "y"], 200)}
    strange = {"a": [0.0, 1.0], "b": ["z", "x"]}
    encode, during = Schema.encode, []

    def watched(*args: Any, **kwargs: Any) -> Any:
        during.append(list(warnings.filters))
        return encode(*args, **kwargs)

    monkeypatch.setattr(Schema, "encode", watched)
    before = list(warnings.filters)
    guard = Guard(0.05, n_estimators=1, max_steps=5, random_state=0).fit(table)
    with collected(SchemaWarning) as found:
        guard.explain(strange)
    assert "no row had" in str(found[0])
    guard.report(strange)
    compare_guards(guard, guard, strange)
    assert len(during) > 4
    assert all(each == before for each in during)
