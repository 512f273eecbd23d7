"""`guard.evaluate` and `pushforward evaluate`: figures, exact intervals, labels, small numbers."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest
import torch
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

import pushforward as pf
from pushforward.cli import main
from pushforward.detection import exact_interval, realized_interval
from pushforward.errors import ConfigError, InputError
from pushforward.estimators.evaluating import anomalous_rows
from pushforward.report.evaluation import evaluate_scores

RNG = np.random.default_rng(0)
TRAIN = RNG.normal(size=(1500, 3))
NORMAL = RNG.normal(size=(800, 3))
ODD = RNG.normal(1.5, 2.0, size=(40, 3))
X = np.concatenate([NORMAL, ODD])
Y = np.repeat([0, 1], [800, 40])


@pytest.fixture(scope="module")
def guard() -> pf.Guard:
    return pf.Guard(0.05, random_state=0).fit(TRAIN)


@pytest.mark.parametrize(("count", "of"), [(0, 10), (10, 10), (3, 10), (1, 1), (17, 400)])
def test_exact_intervals_are_those_of_scipy(count: int, of: int) -> None:
    for level in (0.9, 0.95):
        expected = stats.binomtest(count, of).proportion_ci(level, "exact")
        assert exact_interval(count, of, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_an_interval_without_trials_is_everything_and_impossible_counts_are_refused() -> None:
    assert exact_interval(0, 0) == (0.0, 1.0)
    for count, of in ((-1, 3), (4, 3), (0.5, 3)):
        with pytest.raises(ConfigError):
            exact_interval(count, of)


def test_figures_are_those_of_scikit_learn_and_of_the_answers(guard) -> None:
    found = guard.evaluate(X, Y)
    scores, alarms = guard.anomaly_score(X), guard.predict(X) < 0
    assert found.auroc.value == pytest.approx(roc_auc_score(Y, scores))
    assert found.average_precision.value == pytest.approx(average_precision_score(Y, scores))
    assert found.auroc.low < found.auroc.value < found.auroc.high
    assert found.average_precision.low < found.average_precision.value < found.average_precision.high
    assert (found.detected.count, found.detected.of) == (alarms[800:].sum(), 40)
    assert (found.false_alarms.count, found.false_alarms.of) == (alarms[:800].sum(), 800)
    expected = stats.binomtest(int(alarms[800:].sum()), 40).proportion_ci(0.95, "exact")
    assert found.detected.interval == pytest.approx((expected.low, expected.high))
    assert found.expected == realized_interval(guard.calibrator_.n, 800, 0.05)
    assert found.notes == ()


def test_text_json_and_page_say_the_same(guard) -> None:
    found = guard.evaluate(X, Y)
    text, page, content = str(found), found._repr_html_(), json.loads(found.to_json())
    for words in ("AUROC", "AUPR", "anomalies caught", "false alarms", "promised 5.00%", "of 40 (", "of 800 ("):
        assert words in text
        assert words in page
    assert content["auroc"]["value"] == found.auroc.value
    assert content["detected"]["interval"] == list(found.detected.interval)
    assert f"{found.auroc.value:.3f}" in text


@pytest.mark.parametrize(
    "labels",
    [
        Y.astype(bool),
        np.where(Y, -1, 1),
        Y.astype(float),
        pa.chunked_array([pa.array(Y[:5]), pa.array(Y[5:])]),
        Y.tolist(),
    ],
    ids=["flags", "signs", "numbers", "arrow", "list"],
)
def test_labels_of_every_form(guard, labels) -> None:
    assert guard.evaluate(X, labels).to_dict() == guard.evaluate(X, Y).to_dict()


def test_a_column_of_the_table_and_a_label_of_words(guard) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b", "c"])
    frame.insert(1, "state", np.where(Y, "broken", "fine"))
    named = pf.Guard(0.05, random_state=0).fit(pandas.DataFrame(TRAIN, columns=["a", "b", "c"]))
    found = named.evaluate(frame, "state", anomaly="broken")
    assert found.to_dict() == guard.evaluate(X, Y).to_dict()
    with pytest.raises(InputError, match="names no column"):
        named.evaluate(frame, "nothing")
    with pytest.raises(InputError, match=r"\('broken', 'fine'\) do not tell"):
        named.evaluate(frame, "state")
    with pytest.raises(InputError, match=r"no row has the label 'odd' of anomalies; the labels are 'broken', 'fine'"):
        named.evaluate(frame, "state", anomaly="odd")


def test_rows_without_a_label_are_left_out(guard) -> None:
    labels = Y.astype(float)
    labels[::2] = np.nan
    found = guard.evaluate(X, labels)
    assert found.left_out == 420
    assert found.to_dict() | {"left_out": 0} == guard.evaluate(X[1::2], Y[1::2]).to_dict()
    assert "420 without a label" in str(found)


@pytest.mark.parametrize(
    ("labels", "odd"),
    [([0, 0], []), ([True, True], [0, 1]), ([False], []), ([-1, -1], [0, 1]), ([None, 1, 0], [1]), ([1.0, 0.0], [0]),
     (["True", "false", ""], [0]), (["1", "-1"], [1])],
)  # fmt: skip
def test_labels_that_are_known(labels, odd) -> None:
    assert np.flatnonzero(anomalous_rows(labels)[0]).tolist() == odd


@pytest.mark.parametrize("labels", [[1, 1], [2, 3], ["a"], [None], [[0, 1]], []])
def test_labels_that_do_not_tell_are_refused(labels) -> None:
    with pytest.raises(InputError):
        anomalous_rows(labels)


@pytest.mark.parametrize("given", [2, "2", 2.0, "2.0"])
def test_a_label_as_value_or_text(given) -> None:
    assert anomalous_rows([1, 2, 3], given)[0].tolist() == [False, True, False]


def test_small_numbers_are_said(guard) -> None:
    found = guard.evaluate(np.concatenate([NORMAL[:50], 20 + ODD[:3]]), [0] * 50 + [1] * 3)
    least = 100 * stats.binomtest(3, 3).proportion_ci(0.95, "exact").low
    assert any(f"With 3 anomalies little is known about others: had all been caught, the share could still be {least:.0f}%" in n for n in found.notes)  # fmt: skip
    assert any("50 normal rows, 2.5 would raise a false alarm" in note for note in found.notes)
    assert any("separate these rows completely" in note for note in found.notes)
    assert (found.auroc.low, found.auroc.high) == (1.0, 1.0)


def test_rows_of_one_kind_have_no_areas(guard) -> None:
    only_normal, only_odd = guard.evaluate(NORMAL, Y[:800]), guard.evaluate(ODD, [True] * 40)
    assert only_normal.auroc is None
    assert only_odd.average_precision is None
    assert only_odd.expected is None
    assert math.isnan(only_odd.false_alarms.fraction)
    assert "no rows" in str(only_odd)
    assert any("no anomaly among these rows" in note for note in only_normal.notes)
    json.loads(only_odd.to_json())


def test_more_false_alarms_than_theory_are_said(guard) -> None:
    found = guard.evaluate(2 * X, Y)
    assert found.false_alarms.fraction > found.expected[1]
    assert any("not like those that calibrated" in note for note in found.notes)


def test_rows_that_fitted_the_guard_are_said(guard) -> None:
    assert any("fitted the guard" in note for note in guard.evaluate(TRAIN, np.arange(1500) % 50 == 0).notes)
    assert not any("fitted the guard" in note for note in guard.evaluate(TRAIN + 0.1, np.arange(1500) % 50 == 0).notes)


def test_a_guard_without_alarms_promises_nothing_here() -> None:
    with pytest.warns(pf.errors.PushforwardWarning, match="no alarm"):
        small = pf.Guard(0.01, random_state=0).fit(TRAIN[:40])
    found = small.evaluate(X, Y)
    assert found.expected is None
    assert found.detected.count == 0
    assert any("raises no alarm" in note for note in found.notes)


def test_another_number_of_labels_is_refused(guard) -> None:
    with pytest.raises(InputError, match="one label for each of the 840 rows; got 839"):
        guard.evaluate(X, Y[1:])
    with pytest.raises(InputError, match="no rows"):
        evaluate_scores(np.zeros(0), np.zeros(0, bool), np.zeros(0, bool), alpha=0.1)


def test_the_bootstrap_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """AUROC of N(1, 1) against N(0, 1) is Phi(1 / sqrt 2); 200 intervals of 95 % that miss it 20 times or more have P < 0.1 %."""
    truth, rng, missed = stats.norm.cdf(1 / math.sqrt(2)), np.random.default_rng(1), 0
    odd = np.repeat([False, True], [100, 60])
    for _ in range(200):
        scores = rng.normal(size=160) + odd
        area = evaluate_scores(scores, scores > 1, odd, alpha=0.1).auroc
        missed += not area.low <= truth <= area.high
    assert missed < 20


# -- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_class", [False, True])
def test_the_guard_of_a_network(per_class: bool) -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 2, (3000,))
    x = torch.randn(3000, 4) + 6 * labels[:, None]
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
    guard = pf.NetworkGuard(net, 0.05, per_class=per_class).fit((x[:1000], labels[:1000]), calibration=x[1000:2000])
    new = torch.cat([x[2000:], 30 * torch.randn(50, 4)])
    y = torch.arange(1050) >= 1000
    found = guard.evaluate(new, y)
    out = guard(new)
    assert found.auroc.value == pytest.approx(roc_auc_score(y, out.score))
    assert found.detected.count == int(out.alarm[1000:].sum())
    assert (found.expected is None) == per_class
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(new, y.long()), batch_size=100)
    assert guard.evaluate(loader).to_dict() == found.to_dict()
    with pytest.raises(InputError, match="y is missing"):
        guard.evaluate(new)
    with pytest.raises(InputError, match="1050 inputs; got 3"):
        guard.evaluate(new, [0, 1, 0])


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory, guard):
    folder = tmp_path_factory.mktemp("evaluate")
    names = ["a", "b", "c"]
    pf.Guard(0.05, random_state=0).fit(pa.table(dict(zip(names, TRAIN.T, strict=True)))).save(folder / "g.safetensors")
    table = pa.table(dict(zip(names, X.T, strict=True)))
    pa.csv.write_csv(table.append_column("fault", pa.array(np.where(Y, "yes", "no"))), folder / "labeled.csv")
    pa.csv.write_csv(table.append_column("fault", pa.array(Y)), folder / "numbers.csv")
    pa.csv.write_csv(table.slice(0, 800), folder / "normal.csv")
    pa.csv.write_csv(table.slice(800), folder / "odd.csv")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["labeled.csv", "--label", "fault", "--anomaly", "yes"],
        ["numbers.csv", "--label", "fault", "--rows", "100"],
        ["normal.csv", "--anomalies", "odd.csv"],
    ],
)
def test_the_command_gives_the_same_figures(files, guard, capsys, words) -> None:
    paths = [str(files / word) if word.endswith(".csv") else word for word in words]
    assert main(["evaluate", str(files / "g.safetensors"), *paths, "--json"]) == 0
    found, expected = json.loads(capsys.readouterr().out), guard.evaluate(X, Y).to_dict()
    for name in ("auroc", "aupr"):
        assert found[name]["value"] == pytest.approx(expected[name]["value"], abs=1e-9)
    assert found["detected"] == expected["detected"]
    assert found["false_alarms"] == expected["false_alarms"]


def test_the_command_prints_for_people(files, capsys) -> None:
    path = str(files / "labeled.csv")
    assert main(["evaluate", str(files / "g.safetensors"), path, "--label", "fault", "--anomaly", "yes"]) == 0
    out = capsys.readouterr().out
    assert "g.safetensors on labeled.csv" in out
    assert "95% interval" in out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "give --label COLUMN, or --anomalies FILE"),
        (["--label", "fault", "--anomalies", "x.csv"], "give --label COLUMN, or --anomalies FILE"),
        (["--label", "mistake"], "has no column 'mistake'"),
        (["--label", "b"], "--label b: the guard was fitted on this column"),
        (["--label", "fault"], "do not tell which rows are anomalies"),
        (["--anomaly", "yes", "--anomalies", "x.csv"], "which is missing"),
    ],
)
def test_wrong_words_are_explained_in_one_line(files, capsys, words, text) -> None:
    assert main(["evaluate", str(files / "g.safetensors"), str(files / "labeled.csv"), *words]) == 1
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1


def test_labels_as_text_of_numbers():
    """As numpy.savetxt writes them into a column of text."""
    odd, known = anomalous_rows(["0.000e+00", "1.000e+00", " 1 ", "0.0"], None)
    assert odd.tolist() == [False, True, True, False]
    assert known.all()


@pytest.mark.parametrize(
    ("labels", "anomaly"),
    [
        (pd.Series([False, True, None], dtype="boolean"), None),
        (pd.Series(["ok", "bad", None], dtype="string"), "bad"),
        (pd.Series([0, 1, None], dtype="Int64"), None),
    ],
    ids=["flags", "text", "integers"],
)
def test_missing_labels_of_nullable_columns(labels, anomaly) -> None:
    odd, known = anomalous_rows(labels, anomaly)
    assert odd.tolist() == [False, True, False]
    assert known.tolist() == [True, True, False]


def test_missing_labels_of_a_categorical_column() -> None:
    labels = pd.Series(["ok", "bad", None, "ok"], dtype="category")
    for given in (labels, pa.array(labels), pa.chunked_array([pa.array(labels)])):
        odd, known = anomalous_rows(given, "bad")
        assert odd.tolist() == [False, True, False, False]
        assert known.tolist() == [True, True, False, True]


def test_labels_that_are_no_labels() -> None:
    with pytest.raises(InputError, match="one label for each row: a number, a flag or a text"):
        anomalous_rows(np.array([["a"], ["b"], None, "c"], dtype=object))


def test_training_rows_as_columns_are_known() -> None:
    x = np.random.default_rng(0).normal(size=(200, 2))
    table = {"a": x[:, 0], "b": x[:, 1]}
    guard = pf.Guard(0.1, effort="fast", random_state=0).fit(table)
    assert "rows that fitted the guard" in str(guard.evaluate(table, np.arange(200) < 3))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"anomalous": [0, 0, 1]}, "anomalous must be boolean"),
        ({"alarm": [True, False]}, "alarm must be boolean, one for each of the 3 scores"),
        ({"scores": [np.nan, 1.0, 2.0]}, "NaN"),
        ({"scores": []}, "no rows"),
    ],
)
def test_scores_and_marks_of_another_form_are_refused(change, words) -> None:
    given = {"scores": [0.0, 1.0, 2.0], "alarm": [False, False, True], "anomalous": [False, False, False]} | change
    with pytest.raises(InputError, match=words):
        evaluate_scores(**given, alpha=0.1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="alpha"):
        evaluate_scores(np.zeros(3), np.zeros(3, bool), np.zeros(3, bool), alpha=7)


def test_a_list_is_no_label_of_anomalies() -> None:
    with pytest.raises(InputError, match="anomaly must be one label"):
        anomalous_rows([0, 1, 1], np.array([1, 0]))
