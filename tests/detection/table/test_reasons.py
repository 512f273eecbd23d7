"""Reasons of the pool: similar rows, prediction of a column from the others, the part of the score that is due to a cell."""

import numpy as np
import pytest
from scipy import stats

import pushforward as pf
from pushforward.data import Schema
from pushforward.detection.table import fit_pool
from pushforward.detection.table.cell_report import report_cells
from pushforward.detection.table.cells import Cells
from pushforward.detection.table.reasons import Reasons, rows_to_store
from pushforward.detection.table.similar import similar
from pushforward.detection.table_features import TableFeatures


def pool_of(x):
    schema, encoded = Schema.infer_encode(x)
    features = TableFeatures.fit(schema, encoded)
    return fit_pool(features, features.transform(encoded))


@pytest.mark.parametrize("group", [[0, 1, 2, 3], [0, 0, 1, 2], [0, 1, 2, 1]], ids=str)
def test_similar_rows_by_brute_force(group) -> None:
    rng = np.random.default_rng(0)
    reference, row, group = rng.normal(size=(60, 4)), rng.normal(size=4), np.array(group)
    count = int(group.max()) + 1
    found = similar(row, reference, group, count, 7)
    squares = (reference - row) ** 2
    np.testing.assert_array_equal(found.overall, np.argsort(squares.sum(1))[:7])
    for column in range(count):
        np.testing.assert_array_equal(found.others[:, column], np.argsort(squares[:, group != column].sum(1))[:7])
    unknown = np.zeros(count, dtype=bool)
    unknown[0] = True
    found = similar(row, reference, group, count, 7, unknown)
    np.testing.assert_array_equal(found.overall, np.argsort(squares[:, group != 0].sum(1))[:7])


def test_a_row_is_not_similar_to_itself() -> None:
    reference = np.random.default_rng(0).normal(size=(20, 3))
    found = similar(reference[4], reference, np.arange(3), 3, 5)
    assert 4 not in found.overall
    assert 4 not in found.others
    twice = np.concatenate((reference, reference[4:5]))  # another row with the same cells is similar
    assert 20 in similar(reference[4], twice, np.arange(3), 3, 5).overall
    assert similar(reference[0], reference[:2], np.arange(3), 3, 5).others.shape == (1, 3)


def test_ranges_and_p_values_of_a_normal_distribution() -> None:
    """x_1 given x_0 is normal with mean rho x_0 and variance 1 - rho^2."""
    rng, rho = np.random.default_rng(0), 0.8
    x = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=4000) * [1, 10]
    pool = pool_of(x)
    at = np.random.default_rng(1).normal(size=60)
    for z in (1.0, -1.5, 2.5):
        found = pool.report_cells(np.c_[at, 10 * (rho * at + np.sqrt(1 - rho**2) * z)])
        middle, half = 10 * rho * at, 10 * 1.96 * np.sqrt(1 - rho**2)
        assert np.median(np.abs(found.low[:, 1] - (middle - half))) < 0.15 * half
        assert np.median(np.abs(found.high[:, 1] - (middle + half))) < 0.15 * half
        assert np.median(found.p_value[:, 1]) == pytest.approx(2 * stats.norm.sf(abs(z)), rel=0.25)
    np.testing.assert_allclose(found.own_low[0], [-1.96, -19.6], rtol=0.12)


def test_usual_ranges_contain_95_percent_of_new_rows() -> None:
    rng = np.random.default_rng(1)
    level = rng.uniform(-2, 2, size=(1400, 1))
    x = np.c_[level, level**2, level + rng.standard_t(4, size=(1400, 2))]
    found = pool_of(x[:1000]).report_cells(x[1000:])
    inside = (found.low <= x[1000:]) & (x[1000:] <= found.high)
    # The binomial deviation at 400 rows is 1.1 %; the quantiles are those of 1000 rows.
    assert np.all(np.abs(inside.mean(0) - 0.95) < 0.04)


