"""Checks fail by chance as rarely as they say, and fail where they must."""

import numpy as np
import pytest
from scipy import stats

from pushforward.data import Schema
from pushforward.detection import ConformalCalibrator
from pushforward.detection.column_summary import ColumnSummaries
from pushforward.errors import InputError
from pushforward.estimators.calibration_rows import trim
from pushforward.report import Collected
from pushforward.report.checks import alarm_tail, run_checks
from pushforward.report.collected import AlongRows, Group, Shown, Worst
from pushforward.report.comparison import PairedRows
from pushforward.report.p_values import alarm_curve, p_value_histogram


def collected(calibration, scores, columns=(), rows=None, alpha=0.05, groups=None):
    """What a report collects of scores and columns."""
    calibrators = {key: ConformalCalibrator(values) for key, values in calibration.items()}
    found = Collected({k: (f"class {k}", c, c.threshold(alpha)) for k, c in calibrators.items()}, columns)
    key = np.array(list(calibrators))[0] if groups is None else groups
    p = np.concatenate(
        [calibrators[k].p_value([s]) for s, k in zip(scores, np.broadcast_to(key, len(scores)), strict=True)]
    )
    found.add(scores, p, p <= alpha, lambda k: k, encoded=rows, group=groups)
    return found


def checks_of(found):
    uniformity = [(group, group.uniformity()) for group in found.groups.values()]
    columns = [tally.compare(len(found.tallies)) for tally in found.tallies]
    return {check.name: check for check in run_checks(found, (True, ""), uniformity, columns, None)}


def test_rows_like_the_training_rows_fail_each_check_with_one_percent():
    rng = np.random.default_rng(0)
    failures: dict[str, int] = {}
    for _ in range(200):
        table = np.column_stack([rng.normal(size=(260, 3)), rng.integers(0, 3, 260)])
        schema = Schema.infer({name: list(column) for name, column in zip("abcd", table.T, strict=True)})
        columns = ColumnSummaries.fit(schema, table[:150]).columns(schema)
        found = collected({None: rng.normal(size=99)}, rng.normal(size=110), columns, table[150:])
        for check in checks_of(found).values():
            failures[check.name] = failures.get(check.name, 0) + (not check.passed)
    assert set(failures) == {"promise", "alarm_rate", "uniform", "drift", "missing", "range"}
    most = stats.binom.ppf(0.9999, 200, 0.01)
    assert all(count <= most for count in failures.values()), failures
    assert sum(failures.values()) > 0  # a check that cannot fail would say nothing


def test_normal_rows_with_heavy_tails_pass_where_calibration_scores_were_left_out():
    failures = {"alarm_rate": 0, "uniform": 0}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        kept, left_out = trim(np.abs(rng.standard_t(2, size=300)), 0.1)
        scores, calibrator = np.abs(rng.standard_t(2, size=2000)), ConformalCalibrator(kept)
        found = Collected({None: ("all rows", calibrator, calibrator.threshold(0.05))})
        found.groups[None].left_out = left_out
        p = calibrator.p_value(scores)
        found.add(scores, p, p <= found.groups[None].level, lambda k: k)
        checks = run_checks(
            found, (True, ""), [(group, group.uniformity()) for group in found.groups.values()], [], None
        )
        for check in checks:
            if check.name in failures:
                failures[check.name] += not check.passed
    assert max(failures.values()) <= stats.binom.ppf(0.9999, 60, 0.01), failures


def test_each_check_fails_where_it_must():
    rng = np.random.default_rng(0)
    table = {"a": rng.normal(size=500), "c": rng.choice(["u", "v"], 500)}
    schema = Schema.infer(table)
    columns = ColumnSummaries.fit(schema, schema.encode(table)[0]).columns(schema)
    new = {"a": [None, *(rng.normal(3, 1, size=199))], "c": ["w", *["u"] * 199]}
    found = checks_of(
        collected({None: rng.normal(size=199)}, rng.normal(2, 1, size=200), columns, schema.encode(new, warn=False)[0])
    )
    assert {name for name, check in found.items() if not check.passed} == {
        "alarm_rate",
        "uniform",
        "drift",
        "categories",
        "missing",
        "range",
    }
    assert "a (distance" in found["drift"].detail
    assert "c (1 row)" in found["categories"].detail
    assert "more than chance explains" in found["alarm_rate"].detail


