"""Prediction sets: their scores against other libraries, their coverage against the beta-binomial law."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import pytest
from scipy.stats import betabinom, binom
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from pushforward.detection import realized_interval
from pushforward.detection.selective import ClassifierCalibration, PredictionSets, set_statistics
from pushforward.detection.selective.inputs import log_softmax
from pushforward.detection.selective.set_scores import adaptive_scores, row_uniform
from pushforward.errors import CalibrationError, ConfigError, InputError, PushforwardWarning, StorageError


def drawn(n, classes=6, seed=0, sharpness=2.0):
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(n, classes))
    gumbel = -np.log(-np.log(rng.uniform(size=(n, classes))))
    return logits, (logits + gumbel).argmax(1)


def digits_logits():
    """Logits of a network that 300 digits trained, and the labels, for the other 1497."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = x[order], y[order]
    scaler = StandardScaler().fit(x[:300])
    model = LogisticRegression(C=0.002, max_iter=500).fit(scaler.transform(x[:300]), y[:300])
    return model.decision_function(scaler.transform(x[300:])), y[300:]


def test_the_scores_of_one_row_by_hand():
    logits = np.log([[0.5, 0.2, 0.3]])
    assert adaptive_scores(logits, np.array([0.5])) == pytest.approx(np.array([[0.25, 0.9, 0.65]]))
    assert adaptive_scores(logits, np.array([1.0])) == pytest.approx(np.array([[0.5, 1.0, 0.8]]))
    penalized = adaptive_scores(logits, np.array([0.0]), penalty=0.1, rank=1)
    assert penalized == pytest.approx(np.array([[0.0, 0.8 + 0.2, 0.5 + 0.1]]))


def test_sets_are_those_of_the_quantile():
    logits, labels = drawn(99)
    scores = 1 - np.exp(log_softmax(logits))
    quantile = np.sort(scores[np.arange(99), labels])[math.ceil(100 * 0.9) - 1]
    new = drawn(50, seed=1)[0]
    assert (PredictionSets("lac").fit(logits, labels)(new) == (1 - np.exp(log_softmax(new)) <= quantile)).all()


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
def test_a_label_is_in_the_set_where_its_p_value_is_above_one_minus_coverage(method):
    logits, labels = drawn(200)
    for options in ({}, {"per_class": True}):
        sets = PredictionSets(method, coverage=0.8, rank=2, penalty=0.05, **options).fit(logits, labels)
        new = drawn(300, seed=1)[0]
        assert (sets(new) == (sets.p_values(new) > 0.2 + 1e-12)).all()


def test_lac_sets_of_mapie():
    mapie = pytest.importorskip("mapie.classification")
    logits, labels = drawn(400)
    new = drawn(300, seed=1)[0]

    class Network(LogisticRegression):
        """A classifier whose probabilities are softmax of its input."""

        def fit(self, x, y):
            self.classes_ = np.arange(x.shape[1])
            return self

        def predict_proba(self, x):
            return np.exp(log_softmax(x))

        def predict(self, x):
            return x.argmax(1)

    network = Network().fit(logits, labels)
    theirs = mapie.SplitConformalClassifier(network, confidence_level=0.9, conformity_score="lac", prefit=True)
    _, sets = theirs.conformalize(logits, labels).predict_set(new)
    assert (sets[:, :, 0] == PredictionSets("lac").fit(logits, labels)(new)).all()


def test_aps_scores_of_mapie():
    scores = pytest.importorskip("mapie.conformity_scores")
    logits, labels = drawn(300)
    theirs, _ = scores.APSConformityScore.get_true_label_cumsum_proba(labels, np.exp(log_softmax(logits)), range(6))
    ours = adaptive_scores(logits, np.ones(300))[np.arange(300), labels]
    assert ours == pytest.approx(theirs[:, 0], abs=1e-12)


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
def test_sets_of_torchcp(method):
    torch = pytest.importorskip("torch")
    score = pytest.importorskip("torchcp.classification.score", exc_type=ImportError)
    predictor = pytest.importorskip("torchcp.classification.predictor", exc_type=ImportError)
    logits, labels = drawn(400)
    new = drawn(300, seed=1)[0]
    theirs = {
        "lac": lambda: score.LAC(),
        "aps": lambda: score.APS(randomized=False),
        "raps": lambda: score.RAPS(randomized=False, penalty=0.02, kreg=2),
    }[method]()
    split = predictor.SplitPredictor(theirs)
    split.calculate_threshold(torch.tensor(logits), torch.tensor(labels), 0.1)
    ours = PredictionSets(method, randomized=False, penalty=0.02, rank=2).fit(logits, labels)
    assert (split.predict_with_logits(torch.tensor(new)).bool().numpy() == ours(new)).all()


