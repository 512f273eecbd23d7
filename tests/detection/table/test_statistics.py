"""Each family of statistics of the pool against independent code or a formula."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from pushforward.data import Schema
from pushforward.detection.table.coordinates import Coordinates
from pushforward.detection.table.linear import LINEAR_STATISTICS, Linear
from pushforward.detection.table.local import local_gaussian
from pushforward.detection.table.mixture import Mixture
from pushforward.detection.table.neighbors import NEIGHBOR_STATISTICS, Neighbors
from pushforward.detection.table.spaces import SPACES, Spaces
from pushforward.detection.table.tail_scale import TailScale
from pushforward.detection.table.tails import Tails
from pushforward.detection.table_features import TableFeatures
from pushforward.kernels.neighbors import References, nearest


def rows(n: int, d: int = 4, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ np.random.default_rng(9).normal(size=(d, d))


@pytest.mark.parametrize("d", [1, 4, 70])
def test_nearest_rows(d: int) -> None:
    reference, new = rows(200, d), rows(50, d, seed=1)
    distances, index = nearest(new, References(reference), 7)
    expected = NearestNeighbors(n_neighbors=7, algorithm="brute").fit(reference).kneighbors(new)
    np.testing.assert_allclose(distances, expected[0], rtol=1e-8)
    np.testing.assert_array_equal(index, expected[1])


def test_nearest_rows_without_some() -> None:
    reference = rows(60)
    distances, index = nearest(reference, References(reference), 59, np.arange(60)[:, None])
    assert not (index == np.arange(60)[:, None]).any()
    expected = NearestNeighbors(n_neighbors=59).fit(reference).kneighbors()[0]
    np.testing.assert_allclose(distances, expected, rtol=1e-8)


def test_equal_rows_have_distance_zero_however_large() -> None:
    reference = 1e6 + rows(50)
    np.testing.assert_array_equal(nearest(reference, References(reference), 1)[0], 0.0)


def test_distances_and_local_outlier_factor() -> None:
    reference, new = rows(300), 2 * rows(40, seed=1)
    found = Neighbors.fit(reference).score(new, {"knn1", "knn5", "lof"})
    distances = NearestNeighbors(n_neighbors=5).fit(reference).kneighbors(new)[0]
    np.testing.assert_allclose(found["knn1"], distances[:, 0], rtol=1e-8)
    np.testing.assert_allclose(found["knn5"], distances[:, 4], rtol=1e-8)
    expected = -LocalOutlierFactor(n_neighbors=20, novelty=True).fit(reference).score_samples(new)
    np.testing.assert_allclose(found["lof"], expected, rtol=1e-6)


def test_a_training_row_is_compared_with_the_others() -> None:
    reference = rows(80)
    wanted = set(NEIGHBOR_STATISTICS)
    part = Neighbors.fit(reference)
    again, left_out = part.score(reference, wanted), part.score(reference, wanted, np.arange(80)[:, None])
    for name in wanted:
        np.testing.assert_allclose(again[name], left_out[name], rtol=1e-9)


def test_fewer_reference_rows_than_neighbors() -> None:
    found = Neighbors.fit(rows(3)).score(rows(5, seed=1), set(NEIGHBOR_STATISTICS))
    assert set(found) == set(NEIGHBOR_STATISTICS)
    assert all(np.isfinite(values).all() for values in found.values())


@pytest.mark.parametrize(("d", "k"), [(3, 20), (20, 20), (33, 20), (1, 5)])
def test_local_gaussian(d: int, k: int) -> None:
    reference, new = rows(100, d), rows(7, d, seed=1)
    index = nearest(new, References(reference), k)[1]
    distance, density = local_gaussian(new, reference, index)
    for i in range(len(new)):
        near = reference[index[i]]
        covariance = np.atleast_2d(np.cov(near.T, bias=True))
        covariance = covariance + (0.1 * np.trace(covariance) / d + 1e-9) * np.eye(d)
        offset = new[i] - near.mean(0)
        square = offset @ np.linalg.solve(covariance, offset)
        assert distance[i] == pytest.approx(math.sqrt(square), rel=1e-8)
        log_det = np.linalg.slogdet(covariance)[1]
        assert density[i] == pytest.approx(0.5 * log_det + 0.5 * d * math.log(1 + square / d), rel=1e-7, abs=1e-7)


def test_linear_statistics() -> None:
    train, new = rows(300, 5), rows(20, 5, seed=1)
    found = Linear.fit(train).score(new, set(LINEAR_STATISTICS))
    fitted = LedoitWolf().fit(train)
    np.testing.assert_allclose(found["mahalanobis"] ** 2, fitted.mahalanobis(new), rtol=1e-6)
    z = np.empty((20, 5))
    for j in range(5):  # the normal distribution of column j given the others
        rest = [i for i in range(5) if i != j]
        c = fitted.covariance_
        slope = np.linalg.solve(c[np.ix_(rest, rest)], c[rest, j])
        variance = c[j, j] - c[rest, j] @ slope
        offset = new - fitted.location_
        z[:, j] = (offset[:, j] - offset[:, rest] @ slope) / math.sqrt(variance)
    np.testing.assert_allclose(found["conditional_max"], np.abs(z).max(1), rtol=1e-6)
    np.testing.assert_allclose(found["conditional_sum"], (z**2).sum(1), rtol=1e-6)
    values, directions = np.linalg.eigh(fitted.covariance_)
    kept = int(np.searchsorted(np.cumsum(values[::-1]) / values.sum(), 0.8)) + 1
    off = (new - fitted.location_) @ directions[:, : 5 - kept]
    np.testing.assert_allclose(found["residual"], np.linalg.norm(off, axis=1), rtol=1e-6)


def test_mixture_is_a_density() -> None:
    train = np.concatenate((rows(200, 2), 9 + rows(200, 2, seed=3)))
    part = Mixture.fit(train)
    assert len(part.means) > 1
    new = 2 * rows(30, 2, seed=1)
    components = []
    for k in range(len(part.means)):
        covariance = np.linalg.inv(part.factors[k] @ part.factors[k].T)
        log_weight = part.weights[k] - np.log(np.abs(np.diag(part.factors[k]))).sum()
        center = part.mean + part.means[k] @ part.directions.T
        components.append(log_weight + stats.multivariate_normal(center, covariance).logpdf(new))
    expected = -np.log(np.exp(components).sum(0)) - math.log(2 * math.pi)
    np.testing.assert_allclose(part.score(new, {"mixture"})["mixture"], expected, rtol=1e-8)


def test_mixture_of_many_columns_counts_what_remains() -> None:
    part = Mixture.fit(rows(300, 40))
    assert part.directions.shape == (40, 30)
    usual = rows(1, 40, seed=2)
    off = np.linalg.svd(part.directions, full_matrices=True)[0][:, 39]  # orthogonal to the components
    assert part.score(usual + 50 * off, {"mixture"})["mixture"] > part.score(usual, {"mixture"})["mixture"] + 10


def test_tails_count_rows() -> None:
    train, new = np.round(rows(50, 4), 1), np.round(2 * rows(20, 4, seed=1), 1)
    part = Tails.fit(train)
    for i in range(20):
        below, above = (train <= new[i]).sum(0), (train >= new[i]).sum(0)
        terms = -np.log((np.minimum(below, above) + 0.5) / 51)
        np.testing.assert_allclose(part.by_column(new[i : i + 1])[0], terms)
        found = part.score(new[i : i + 1], {"tail_max", "tail_3"})
        assert found["tail_max"] == pytest.approx(terms.max())
        assert found["tail_3"] == pytest.approx(np.sort(terms)[1:].sum())


def test_tail_scale() -> None:
    values = np.arange(1.0, 1001.0)
    scale = TailScale.fit(values, logarithmic=False)
    assert scale(np.array([501.0]))[0] == pytest.approx(-math.log(500.5 / 1001))
    # An exponential tail from the 90th percentile on: the mean excess of 901 .. 1000 over 900.1 is 50.4.
    far = scale(np.array([2000.0, 2050.4]))
    assert far[1] - far[0] == pytest.approx(1.0, rel=1e-3)
    many = scale(np.linspace(-10, 5000, 999))
    assert np.all(np.diff(many) >= 0)
    logarithmic = TailScale.fit(values, logarithmic=True)
    assert logarithmic(np.array([0.0]))[0] == pytest.approx(-math.log(1000.5 / 1001))
    doubled = logarithmic(np.array([1e4, 2e4, 4e4]))
    assert doubled[2] - doubled[1] == pytest.approx(doubled[1] - doubled[0])


@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_tail_scale_of_equal_values(constant: float) -> None:
    scale = TailScale.fit(np.full(30, constant), logarithmic=True)
    same, more = scale(np.array([constant, constant + 1.0]))
    assert np.isfinite([same, more]).all()
    assert more > same


def test_rounding_is_no_tail() -> None:
    """Distances of rows in a plane are rounding, which differs from row to row by large factors."""
    rng = np.random.default_rng(0)
    scale = TailScale.fit(1e-15 * np.exp(rng.normal(size=500) - 3.0 * (rng.random(500) < 0.9)), logarithmic=True)
    assert scale(np.array([0.0, 1e-17, 1e-13])).max() < 0.01
    assert scale(np.array([1e-3]))[0] > 100


@pytest.mark.parametrize("space", SPACES)
def test_the_unit_of_a_column_does_not_matter(space: str) -> None:
    train, new = rows(200, 3), rows(50, 3, seed=1)
    unit = np.array([2.0**-100, 2.0**60, 1.0])  # powers of two, so that no digit changes
    expected = Spaces.fit(train, np.ones(3, dtype=bool))(space, new)
    np.testing.assert_allclose(Spaces.fit(train * unit, np.ones(3, dtype=bool))(space, new * unit), expected, rtol=1e-9)


def test_spaces() -> None:
    train = rows(500, 3)
    spaces = Spaces.fit(train, np.ones(3, dtype=bool))
    standard = spaces("standard", train)
    np.testing.assert_allclose(standard.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(standard.std(0), 1)
    normal = spaces("normal", train)
    np.testing.assert_allclose(normal[:, 1], stats.norm.ppf((stats.rankdata(train[:, 1]) - 0.5) / 500), atol=1e-12)
    shrunk = LedoitWolf().fit(standard).covariance_
    np.testing.assert_allclose(spaces.whitening.T @ shrunk @ spaces.whitening, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(spaces("white", train), standard @ spaces.whitening)
    soft, quartiles = spaces("soft", train), np.quantile(train, (0.25, 0.5, 0.75), axis=0)
    z = (train - quartiles[1]) / (quartiles[2] - quartiles[0]) * 1.349
    inside = np.abs(z) < 3
    np.testing.assert_allclose(soft[inside], z[inside])
    np.testing.assert_allclose(np.abs(soft[~inside]), 3 + 3 * np.log(np.abs(z[~inside]) / 3))


@pytest.mark.parametrize("space", SPACES)
def test_farther_is_never_nearer_in_a_space(space: str) -> None:
    spaces = Spaces.fit(rows(200, 2), np.ones(2, dtype=bool))
    line = np.zeros((60, 2))
    line[:, 0] = np.geomspace(10, 1e100, 60)
    placed = spaces(space, line)
    assert np.isfinite(placed).all()
    assert np.all(np.diff(np.abs(placed[:, 0])) >= -1e-9)


def categorical(codes: list[str], numbers: np.ndarray) -> tuple[TableFeatures, np.ndarray]:
    schema, encoded = Schema.infer_encode({"color": codes, "x": numbers})
    features = TableFeatures.fit(schema, encoded)
    return features, features.transform(encoded)


def mean_square(coordinates: Coordinates, matrix: np.ndarray) -> float:
    """Mean squared distance of two rows in the categorical columns."""
    placed = coordinates(matrix)[:, ~coordinates.free]
    return float(((placed[:, None] - placed[None]) ** 2).sum(2).mean())


def test_a_category_that_the_others_decide_counts_a_quarter_of_a_number() -> None:
    """The mean squared distance of two training rows in a standardized number is 2."""
    rng = np.random.default_rng(0)
    codes = list(rng.choice(["a", "b", "c", "d"], 400, p=[0.6, 0.3, 0.09, 0.01]))
    told = np.array([ord(code) for code in codes], dtype=float)
    features, matrix = categorical(codes, 10 * told + rng.normal(size=400))
    coordinates = Coordinates.fit(features, matrix)
    assert 0.48 < mean_square(coordinates, matrix) < 0.5  # five neighbors of one of the four rows "d" cannot all be "d"
    placed = coordinates(matrix)[:, ~coordinates.free]
    first = {code: placed[codes.index(code)] for code in "abcd"}
    assert ((first["a"] - first["d"]) ** 2).sum() > ((first["a"] - first["b"]) ** 2).sum() > 0


def test_a_category_that_tells_nothing_hardly_counts() -> None:
    rng = np.random.default_rng(0)
    codes = list(rng.choice(["a", "b", "c", "d"], 400, p=[0.6, 0.3, 0.09, 0.01]))
    features, matrix = categorical(codes, rng.normal(size=400))
    assert 0.005 <= mean_square(Coordinates.fit(features, matrix), matrix) < 0.02


def test_rare_categories_share_a_coordinate() -> None:
    codes = [f"k{i % 50}" for i in range(400)]
    features, matrix = categorical(codes, np.random.default_rng(0).normal(size=400))
    coordinates = Coordinates.fit(features, matrix)
    assert coordinates(matrix).shape == (400, 32)  # 30 categories, all others, and the number