def test_scores_that_are_too_low_keep_the_promise_and_are_not_uniform():
    rng = np.random.default_rng(0)
    found = checks_of(collected({None: rng.normal(size=199)}, rng.normal(-2, 1, size=400)))
    assert found["alarm_rate"].passed
    assert "keeps the promise" in found["alarm_rate"].detail
    assert not found["uniform"].passed
    assert "too many are large" in found["uniform"].detail


@pytest.mark.parametrize(("n", "m", "alarms"), [(99, 50, 1), (99, 50, 9), (199, 1000, 80), (199, 1000, 0)])
def test_the_tail_of_alarms_is_beta_binomial(n, m, alarms):
    found = collected({None: np.arange(float(n))}, np.zeros(m))
    group = found.groups[None]
    group.alarms = alarms
    k = (n + 1) // 20
    assert alarm_tail(group) == pytest.approx(stats.betabinom.sf(alarms - 1, m, k, n + 1 - k), rel=1e-9)


def test_groups_are_ranked_among_their_own():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 2, 400)
    scores = rng.normal(size=400) + 10 * groups  # high scores are usual in group 1
    found = collected({0: rng.normal(size=199), 1: rng.normal(10, 1, size=199)}, scores, groups=groups)
    assert all(check.passed for check in checks_of(found).values())
    histogram, curve = (make(list(found.groups.values())) for make in (p_value_histogram, alarm_curve))
    assert sum(histogram["counts"]) == 400
    low, counts, high = (np.array(histogram[name]) for name in ("low", "counts", "high"))
    assert np.sum((counts < low) | (counts > high)) <= 2  # each bar with a probability of 1 %
    spread = np.sqrt(sum(stats.betabinom.var(g.counts.rows, 10, 190) for g in found.groups.values()))
    assert high - low == pytest.approx(np.full(20, 2 * stats.norm.ppf(0.995) * spread))
    assert curve["fraction"][-1] == 1.0
    found = collected(
        {0: rng.normal(size=199), 1: rng.normal(10, 1, size=199)}, rng.normal(10, 1, size=400), groups=groups
    )
    assert "too many in class 0" in checks_of(found)["alarm_rate"].detail


def test_the_largest_keys_are_kept_and_ties_keep_the_first_rows():
    worst = Worst(3)
    for row, key in enumerate([1.0, 5.0, 5.0, np.inf, 5.0, 2.0]):
        worst.add(key, row, lambda row=row: Shown(row, 0.0, 0.0, None))
    assert [shown.row for shown in worst.rows()] == [3, 1, 2]
    none = Worst(0)
    none.add(1.0, 0, lambda: pytest.fail("nothing is kept"))
    assert none.rows() == []


def test_two_guards_are_compared_as_scipy_does():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=500), np.round(rng.normal(size=500), 1)
    b = b + a
    found = PairedRows(shown=4)
    for part in np.array_split(np.arange(500), 3):
        p = (stats.norm.sf(a[part]), stats.norm.sf(b[part] / 2))
        found.add((a[part], b[part]), p, (a[part] > 1, b[part] > 1.5), lambda k: k)
    correlation, rows = found.rank_correlation()
    assert correlation == pytest.approx(stats.spearmanr(a, b).statistic)
    assert rows == 500
    assert found.table.tolist() == [[np.sum((a <= 1) & (b <= 1.5)), np.sum((a <= 1) & (b > 1.5))],
                                    [np.sum((a > 1) & (b <= 1.5)), np.sum((a > 1) & (b > 1.5))]]  # fmt: skip
    only = found.only[0].rows()
    assert all(a[shown.row] > 1 and b[shown.row] <= 1.5 for shown in only)
    difference = stats.norm.sf(b / 2) - stats.norm.sf(a)
    best = sorted(np.flatnonzero((a > 1) & (b <= 1.5)), key=lambda k: -difference[k])[:4]
    assert [shown.row for shown in only] == best
    assert found.same_rate() == pytest.approx(
        stats.binomtest(int(found.table[1, 0]), int(found.table[1, 0] + found.table[0, 1])).pvalue
    )


