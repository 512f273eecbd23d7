"""Promises of abstention: exact bounds against enumeration, and the rate of broken promises against delta."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest

from pushforward.detection.selective import (
    ClassifierCalibration,
    aurc,
    conformal_risk_control,
    control_risk,
    risk_p_value,
    risk_upper_bound,
    sequence_thresholds,
    undetected_error_threshold,
)
from pushforward.errors import CalibrationError, ConfigError, InputError


def test_the_binomial_p_value_is_its_sum():
    for n, errors, risk in [(10, 2, 0.3), (1, 0, 0.5), (7, 7, 0.1)]:
        wanted = sum(math.comb(n, k) * risk**k * (1 - risk) ** (n - k) for k in range(errors + 1))
        assert risk_p_value(errors, n, risk, errors=True) == pytest.approx(wanted)
    assert risk_p_value(0, 0, 0.1, errors=True) == 1.0


@pytest.mark.parametrize("errors", [True, False])
def test_the_upper_bound_inverts_the_p_value(errors):
    for n, wrong in [(50, 0), (50, 3), (200, 40)]:
        losses = np.arange(n) < wrong
        bound = risk_upper_bound(losses if errors else losses.astype(float), delta=0.1)
        assert risk_p_value(wrong, n, bound, errors=errors) == pytest.approx(0.1, rel=1e-6)
        assert wrong / n < bound < 1
    assert risk_upper_bound(np.ones(5, bool)) == 1.0


def test_bounds_of_real_losses_fail_as_rarely_as_they_say():
    # Losses 0, 1/2 and 1: all outcomes of 12 losses are counted, so the rate is exact.
    n, probabilities = 12, (0.5, 0.3, 0.2)
    mean = 0.5 * 0.3 + 0.2
    failures = 0.0
    for zeros in range(n + 1):
        for halves in range(n + 1 - zeros):
            ones = n - zeros - halves
            if risk_p_value(0.5 * halves + ones, n, mean, errors=False) <= 0.1:
                ways = math.comb(n, zeros) * math.comb(n - zeros, halves)
                failures += ways * math.prod(p**k for p, k in zip(probabilities, (zeros, halves, ones), strict=True))
    assert failures <= 0.1
    assert risk_p_value(3, 40, 0.3, errors=False) >= risk_p_value(3, 40, 0.3, errors=True)  # it knows less


def problem(rng, n, kind="smooth"):
    """Uniform scores with errors of a known rate; returns the risk below a threshold too."""
    s = rng.uniform(size=n)
    if kind == "smooth":
        return s, rng.uniform(size=n) < 0.3 * s, lambda t: 0.15 * min(t, 1.0)
    # All certain rows are right and all others wrong: what breaks tests that condition on the wrong things.
    return s, s > 0.6, lambda t: max(0.0, min(t, 1.0) - 0.6) / min(t, 1.0)


@pytest.mark.parametrize("kind", ["smooth", "step"])
@pytest.mark.parametrize("method", ["ranks", "sequence", "sgr"])
def test_broken_promises_are_as_rare_as_promised(kind, method):
    rng, delta, redraws = np.random.default_rng(0), 0.2, 400
    broken, coverages = 0, []
    for _ in range(redraws):
        s, errors, true_risk = problem(rng, 500, kind)
        grid = sequence_thresholds(problem(rng, 100)[0], 500, 0.1, delta) if method == "sequence" else None
        rule = control_risk(s, errors, 0.1, delta, method=method, thresholds=grid)
        broken += rule.threshold > 0 and true_risk(rule.threshold) > 0.1
        coverages.append(rule.coverage)
    assert binomtest(broken, redraws, delta, alternative="greater").pvalue > 0.001
    assert np.mean(coverages) > 0.25  # 2/3 would be accepted if the risk were known


def test_the_test_at_one_rank_is_exactly_binomial():
    # The errors below the (m + 1)-th smallest score are Binomial(m, risk) given that score, with that score's own risk.
    rng, tail = np.random.default_rng(1), []
    for _ in range(2000):
        s, errors, true_risk = problem(rng, 60)
        order = np.argsort(s)
        wrong = errors[order[:40]].sum()
        below, at = binom.cdf(wrong - 1, 40, true_risk(s[order[40]])), binom.pmf(wrong, 40, true_risk(s[order[40]]))
        tail.append(below + rng.uniform() * at)
    ordered = np.sort(tail)
    distance = np.abs(ordered - (np.arange(2000) + 0.5) / 2000).max()
    assert distance < 1.95 / math.sqrt(2000)  # Kolmogorov-Smirnov at 0.001


def test_ties_are_accepted_together_and_the_promise_holds():
    rng, broken = np.random.default_rng(2), 0
    for _ in range(300):
        s = rng.integers(5, size=300)
        errors = rng.uniform(size=300) < 0.06 * s
        rule = control_risk(s, errors, 0.1, 0.2)
        truth = [0.06 * k for k in range(5) if k < rule.threshold]
        broken += bool(truth) and np.mean(truth) > 0.1
        assert rule.coverage == np.mean(rule.accept(s))
    assert binomtest(broken, 300, 0.2, alternative="greater").pvalue > 0.001


def test_a_network_without_errors_is_accepted_in_full_and_one_of_errors_not_at_all():
    s = np.linspace(0, 1, 400)
    everything, nothing = (control_risk(s, np.full(400, error), 0.05) for error in (False, True))
    assert (everything.threshold, everything.coverage) == (math.inf, 1.0)
    assert 0 < everything.bound <= 0.05
    assert (nothing.threshold, nothing.coverage, nothing.bound) == (-math.inf, 0.0, 0.0)
    assert everything.accept([5.0]).all()
    assert not nothing.accept([-math.inf, 0.0]).any()
    assert everything.accept([]).shape == (0,)


def test_losses_that_are_no_errors():
    rng = np.random.default_rng(3)
    s = rng.uniform(size=2000)
    loss = 0.3 * s * rng.uniform(size=2000)
    rule = control_risk(s, loss, 0.1)
    assert rule.coverage == 1.0  # the mean loss is 0.075
    harder = control_risk(s, loss, 0.05)
    assert 0.2 < harder.coverage < 0.67


def test_a_sequence_stops_at_the_first_failure():
    s = np.arange(1000) / 1000
    errors = (s > 0.5) & (s < 0.7)
    rule = control_risk(s, errors, 0.1, method="sequence", thresholds=[0.9, 0.4, 0.6])
    assert rule.threshold == 0.4
    assert control_risk(s, errors, 0.25, method="sequence", thresholds=[0.9, 0.4, 0.6]).threshold == 0.9


def test_thresholds_from_other_rows():
    s = np.arange(1000) / 1000
    found = sequence_thresholds(s, 2000, 0.05, levels=10)
    first = 3 * math.log(0.05) / math.log(0.95) / 2000
    assert found[0] == pytest.approx(first, abs=1e-3)
    assert (np.diff(found) > 0).all()
    assert found[-1] == math.inf
    assert sequence_thresholds([5.0], 10, 0.05) == [math.inf]
    assert list(sequence_thresholds([1.0, 1.0, 1.0], 1000, 0.1)) == [math.inf]
    assert list(sequence_thresholds([0.0] * 60 + list(range(1, 41)), 1000, 0.1, levels=3)) == [1.0, math.inf]
    with pytest.raises(ConfigError, match="risk"):
        sequence_thresholds(s, 10, 0.0)


def test_too_few_rows_and_wrong_options():
    with pytest.raises(CalibrationError, match="at least 112 calibration rows and there are 50"):
        control_risk(np.arange(50), np.zeros(50, bool), 0.05)
    assert math.ceil(math.log(0.05 / 15) / math.log(0.95)) == 112
    with pytest.raises(CalibrationError, match="at least 59 calibration rows"):
        control_risk(np.arange(50), np.zeros(50, bool), 0.05, method="sequence", thresholds=[3.0])
    with pytest.raises(InputError, match="sequence"):
        control_risk([0.0], [True], 0.1, method="sequence")
    with pytest.raises(InputError, match="sequence"):
        control_risk([0.0], [True], 0.1, thresholds=[1.0])
    for wrong in ({"risk": 0.0}, {"delta": 1.0}, {"method": "best"}, {"levels": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            control_risk([0.0], [True], **({"risk": 0.1} | wrong))
    with pytest.raises(InputError, match="each of the 2 rows"):
        control_risk([0.0, 1.0], [True], 0.1)
    with pytest.raises(ConfigError, match="delta"):
        risk_upper_bound([True], 0.0)


def test_conformal_risk_control_is_its_formula():
    rng = np.random.default_rng(4)
    losses = np.sort(rng.uniform(size=(30, 12)), axis=1)[:, ::-1] * np.linspace(1, 0, 12)
    for alpha in (0.1, 0.3):
        wanted = next(k for k in range(12) if (losses[:, k].sum() + 1) / 31 <= alpha)
        assert conformal_risk_control(losses, alpha) == wanted
    assert conformal_risk_control(2 * losses, 0.6, bound=2.0) == conformal_risk_control(losses, 0.3)


def test_the_expected_loss_is_at_most_alpha_and_not_far_below():
    # Loss: the share of three uniform numbers that exceed the cut, expectation 1 - cut.
    rng, grid = np.random.default_rng(5), np.linspace(0, 1, 1001)
    chosen = []
    for _ in range(500):
        losses = (rng.uniform(size=(50, 3, 1)) > grid).mean(1)
        chosen.append(1 - grid[conformal_risk_control(losses, 0.2)])
    error = 4 * np.std(chosen) / math.sqrt(500)
    assert 0.2 - 2 / 51 - 0.001 - error < np.mean(chosen) < 0.2 + error  # within 2 bound / (n + 1) (thm. 2)


def test_undetected_errors_over_all_orders_of_the_rows():
    # Exchangeability, taken literally: over all ways to leave one of 7 rows out, the mean loss is at most alpha.
    scores, errors = np.array([0, 1, 1, 2, 3, 4, 5]), np.array([0, 1, 1, 0, 1, 0, 1], dtype=bool)
    for alpha in (1 / 7, 2 / 7, 0.4, 0.6):
        lost = []
        for i in range(7):
            rest = np.arange(7) != i
            lost.append(errors[i] and scores[i] < undetected_error_threshold(scores[rest], errors[rest], alpha))
        assert np.mean(lost) <= alpha + 1e-12
    assert undetected_error_threshold(range(9), [False] * 9, 0.1) == math.inf


def test_undetected_errors_are_risk_control_on_a_grid():
    rng = np.random.default_rng(6)
    s, loss = rng.uniform(size=60), rng.uniform(size=60)
    threshold = undetected_error_threshold(s, loss, 0.2)
    cuts = [math.inf, *sorted(s, reverse=True)]
    losses = np.array([[b * (a < cut) for cut in cuts] for a, b in zip(s, loss, strict=True)])
    assert threshold == cuts[conformal_risk_control(losses, 0.2)]


def test_wrong_tables_of_losses():
    good = np.array([[1.0, 0.0]] * 20)
    with pytest.raises(InputError, match="row 3 do"):
        conformal_risk_control(np.where(np.arange(20)[:, None] == 3, [[0.0, 0.05]], good), 0.1)
    with pytest.raises(InputError, match="at most bound=1"):
        conformal_risk_control(2 * good, 0.1)
    with pytest.raises(InputError, match="not NaN"):
        conformal_risk_control(np.full((3, 2), math.nan), 0.1)
    with pytest.raises(InputError, match="last parameter"):
        conformal_risk_control(good[:, :1], 0.1)
    with pytest.raises(InputError, match="shape"):
        conformal_risk_control([1.0], 0.1)
    with pytest.raises(InputError, match="losses must be an array"):
        conformal_risk_control([[1.0, 0.0], [1.0]], 0.1)
    for tensor in (torch.tensor(good, requires_grad=True), torch.tensor(good, dtype=torch.bfloat16)):
        assert conformal_risk_control(tensor, 0.1) == 1
    with pytest.raises(CalibrationError, match="at least 9"):
        conformal_risk_control(good[:5], 0.1)
    with pytest.raises(CalibrationError, match="at least 99"):
        undetected_error_threshold([1.0], [True], 0.01)
    with pytest.raises(ConfigError, match="alpha"):
        conformal_risk_control(good, 1.5)


def test_better_scores_are_accepted_more_often():
    """What a user does: the same network with a good and with a bad score."""
    rng = np.random.default_rng(7)
    errors = rng.uniform(size=2000) < 0.1
    good, bad = errors + rng.normal(size=2000), rng.normal(size=2000)
    rules = [control_risk(score, errors, 0.05) for score in (good, bad)]
    assert rules[0].coverage > 0.3 > 0.1 > rules[1].coverage
    assert aurc(good, errors) < aurc(bad, errors)
    assert all(a.accept(s).mean() == a.coverage for a, s in zip(rules, (good, bad), strict=True))
    assert list(itertools.chain(rules[0].accept(good[:3]))) == [
        bool(rules[0].accept(good[k : k + 1])[0]) for k in range(3)
    ]


def test_a_sequence_does_not_end_at_the_equal_scores_of_a_network_that_is_sure() -> None:
    """Half of the rows have the largest probability 1 to the last digit, and nearly all of these are right."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=3000)
    easy = rng.random(3000) < 0.5
    logits = np.where(easy[:, None], 200 * np.eye(3)[y], 2 * np.eye(3)[y] + 1.5 * rng.normal(size=(3000, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = ClassifierCalibration.fit(logits, y, risk=0.15)
    assert fitted.rule is not None
    assert fitted.rule.coverage > 0.8


def test_a_calibration_with_numbers_of_numpy_is_read_back() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=400)
    logits = 3 * np.eye(2)[y] + rng.normal(size=(400, 2))
    fitted = ClassifierCalibration.fit(logits, y, risk=np.float64(0.1), delta=np.float32(0.05))
    assert ClassifierCalibration.unpack(*fitted.pack("a."), "a.").rule == fitted.rule


@pytest.mark.parametrize(
    ("total", "n", "risk", "name"),
    [
        (1, 10, 1.5, "risk"),
        (1, -1, 0.1, "n"),
        (math.nan, 10, 0.1, "total"),
        (-2, 10, 0.1, "total"),
        (11, 10, 0.1, "total"),
    ],
)
def test_a_p_value_of_impossible_numbers_is_refused(total, n, risk, name):
    for errors in (True, False):
        with pytest.raises(ConfigError, match=f"^{name} must be"):
            risk_p_value(total, n, risk, errors=errors)


def test_a_fraction_of_an_error_is_refused():
    with pytest.raises(ConfigError, match=r"^total must be a number of errors.*got 2\.5"):
        risk_p_value(2.5, 100, 0.1, errors=True)
    assert risk_p_value(2.0, 100, 0.1, errors=True) < risk_p_value(2.5, 100, 0.1, errors=False)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_last_threshold_accepts_all(levels):
    assert sequence_thresholds(range(100), n=1000, risk=0.1, levels=levels)[-1] == math.inf
