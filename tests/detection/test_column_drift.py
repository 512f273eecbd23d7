"""Summaries of training columns, and the comparison of new columns with them."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from pushforward.data import Schema
from pushforward.detection.column_drift import ColumnTally, at_least_outside, kolmogorov_smirnov
from pushforward.detection.column_summary import ColumnSummaries
from pushforward.detection.homogeneity import homogeneity
from pushforward.errors import StorageError


def summaries(table):
    schema = Schema.infer(table)
    return ColumnSummaries.fit(schema, schema.encode(table)[0]), schema


def compared(before, after, **options):
    found, schema = summaries({"x": before})
    tally = ColumnTally(found.columns(schema)[0])
    encoded, problems = schema.encode({"x": after}, warn=False)
    tally.add(encoded[:, 0], next((p.counted for p in problems if p.kind == "new"), None))
    return tally.compare(**options)


def test_a_summary_counts_each_interval():
    found, schema = summaries({"x": [3.0, 1.5, None, 3.0], "c": ["a", "b", "a", None], "f": [True, True, False, True]})
    x, c, f = found.columns(schema)
    assert x.edges.tolist() == [1.5, 3.0]
    assert (x.counts.tolist(), x.missing, x.present, x.rows) == ([1, 2], 1, 3, 4)
    assert (c.counts.tolist(), c.missing, c.fraction(0)) == ([2, 1], 1, 2 / 3)
    assert f.counts.tolist() == [1, 3]


@pytest.mark.parametrize("q", [0.01, 0.25, 0.5, 0.99])
def test_quantiles_of_many_values(q):
    x = np.random.default_rng(0).exponential(size=5000)
    found, schema = summaries(x[:, None])
    below = np.mean(x <= found.columns(schema)[0].quantile(q))
    assert q <= below <= q + 0.0101  # the next of 101 quantiles
    assert found.columns(schema)[0].edges[[0, -1]].tolist() == [x.min(), x.max()]


def test_the_distance_is_that_of_scipy_where_values_are_few():
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 60, 700), rng.integers(5, 75, 300)
    found = compared(before, after)
    assert found.distance == pytest.approx(stats.ks_2samp(before, after).statistic)
    assert found.outside == np.sum(after > before.max()) + np.sum(after < before.min())
    assert found.rows == 300


def test_the_distance_of_many_values_is_at_most_that_of_scipy_and_near_it():
    rng = np.random.default_rng(1)
    before, after = rng.normal(size=3000), rng.normal(0.3, 1, size=2000)
    exact = stats.ks_2samp(before, after).statistic
    assert exact - 0.0101 <= compared(before, after).distance <= exact


def test_parts_of_rows_give_the_same_counts():
    rng = np.random.default_rng(0)
    found, schema = summaries(rng.normal(size=(500, 1)))
    rows = np.where(rng.random(400) < 0.1, np.nan, rng.normal(size=400))
    whole, parts = (ColumnTally(found.columns(schema)[0]) for _ in range(2))
    whole.add(rows)
    for part in np.array_split(rows, 7):
        parts.add(part)
    assert np.array_equal(whole.counts, parts.counts)
    assert (whole.below, whole.above, whole.missing, whole.low) == (parts.below, parts.above, parts.missing, parts.low)


@pytest.mark.parametrize(("n", "m", "count"), [(2, 5, 1), (10, 20, 3), (500, 1000, 9), (500, 1000, 0)])
def test_rows_outside_the_range_are_beta_binomial(n, m, count):
    assert at_least_outside(count, n, m) == pytest.approx(stats.betabinom.sf(count - 1, m, 2, n - 1), rel=1e-9)


def test_categories_are_compared_by_the_chi_squared_test():
    before, after = np.array([50.0, 30.0, 20.0]), np.array([30.0, 30.0, 40.0])
    expected = stats.chi2_contingency([before, after], correction=False).pvalue
    assert homogeneity(before, after) == pytest.approx(expected)
    assert homogeneity(np.r_[before, 0, 0], np.r_[after, 0, 0]) == pytest.approx(expected)
    assert homogeneity(np.array([2000, 0]), np.array([95, 5])) == pytest.approx(
        stats.fisher_exact([[2000, 0], [95, 5]]).pvalue
    )
    assert homogeneity(np.array([9, 0]), np.array([4, 0])) == homogeneity(np.array([9, 5]), np.zeros(2)) == 1.0


def test_a_batch_of_a_single_class_is_certain_to_differ():
    before = np.full(10, 100)
    found = [homogeneity(before, np.r_[rows, np.zeros(9)]) for rows in (5, 10, 30, 60)]
    assert found[0] <= 0.001
    assert found[1] <= 1e-6
    assert found[2] <= 1e-20
    assert found[3] <= 1e-60
    assert homogeneity(np.full(2000, 5), np.r_[20, np.zeros(1999)]) <= 1e-20  # each class is rare
    assert homogeneity(np.full(2000, 5), np.r_[20, np.zeros(1999)]) == homogeneity(
        np.r_[20, np.zeros(1999)], np.full(2000, 5)
    )


def test_a_batch_of_half_of_the_classes_differs():
    before, after = np.full(50, 40), np.random.default_rng(0).multinomial(90, np.r_[np.full(25, 0.04), np.zeros(25)])
    assert homogeneity(before, after) <= 0.002
    assert homogeneity(before, after, level=1e-4) <= 1e-4
    assert homogeneity(before, 3 * after, level=1e-7) <= 1e-7  # rare classes joined
    assert homogeneity(before, after) == homogeneity(before, after)


@pytest.mark.parametrize("before", [[1000, 500, 1, 0], [10, 5, 1, 0]])
def test_billions_of_rows_are_compared(before):
    after = np.array([6_666_666_666, 3_333_333_333, 3_000_000, 1_000_000])
    assert homogeneity(np.array(before), after) > 0.05
    assert homogeneity(np.array(before)[[1, 0, 2, 3]] * 3, after) < 0.1


@pytest.mark.parametrize("level", [0.01, 1e-7])
@pytest.mark.parametrize(("classes", "n", "m"), [(2, 1000, 30), (10, 1000, 30), (50, 2000, 60), (20, 300, 4)])
def test_chance_is_called_a_difference_of_classes_as_rarely_as_it_says(classes, n, m, level):
    rng, tries = np.random.default_rng(classes), 300
    chances = 1 / np.arange(1, classes + 1)
    chances /= chances.sum()
    p = np.array([homogeneity(rng.multinomial(n, chances), rng.multinomial(m, chances), level) for _ in range(tries)])
    for q in (0.01, 0.05, 0.2):
        assert (p <= q).sum() <= stats.binom.ppf(0.9999, tries, q)


def test_a_small_batch_of_two_of_fifty_cities_has_drifted():
    rng = np.random.default_rng(0)
    cities = [f"city {i}" for i in range(50)]
    found = compared(rng.choice(cities, 2000), np.repeat(cities[:2], 30), tests=100)
    assert found.drifted
    assert not compared(rng.choice(cities, 2000), rng.choice(cities, 60)).drifted


def test_new_categories_and_new_missing_cells():
    found = compared(["a", "b"] * 50, ["a", "c", None, "c"])
    assert (found.unseen, found.missing, found.counts.tolist()) == (2, 1, [1, 0])
    assert found.missing_changed
    assert found.distance == pytest.approx(2 / 3)  # half of |1/2 - 1/3| + |1/2 - 0| + |0 - 2/3|
    assert not compared(["a", None] * 50, ["a", None] * 20).missing_changed
    assert compared(["a", None] * 50, ["a", None, None, None] * 50).missing_changed


def test_nothing_drifts_without_rows():
    found, schema = summaries(np.arange(9.0)[:, None])
    empty = ColumnTally(found.columns(schema)[0]).compare()
    assert (empty.distance, empty.p_value, empty.drifted, empty.too_far) == (0.0, 1.0, False, False)
    missing = ColumnTally(found.columns(schema)[0])
    missing.add(np.full(5, np.nan))
    assert missing.compare().p_value == 1.0


def test_infinite_numbers_are_outside():
    found = compared(np.arange(10.0), [np.inf, -np.inf, 3.0])
    assert (found.above, found.below, found.outside) == (1, 1, 2)


def test_chance_is_called_drift_as_rarely_as_it_says():
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(200):
        before, after = rng.normal(size=300), rng.normal(size=200)
        small += compared(before, after).p_value <= 0.1
    assert small <= stats.binom.ppf(0.9999, 200, 0.1)
    assert kolmogorov_smirnov(0.0, 10, 10) == 1.0


@pytest.mark.parametrize(("n", "m"), [(30, 1), (1, 50), (50, 3), (99, 7), (40, 40), (2000, 20)])
def test_the_p_value_of_few_rows_is_the_exact_one_of_scipy(n, m):
    rng = np.random.default_rng(n + m)
    for shift in (0.0, 0.7, 5.0):
        x, y = rng.normal(size=n), rng.normal(shift, 1, size=m)
        exact = stats.ks_2samp(x, y, method="exact")
        assert kolmogorov_smirnov(exact.statistic, n, m) == pytest.approx(exact.pvalue, rel=1e-6, abs=1e-13)


def test_a_single_new_row_is_called_drift_as_rarely_as_it_says():
    rng = np.random.default_rng(0)
    found = sum(compared(rng.normal(size=50), rng.normal(size=1)).drifted for _ in range(300))
    assert found <= stats.binom.ppf(0.9999, 300, 0.01)  # the row is outside of 50 others with a probability of 3.9 %


def test_later_instants_are_no_drift():
    before = np.datetime64("2026-01-01T00:00", "s") + np.arange(500) * 3600
    found = compared(before, before[:300] + np.timedelta64(90, "D"))
    assert found.distance == 1.0
    assert (found.tested, found.drifted, found.too_far) == (False, False, False)
    assert compared([None, *before], [None] * 400).missing_changed  # other checks go on


def test_files_keep_summaries_and_refuse_changed_ones():
    table = pa.table({"x": [1.0, 2.5, 4.0], "c": ["a", "b", "a"]})
    found, schema = summaries(table)
    tensors = found.pack("s.")
    again = ColumnSummaries.unpack(dict(tensors), "s.")
    assert all(np.array_equal(getattr(again, name), getattr(found, name)) for name in found._names)
    assert again.fits(schema)
    assert not again.fits(Schema.infer({"x": [1.0, 2.5], "c": ["a", "z"], "d": [1, 2]}))
    assert not again.fits(Schema.infer({"c": ["a", "b", "a"], "x": [1.0, 2.5, 4.0]}))
    for name in found._names:
        changed = {key: value.clone() for key, value in tensors.items()}
        values = changed["s." + name]
        changed["s." + name] = values.flip(0) if name == "edges" else values - 1000
        with pytest.raises(StorageError):
            ColumnSummaries.unpack(changed, "s.")


def zipf(rng, size, categories=200):
    weights = 1 / np.arange(1, categories + 1)
    return np.char.add("z", rng.choice(categories, size, p=weights / weights.sum()).astype(str))


def test_new_values_of_a_column_that_always_has_some_are_no_drift():
    rng = np.random.default_rng(0)
    found = [compared(zipf(rng, 1000), zipf(rng, 1000)) for _ in range(60)]
    assert min(drift.unseen for drift in found) > 20
    assert sum(drift.p_value <= 0.05 for drift in found) <= 8  # of 60 at 5 %; 9 have a probability of 0.3 %


def test_a_new_category_that_becomes_frequent_is_drift():
    rng = np.random.default_rng(0)
    after = zipf(rng, 1000)
    after[:150] = "new"
    assert compared(zipf(rng, 1000), after).drifted


def test_unseen_cells_without_their_names_are_categories_of_their_own():
    rng = np.random.default_rng(0)
    found, schema = summaries({"x": zipf(rng, 1000)})
    tally = ColumnTally(found.columns(schema)[0])
    tally.add(schema.encode({"x": zipf(rng, 1000)}, warn=False)[0][:, 0])
    assert tally.unseen > 20
    assert tally.compare().p_value > 0.05


def test_many_unseen_rows_take_bounded_memory(monkeypatch):
    from pushforward.detection import column_drift

    monkeypatch.setattr(column_drift, "_MOST_NEW", 50)
    after = np.char.add("n", np.arange(5000).astype(str))
    found = compared(zipf(np.random.default_rng(0), 1000), after)
    assert found.unseen == 5000
    assert found.drifted