def test_the_rank_correlation_of_many_rows_is_of_a_sample():
    rng = np.random.default_rng(0)
    found = PairedRows()
    for _ in range(3):
        a = rng.normal(size=60_000)
        found.add((a, a + rng.normal(size=60_000)), (a, a), (a > 9, a > 9), lambda k: k)
    correlation, rows = found.rank_correlation()
    assert rows == 100_000
    assert correlation == pytest.approx(6 / np.pi * np.arcsin(np.sqrt(0.5) / 2), abs=0.01)  # of two normal variables


def test_a_group_without_alarms_has_nothing_to_explain():
    found = collected({None: np.arange(99.0)}, np.zeros(5))
    assert isinstance(found.groups[None], Group)
    assert found.worst == []
    assert alarm_tail(found.groups[None]) == 1.0


@pytest.mark.parametrize("size", [1, 7, 1000, 50_000])
def test_the_sample_of_alarms_does_not_depend_on_the_chunks(size):
    found = Collected({})
    alarm = np.random.default_rng(0).random(30_000) < 0.4
    for start in range(0, len(alarm), size):
        part = alarm[start : start + size]
        found.add_reasons([str(start + k) for k in found.alarms_to_explain(part)])
    expected = np.flatnonzero(alarm)[::4]  # every fourth of about 12,000
    assert 2048 < len(expected) <= 4096
    assert set(found.first_reasons) == {str(k) for k in expected}


@pytest.mark.parametrize("rows", [1, 64, 65, 1000, 4097])
@pytest.mark.parametrize("size", [1, 50, 5000])
def test_alarms_along_the_rows(rows, size):
    alarm = np.random.default_rng(0).random(rows) < 0.3
    found = AlongRows()
    for start in range(0, rows, size):
        found.add(alarm[start : start + size])
    blocks = found.blocks()
    assert len(blocks) <= 64
    assert len(blocks) > 32 or rows < 64
    assert [(a, a + n) for a, n, _ in blocks] == [(a, min(a + found.size, rows)) for a in range(0, rows, found.size)]
    assert [count for _, _, count in blocks] == [alarm[a : a + n].sum() for a, n, _ in blocks]
    joined = found.blocks(200)
    assert sum(count for _, _, count in joined) == alarm.sum()
    assert sum(n for _, n, _ in joined) == rows
    assert all(count == alarm[a : a + n].sum() for a, n, count in joined)
    assert joined[0][1] >= min(200, rows / 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p_value": np.ones(3)}, "one number for each row"),
        ({"alarm": np.zeros((2, 1), dtype=bool)}, "one number for each row"),
        ({"group": np.array([None])}, "one number for each row"),
        ({"alarm": np.array([0, 1])}, "True and False"),
        ({"encoded": np.zeros((2, 3))}, r"shape \(2, 1\)"),
    ],
)
def test_chunks_that_do_not_fit_are_refused_and_nothing_is_counted(change, message):
    schema = Schema.infer({"a": [1.0, 2.0, 3.0]})
    columns = ColumnSummaries.fit(schema, np.arange(3.0)[:, None]).columns(schema)
    calibrator = ConformalCalibrator(np.arange(99.0))
    found = Collected({None: ("all rows", calibrator, calibrator.threshold(0.05))}, columns)
    chunk = {"score": np.zeros(2), "p_value": np.ones(2), "alarm": np.zeros(2, dtype=bool)} | change
    with pytest.raises(InputError, match=message):
        found.add(**chunk, content=lambda k: k)
    assert (found.rows, found.groups[None].counts.rows) == (0, 0)
