"""The pool: what it detects, its weights, and that each row is scored alone."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pushforward.data import Schema, as_table
from pushforward.detection.table import EFFORTS, Pool, Sizes, fit_pool, fit_pool_in_time, pool_fit
from pushforward.detection.table.families import FAMILIES
from pushforward.detection.table.pool_fit import weigh
from pushforward.detection.table.yardstick import Yardstick, separation, weights
from pushforward.detection.table_features import TableFeatures
from pushforward.errors import ConfigError, InputError


def pool_of(x: np.ndarray, **options) -> Pool:
    schema, encoded = Schema.infer_encode(x)
    features = TableFeatures.fit(schema, encoded)
    return fit_pool(features, features.transform(encoded), **options)


def ring(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.stack((np.cos(angle), np.sin(angle)), 1) * 5 + 0.2 * rng.normal(size=(n, 2))


def test_a_hole_is_found_that_no_column_shows() -> None:
    pool = pool_of(ring(600, 0))
    usual, inside = pool.score(ring(200, 1)), pool.score(np.random.default_rng(2).normal(size=(50, 2)))
    assert roc_auc_score(np.repeat((0, 1), (200, 50)), np.concatenate((usual, inside))) > 0.99


def test_a_broken_dependence_between_columns_is_found() -> None:
    rng = np.random.default_rng(0)
    level = rng.normal(size=(900, 1))
    x = level + 0.1 * rng.normal(size=(900, 6))
    pool = pool_of(x[:700])
    broken = x[700:].copy()
    broken[:, 2] *= -1
    far = np.abs(broken[:, 2]) > 0.7
    values = np.concatenate((pool.score(x[700:]), pool.score(broken[far])))
    assert roc_auc_score(np.repeat((0, 1), (200, far.sum())), values) > 0.98


@pytest.mark.parametrize("d", [1, 2, 9, 40])
def test_a_row_is_scored_alone(d: int) -> None:
    rng = np.random.default_rng(0)
    x = np.round(rng.standard_t(3, size=(300, d)), 1)
    pool = pool_of(x)
    new = np.concatenate((x[:40], 3 * rng.normal(size=(560, d))))
    scores = pool.score(new)
    order = rng.permutation(len(new))
    assert np.array_equal(pool.score(new[order]), scores[order])
    assert np.array_equal(np.concatenate([pool.score(new[i : i + 1]) for i in range(0, 600, 40)]), scores[::40])
    np.testing.assert_allclose(pool.score(new[:3], batch=None), scores[:3], rtol=1e-9)
    assert pool.score(new[:0]).shape == (0,)


def test_farther_is_not_less_anomalous() -> None:
    pool = pool_of(np.random.default_rng(0).normal(size=(400, 3)))
    for direction in (np.eye(3)[0], -np.eye(3)[1], np.ones(3)):
        scores = pool.score(np.geomspace(4, 1e300, 40)[:, None] * direction)
        assert np.isfinite(scores).all()
        assert np.all(np.diff(scores) >= -1e-6 * scores[1:])
        assert scores[5] > scores[0]


def test_weights_add_up_and_are_reported() -> None:
    pool = pool_of(ring(300, 0))
    report = list(pool.statistics())
    assert sum(w for _, w, _ in report) == pytest.approx(1)
    assert len(report) > sum(w > 0 for _, w, _ in report) == len(pool.scales) <= 12
    areas = {name: area for name, _, area in report}
    # Mixes of points of a ring lie inside it, where neighbors see them and single columns do not.
    assert areas["standard knn1"] > 0.8 > 0.6 > areas["tails tail_max"]


def test_reproducible_and_of_a_fixed_size() -> None:
    x = np.random.default_rng(0).normal(size=(500, 3))
    sizes = Sizes(reference=100, rows=200, scale=50, mixes=60)
    first, again, other = (pool_of(x, sizes=sizes, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.score(x), again.score(x))
    assert not np.array_equal(first.score(x), other.score(x))
    assert len(first) == 100


@pytest.mark.parametrize("n", [2, 3, 5, 7, 8, 9, 12])
def test_few_rows(n: int) -> None:
    x = np.random.default_rng(0).normal(size=(n, 3))
    scores = pool_of(x).score(np.concatenate((x, x + 50)))
    assert np.isfinite(scores).all()
    assert scores[n:].min() > scores[:n].max()


@pytest.mark.parametrize(
    "x",
    [
        np.repeat(np.eye(4), 20, axis=0),
        np.random.default_rng(0).integers(0, 2, (100, 5)),
        np.random.default_rng(0).normal(size=(30, 90)),
        np.random.default_rng(0).standard_cauchy(size=(200, 3)),
        1e90 * np.random.default_rng(0).normal(size=(60, 2)),
        1e-6 * np.random.default_rng(0).normal(size=(60, 2)),
        np.r_[np.zeros((99, 2)), np.ones((1, 2))],
    ],
    ids=["few distinct", "binary", "wide", "heavy tails", "huge", "tiny", "nearly constant"],
)
def test_awkward_tables(x: np.ndarray) -> None:
    pool = pool_of(x.astype(float))
    assert np.isfinite(pool.score(x.astype(float))).all()
    found = pool.report_cells(x[:20].astype(float))
    assert all(np.isfinite(values).all() for values in (found.excess, found.p_value, found.own_low, found.own_high))
    outside = np.isnan(found.low)  # of the values of the training rows, as in `CellReport`
    np.testing.assert_array_equal(outside, np.isnan(found.high))
    assert np.isfinite(found.low[~outside]).all()
    assert (x.min(0) <= np.where(outside, x.min(0), found.low)).all()
    assert (np.where(outside, x.max(0), found.high) <= x.max(0)).all()


def test_less_time_gives_a_smaller_pool(monkeypatch) -> None:
    x = np.random.default_rng(0).normal(size=(1500, 2))
    schema, encoded = Schema.infer_encode(x)
    features = TableFeatures.fit(schema, encoded)
    ticks = iter(range(0, 10_000, 10))
    monkeypatch.setattr(pool_fit.time, "monotonic", lambda: float(next(ticks)))
    assert len(fit_pool_in_time(features, encoded, 1.0)) == 250
    assert len(fit_pool_in_time(features, encoded, 1e6)) == 1500
    assert len(fit_pool_in_time(features, encoded, 1e6, sizes=EFFORTS["fast"])) == 1000


def test_the_yardstick() -> None:
    rng = np.random.default_rng(0)
    matrix = np.c_[rng.normal(size=(80, 2)), rng.integers(0, 3, 80)]
    folds = np.arange(80) % 4
    mixes = Yardstick.draw(matrix, folds, np.array([False, False, True]), 500, rng)
    first, second = matrix[mixes.parents[:, 0]], matrix[mixes.parents[:, 1]]
    assert (mixes.parents[:, 0] != mixes.parents[:, 1]).all()
    for parent in mixes.parents.T:
        np.testing.assert_array_equal(folds[parent], mixes.folds)
    part = (mixes.rows - second)[:, :2] / (first - second)[:, :2]
    np.testing.assert_allclose(part[:, 0], part[:, 1])
    assert 0.3 <= part.min() < part.max() <= 0.7
    assert ((mixes.rows[:, 2] == first[:, 2]) | (mixes.rows[:, 2] == second[:, 2])).all()


@pytest.mark.parametrize("columns", [2, 3, 12])
def test_crosses_have_whole_columns_of_two_rows(columns: int) -> None:
    """The last column has two matrix columns: they come from the same row."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(80, columns + 1))
    owners, folds = np.r_[np.arange(columns), columns - 1], np.arange(80) % 4
    crosses = Yardstick.cross(matrix, folds, owners, 600, rng)
    first, second = matrix[crosses.parents[:, 0]], matrix[crosses.parents[:, 1]]
    from_second = crosses.rows == second
    assert ((crosses.rows == first) ^ from_second).all()
    assert (from_second[:, -1] == from_second[:, -2]).all()
    taken = from_second[:, :columns].sum(1)
    assert taken.min() == 1
    assert taken.max() == max(columns // 2, 1)
    for parent in crosses.parents.T:
        np.testing.assert_array_equal(folds[parent], crosses.folds)


def test_a_wide_table_of_few_factors_is_guarded_as_by_mahalanobis_distance() -> None:
    """Rows of a normal distribution: a mix is nearer to the center, and what knows the correlations says so most clearly."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(10, 100))
    x = rng.normal(size=(1300, 10)) @ loadings + 0.5 * rng.normal(size=(1300, 100))
    train, usual, odd = x[:700], x[700:1000], x[1000:].copy()
    for i, row in enumerate(odd):
        columns = rng.choice(100, 3, replace=False)
        row[columns] = x[(i + 500) % 1000, columns]
    center, inverse = train.mean(0), np.linalg.inv(np.cov(train.T))
    pool = pool_of(train, sizes=EFFORTS["fast"])
    truth, found = np.repeat((0, 1), 300), {}
    for name, score in (
        ("pool", pool.score),
        ("mahalanobis", lambda rows: np.einsum("ni,ij,nj->n", rows - center, inverse, rows - center)),
    ):
        found[name] = roc_auc_score(truth, np.concatenate((score(usual), score(odd))))
    assert found["pool"] > found["mahalanobis"] - 0.01 > 0.9


def test_separation_is_the_auroc() -> None:
    rng = np.random.default_rng(0)
    normal, mixed = np.round(rng.normal(size=90), 1), np.round(rng.normal(0.5, size=40), 1)
    expected = roc_auc_score(np.repeat((0, 1), (90, 40)), np.concatenate((normal, mixed)))
    assert separation(normal, mixed) == pytest.approx(expected)


def test_weights_prefer_what_separates() -> None:
    found = weights(np.linspace(0.5, 0.9, 20), 12)
    assert found.sum() == pytest.approx(1)
    assert np.all(np.diff(found) >= 0)
    assert (found > 0).sum() == 12
    # exp(4 z), z the normal quantile: 0.8413 is one unit above 0.5.
    pair = weights(np.array([0.5, 0.8413447460685429]), 12)
    assert pair[1] / pair[0] == pytest.approx(np.exp(4), rel=1e-6)


def test_half_of_the_weight_is_robust() -> None:
    keys = [("soft", "knn1"), ("soft", "knn5"), ("soft", "knn50"), ("linear", "mahalanobis")]
    found = dict(zip(keys, weigh(keys, np.array([0.8, 0.8, 0.5, 0.5])), strict=True))
    assert found["soft", "knn1"] == pytest.approx(found["soft", "knn5"])
    assert found["soft", "knn1"] < 0.25  # the usual half has both, and a little of the linear statistic
    assert found["soft", "knn50"] == pytest.approx(0.25)  # the robust half has this one and the linear statistic
    assert sum(found.values()) == pytest.approx(1)
    alone = weigh(keys[2:], np.array([0.5, 0.5]), robust=True)
    assert alone == pytest.approx([0.5, 0.5])
    without = [("linear", name) for name in FAMILIES["linear"].statistics]
    without += [(family, name) for family in ("tails", "mixture") for name in FAMILIES[family].statistics]
    assert len(without) > 6
    assert (weigh(without, np.full(len(without), 0.6)) > 0).all()  # no neighbors, so no halves of six


def test_the_robust_half_helps_where_anomalies_repeat_in_training(monkeypatch) -> None:
    """Each is near to others like it, so the nearest neighbors find it usual."""
    rng = np.random.default_rng(0)
    x = np.concatenate((rng.normal(size=(800, 5)), 4.0 + 0.1 * rng.normal(size=(16, 5))))
    new = np.concatenate((rng.normal(size=(500, 5)), 4.0 + 0.1 * rng.normal(size=(100, 5))))
    kind = np.repeat((0, 1), (500, 100))
    both = roc_auc_score(kind, pool_of(x).score(new, batch=None))

    def usual_half(keys, areas, robust=False):
        chosen = np.array([name in FAMILIES[family].statistics for family, name in keys])
        weight = np.zeros(len(keys))
        weight[chosen] = weights(areas[chosen], 12)
        return weight

    monkeypatch.setattr(pool_fit, "weigh", usual_half)
    assert both > roc_auc_score(kind, pool_of(x).score(new, batch=None)) + 0.2


@pytest.mark.parametrize("move", [3.0, 30.0, 3e5])
def test_the_column_that_moved_is_the_reason(move: float) -> None:
    """Columns that depend on it look wrong too, given it; an hour that always grows is not news."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=(900, 1))
    x = np.c_[np.arange(900.0), level + 0.3 * rng.normal(size=(900, 4)), 100 * rng.standard_t(3, size=900)]
    pool = pool_of(x[:800])
    usual = x[800:]
    for column in (1, 3):
        moved = usual.copy()
        moved[:, column] += move
        assert (pool.report_cells(moved).excess.argmax(1) == column).mean() > 0.9


def test_a_matrix_that_is_none_of_the_features_is_refused():
    x = np.random.default_rng(0).normal(size=(40, 2))
    schema = Schema.infer(as_table(x))
    features = TableFeatures.fit(schema, x)
    nan = np.where(np.arange(80).reshape(40, 2) == 3, np.nan, x)
    for wrong, words in ((nan, "must be finite"), (x[:, :1], r"shape \(n, 2\)"), (x[:1], "two training rows")):
        with pytest.raises(InputError, match=words):
            fit_pool(features, wrong, sizes=EFFORTS["fast"])
    pool = fit_pool(features, x, sizes=EFFORTS["fast"])
    for wrong, words in ((nan, "must be finite"), (x[:, :1], r"shape \(n, 2\)")):
        with pytest.raises(InputError, match=words):
            pool.score(wrong)
    for batch in (0, -1):
        with pytest.raises(ConfigError, match="batch must be"):
            pool.score(x, batch=batch)
    with pytest.raises(ConfigError, match="seconds must be a number"):
        fit_pool_in_time(features, x, float("nan"))
