"""Nearest rows and Gaussians of neighbors: the plain and the native versions against scikit-learn and formulas."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from pushforward.kernels import description, native, use_kernels
from pushforward.kernels.neighbors import References, local_gaussian, nearest

FOUND = native._load()
MODES = ["plain", *([] if isinstance(FOUND, str) else FOUND.supported)]


def rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.fixture(params=MODES)
def mode(request):
    with use_kernels(request.param):
        yield request.param


@pytest.mark.parametrize(("m", "d", "k"), [(1, 1, 1), (31, 3, 31), (32, 1, 5), (33, 2, 2), (700, 10, 51), (90, 65, 60)])
def test_nearest_rows_are_those_of_scikit_learn(mode, m, d, k):
    reference, new = rows(m, d), rows(23, d, seed=1)
    distances, index = nearest(new, References(reference), k)
    expected = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(reference).kneighbors(new)
    np.testing.assert_allclose(distances, expected[0], rtol=1e-8)
    np.testing.assert_array_equal(index, expected[1])


@pytest.mark.parametrize("dropped", [1, 7, 100])
def test_dropped_rows_are_no_neighbors(mode, dropped):
    reference, new = rows(300, 4), rows(19, 4, seed=1)
    order = nearest(new, References(reference), 300)[1]
    drop = order[:, :dropped]  # the nearest ones
    _, index = nearest(new, References(reference), 20, drop)
    np.testing.assert_array_equal(index, order[:, dropped : dropped + 20])


def test_of_equal_rows_the_first_ones_are_nearer(mode):
    reference = np.repeat(rows(9, 2), 50, axis=0)
    distances, index = nearest(reference[:1], References(reference), 70)
    np.testing.assert_array_equal(index[0, :50], np.arange(50))
    np.testing.assert_array_equal(distances[0, :50], 0.0)
    assert len(set(index[0, 50:] // 50)) == 1
    np.testing.assert_array_equal(np.diff(index[0, 50:]), 1)


def test_a_row_does_not_depend_on_the_others(mode):
    if mode == "plain":
        pytest.skip("products of other sizes round differently")
    reference, new = rows(500, 7), rows(37, 7, seed=1)
    distances, index = nearest(new, References(reference), 20)
    square, log_det = local_gaussian(new, reference, index, 0.1)
    for i in (0, 1, 35, 36):
        one = nearest(new[i : i + 1], References(reference), 20)
        np.testing.assert_array_equal(one[0], distances[i : i + 1])
        found = local_gaussian(new[i : i + 1], reference, index[i : i + 1], 0.1)
        assert (found[0][0], found[1][0]) == (square[i], log_det[i])


@pytest.mark.parametrize(("d", "k"), [(1, 5), (3, 20), (20, 20), (33, 20), (200, 9)])
def test_gaussian_of_neighbors(mode, d, k):
    reference, new = rows(100, d), 2 * rows(6, d, seed=1)
    index = nearest(new, References(reference), k)[1]
    square, log_det = local_gaussian(new, reference, index, 0.1)
    for i, near in enumerate(reference[index]):
        covariance = np.atleast_2d(np.cov(near.T, bias=True))
        covariance = covariance + (0.1 * np.trace(covariance) / d + 1e-9) * np.eye(d)
        offset = new[i] - near.mean(0)
        np.testing.assert_allclose(square[i], offset @ np.linalg.solve(covariance, offset), rtol=1e-8)
        np.testing.assert_allclose(log_det[i], np.linalg.slogdet(covariance)[1], rtol=1e-8, atol=1e-8)


def test_equal_neighbors_have_no_direction(mode):
    reference = np.zeros((30, 3))
    square, log_det = local_gaussian(np.ones((1, 3)), reference, np.arange(20)[None], 0.1)
    np.testing.assert_allclose(square, 3 / 1e-9, rtol=1e-9)
    np.testing.assert_allclose(log_det, 3 * np.log(1e-9), rtol=1e-9)


def test_no_rows(mode):
    distances, index = nearest(np.zeros((0, 3)), References(rows(9, 3)), 2)
    assert distances.shape == index.shape == (0, 2)


def test_threads_do_not_change_the_result():
    import torch

    if description()["level"] is None:
        pytest.skip("there are no native kernels")
    reference, new, threads = rows(4000, 20), rows(203, 20, seed=1), torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(nearest(new, References(reference), 20))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_few_reference_rows(mode, dropped):
    """Blocks that are padding alone have no finite distance, from which no limit follows."""
    for m in range(dropped + 1, 41):
        reference = rows(m, 2, seed=m)
        drop = None if not dropped else (np.arange(m)[:, None] + np.arange(dropped)) % m
        for k in range(1, m - dropped + 1):
            distances, index = nearest(reference + 0.01, References(reference), k, drop)
            with use_kernels("plain"):
                expected = nearest(reference + 0.01, References(reference), k, drop)
            np.testing.assert_array_equal(index, expected[1])
            np.testing.assert_allclose(distances, expected[0], rtol=1e-9)