def test_the_excess_of_an_additive_score_is_that_of_the_cell() -> None:
    """If s(x) = sum f_j(x_j), both numbers are f_j(x_j) minus the mean of f_j over the cells that take its place."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 3))
    pool = pool_of(rng.normal(size=(300, 3)))
    reasons = Reasons.start(rows, np.zeros((50, 3)), np.arange(3.0))
    x = np.array([[0.3, 5.0, -0.2], [2.0, 0.1, 0.0]])
    cells = Cells(
        reasons, coded=np.zeros(3, dtype=bool), flags=np.full(3, -1), score=lambda r: (r**2).sum(1),
        soft=lambda r: r, from_soft=lambda r: r, linear=pool.parts["linear"], coordinate=np.arange(3), circle=np.zeros(3, dtype=bool), placed=rows,
    )  # fmt: skip
    found = report_cells(cells, x, np.zeros((2, 3), dtype=bool))
    for i, row in enumerate(x):
        squares = (rows - row) ** 2
        overall = np.argsort(squares.sum(1))[:3]
        for j in range(3):
            others = np.argsort(np.delete(squares, j, axis=1).sum(1))[:3]
            fall, rise = (row[j] ** 2 - (rows[near, j] ** 2).mean() for near in (others, overall))
            assert found.excess[i, j] == pytest.approx(max(0.5 * (fall + rise), 0))


def test_codes_of_similar_rows() -> None:
    """The flag is 1 where x > 0; a wrong flag is as unlikely as its frequency among similar rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=800)
    pool = pool_of({"x": x, "flag": x > 0, "noise": rng.normal(size=800)})
    found = pool.report_cells(np.array([[2.0, 0.0, 0.0], [2.0, 1.0, 0.0]]), coded=np.array([False, True, False]))
    np.testing.assert_array_equal(found.low[:, 1], 1.0)
    assert found.share[0, 1] > 0.97
    assert found.p_value[0, 1] == pytest.approx(1 - found.share[0, 1])
    assert found.p_value[1, 1] == pytest.approx(1.0)
    assert found.excess[0].argmax() == 1
    assert found.excess[1, 1] < 0.2


def test_an_unknown_cell_does_not_make_others_look_unusual() -> None:
    rng = np.random.default_rng(0)
    level = rng.normal(size=(600, 1))
    x = level + 0.05 * rng.normal(size=(600, 4))
    pool = pool_of(x[:500])
    rows = x[500:].copy()
    rows[:, 0] = 40.0  # any number, which is not to be read
    unknown = np.zeros((100, 4), dtype=bool)
    unknown[:, 0] = True
    found = pool.report_cells(rows, unknown)
    assert np.median(found.p_value[:, 1:]) > 0.3
    assert np.quantile(found.excess[:, 1:], 0.9) < 1.0
    assert np.all(found.excess[:, 0] > 5)
    assert np.median(np.abs(0.5 * (found.low + found.high)[:, 0] - x[500:, 0])) < 0.1


def test_two_columns_that_moved_together_are_both_found() -> None:
    rng = np.random.default_rng(0)
    level = rng.normal(size=(900, 1))
    x = np.c_[level + 0.1 * rng.normal(size=(900, 2)), rng.normal(size=(900, 4))]
    pool = pool_of(x[:800])
    moved = x[800:].copy()
    moved[:, :2] += 6
    order = np.argsort(-pool.report_cells(moved).excess, axis=1)
    assert (np.sort(order[:, :2], axis=1) == [0, 1]).all(1).mean() > 0.95


def test_reasons_of_a_row_do_not_depend_on_the_others() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5))
    pool = pool_of(x)
    new = 2 * rng.normal(size=(30, 5))
    whole = pool.report_cells(new)
    for i in (0, 7, 29):
        alone = pool.report_cells(new[i : i + 1])
        np.testing.assert_allclose(alone.excess[0], whole.excess[i], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(alone.low[0], whole.low[i], rtol=1e-9)


def test_wide_tables_store_fewer_rows() -> None:
    assert rows_to_store(10) == 1000
    assert rows_to_store(100) == 500
    assert rows_to_store(10_000) == 200


def test_usual_ranges_are_within_the_values_of_the_training_rows():
    """Of a positive column no range is negative; where the other columns are like no training row, the range is that of all rows."""
    rng = np.random.default_rng(0)
    income = np.exp(rng.normal(size=500))
    rows = {"income": income, "loan": 3 * income * np.exp(0.3 * rng.normal(size=500))}
    guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(rows)
    explanation = guard.explain({"income": [0.05, 1.0, 500.0], "loan": [200.0, 90.0, 0.2]})
    for k in range(3):
        for reason in explanation.reasons(k, 2):
            if reason.usual:
                assert rows[reason.column].min() <= reason.usual[0] <= reason.usual[1] <= rows[reason.column].max()
    loan = next(reason for reason in explanation.reasons(2, 2) if reason.column == "loan")
    assert loan.usual == ()
    assert "95 % of all normal rows" in loan.sentence
