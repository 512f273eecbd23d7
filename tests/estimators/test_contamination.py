"""Training rows of which some are anomalies: the score, the calibration, the promise, the warning."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import pushforward as pf
from pushforward.detection.conformal.guarantees import alarm_count
from pushforward.detection.conformal.trimming import far_scores, trimmed_bound
from pushforward.detection.table.robust import rows_to_keep
from pushforward.detection.table_features import TableFeatures
from pushforward.detection.table_score import fit_table_score
from pushforward.errors import ConfigError, InputError, PushforwardWarning
from pushforward.estimators.calibration_rows import trim
from pushforward.estimators.recalibration import CalibrationRecord


def rows(n: int, seed: int, anomalies: int = 0) -> np.ndarray:
    """Normal rows, then a tight clump of anomalies, which is its own neighborhood."""
    rng = np.random.default_rng(seed)
    return np.concatenate((rng.normal(size=(n, 4)), 4 + 0.1 * rng.normal(size=(anomalies, 4))))


@pytest.mark.parametrize("mixed", [False, True])
def test_a_clump_of_anomalies_is_left_out(mixed: bool) -> None:
    x = rows(900, 0, 50)
    table = {f"x{i}": x[:, i] for i in range(4)} | ({"kind": np.where(x[:, 0] > 0, "a", "b")} if mixed else {})
    schema, encoded = pf.data.Schema.infer_encode(table)
    features = TableFeatures.fit(schema, encoded)
    keep = rows_to_keep(features, features.impute(encoded)[0], 0.06)
    assert keep[900:].sum() == 0
    assert 50 <= (~keep).sum() <= 57  # at most 6 % of 950
    assert rows_to_keep(features, features.impute(encoded)[0][:5], 0.25).sum() >= 2


def test_where_no_row_is_far_a_quarter_of_the_bound_is_left_out() -> None:
    schema, encoded = pf.data.Schema.infer_encode(np.random.default_rng(0).uniform(size=(800, 3)))
    features = TableFeatures.fit(schema, encoded)
    assert (~rows_to_keep(features, encoded, 0.1)).sum() == 20


def test_anomalies_in_training_cost_less_with_a_bound() -> None:
    x, usual = rows(900, 0, 60), rows(400, 1)
    odd = rows(0, 2, 100)
    truth = np.repeat((0, 1), (400, 100))
    found = {}
    for bound in (0.0, 0.1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PushforwardWarning)
            guard = pf.Guard(0.05, effort="fast", calibration=0.25, max_contamination=bound, random_state=0).fit(x)
        found[bound] = roc_auc_score(truth, guard.anomaly_score(np.concatenate((usual, odd))))
        if bound:
            assert (guard.predict(odd) == -1).mean() > 0.95
            assert (guard.predict(usual) == -1).mean() < 0.1
            assert guard.calibration_.trimmed > 5
            assert "calibration scores were left out as those of anomalies" in str(guard.calibration_)
    assert found[0.1] > 0.99
    assert found[0.1] > found[0.0] + 0.05


def test_the_record_goes_through_a_file(tmp_path) -> None:
    guard = pf.Guard(0.05, effort="fast", calibration=0.25, max_contamination=0.1, random_state=0).fit(rows(600, 3, 40))
    guard.save(tmp_path / "g")
    again = pf.Guard.load(tmp_path / "g")
    assert again.calibration_ == guard.calibration_
    assert again.max_contamination == 0.1


def test_clean_rows_with_a_bound_keep_the_promise_of_their_own_bound() -> None:
    """Nothing far is there to trim, so the realized rate stays within the bound that the guard states."""
    for seed in range(4):
        guard = pf.Guard(0.1, effort="fast", calibration=0.25, max_contamination=0.1, random_state=seed).fit(
            rows(800, 10 + seed)
        )
        alarms = (guard.predict(rows(2000, 50 + seed)) == -1).mean()
        trimmed = guard.calibration_.trimmed
        n = guard.calibrator_.n + trimmed
        # Four deviations of the rate of one guard (a Beta law) and of the 2000 rows.
        assert alarms <= trimmed_bound(0.1, n, trimmed) + 4 * np.sqrt(0.09 / n + 0.09 / 2000)


def test_the_bound_by_simulation() -> None:
    """Scores of normal rows only, t of them trimmed: the rate is below alpha + t / (n - t + 1), and above alpha."""
    rng = np.random.default_rng(0)
    n, t, alpha = 99, 5, 0.1
    scores = np.sort(rng.random((20_000, n)), axis=1)[:, : n - t]
    new = rng.random(20_000)
    p = (1 + (scores >= new[:, None]).sum(1)) / (n - t + 1)
    rate = (p <= alpha).mean()
    # floor(alpha (n - t + 1)) - 1 kept scores may be above, and t trimmed ones are: 14 of 100 ranks
    assert rate == pytest.approx(0.14, abs=0.01)
    assert alpha < rate <= trimmed_bound(alpha, n, t)


def test_scores_that_are_far() -> None:
    rng = np.random.default_rng(0)
    counts = [far_scores(rng.exponential(size=400)) for _ in range(200)]
    # n P(S > q(0.9) + log(0.2 n)) = 0.1 n / (0.2 n) = 1/2 for exponential scores, more with estimated quantiles.
    assert 0.3 < np.mean(counts) < 1.0
    assert far_scores(np.r_[rng.exponential(size=380), 60 + rng.exponential(size=20)]) == 20
    assert far_scores(np.r_[rng.exponential(size=300), np.full(100, np.inf)]) == 40  # at most a tenth
    assert far_scores(np.ones(100)) == 0
    assert far_scores(np.ones(5)) == 0


def test_calibration_scores_that_look_contaminated_are_said_to() -> None:
    rng = np.random.default_rng(0)
    broken = np.concatenate((rng.normal(size=(940, 4)), 60 * rng.normal(size=(20, 4))))  # the sensor broke at the end
    with pytest.warns(PushforwardWarning, match="calibration scores are far beyond the others.*max_contamination"):
        pf.Guard(0.05, effort="fast", calibration=0.25, random_state=0).fit(broken, time=np.arange(960))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pf.Guard(0.05, effort="fast", calibration=0.25, random_state=0).fit(rows(900, 5))
        pf.Guard(0.05, effort="fast", calibration=0.25, random_state=0).fit(rng.standard_t(3, size=(900, 4)))


@pytest.mark.parametrize("bound", [-0.1, 0.3, "5 %", None])
def test_impossible_bounds(bound) -> None:
    with pytest.raises(ConfigError, match="max_contamination"):
        pf.Guard(max_contamination=bound).fit(rows(100, 0))


def test_a_monitor_keeps_its_bound_where_calibration_scores_were_left_out() -> None:
    """Normal rows with heavy tails, of which some are taken for anomalies: later ones like them are no drift."""
    found = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        scores, stream = np.abs(rng.standard_t(2, size=(2, 400)))
        kept, trimmed = trim(scores, 0.05)
        guard = pf.Guard()._calibrate(kept)
        guard.calibration_ = CalibrationRecord(len(kept), trimmed=trimmed)
        guard.score_ = None  # a monitor reads the calibration alone
        monitor = guard.monitor(alpha=0.05, seed=seed)
        monitor.update(stream)
        found += monitor.alarm
    assert found / 150 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)  # without the scores that were left out it is larger


def test_the_default_guard_with_a_bound_raises_alarms() -> None:
    """The rows that calibrate are enough for alpha = 1 % also after some of their scores were left out."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        x = np.r_[rng.normal(size=(580, 3)), rng.normal(12, 1, size=(20, 3))]
        guard = pf.Guard(effort="fast", max_contamination=0.05, random_state=seed).fit(x)
        assert guard.calibration_.trimmed > 0
        assert guard.predict([[90.0, 90.0, 90.0]]) == [-1]


