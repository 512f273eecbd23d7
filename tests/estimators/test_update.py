"""Rows that are added to a guard, and a guard that stores none."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import pushforward as pf
from pushforward.detection import realized_interval
from pushforward.detection.table.mixture import Mixture
from pushforward.errors import CalibrationError, ConfigError, SchemaWarning
from pushforward.io import read


def rows(n: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    level = rng.normal(shift, 1, size=n)
    return pd.DataFrame({
        "a": level + 0.2 * rng.normal(size=n), "b": level + 0.2 * rng.normal(size=n), "count": rng.poisson(4, n),
        "kind": rng.choice(["x", "y"], n), "level": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
    })  # fmt: skip


def test_new_normal_rows_are_learned(tmp_path) -> None:
    """A plant with a second mode of operation: before the update all its rows are alarms, after it as many as promised."""
    guard = pf.Guard(0.05, effort="fast", calibration=0.25, random_state=0).fit(rows(800, 0))
    moved = rows(2000, 1, shift=6.0)
    before = (guard.predict(moved) == -1).mean()
    assert before > 0.8
    stored = len(guard.score_.pool)
    assert guard.update(rows(400, 2, shift=6.0), note="mode 2") is guard
    assert len(guard.score_.pool) == stored + 300
    assert guard.table_features_.rows == 600 + 300
    assert guard.calibrator_.n == 100
    low, high = realized_interval(100, 2000, 0.05, level=0.999)
    assert low <= (guard.predict(moved) == -1).mean() <= high
    assert (guard.predict(rows(300, 3)) == -1).mean() < 0.3  # the first mode is still near stored rows
    assert "(mode 2)" in str(guard.calibration_)
    guard.save(tmp_path / "g")
    np.testing.assert_array_equal(pf.Guard.load(tmp_path / "g").anomaly_score(moved), guard.anomaly_score(moved))


def test_no_row_is_in_both_parts(monkeypatch) -> None:
    guard = pf.Guard(0.1, effort="fast", calibration=0.25, random_state=0).fit(rows(400, 0))
    seen = []
    for name in ("with_rows", "score"):
        method = getattr(type(guard.score_), name)

        def spy(self, table, *rest, method=method):
            seen.append({row["a"] for row in table.to_pylist()})
            return method(self, table, *rest)

        monkeypatch.setattr(type(guard.score_), name, spy)
    guard.update(rows(200, 1))
    assert not seen[0] & seen[1]
    assert len(seen[0] | seen[1]) == 200


def test_the_number_of_stored_rows_has_a_limit() -> None:
    guard = pf.Guard(0.1, effort="fast", calibration=0.25, random_state=0).fit(rows(1600, 0))
    assert len(guard.score_.pool) == 1000
    guard.update(rows(800, 1, shift=3.0))
    assert len(guard.score_.pool) == 1000
    assert guard.table_features_.rows == 1200 + 600
    part = guard.score_.pool.parts["soft"].reference
    assert 250 < (part[:, 0] > 1.5).sum() < 450  # a third of all rows so far


def test_rows_with_news_are_not_added() -> None:
    guard = pf.Guard(0.1, effort="fast", calibration=0.25, random_state=0).fit(rows(400, 0))
    stored = len(guard.score_.pool)
    with pytest.warns(UserWarning, match="'z'|left out"):
        guard.update(rows(200, 1).assign(kind="z"))
    assert len(guard.score_.pool) == stored


def test_what_cannot_be_updated() -> None:
    guard = pf.Guard(0.05, effort="fast", calibration=0.25, random_state=0).fit(rows(400, 0))
    before = guard.anomaly_score(rows(5, 1))
    with pytest.raises(CalibrationError, match="give at least 21; got 20"):
        guard.update(rows(20, 1))
    np.testing.assert_array_equal(guard.anomaly_score(rows(5, 1)), before)
    plain = pf.Guard(0.05, effort="fast", calibration=0.25, store_rows=False, random_state=0).fit(rows(400, 0))
    with pytest.raises(ConfigError, match="stores no training rows"):
        plain.update(rows(200, 1))
    smooth = pf.Guard(0.1, smoothing=0.5, random_state=0).fit(np.random.default_rng(0).normal(size=(100, 2)))
    with pytest.raises(ConfigError, match="without smoothing"):
        smooth.update(np.zeros((100, 2)))


def test_a_guard_without_rows_contains_none_and_still_works(tmp_path) -> None:
    train = rows(800, 0)
    guard = pf.Guard(0.05, effort="fast", calibration=0.25, store_rows=False, random_state=0).fit(train)
    assert len(guard.score_.pool) == 0
    guard.save(tmp_path / "g")
    again = pf.Guard.load(tmp_path / "g")
    usual, odd = rows(400, 1), rows(400, 2).assign(a=lambda t: -t["b"])
    odd = odd[odd["b"].abs() > 1]
    truth = np.repeat((0, 1), (400, len(odd)))
    assert roc_auc_score(truth, again.anomaly_score(pd.concat((usual, odd)))) > 0.95
    explanation = again.explain(odd)
    assert np.mean([explanation.top(i)[0][0] in ("a", "b") for i in range(len(odd))]) > 0.9
    assert (again.predict(usual) == -1).mean() < 0.12
    made = again.score_.pool.reasons.rows
    assert set(np.unique(made[:, 3])) <= {0.0, 1.0}
    assert not (set(made[:, 0].tolist()) & set(train["a"]))
    # Sorted columns can put cells of one row side by side only where both are extremes of their columns.
    pairs = set(zip(train["a"], train["b"], strict=True))
    for tensor in read(tmp_path / "g")[1].values():
        if tensor.ndim == 2 and tensor.shape[1] >= 2:
            assert len({tuple(pair) for pair in tensor[:, :2].numpy()} & pairs) <= 8


def test_draws_have_the_mean_and_the_covariance_of_the_mixture() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 3)) @ np.array([[1.0, 0.5, 0], [0, 1, 0.3], [0, 0, 0.2]]) + [1, 2, 3]
    drawn = Mixture.fit(x).sample(40_000, rng)
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=0.1)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(x.T), atol=0.12)
    wide = rng.normal(size=(500, 40))
    assert Mixture.fit(wide).sample(2000, rng).std(0) == pytest.approx(np.ones(40), abs=0.15)


def test_drawn_rows_have_the_frequencies_of_categories() -> None:
    """Also in a column that has nothing to do with the others, and so counts little for distances."""
    rng = np.random.default_rng(0)
    shares = {"often": 0.75, "sometimes": 0.2, "seldom": 0.05}
    train = rows(2000, 0).assign(kind=rng.choice(list(shares), 2000, p=list(shares.values())))
    guard = pf.Guard(0.05, effort="fast", store_rows=False, random_state=0).fit(train)
    made = guard.score_.pool.reasons.rows[:, 3]
    names = guard.table_features_.schema.columns[3].categories
    for name, share in shares.items():
        assert (made == names.index(name)).mean() == pytest.approx(share, abs=0.04)


def test_the_fewest_rows_that_can_update() -> None:
    rng = np.random.default_rng(0)
    guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(rng.normal(size=(300, 2)))
    guard.update(rng.normal(size=(21, 2)))
    assert guard.calibrator_.n == 19
    assert guard.predict([[50.0, 50.0]]) == [-1]
    with pytest.raises(CalibrationError, match="the 10 later ones are fewer than the 19"):
        guard.update(rng.normal(size=(100, 2)), time=np.r_[np.zeros(90), np.arange(1, 11)])
    assert guard.calibrator_.n == 19


def test_reasons_speak_of_the_added_rows_too():
    """Half of the stored rows are then around 6, so 6 is no longer outside what 95 % of normal rows have."""
    rng = np.random.default_rng(0)

    def rows(count, mean):
        return {"a": rng.normal(mean, 1, count), "b": rng.normal(0, 1, count)}

    guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(rows(500, 0.0))
    new = {"a": np.array([6.0]), "b": np.array([6.0])}
    before = guard.explain(new).evidence
    guard.update(rows(500, 6.0))
    after = guard.explain(new).evidence
    assert before.high[0, 0] < 6 < after.high[0, 0]
    assert before.own_high[0, 0] < 6 < after.own_high[0, 0]
    assert before.p_value[0, 0] < 0.01 < 0.05 < after.p_value[0, 0]
    assert after.high[0, 1] < 6  # b did not change
    assert after.p_value[0, 1] < 0.05


@pytest.mark.parametrize("how", ["update", "recalibrate"])
def test_later_rows_are_known_after_they_calibrated(how, tmp_path):
    rng = np.random.default_rng(0)

    def rows(count, start):
        return {
            "t": np.datetime64(start) + 3600 * rng.integers(0, 2000, count).astype("m8[s]"),
            "v": rng.normal(size=count),
        }

    guard = pf.Guard(alpha=0.1, effort="fast", random_state=0).fit(rows(300, "2025-01-01"))
    new = rows(200, "2025-06-01")
    with pytest.warns(SchemaWarning, match="after the normal rows that are known"):
        guard.predict(new)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(guard, how)(new)
        guard.predict(new)
        guard.save(tmp_path / "guard.safetensors")
        pf.Guard.load(tmp_path / "guard.safetensors").predict(new)
    with pytest.warns(SchemaWarning, match="after the normal rows that are known"):
        guard.predict(rows(5, "2026-01-01"))


def test_rows_that_could_not_be_added_are_counted():
    rng = np.random.default_rng(0)

    def rows(count, shops):
        return {"v": rng.normal(size=count), "shop": rng.choice(shops, count)}

    guard = pf.Guard(alpha=0.1, effort="fast", random_state=0).fit(rows(300, ["A", "B"]))
    known = guard.score_.features.rows
    with pytest.warns(SchemaWarning) as caught:
        guard.update(rows(200, ["C"]))
    assert any(
        re.search(r"(\d+) of the \1 rows that were to become neighbors were left out", str(w.message)) for w in caught
    )
    assert guard.score_.features.rows == known


def test_a_warning_that_is_an_error_leaves_the_guard_as_it_was(tmp_path) -> None:
    guard = pf.Guard(0.1, effort="fast", random_state=0).fit(rows(300, 0))
    more, calibration = rows(200, 1), guard.calibration_
    more.loc[::40, "a"] = np.inf
    before = guard.p_value(more)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SchemaWarning, match="were left out"):
            guard.update(more)
    np.testing.assert_array_equal(guard.p_value(more), before)
    assert (guard.calibration_, guard.calibrator_.n) == (calibration, calibration.rows)
    guard.save(tmp_path / "g")
    np.testing.assert_array_equal(pf.Guard.load(tmp_path / "g").p_value(more), before)