def test_a_row_gets_the_same_set_in_any_company():
    logits, labels = drawn(300)
    for method in ("lac", "aps", "raps"):
        sets = PredictionSets(method).fit(logits, labels)
        together = sets(logits)
        assert all((sets(logits[i : i + 1])[0] == together[i]).all() for i in range(100))
        assert (sets(logits[::-1])[::-1] == together).all()
        assert (sets.p_values(logits)[:5] == sets.p_values(logits[:5])).all()


def test_the_hash_is_uniform_and_depends_on_the_seed():
    rows = drawn(4000)[0]
    u = np.sort(row_uniform(rows, 0))
    assert np.abs(u - (np.arange(4000) + 0.5) / 4000).max() < 1.95 / math.sqrt(4000)
    assert abs(np.corrcoef(row_uniform(rows, 0), row_uniform(rows, 1))[0, 1]) < 4 / math.sqrt(4000)


def test_randomized_sets_are_smaller_and_sets_can_be_filled():
    logits, labels = drawn(2000)
    new, truth = drawn(2000, seed=1)
    with_hash, without = (PredictionSets("aps", randomized=r).fit(logits, labels)(new) for r in (True, False))
    assert set_statistics(with_hash, truth)["size"] < set_statistics(without, truth)["size"]
    sharp, sharp_labels = drawn(2000, sharpness=20.0)
    lac = PredictionSets("lac").fit(sharp, sharp_labels)(sharp)
    assert (lac.sum(1) == 0).any()
    filled = PredictionSets("lac", never_empty=True).fit(sharp, sharp_labels)(sharp)
    assert (filled.sum(1) >= 1).all()
    assert (filled[lac.sum(1) > 0] == lac[lac.sum(1) > 0]).all()


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
def test_coverage_of_twenty_redraws_is_beta_binomial(method):
    """A real classifier of digits: the number of misses of each redraw is inside its exact distribution."""
    logits, labels = digits_logits()
    n_cal, n_test, coverage = 497, 1000, 0.9
    k = math.floor(0.1 * (n_cal + 1))
    law = betabinom(n_test, k, n_cal + 1 - k)
    low, high = realized_interval(n_cal, n_test, 0.1)
    tails, outside = [], 0
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(labels))
        cal, test = order[:n_cal], order[n_cal:]
        sets = PredictionSets(method, coverage=coverage).fit(logits[cal], labels[cal])
        missed = round(n_test * (1 - set_statistics(sets(logits[test]), labels[test])["coverage"]))
        tails.append(law.cdf(missed))
        outside += not low <= missed / n_test <= high
    assert min(tails) > 1e-4  # of 20 redraws, one in 500 runs
    assert max(tails) < 1 - 1e-4
    assert outside <= binom.ppf(0.999, 20, 0.05)


def test_coverage_of_each_class_with_mondrian_sets():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, size=30000, p=[0.7, 0.2, 0.1])
    logits = np.array([3.0, 1.0, 0.3])[labels][:, None] * np.eye(3)[labels] + rng.normal(size=(30000, 3))
    cal, test = slice(0, 3000), slice(3000, None)
    plain, mondrian = (
        PredictionSets("lac", per_class=p).fit(logits[cal], labels[cal])(logits[test]) for p in (False, True)
    )
    assert set_statistics(plain, labels[test])["worst_class_coverage"] < 0.8
    for k in range(3):
        own = labels[test] == k
        low, high = realized_interval(int((labels[cal] == k).sum()), int(own.sum()), 0.1, level=0.999)
        assert low <= 1 - mondrian[own, k].mean() <= high


def test_the_pac_guarantee_covers_more():
    logits, labels = drawn(500)
    new, truth = drawn(5000, seed=1)
    marginal, pac = (PredictionSets("lac", guarantee=g).fit(logits, labels)(new) for g in ("marginal", "pac"))
    assert set_statistics(pac, truth)["coverage"] >= 0.9
    assert (pac | ~marginal).all()


