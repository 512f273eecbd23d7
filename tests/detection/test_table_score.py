"""The score of tables: its parts, its split, its file."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pushforward.detection import table_score
from pushforward.detection.table_score import TABLE_TRAINING, TableScore, either, fit_table_score
from pushforward.errors import ConfigError, InputError, SchemaError, StorageError
from pushforward.estimators import Guard
from pushforward.models import NICE, Flow, RealNVP
from pushforward.transforms import Chain, Standardize

QUICK = {"density": True, "n_estimators": 2, "config": replace(TABLE_TRAINING, max_steps=5, progress="silent")}


def frame(n: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    level = np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n))
    return pd.DataFrame({"x": rng.normal(size=n), "color": rng.choice(["red", "blue"], n), "level": level})


@pytest.fixture(scope="module")
def score() -> TableScore:
    return fit_table_score(frame(), **QUICK)


def test_it_is_one_of_the_scores_of_inputs(score: TableScore) -> None:
    assert score.reads == "tables"
    assert score.has_density
    new = frame(30, seed=1)
    values = score.score(new)
    assert values.shape == (30,)
    assert values.dtype == np.float64
    assert score.score(new[:0]).shape == (0,)
    assert score.explain(new).names == ("x", "color", "level")
    assert score.sample(7, 0).column_names == ["x", "color", "level"]
    assert score.log_prob(new).shape == (30,)
    assert score.explain_density(new).names == ("x", "color", "level")
    assert repr(score) == f"TableScore(3 columns, {len(score.pool.scales)} statistics, 2 flows)"


def test_without_flows() -> None:
    plain = fit_table_score(frame())
    assert not plain.has_density
    assert "flows" not in repr(plain)
    for call in (lambda: plain.log_prob(frame(3)), lambda: plain.sample(3, 0), lambda: plain.explain_density(frame(3))):
        with pytest.raises(ConfigError, match="density=True"):
            call()


def test_log_prob_has_the_cost_of_unseen_cells(score: TableScore) -> None:
    """The density and the score read the usual value in place of an unseen one, which costs log(n + 2) nats."""
    new = frame(9, seed=1)
    usual = new.assign(color=["blue" if frame()["color"].eq("blue").mean() > 0.5 else "red"] * 9)
    for method, sign in ((score.log_prob, -1), (score.score, 1)):
        with pytest.warns(UserWarning, match="mauve"):
            values = method(new.assign(color=["mauve"] * 9))
        assert np.allclose(sign * (values - method(usual)), np.log(score.features.rows + 2))


def test_a_new_value_of_a_column_that_always_has_some() -> None:
    """The row is as strange as its values or this news; news of another column are added."""
    shops = [f"shop {k % 7}" for k in range(170)] + [f"rare {k}" for k in range(30)]
    score = fit_table_score(frame().assign(shop=np.random.default_rng(5).permutation(shops)), effort="fast")
    assert score.features.singletons == ((3, 30),)
    new = frame(9, seed=1)
    usual = max(
        set(shops), key=lambda shop: (shops.count(shop), -score.features.schema.columns[3].categories.index(shop))
    )
    values = score.score(new.assign(shop=usual))
    cost = np.log(202 / 31)
    with pytest.warns(UserWarning, match="Opera"):
        found = score.score(new.assign(shop="Opera"))
    np.testing.assert_allclose(found, np.log(np.exp(values) + np.exp(cost) - 1))
    assert np.all(found >= np.maximum(values, cost))
    with pytest.warns(UserWarning, match="Opera"), pytest.warns(UserWarning, match="mauve"):
        both = score.score(new.assign(shop="Opera", color="mauve"))
    color = "blue" if frame()["color"].eq("blue").mean() > 0.5 else "red"
    with pytest.warns(UserWarning, match="Opera"):
        one = score.score(new.assign(shop="Opera", color=color))
    np.testing.assert_allclose(both, one + np.log(202))
    with pytest.warns(UserWarning, match="missing"):
        gone = score.score(new.assign(shop=[None] * 9))
    np.testing.assert_allclose(gone, values + np.log(202))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (0.0, 3.0, 3.0),
        (0.0, 0.0, 0.0),
        (np.log(3), np.log(5), np.log(7)),
        (700.0, 2.0, 700.0),
        (1e6, 1e6, 1e6 + np.log(2)),
    ],
)
def test_either(a: float, b: float, expected: float) -> None:
    for pair in ((a, b), (b, a)):
        assert either(*map(np.atleast_1d, pair))[0] == pytest.approx(expected, rel=1e-14)


def test_news_and_infinities(score: TableScore) -> None:
    new = frame(4, seed=1)
    usual = float(frame()["x"].sort_values().iloc[99])  # the lower median
    with pytest.warns(UserWarning, match="missing"):
        gone = score.score(new.assign(x=[np.nan] * 4))
    np.testing.assert_allclose(gone - score.score(new.assign(x=[usual] * 4)), np.log(202))
    far = score.score(new.assign(x=[np.inf, -np.inf, 1e300, 1e6]))
    assert np.isposinf(far[:2]).all()
    assert np.isfinite(far[2:]).all()
    assert far[2] >= far[3] > score.score(frame()).max()


def parts_of(monkeypatch, *arguments, **options) -> tuple[np.ndarray, np.ndarray]:
    """The encoded rows for training and for early stopping."""
    seen = []
    monkeypatch.setattr(table_score.TableFeatures, "transform", lambda self, rows: rows)
    monkeypatch.setattr(table_score, "fit_pool", lambda *arguments, **options: None)
    monkeypatch.setattr(
        table_score, "fit_table_density", lambda train, stop, features, **options: seen.extend((train, stop))
    )
    fit_table_score(*arguments, density=True, **options)
    return seen[0], seen[1]


def test_equal_rows_are_in_one_part(monkeypatch) -> None:
    x = np.repeat(np.random.default_rng(0).normal(size=(60, 2)), 4, axis=0)
    train, stop = parts_of(monkeypatch, x, 0.25)
    assert len(train) + len(stop) == len(x)
    assert 30 < len(stop) < 90
    assert not {tuple(row) for row in train} & {tuple(row) for row in stop}


@pytest.mark.parametrize("arguments", [(np.eye(30), 0.0), (np.random.default_rng(0).normal(size=(19, 2)), 0.5)])
def test_no_rows_for_early_stopping(monkeypatch, arguments) -> None:
    train, stop = parts_of(monkeypatch, *arguments)
    assert len(train) == len(arguments[0])
    assert len(stop) == 0


def test_rows_for_early_stopping_can_be_given(monkeypatch) -> None:
    train, stop = parts_of(monkeypatch, frame(50), frame(20, seed=1))
    assert len(train) == 50
    np.testing.assert_array_equal(stop[:, 0], frame(20, seed=1)["x"])


def test_seeds(monkeypatch) -> None:
    x = np.random.default_rng(0).normal(size=(100, 2))
    first, again, other = (parts_of(monkeypatch, x, config=replace(TABLE_TRAINING, seed=seed))[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_refusals() -> None:
    with pytest.raises(InputError, match="constant"):
        fit_table_score(np.zeros((30, 2)), **QUICK)
    with pytest.raises(SchemaError, match="x0"):
        fit_table_score(np.full((30, 2), np.nan), **QUICK)
    with pytest.raises(ConfigError, match="model"):
        fit_table_score(np.eye(30), kind="glow", **QUICK)
    with pytest.raises(ConfigError, match="effort"):
        fit_table_score(np.eye(30), effort="more")


def test_through_a_file(score: TableScore) -> None:
    description, tensors = score.pack("s.")
    assert all(name.startswith("s.") for name in tensors)
    again = TableScore.unpack(json.loads(json.dumps(description)), tensors, "s.")
    new = frame(30, seed=1)
    np.testing.assert_array_equal(again.score(new), score.score(new))
    np.testing.assert_array_equal(again.log_prob(new), score.log_prob(new))
    np.testing.assert_array_equal(again.explain(new).nats, score.explain(new).nats)
    np.testing.assert_array_equal(again.explain_density(new).nats, score.explain_density(new).nats)
    np.testing.assert_array_equal(again.sample(5, 1)["x"], score.sample(5, 1)["x"])


@pytest.mark.parametrize(
    "change", [{"n_draws": 0}, {"n_draws": "4"}, {"features": None}, {"features": []}, {"density": {}},
     {"pool": None}, {"pool": {}}], ids=str
)  # fmt: skip
def test_invalid_json_from_a_file_is_refused(score: TableScore, change: dict) -> None:
    description, tensors = score.pack("s.")
    with pytest.raises(StorageError):
        TableScore.unpack(description | change, tensors, "s.")


@pytest.mark.parametrize("data", [None, [], "x", {}, {"features": {}}])
def test_other_json_is_refused(score: TableScore, data) -> None:
    with pytest.raises(StorageError):
        TableScore.unpack(data, score.pack("s.")[1], "s.")


@pytest.mark.parametrize(
    "name", ["coordinates.kind", "spaces.center", "standard.reference", "reasons.given", "linear.mean"]
)
def test_arrays_that_do_not_fit_are_refused(score: TableScore, name: str) -> None:
    description, tensors = score.pack("s.")
    name = f"s.pool.{name}"
    for change in (tensors[name][:-1], tensors[name] * float("nan"), tensors[name].float(), None):
        changed = {key: value for key, value in tensors.items() if key != name}
        if change is not None:
            changed[name] = change
        with pytest.raises(StorageError):
            TableScore.unpack(description, changed, "s.")


def test_weights_that_do_not_add_up_are_refused(score: TableScore) -> None:
    description, tensors = score.pack("s.")
    weighted = description["pool"]["weights"]
    for wrong in ([], weighted[1:], [["soft", "other", 1.0]], [["other", "knn1", 1.0]], [[*weighted[0][:2], "x"]]):
        with pytest.raises(StorageError):
            TableScore.unpack(description | {"pool": description["pool"] | {"weights": wrong}}, dict(tensors), "s.")


def test_a_density_that_does_not_fit_is_refused(score: TableScore) -> None:
    flow = NICE(7)
    other = TableScore(score.features, score.pool, Flow(flow.chain, flow.base))
    with pytest.raises(StorageError, match="4 features"):
        TableScore.unpack(*other.pack("s."), "s.")


def test_a_density_without_an_ensemble_cannot_explain() -> None:
    """A file can have one; what cannot be explained is refused with a sentence."""
    x = np.random.default_rng(0).normal(size=(50, 2))
    fitted = fit_table_score(x, **QUICK)
    flow = RealNVP(2, hidden=(4,))
    other = TableScore(fitted.features, fitted.pool, Flow(Chain(Standardize(2), flow.chain), flow.base).eval())
    with warnings.catch_warnings(), pytest.raises(ConfigError, match="autoregressive"):
        TableScore.unpack(*other.pack("s."), "s.").explain_density(x)


@pytest.mark.parametrize("count", [1, 300])
def test_samples_are_times_and_categories_that_exist(count):
    rng = np.random.default_rng(0)
    hours = pd.Series(pd.to_timedelta(rng.integers(0, 24, 300), unit="h") + pd.Timestamp("2020-01-01")).dt.time
    table = pd.DataFrame({"hour": hours, "one": ["a", None] * 150, "x": rng.normal(size=300)})
    guard = Guard(alpha=0.1, density=True, effort="fast", max_steps=20, random_state=0).fit(table)
    drawn = guard.sample(count, random_state=1)
    assert drawn.num_rows == count
    assert set(drawn.column("one").to_pylist()) <= {"a", None}
