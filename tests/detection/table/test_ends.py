"""Numbers beyond the short end of a skewed column: what they add to the score, and where they add nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from pushforward.data import Schema
from pushforward.detection.table import Pool, fit_pool
from pushforward.detection.table.ends import COST, FARTHEST, Ends, either
from pushforward.detection.table.growth import with_rows
from pushforward.detection.table_features import TableFeatures
from pushforward.errors import StorageError
from pushforward.graphs.table_statistics import EndsGraph


def pool_of(x: np.ndarray, **options) -> Pool:
    schema, encoded = Schema.infer_encode(x)
    features = TableFeatures.fit(schema, encoded)
    return fit_pool(features, features.transform(encoded), **options)


def skewed(n: int, seed: int, columns: int = 6) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(size=(n, columns)))


def fit(x: np.ndarray, **options) -> Ends | None:
    return Ends.fit(x, np.ones(x.shape[1], dtype=bool), np.arange(len(x)) % 5, **options)


def fitted(x: np.ndarray, **options) -> Ends:
    ends = fit(x, **options)
    assert ends is not None
    return ends


@pytest.mark.parametrize("factor", [1e-3, 1e-6, 0.0])
def test_a_collapsed_sensor_is_found_that_distances_do_not_see(factor: float) -> None:
    train, normal, odd = skewed(1500, 0), skewed(300, 1), skewed(300, 2)
    odd[:, 3] *= factor
    truth, both = np.repeat((0, 1), 300), np.concatenate((normal, odd))
    distance = NearestNeighbors(n_neighbors=5).fit(train).kneighbors(both)[0].mean(1)
    assert roc_auc_score(truth, distance) < 0.6
    assert roc_auc_score(truth, pool_of(train).score(both)) > 0.99


def test_the_score_is_what_the_docstring_says() -> None:
    x = skewed(400, 0, 2)
    ends = fitted(x)
    np.testing.assert_array_equal(ends.short, [[1, 1], [0, 0]])
    new = np.array([[x[:, 0].min() / 50, 1.0], [1.0, x[:, 1].min() / 3], [1.0, 1.0], [1e9, 1e9]])
    tail = np.sort(np.log(x), axis=0)[:21]  # 5 % of 400 rows, and the threshold
    mean = (tail[20] - tail[:20]).mean(0)
    e = np.array([np.log(50) / mean[0], np.log(3) / mean[1]])
    np.testing.assert_allclose(ends.excess(new), [*e, -1, -1])
    np.testing.assert_allclose(ends.score(new), [*np.maximum(0, ends.level[0] - COST + e / ends.mean[0]), 0, 0])
    beyond, total = 0, 0.0  # rows that are beyond the ends of the other folds
    for k in range(5):
        others, own = x[np.arange(400) % 5 != k], x[np.arange(400) % 5 == k]
        ordered = np.sort(np.log(others), axis=0)
        slope = 1 / (ordered[16] - ordered[:16]).mean(0)
        for row in own[(own < others.min(0)).any(1)]:
            beyond, total = beyond + 1, total + (slope * (ordered[0] - np.log(row)))[row < others.min(0)].max()
    assert beyond > 3
    np.testing.assert_allclose(ends.level, np.log(401 / (beyond + 0.5)))
    np.testing.assert_allclose(ends.mean, max(1.0, (total + 1) / (beyond + 1)))


def test_as_many_new_rows_are_beyond_the_ends_as_it_says() -> None:
    shares, said = [], []
    for seed in range(40):
        ends = fitted(skewed(300, seed, 3))
        shares.append((ends.excess(skewed(2000, 1000 + seed, 3)) >= 0).mean())
        said.append(np.exp(-ends.level[0]))
    assert abs(np.mean(shares) - np.mean(said)) < 4 * np.std(np.array(shares) - said) / np.sqrt(40)
    assert 0.005 < np.mean(said) < 0.02  # three columns, 1 in 301 each


def test_farther_is_never_less_and_nothing_overflows() -> None:
    ends = fitted(skewed(400, 0, 1))
    steps = np.concatenate((np.geomspace(ends.ends[0, 0], 5e-324, 400), [0.0, -1.0, -1e300]))[:, None]
    found = ends.score(steps)
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()
    assert found[0] == 0 < found[1]
    assert found[-1] == ends.score(np.array([[1e-300]]))[0] <= ends.level[0] + FARTHEST


def test_the_unit_of_a_column_does_not_matter() -> None:
    x, new = skewed(400, 0, 3), skewed(50, 1, 3) / 1000
    scale = np.array([1e-9, 1.0, 1e12])
    np.testing.assert_allclose(fitted(x * scale).score(new * scale), fitted(x).score(new), rtol=1e-9)


def test_the_upper_end_of_a_column_below_0_is_that_of_its_distance_from_the_median() -> None:
    x = -skewed(500, 0, 1)
    ends = fitted(x)
    np.testing.assert_array_equal(ends.short, [[0], [1]])
    found = ends.score(np.array([[x.max()], [x.max() + 1e-6], [3.0], [10.0], [x.min() * 100]]))
    assert found[0] == found[4] == 0
    assert 0 < found[1] < found[2] < found[3]


@pytest.mark.parametrize(
    "x",
    [
        np.random.default_rng(0).normal(size=(500, 3)),
        np.random.default_rng(0).uniform(size=(500, 3)),
        np.arange(500.0)[:, None] + 10,  # a counter
        skewed(99, 0),  # too few rows
        np.ones((500, 2)),
    ],
    ids=["normal", "uniform", "counter", "few", "constant"],
)
def test_there_is_no_short_end(x: np.ndarray) -> None:
    assert fit(x) is None


def test_codes_have_no_ends() -> None:
    assert Ends.fit(skewed(400, 0, 2), np.zeros(2, dtype=bool), np.arange(400) % 5) is None


def test_equal_values_at_the_end_have_no_slope() -> None:
    x = np.maximum(skewed(500, 0, 1), 0.5)  # clipped: a quarter of the rows have the smallest value
    ends = fitted(x)
    assert ends.slope[0, 0] == 0
    found = ends.score(np.array([[0.5], [0.49], [0.0]]))
    assert found[0] == 0 < found[1] == found[2]


def test_a_row_within_the_ends_has_the_score_of_its_statistics() -> None:
    x = skewed(400, 0)
    pool = pool_of(x)
    assert pool.ends is not None
    new = np.clip(skewed(100, 1), pool.ends.ends[0], None)
    with_ends = pool.score(new)
    pool.ends = None
    np.testing.assert_array_equal(pool.score(new), with_ends)


def test_without_stored_rows_no_value_of_a_row_is_stored() -> None:
    x = skewed(400, 0)
    ends = pool_of(x, store_rows=False).ends
    assert ends is not None
    assert not np.isin(ends.ends, x).any()
    np.testing.assert_allclose(ends.ends, np.quantile(x, (0.0025, 0.9975), axis=0))


def test_rows_that_are_added_are_not_beyond_the_ends() -> None:
    x = skewed(400, 0)
    pool = pool_of(x)
    new = skewed(30, 1)
    new[:, 2] /= 1000
    assert pool.ends is not None
    assert (pool.ends.score(new) > 0).all()
    grown = with_rows(pool, new, known=400, most=1000).ends
    assert grown is not None
    np.testing.assert_array_equal(grown.score(new), 0)
    assert (grown.score(np.minimum(new, new.min(0) / 10)) > 0).all()
    low = new.copy()
    low[0, 2] = -5.0  # and the column stays one of positive numbers
    grown = with_rows(pool, low, known=400, most=1000).ends
    assert grown is not None
    assert 0 < grown.ends[0, 2] < 1e-6


def test_the_graph_has_the_same_numbers() -> None:
    x = np.concatenate((skewed(400, 0, 4), -skewed(400, 1, 2), np.random.default_rng(0).normal(size=(400, 1))), 1)
    ends = fitted(x)
    rng = np.random.default_rng(5)
    new = x[rng.integers(0, 400, 500)] * np.exp(rng.normal(scale=4, size=(500, 7)))
    new[:40] *= rng.choice([-1, 0, 1e-290, 1e290], size=(40, 7))
    expected = ends.score(new)
    assert (expected > 0).mean() > 0.5
    np.testing.assert_allclose(EndsGraph(ends)(torch.from_numpy(new)).numpy(), expected, rtol=1e-12)


def test_files() -> None:
    pool = pool_of(skewed(400, 0))
    description, tensors = pool.pack("pool.")
    new = skewed(100, 1)
    new[:50, 1] /= 1000
    again = Pool.unpack(description, dict(tensors), "pool.")
    np.testing.assert_array_equal(again.score(new), pool.score(new))
    narrow = fitted(skewed(400, 0, 5)).pack("pool.ends.")
    with pytest.raises(StorageError, match="different numbers of coordinates"):
        Pool.unpack(description, tensors | narrow, "pool.")
    wrong = tensors | {"pool.ends.mean": torch.tensor([0.5], dtype=torch.float64)}
    with pytest.raises(StorageError, match=r"arrays pool\.ends\.\* do not fit"):
        Pool.unpack(description, wrong, "pool.")


def test_either_is_the_other_one_where_one_is_0() -> None:
    a = np.array([0.0, 3.0, 700.0, 2.0, 1e5])
    np.testing.assert_array_equal(either(a, np.zeros(5)), a)
    np.testing.assert_allclose(either(a, np.full(5, 2.0))[:4], np.log(np.exp(a[:4]) + np.exp(2.0) - 1))
    assert either(np.array([1e5]), np.array([1e5]))[0] == pytest.approx(1e5 + np.log(2))
