"""How well the other columns tell a category."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score
from sklearn.neighbors import NearestNeighbors

from pushforward.detection.table.agreement import agreement, rows_for

ONES = np.ones(40)


def test_it_is_the_kappa_of_the_nearest_rows() -> None:
    """Without ties and with equally frequent categories, Cohen's kappa of a row's category and those of its neighbors."""
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.repeat(np.arange(4), 100))
    x = rng.normal(size=(400, 2)) + 1.5 * np.stack((codes % 2, codes // 2), 1)
    scores = norm.ppf((x.argsort(0).argsort(0) + 0.5) / 400)
    near = NearestNeighbors(n_neighbors=6).fit(scores).kneighbors(scores)[1][:, 1:]
    expected = cohen_kappa_score(np.repeat(codes, 5), codes[near].ravel())
    assert agreement(x, [codes], [ONES[:4]])[0] == pytest.approx(expected, abs=0.005)
    assert 0.2 < expected < 0.8


def test_what_decides_and_what_tells_nothing() -> None:
    rng = np.random.default_rng(1)
    a, c = rng.integers(0, 5, 500), rng.integers(0, 3, 500)
    found = agreement(rng.normal(size=(500, 1)), [a, a // 2, c], [ONES[:5], ONES[:3], ONES[:3]])
    assert found[0] > 0.3
    assert found[1] > 0.6
    assert found[2] < 0.05


def test_rows_at_equal_distances_all_count() -> None:
    """The order of the rows does not matter, and one column of two values tells as much as it can."""
    rng = np.random.default_rng(2)
    flag = rng.integers(0, 2, (300, 1)).astype(float)
    code = np.where(rng.random(300) < 0.9, flag[:, 0], 1 - flag[:, 0]).astype(int)
    order = rng.permutation(300)
    found = agreement(flag, [code], [ONES[:2]])[0]
    assert found == pytest.approx(agreement(flag[order], [code[order]], [ONES[:2]])[0], rel=1e-12)
    assert found == pytest.approx(0.64, abs=0.1)  # two rows of one flag agree in 0.9^2 + 0.1^2, where chance is 1/2
    alone = agreement(np.zeros((300, 0)), [code], [ONES[:2]])[0]
    assert alone == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_few_rows(n: int) -> None:
    found = agreement(np.arange(n, dtype=float)[:, None], [np.zeros(n, dtype=int), np.arange(n)], [ONES[:1], ONES[:n]])
    np.testing.assert_array_equal(found, 0.0)


def test_far_numbers_are_compared_by_rank() -> None:
    rng = np.random.default_rng(3)
    code = rng.integers(0, 2, 200)
    x = (code + 0.1 * rng.normal(size=200))[:, None]
    far = x.copy()
    far[0], far[1] = 1e100, -1e100
    assert agreement(far, [code], [ONES[:2]])[0] == pytest.approx(agreement(x, [code], [ONES[:2]])[0], abs=0.03)


def test_the_number_of_rows() -> None:
    np.testing.assert_array_equal(rows_for(7, 3), np.arange(7))
    assert len(rows_for(10_000, 1)) == 1000
    assert rows_for(10_000, 1)[-1] == 9999
    assert 200 < len(rows_for(10_000, 1000)) < 250