def test_a_class_with_few_rows_is_in_every_set():
    logits, labels = drawn(300)
    few = np.flatnonzero(labels == 5)[3:]
    keep = np.setdiff1d(np.arange(300), few)
    sets = PredictionSets("lac", per_class=True).fit(logits[keep], labels[keep])
    assert sets.always_included == (5,)
    assert sets(logits)[:, 5].all()
    assert (sets.p_values(logits)[:, 5] == 1).all()


def test_statistics_of_sets_by_hand():
    sets = np.array([[True, False, False], [True, True, False], [False, False, False], [False, True, True]])
    found = set_statistics(sets, [0, 2, 0, 1])
    wanted = {
        "coverage": 0.5, "worst_class_coverage": 0.0, "worst_size_coverage": 0.0, "size": 1.25, "single": 0.25,
        "empty": 0.25,
    }  # fmt: skip
    assert found == wanted
    wide = np.eye(40, dtype=bool).cumsum(1).astype(bool)  # every size once: no size is common
    assert set_statistics(wide, np.arange(40))["worst_size_coverage"] == 1.0


def test_everything_from_one_set_of_rows():
    """What a user does: 10 classes of digits, held-out rows, new rows."""
    logits, labels = digits_logits()
    logits = 30 * logits  # overconfident
    calibration = ClassifierCalibration.fit(logits[:900], labels[:900], coverage=0.95, risk=0.03, seed=1)
    new, truth = logits[900:], labels[900:]
    assert calibration.temperature.value > 2
    covered = []
    for seed in range(20):  # one split has a standard deviation of 1.2 %
        order = np.random.default_rng(seed).permutation(len(labels))
        one, other = order[:900], order[900:]
        sets = ClassifierCalibration.fit(logits[one], labels[one], coverage=0.95, seed=seed).sets(logits[other])
        covered.append(sets[np.arange(len(other)), labels[other]].mean())
    assert abs(np.mean(covered) - 0.95) < 0.01
    accepted = calibration.accept(calibration.uncertainty(new))
    wrong = calibration.probabilities(new).argmax(1) != truth
    assert accepted.mean() > 0.4
    assert wrong[accepted].mean() <= 0.03 < wrong.mean()


def test_the_parts_use_rows_of_their_own():
    logits, labels = drawn(1000)
    from pushforward.data import split_indices

    first, rest = split_indices(1000, (200, 800), seed=3)
    calibration = ClassifierCalibration.fit(logits, labels, method="lac", seed=3)
    changed = labels.copy()
    changed[rest] = (changed[rest] + 1) % 6
    assert ClassifierCalibration.fit(logits, changed, method="lac", seed=3).temperature == calibration.temperature
    alone = PredictionSets("lac", seed=3).fit(calibration.temperature.scale(logits[rest]), labels[rest])
    assert (alone(calibration.temperature.scale(logits)) == calibration.sets(logits)).all()
    assert len(first) == 200


def test_scores_of_the_users_choice_and_no_temperature():
    logits, labels = drawn(1000)
    wrong = logits.argmax(1) != labels
    oracle = wrong + np.random.default_rng(0).normal(size=1000) / 10
    calibration = ClassifierCalibration.fit(logits, labels, oracle, risk=0.05, temperature_part=0)
    assert calibration.temperature.value == 1.0
    assert calibration.rule is not None
    assert calibration.rule.coverage == pytest.approx((~wrong).mean(), abs=0.06)
    with pytest.raises(InputError, match="each of the 1000 rows; got 3"):
        ClassifierCalibration.fit(logits, labels, [1.0, 2.0, 3.0], risk=0.05)
    with pytest.raises(ConfigError, match="promises no risk"):
        ClassifierCalibration.fit(logits, labels).accept([0.0])


def test_a_perfect_network_keeps_temperature_one():
    labels = np.arange(300) % 3
    with pytest.warns(PushforwardWarning, match="temperature stays 1"):
        calibration = ClassifierCalibration.fit(9 * np.eye(3)[labels], labels, risk=0.05)
    assert calibration.temperature.value == 1.0
    assert calibration.rule is not None
    assert calibration.rule.coverage == 1.0