def test_too_few_scores_after_some_were_left_out_are_said_to_be() -> None:
    rng = np.random.default_rng(0)
    x = np.r_[rng.normal(size=(280, 3)), rng.normal(40, 1, size=(5, 3))]
    with pytest.warns(PushforwardWarning, match="max_contamination left out .* fewer than the 19 .* raises no alarm"):
        guard = pf.Guard(0.05, effort="fast", calibration=22, max_contamination=0.25, random_state=2).fit(
            x, time=range(285)
        )
    assert guard.level_ == 0


def test_the_bound_of_pac_by_simulation() -> None:
    """Scores of normal rows with a heavy tail: the rate given the calibration rows exceeds the stated bound rarely enough."""
    rng = np.random.default_rng(0)
    n, contamination, alpha, delta = 320, 0.0625, 0.01, 0.05
    bound = trimmed_bound(alpha, n, int(contamination * n), "pac", delta)
    above, runs = 0, 2000
    for _ in range(runs):
        u = np.sort(rng.random(n))[::-1]  # the rates at which new scores exceed these
        kept, _ = trim(u**-2.0, contamination)
        k = alarm_count(len(kept), alpha, "pac", delta)
        above += bool(kept[-k] ** -0.5 > bound)
    assert 0 < above / runs <= delta + 3 * np.sqrt(delta * (1 - delta) / runs)


def test_clean_rows_are_inside_what_is_said_of_them() -> None:
    """If the scores that were left out are of normal rows, there are more false alarms; intervals must contain that."""
    above, trimmed = 0, 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x = rng.standard_t(3, size=(2600, 3))
        guard = pf.Guard(0.05, effort="fast", max_contamination=0.1, random_state=seed).fit(x[:600])
        evaluation = guard.evaluate(x[600:], np.zeros(2000, dtype=bool))
        above += evaluation.false_alarms.fraction > evaluation.expected[1]
        trimmed += guard.calibration_.trimmed
        if guard.calibration_.trimmed > 1:
            assert "that were left out are of anomalies" in guard.report(x[:300]).to_dict()["promised"]
    assert trimmed > 20
    assert above <= 1


@pytest.mark.parametrize("kind", ["numbers", "words"])
def test_columns_that_vary_only_in_the_rows_that_are_left_out_are_said_to_be_constant(kind: str) -> None:
    x = np.zeros(120)
    x[:6] = 50.0
    table = {"a": x if kind == "numbers" else np.where(x > 0, "odd", "usual"), "b": np.ones(120)}
    with pytest.raises(InputError, match=r"constant in the training rows but for the .* farthest.*max_contamination"):
        pf.Guard(0.1, max_contamination=0.25, random_state=0).fit(table)


@pytest.mark.parametrize("kind", ["constant", "number", "text"])
def test_a_column_that_hardly_ever_has_a_value_keeps_some(kind: str) -> None:
    rng = np.random.default_rng(0)
    values = {"constant": np.ones(300), "number": rng.normal(size=300), "text": np.full(300, "a", dtype=object)}[kind]
    table = pd.DataFrame({"x": rng.normal(size=300), "y": pd.Series(values).where(rng.permutation(300) < 3)})
    score = fit_table_score(table, contamination=0.05, effort="fast")
    assert np.isfinite(score.score(table)).all()
