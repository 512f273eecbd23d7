"""Temperature and metrics of probabilities, against optimization by others, scikit-learn and loops."""

from __future__ import annotations

import inspect
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import brier_score_loss, log_loss

from pushforward.detection.selective import (
    Temperature,
    brier_score,
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)
from pushforward.errors import CalibrationError, ConfigError, InputError


def drawn(n=3000, classes=5, temperature=2.5, seed=0):
    """Logits, and labels drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = 4 * rng.normal(size=(n, classes))
    gumbel = -np.log(-np.log(rng.uniform(size=(n, classes))))
    return logits, (logits / temperature + gumbel).argmax(1)


def test_the_temperature_is_found_again():
    estimates = [fit_temperature(*drawn(seed=seed)) for seed in range(40)]
    z = np.array([(one.value - 2.5) / one.standard_error for one in estimates])
    assert abs(z.mean()) < 4 / math.sqrt(40)
    assert 0.7 < z.std() < 1.4  # the standard error is right: chi(39) has 99.9 % of its mass here


def test_the_temperature_has_the_largest_likelihood():
    logits, labels = drawn(500)
    found = minimize_scalar(
        lambda t: torch.nn.functional.cross_entropy(torch.tensor(logits / t), torch.tensor(labels)).item(),
        bounds=(0.1, 20), method="bounded", options={"xatol": 1e-10},
    )  # fmt: skip
    assert fit_temperature(logits, labels).value == pytest.approx(found.x, rel=1e-6)


def test_the_class_and_the_sum_of_probabilities_stay():
    logits, labels = drawn(200)
    temperature = fit_temperature(logits, labels)
    p = temperature.probabilities(logits)
    assert (p.argmax(1) == logits.argmax(1)).all()
    assert p.sum(1) == pytest.approx(np.ones(200))
    assert temperature.scale(logits) == pytest.approx(logits / temperature.value)


def test_a_class_without_probability_does_no_harm():
    logits, labels = drawn(500)
    with_class = np.c_[logits, np.full(500, -math.inf)]
    assert fit_temperature(with_class, labels).value == pytest.approx(fit_temperature(logits, labels).value)


def test_probabilities_do_not_depend_on_the_other_rows():
    logits, _ = drawn(100, 7)
    temperature = Temperature(1.7)
    together = temperature.probabilities(logits)
    assert all((temperature.probabilities(logits[i : i + 1])[0] == together[i]).all() for i in range(100))


def test_labels_without_a_best_temperature():
    logits = np.array([[2.0, 0.0], [0.0, 1.0]])
    with pytest.raises(CalibrationError, match="right in every row"):
        fit_temperature(logits, [0, 1])
    with pytest.raises(CalibrationError, match="worse than chance"):
        fit_temperature(logits, [1, 0])
    with pytest.raises(InputError, match="row 1 has a label of probability 0"):
        fit_temperature([[0.0, 1.0], [0.0, -math.inf]], [0, 1])
    with pytest.raises(InputError, match="at least one row"):
        fit_temperature(np.empty((0, 3)), np.empty(0, dtype=int))
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="temperature"):
            Temperature(bad)


@pytest.mark.parametrize("norm", [1, 2])
def test_calibration_error_is_its_definition(norm):
    logits, labels = drawn(400, 3)
    p = Temperature(1.0).probabilities(logits)
    total = 0.0
    for b in range(10):
        inside = [i for i in range(400) if b / 10 < p[i].max() <= (b + 1) / 10]
        if inside:
            accuracy = np.mean([p[i].argmax() == labels[i] for i in inside])
            total += len(inside) / 400 * abs(accuracy - np.mean([p[i].max() for i in inside])) ** norm
    assert calibration_error(p, labels, bins=10, norm=norm) == pytest.approx(total ** (1 / norm), abs=1e-12)


def test_bins_of_equal_counts():
    logits, labels = drawn(400, 3)
    p = Temperature(1.0).probabilities(logits)
    order = np.argsort(p.max(1))
    gaps = [abs(np.mean((p.argmax(1) == labels)[part] - p.max(1)[part])) for part in np.split(order, 8)]
    assert calibration_error(p, labels, bins=8, binning="count") == pytest.approx(np.mean(gaps), abs=1e-12)
    # 30 bins of 62 rows end at rows that are computed without rounding.
    ends = [math.ceil(Fraction(62 * k, 30)) for k in range(31)]
    gap = ((p.argmax(1) == labels) - p.max(1))[:62][np.argsort(p.max(1)[:62])]
    expected = math.sqrt(sum(gap[a:b].sum() ** 2 / (b - a) for a, b in itertools.pairwise(ends)) / 62)
    assert calibration_error(p[:62], labels[:62], bins=30, binning="count", norm=2) == pytest.approx(expected)
    # Equal confidences cannot be told apart, so they are one bin.
    same = np.tile([0.75, 0.25], (40, 1))
    assert calibration_error(same, [0] * 30 + [1] * 10, binning="count") == pytest.approx(0, abs=1e-12)


def test_confidence_that_is_one_is_counted():
    assert calibration_error([[1.0, 0.0], [1.0, 0.0]], [0, 1]) == pytest.approx(0.5)


def test_a_calibrated_network_has_an_error_near_zero_and_an_overconfident_one_has_not():
    logits, labels = drawn(20000)
    temperature = fit_temperature(*drawn(5000, seed=1))
    before, after = (reliability(t.probabilities(logits), labels) for t in (Temperature(1.0), temperature))
    assert before["calibration_error"] > 0.1 > 0.02 > after["calibration_error"]
    assert before["adaptive_calibration_error"] > 0.1 > 0.02 > after["adaptive_calibration_error"]
    assert after["negative_log_likelihood"] < before["negative_log_likelihood"]
    assert after["brier_score"] < before["brier_score"]
    assert after["accuracy"] == before["accuracy"]


def test_brier_score_and_likelihood_are_scikit_learns():
    logits, labels = drawn(300, 4)
    p = Temperature(2.0).probabilities(logits)
    wanted = np.square(p - np.eye(4)[labels]).sum(1).mean()  # Brier (1950), equation 2
    assert brier_score(p, labels) == pytest.approx(wanted, abs=1e-12)
    if "scale_by_half" in inspect.signature(brier_score_loss).parameters:  # scikit-learn 1.7
        wanted = brier_score_loss(labels, p, labels=range(4), scale_by_half=False)
        assert brier_score(p, labels) == pytest.approx(wanted, abs=1e-12)
    assert negative_log_likelihood(p, labels) == pytest.approx(log_loss(labels, p, labels=range(4)), abs=1e-12)
    assert negative_log_likelihood([[1.0, 0.0]], [1]) == math.inf


def test_tensors_are_read():
    p = torch.tensor([[0.8, 0.2], [0.5, 0.5]], requires_grad=True)
    assert brier_score(p, torch.tensor([0, 1])) == pytest.approx(0.29, abs=1e-6)
    assert Temperature(1.0).probabilities(torch.zeros(1, 2, dtype=torch.bfloat16)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("p", "y", "words"),
    [
        ([[0.5, 0.6]], [0], "row 0 does not"),
        ([[0.5, 0.5], [math.nan, 0.5]], [0, 0], "row 1 does not"),
        ([[-0.5, 1.5]], [0], "row 0 does not"),
        ([0.5, 0.5], [0, 1], "shape"),
        ([[1.0]], [0], "at least two classes"),
        ([[0.5, 0.5]], [2], "row 0 has 2"),
        ([[0.5, 0.5]], [-1], "row 0 has -1"),
        ([[0.5, 0.5]], [0.0], "integers"),
        ([[0.5, 0.5]], [0, 1], "each of the 1 rows"),
        (np.empty((0, 2)), np.empty(0, dtype=int), "at least one row"),
        ([["a", "b"]], [0], "real numbers"),
        ([[0.5, 0.5], [1.0]], [0, 0], "array of numbers"),
    ],
)
def test_wrong_input_is_refused(p, y, words):
    with pytest.raises(InputError, match=words):
        brier_score(p, y)


def test_wrong_options_are_refused():
    for wrong in ({"bins": 0}, {"binning": "equal"}, {"norm": 3}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            calibration_error([[0.5, 0.5]], [0], **wrong)
    for bad in ([[math.nan, 0.0]], [[math.inf, 0.0]], [[-math.inf, -math.inf]]):
        with pytest.raises(InputError, match="row 0"):
            fit_temperature(bad, [0])


def test_a_temperature_of_logits_of_any_size() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 3))
    labels = np.where(rng.random(400) < 0.6, logits.argmax(1), rng.integers(3, size=400))
    usual = fit_temperature(logits, labels).value
    error = fit_temperature(logits, labels).standard_error
    for factor in (1e-300, 1e-160, 1e-6, 1e6, 1e200, 1e300):
        found = fit_temperature(factor * logits, labels)
        assert found.value == pytest.approx(factor * usual, rel=1e-6)
        assert found.standard_error == pytest.approx(factor * error, rel=1e-6)


def test_a_temperature_near_zero_gives_the_largest_logit() -> None:
    logits = [[1.0, 0.0], [-2.0, -1.0], [3.0, 3.0], [0.0, -math.inf]]
    expected = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]
    np.testing.assert_array_equal(Temperature(1e-320).probabilities(logits), expected)
    with pytest.raises(CalibrationError, match="the logits of each row are equal"):
        fit_temperature(np.ones((5, 3)), [0, 1, 2, 0, 1])