def test_files():
    logits, labels = drawn(600)
    for options, rejects in (({"per_class": True}, False), ({"risk": 0.2}, False), ({"risk": 1e-1}, True)):
        with pytest.warns(PushforwardWarning, match="every input is rejected") if rejects else nullcontext():
            calibration = ClassifierCalibration.fit(logits, labels, **options)
        assert rejects == (not calibration.rule.accept([0.0]).any() if calibration.rule else False)
        description, tensors = calibration.pack("labels.")
        assert all(name.startswith("labels.") for name in tensors)
        import json

        again = ClassifierCalibration.unpack(json.loads(json.dumps(description)), tensors, "labels.")
        assert (again.sets(logits) == calibration.sets(logits)).all()
        assert (again.p_values(logits) == calibration.p_values(logits)).all()
        assert (again.probabilities(logits) == calibration.probabilities(logits)).all()
        assert again.rule == calibration.rule


@pytest.mark.parametrize(
    "change",
    [
        lambda d, t: d["sets"].update(n_classes=7),
        lambda d, t: d["sets"].update(counts=[3]),
        lambda d, t: d["sets"].update(counts=[-1]),
        lambda d, t: d["sets"].update(counts=3),
        lambda d, t: d["sets"].update(method="best"),
        lambda d, t: d["sets"].pop("n_classes"),
        lambda d, t: d.update(sets=None),
        lambda d, t: d.update(temperature=[-1, None]),
        lambda d, t: d.update(temperature=None),
        lambda d, t: d.update(rule={"threshold": "nan", "risk": "0", "delta": "0", "coverage": "0", "bound": "0"}),
        lambda d, t: d.update(rule={"threshold": "x"}),
        lambda d, t: d.update(rule=["0.5"]),
        lambda d, t: t.clear(),
        lambda d, t: t.update({"a.scores": t["a.scores"].float()}),
        lambda d, t: t.update({"a.scores": t["a.scores"] * math.nan}),
    ],
)
def test_damaged_files_are_refused(change):
    logits, labels = drawn(600)
    description, tensors = ClassifierCalibration.fit(logits, labels, per_class=True, risk=0.3).pack("a.")
    change(description, tensors)
    with pytest.raises(StorageError):
        ClassifierCalibration.unpack(description, tensors, "a.")


def test_wrong_use():
    logits, labels = drawn(50)
    with pytest.raises(CalibrationError, match="at least 99 calibration rows and there are 50"):
        PredictionSets(coverage=0.99).fit(logits, labels)
    with pytest.raises(ConfigError, match="call fit"):
        PredictionSets()(logits)
    with pytest.raises(ConfigError, match="call fit"):
        PredictionSets().pack("")
    fitted = PredictionSets().fit(logits, labels)
    with pytest.raises(InputError, match=r"shape \(rows, 6\); got shape \(50, 5\)"):
        fitted(logits[:, :5])
    with pytest.raises(InputError, match="row 2"):
        fitted(np.where(np.arange(50)[:, None] == 2, math.nan, logits))
    for wrong in (
        {"method": "best"}, {"coverage": 1.0}, {"guarantee": "sure"}, {"delta": 0.0}, {"penalty": -1.0}, {"rank": -1},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            PredictionSets(**wrong)
    with pytest.raises(InputError, match="booleans"):
        set_statistics([[1, 0]], [0])
    with pytest.raises(InputError, match="sets must be an array"):
        set_statistics([[True, False], [True]], [0, 0])
    with pytest.raises(ConfigError, match=r"coverage must be at most 1 - 1e-09"):
        PredictionSets(coverage=1 - 1e-12)
    with pytest.raises(ConfigError, match="temperature_part"):
        ClassifierCalibration.fit(logits, labels, temperature_part=1.0)
    assert fitted(np.empty((0, 6))).shape == (0, 6)
    assert "6 classes" in repr(fitted)


def test_any_integer_is_a_seed():
    logits, labels = drawn(200)
    sets = PredictionSets(seed=-1).fit(logits, labels)
    assert sets(logits).shape == logits.shape
    assert ClassifierCalibration.fit(logits, labels, seed=-1).sets(logits).shape == logits.shape
    with pytest.raises(ConfigError, match="seed must be an integer"):
        ClassifierCalibration.fit(logits, labels, seed=1.5)
